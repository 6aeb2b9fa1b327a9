"""One link in, one row out: fetched, checked, fingerprinted and published, or told why not."""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pipelines.crawl_manifest import leave_row
from pipelines.crawl_table import Row, Task
from pipelines.fingerprint import Fingerprint, fingerprint_video
from pipelines.links import Link
from storage.digest import digest_file
from storage.errors import FetchError, ItemError, RejectedError, StoreError, UsageError
from storage.fetch import Download, FetchConfig, WebClient, fetch_video
from storage.isolated import run_isolated
from storage.media_type import MAGIC_BYTES, video_suffix
from storage.objects import exists, join_url, local_copy, publish_file, stat_object, write_bytes
from storage.reasons import Reason, Status
from storage.web_address import is_web_url, public_url

__all__ = ["CrawlJob", "crawl_link", "link_row", "object_path", "sidecar_url", "write_sidecar"]

# Other schemes that a list may name reach places that nobody meant to open.
STORE_SCHEMES = {"", "file", "memory", "s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "hdfs"}
ABOUT = ("url", "page", "licence", "author", "title", "retrieved_at", "phash")


@dataclass(frozen=True, kw_only=True, slots=True)
class CrawlJob:
    """What a worker must know; `probe_seconds` is what decoding four frames may take."""

    out: str
    fetch: FetchConfig
    probe_seconds: float = 60.0


def crawl_link(task: Task, job: CrawlJob, client: WebClient) -> Row:
    """Fetch one link and leave its row; whatever the link is like, there is a row.

    The object is named by its content and published first, then its sidecar, then the row.
    """
    begin = time.perf_counter()
    row = link_row(task)
    try:
        with tempfile.TemporaryDirectory(prefix="stillstream-crawl-") as folder:
            row |= _take(task.link, job, client, Path(folder))
    except ItemError as error:
        changes = {"status": error.status, "reason": error.reason, "message": _shown(str(error), task.link)}
        row |= {**changes, "retrieved_at": datetime.now(UTC), "stage": "fetch"}
    row["seconds_spent"] = time.perf_counter() - begin
    if row["status"] == Status.OK and not exists(sidecar_url(job.out, row)):
        write_sidecar(job.out, row)
    leave_row(job.out, row)
    return row


def link_row(task: Task) -> Row:
    """What is known of a link before it is fetched; nothing secret is in it."""
    link = replace(task.link, page=public_url(task.link.page) if task.link.page else None)
    return {
        "url": public_url(link.url),
        "source": public_url(task.source),
        "order": task.order,
        "licence": link.licence,
        "author": link.author,
        "title": link.title,
        "page": link.page,
    }


def object_path(sha256: str, suffix: str) -> str:
    """Where a video lies below the output folder; the same content always at the same place."""
    return f"videos/{sha256[:2]}/{sha256}{suffix}"


def sidecar_url(out: str, row: Row) -> str:
    """Where the facts about a row's video lie: beside it, as dataset building looks for them."""
    return join_url(out, f"{row['object'].rpartition('.')[0]}.json")


def write_sidecar(out: str, row: Row) -> None:
    """Write what is known about a row's video beside it."""
    said = {name: row.get(name) for name in ABOUT}
    said["retrieved_at"] = row["retrieved_at"].isoformat() if row.get("retrieved_at") else None
    write_bytes(sidecar_url(out, row), json.dumps(said, ensure_ascii=False, indent=1).encode())


def _take(link: Link, job: CrawlJob, client: WebClient, folder: Path) -> dict[str, Any]:
    with _spooled(link, client, folder) as (path, got):
        known = _fingerprint(path, link, job)
        target = object_path(got.sha256, got.suffix)
        url = join_url(job.out, target)
        # The name is the content's digest, so an object of the same size is the same object.
        if not exists(url) or stat_object(url).size != got.size:
            publish_file(path, url)
    return {
        "status": Status.OK,
        "reason": None,
        "message": None,
        "stage": "publish",
        "retrieved_at": datetime.now(UTC),
        "object": target,
        "sha256": got.sha256,
        "bytes": got.size,
        "content_type": got.content_type or None,
        "etag": got.etag or None,
        "phash": known.phash,
        "width": known.width,
        "height": known.height,
        "fps": known.fps,
        "video_seconds": known.seconds,
    }


def _fingerprint(path: Path, link: Link, job: CrawlJob) -> Fingerprint:
    try:
        found: Fingerprint = run_isolated(fingerprint_video, path, timeout_s=job.probe_seconds)
    except ItemError as error:
        # The name of a temporary file tells nobody anything.
        raise type(error)(str(error).replace(str(path), link.url), reason=error.reason) from error
    return found


@contextmanager
def _spooled(link: Link, client: WebClient, folder: Path) -> Iterator[tuple[Path, Download]]:
    """The link's video as a local file: fetched from the web, or copied from where it is stored."""
    if is_web_url(link.url):
        path = folder / "video"
        yield path, fetch_video(client, link.url, path)
        return
    with _stored_copy(link.url, client.config.max_bytes) as path:
        with path.open("rb") as file:
            suffix = video_suffix(file.read(MAGIC_BYTES))
        size, sha256 = path.stat().st_size, digest_file(path)
        yield path, Download(url=link.url, suffix=suffix, content_type="", size=size, sha256=sha256, etag="")


@contextmanager
def _stored_copy(url: str, max_bytes: int) -> Iterator[Path]:
    scheme = url.partition("://")[0].lower() if "://" in url else ""
    if scheme not in STORE_SCHEMES:
        message = f"links begin with http, https or the scheme of a store, got {scheme[:40]}"
        raise RejectedError(message, reason=Reason.UNSUPPORTED)
    copy = local_copy(url)
    try:
        size = stat_object(url).size
        if size > max_bytes:
            message = f"{public_url(url)} has {size} bytes, the limit is {max_bytes}"
            raise RejectedError(message, reason=Reason.TOO_LARGE)
        path = copy.__enter__()
    except UsageError as exc:
        raise FetchError(f"there is nothing at {public_url(url)}", reason=Reason.NOT_FOUND) from exc
    except StoreError as exc:
        raise FetchError(str(exc), reason=Reason.STORE_ERROR) from exc
    try:
        yield path
    finally:
        copy.__exit__(None, None, None)


def _shown(message: str, link: Link) -> str:
    """A message without what only this machine knows: secrets in the address, names of temporary files."""
    return message.replace(link.url, public_url(link.url))[:1000]
