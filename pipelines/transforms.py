"""The Beam side of dataset building: thin transforms that name, count and call.

Sources travel between stages as small records, never frames: one DoFn fetches, decodes, measures and
publishes.
"""

# mypy: disable-error-code="no-untyped-call, type-arg, name-defined"
# Beam is typed in parts only.
from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import apache_beam as beam
from apache_beam.metrics.metric import Metrics

from pipelines.distil import Distilled, MeasureConfig, Row, Source, distil_video, source_row
from pipelines.parts import PartStore, read_chunk
from pipelines.runner import STAGE_PREFIX, ProgressBoard
from storage.digest import digest_file
from storage.errors import FetchError, ItemError, MediaError, StoreError, UsageError
from storage.isolated import run_isolated
from storage.objects import ObjectInfo, exists, local_copy, read_bytes
from storage.reasons import Reason, Status

__all__ = ["DistilJob", "DistilVideos", "describe_source", "distil_source"]

NAMESPACE = "stillstream"
ABOUT = ("licence", "author", "title", "page", "retrieved_at", "category")


@dataclass(frozen=True, kw_only=True, slots=True)
class DistilJob:
    """What a worker must know: where parts go, how to measure, and how long one video may take (seconds)."""

    parts: PartStore
    measure: MeasureConfig
    time_limit: float


class DistilVideos(beam.PTransform):  # type: ignore[misc]
    """Chunks of a listing → a part per source; yields (source URL, status) pairs."""

    def __init__(self, job: DistilJob, board: ProgressBoard) -> None:
        super().__init__()
        self._job = job
        self._board = board

    def expand(self, chunks: beam.PCollection) -> beam.PCollection:
        """Fan out twice: chunks over the workers, then their sources."""
        return (
            chunks
            | "Spread chunks" >> beam.Reshuffle()
            | "Read listing" >> beam.FlatMap(read_chunk)
            | "Spread sources" >> beam.Reshuffle()
            | "Distil" >> beam.ParDo(_Distil(self._job, self._board))
        )


class _Distil(beam.DoFn):  # type: ignore[misc]
    """Measure one source and publish its part, unless an earlier run did."""

    def __init__(self, job: DistilJob, board: ProgressBoard) -> None:
        self._job = job
        self._board = board

    def process(self, source: ObjectInfo) -> Iterator[tuple[str, str]]:
        """One source, ending in a complete part whatever the source is like."""
        if self._job.parts.holds(source):
            Metrics.counter(NAMESPACE, "sources_reused").inc()
            self._board.note("reused")
            return
        sha256, distilled = distil_source(source, self._job)
        self._job.parts.write(source, sha256, distilled)
        status = _status(distilled.rows)
        self._count(distilled.rows, status)
        self._board.note(status)
        yield source.url, status

    def _count(self, rows: list[Row], status: str) -> None:
        Metrics.counter(NAMESPACE, "sources").inc()
        Metrics.counter(NAMESPACE, f"sources_{status}").inc()
        for row in rows:
            Metrics.counter(NAMESPACE, f"clips_{row['status']}").inc()
            for stage, seconds in row["stage_seconds"].items():
                Metrics.counter(NAMESPACE, f"{STAGE_PREFIX}{stage}").inc(round(seconds * 1000))


def distil_source(source: ObjectInfo, job: DistilJob) -> tuple[str, Distilled]:
    """Fetch one source and measure it in a process of its own; returns its digest and what it gave."""
    known = Source(url=source.url, sha256="")
    path = Path(source.url)
    try:
        with _fetched(source) as path:
            known = Source(url=source.url, sha256=_digest(path, source), about=describe_source(source))
            distilled: Distilled = run_isolated(
                distil_video, path, known, job.measure, timeout_s=job.time_limit
            )
    except ItemError as error:
        distilled = Distilled(rows=[source_row(known, error, "read", {})], samples=[])
    for row in distilled.rows:  # people know the source, and not the worker's copy of it
        if message := row.get("message"):
            row["message"] = message.replace(str(path), source.url)
    return known.sha256, distilled


def _digest(path: Path, source: ObjectInfo) -> str:
    try:
        return digest_file(path)
    except OSError as exc:
        raise MediaError(f"{source.url} cannot be read: {exc.strerror}", reason=Reason.UNREADABLE) from exc


def describe_source(source: ObjectInfo) -> dict[str, Any]:
    """What is known of a source: from `<name>.json` beside it, and its category by folder or name."""
    about: dict[str, Any] = {"category": _category(source.key)}
    sidecar = f"{source.url.rpartition('.')[0]}.json"
    if exists(sidecar):
        try:
            said = json.loads(read_bytes(sidecar))
        except ValueError:
            said = None
        if isinstance(said, dict):
            about |= {name: str(said[name]) for name in ABOUT if said.get(name)}
    return about


def _category(key: str) -> str | None:
    """`river/clip.mp4` and `river_012.mp4` are both of the category river."""
    folder, _, name = key.rpartition("/")
    if folder and not (len(folder) == 2 and name.startswith(folder)):  # crawled: the folder is of a digest
        return folder.partition("/")[0].lower()
    word = Path(name).stem.replace("-", "_").partition("_")
    return word[0].lower() if word[1] and word[0].isalpha() else None


class _fetched:  # noqa: N801 (reads as a function where it is used)
    """The source as a local file; what is wrong with this one source becomes a FetchError."""

    def __init__(self, source: ObjectInfo) -> None:
        self._url = source.url
        self._copy = local_copy(source.url)

    def __enter__(self) -> Path:
        try:
            return self._copy.__enter__()
        except UsageError as exc:
            raise FetchError(f"{self._url} is no longer there", reason=Reason.NOT_FOUND) from exc
        except StoreError as exc:
            raise FetchError(str(exc), reason=Reason.STORE_ERROR) from exc

    def __exit__(self, *exc: Any) -> None:
        self._copy.__exit__(*exc)


def _status(rows: list[Row]) -> str:
    """One word for a source: ok when any clip is, else rejected when any was readable."""
    statuses = {row["status"] for row in rows}
    return str(next(status for status in Status if status in statuses))
