"""Listing: the objects a user means by a file, a folder, a glob or an object-store prefix.

A name that exists is taken literally, even when it holds glob characters; only then is it a pattern.
Folders are walked one at a time and buckets page by page, so a listing's memory does not grow with it.
"""

from __future__ import annotations

import contextlib
import os
import re
import stat
from collections.abc import Collection, Iterator
from datetime import datetime
from itertools import chain
from pathlib import Path
from typing import Any

from fsspec.utils import glob_translate

from storage.errors import UsageError
from storage.locations import Location, ObjectInfo, filesystem, is_temporary, local_path, parse_url
from storage.retries import attempt, attempt_keeping_missing

__all__ = ["find_object", "list_objects", "remove_temporaries"]

_GLOB_CHARACTERS = frozenset("*?[")


def list_objects(
    url: str | os.PathLike[str], *, suffixes: Collection[str] | None = None
) -> Iterator[ObjectInfo]:
    """The objects behind a file, folder, glob (`*`, `?`, `[…]`, `**`) or object-store prefix.

    Sorted within each folder; `suffixes` (such as {".mp4"}, case ignored) leaves other files of a folder
    out. Our own unfinished objects are skipped. Raises UsageError at once when nothing is there.
    """
    location = parse_url(url)
    found = (info for info in _find(location) if not is_temporary(info.key))
    if suffixes is not None:
        wanted = tuple(suffix.lower() for suffix in suffixes)
        found = (info for info in found if info.key.lower().endswith(wanted))
    first = next(found, None)
    if first is None:
        raise _nothing_there(location, suffixes)
    return chain([first], found)


def remove_temporaries(url: str | os.PathLike[str]) -> int:
    """Delete what killed jobs left unfinished under a folder; returns how many objects that were.

    To be called while no other job writes there. Buckets hold no unfinished objects, only unfinished
    uploads, which are aborted without listing the bucket.
    """
    location = parse_url(url)
    if location.is_s3:
        return _abort_uploads(location)
    left = [info for info in _walk(location) if is_temporary(info.key)]
    for info in left:
        target = parse_url(info.url)
        with contextlib.suppress(FileNotFoundError):
            if target.is_local:
                local_path(target).unlink()
            else:
                filesystem(target).rm_file(target.path)
    return len(left)


def _abort_uploads(location: Location) -> int:
    bucket, key = location.bucket_and_key
    prefix = key if key.endswith("/") or not key else f"{key}/"

    def call(method: str, **arguments: str) -> dict[str, Any]:
        fs = filesystem(location)
        answer: dict[str, Any] = attempt_keeping_missing(
            lambda: fs.call_s3(method, Bucket=bucket, **arguments), doing="clean", url=location.url
        )
        return answer

    try:
        uploads = call("list_multipart_uploads", Prefix=prefix).get("Uploads", [])
    except FileNotFoundError:
        return 0
    for upload in uploads:
        with contextlib.suppress(FileNotFoundError):
            call("abort_multipart_upload", Key=upload["Key"], UploadId=upload["UploadId"])
    return len(uploads)


def _find(location: Location) -> Iterator[ObjectInfo]:
    if (single := find_object(location)) is not None:
        yield single
        return
    empty = True
    for info in _walk(location):
        empty = False
        yield info
    if not empty:
        return
    if _GLOB_CHARACTERS & set(location.path):
        yield from _glob(location)
    elif not location.is_local:
        yield from _walk_prefix(location)


def _nothing_there(location: Location, suffixes: Collection[str] | None) -> UsageError:
    url = location.url
    if suffixes is not None:
        listed = ", ".join(sorted(suffixes))
        return UsageError(f"found no file at {url} that ends in {listed}; check the path and what lies there")
    return UsageError(f"found no file at {url}; check the path")


def find_object(location: Location) -> ObjectInfo | None:
    """The object at exactly this location; None when there is none or it is no file."""
    if location.path in ("", "/") or location.path.endswith("/"):
        return None
    name = location.path.rpartition("/")[2]
    try:
        if location.is_local:
            path = local_path(location)
            status = attempt_keeping_missing(path.stat, doing="stat", url=location.url)
            if not stat.S_ISREG(status.st_mode):  # a folder, or a named pipe, which nobody may ever write to
                return None
            return ObjectInfo(url=location.url, key=name, size=status.st_size, etag=_local_etag(status))
        found = attempt_keeping_missing(lambda: _describe(location), doing="stat", url=location.url)
    except FileNotFoundError:
        return None
    if found["type"] != "file":
        return None
    return ObjectInfo(url=location.url, key=name, size=int(found.get("size") or 0), etag=_etag(found))


def _describe(location: Location) -> dict[str, Any]:
    """One request to the store about one object, in fsspec's words."""
    fs = filesystem(location)
    if not location.is_s3:
        described: dict[str, Any] = fs.info(location.path)
        return described
    # s3fs would go on to ask whether there is a folder of this name, which costs a second request.
    bucket, key = location.bucket_and_key
    if not key:
        raise FileNotFoundError(location.url)
    head = fs.call_s3("head_object", Bucket=bucket, Key=key)
    return {"type": "file", "size": head["ContentLength"], "ETag": head.get("ETag")}


def _local_etag(status: os.stat_result) -> str:
    return f"{status.st_mtime_ns:x}-{status.st_size:x}"


def _etag(found: dict[str, Any]) -> str:
    """The entity tag in an fsspec description, or when it was changed and its size."""
    tag = next((found[name] for name in ("ETag", "etag", "md5Hash") if found.get(name)), None)
    if tag is not None:
        return str(tag).strip('"')
    changed = next((found[name] for name in ("mtime", "LastModified", "created") if found.get(name)), "")
    changed = changed.timestamp() if isinstance(changed, datetime) else changed
    return f"{changed}-{found.get('size')}"


def _walk(location: Location, depth: int | None = None) -> Iterator[ObjectInfo]:
    """Every object under a folder; nothing when the folder does not exist.

    `depth` says how many levels of local folders a caller needs at most; other stores may list more.
    """
    if location.is_local:
        root = local_path(location)
        yield from _walk_local(location, root, root, (os.path.realpath(root),), depth)
    elif location.is_s3:
        _, key = location.bucket_and_key
        yield from _walk_s3(location, key if key.endswith("/") or not key else f"{key}/")
    else:
        yield from _walk_other(location, location.path.rstrip("/"))


def _walk_local(
    location: Location, root: Path, folder: Path, ancestors: tuple[str, ...], depth: int | None
) -> Iterator[ObjectInfo]:
    def read_folder() -> list[os.DirEntry[str]]:
        try:
            with os.scandir(folder) as entries:
                return sorted(entries, key=lambda entry: entry.name)
        except (FileNotFoundError, NotADirectoryError):
            return []

    for entry in attempt(read_folder, doing="list", url=str(folder)):
        path = folder / entry.name
        if _is_folder(entry):
            real = os.path.realpath(path)
            # A link to a folder above would never end.
            if real not in ancestors and (depth is None or len(ancestors) < depth):
                yield from _walk_local(location, root, path, (*ancestors, real), depth)
            continue
        found = _stat_entry(entry)
        if found is None:
            continue
        yield ObjectInfo(
            url=location.url_of(str(path)),
            key=path.relative_to(root).as_posix(),
            size=found.st_size,
            etag=_local_etag(found),
        )


def _stat_entry(entry: os.DirEntry[str]) -> os.stat_result | None:
    """None for what has gone since the folder was read: temporary files of others come and go."""
    with contextlib.suppress(OSError):
        return entry.stat()
    try:
        return entry.stat(follow_symlinks=False)  # a dangling link is an item too, and will fail as one
    except FileNotFoundError:
        return None


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link that leads to itself
        return False


def _walk_s3(location: Location, prefix: str) -> Iterator[ObjectInfo]:
    bucket, _ = location.bucket_and_key
    root = prefix.rpartition("/")[0]
    skip = len(root) + 1 if root else 0
    token: dict[str, str] = {}
    while True:
        page = _s3_page(location, bucket, prefix, token)
        for found in page.get("Contents", ()):
            key = found["Key"]
            if not key.endswith("/"):  # folder placeholders
                yield ObjectInfo(
                    url=location.url_of(f"{bucket}/{key}"),
                    key=key[skip:],
                    size=int(found["Size"]),
                    etag=_etag(found),
                )
        if not page.get("IsTruncated") or not page.get("NextContinuationToken"):
            return
        token = {"ContinuationToken": page["NextContinuationToken"]}


def _s3_page(location: Location, bucket: str, prefix: str, token: dict[str, str]) -> dict[str, Any]:
    def read_page() -> dict[str, Any]:
        fs = filesystem(location)
        page: dict[str, Any] = fs.call_s3("list_objects_v2", Bucket=bucket, Prefix=prefix, **token)
        return page

    return attempt(read_page, doing="list", url=location.url)


def _walk_other(location: Location, root: str) -> Iterator[ObjectInfo]:
    fs = filesystem(location)

    def read_folder(folder: str) -> list[dict[str, Any]]:
        def read() -> list[dict[str, Any]]:
            try:
                listed: list[dict[str, Any]] = fs.ls(folder, detail=True)
            except (FileNotFoundError, NotADirectoryError):
                return []
            return sorted(listed, key=lambda found: str(found["name"]))

        return attempt(read, doing="list", url=location.url)

    folders = [root]
    while folders:
        below: list[str] = []
        for found in read_folder(folders.pop()):
            if found["type"] == "directory":
                below.append(found["name"])
            elif found["name"].strip("/") != root.strip("/"):
                yield _other_info(location, root, found)
        folders.extend(reversed(below))


def _other_info(location: Location, root: str, found: dict[str, Any]) -> ObjectInfo:
    name = str(found["name"])
    path = name if location.protocol.startswith("http") else name.lstrip("/")
    key = name.lstrip("/").removeprefix(root.lstrip("/")).lstrip("/")
    return ObjectInfo(
        url=location.url_of(path),
        key=key,
        size=int(found.get("size") or 0),
        etag=_etag(found),
    )


def _walk_prefix(location: Location) -> Iterator[ObjectInfo]:
    """Objects whose name begins with the URL, keys relative to the folder the prefix ends in."""
    if location.is_s3:
        yield from _walk_s3(location, location.bucket_and_key[1])
        return
    parent = location.path.rpartition("/")[0]
    for info in _walk_other(location, parent):
        if info.url.startswith(location.url):
            yield info


def _glob(location: Location) -> Iterator[ObjectInfo]:
    """Objects matching a pattern, keys relative to the longest folder that holds no glob character."""
    parts = location.path.split("/")
    first = next(index for index, part in enumerate(parts) if _GLOB_CHARACTERS & set(part))
    root = "/".join(parts[:first])
    pattern = re.compile(glob_translate("/".join(parts[first:])))
    if location.is_local:
        root = root or ("/" if location.path.startswith("/") else ".")
    elif location.is_s3 and first == 0:
        raise UsageError(f"the bucket of {location.url} cannot be a pattern; write s3://bucket/pattern")
    base = Location(location.url_of(root), location.protocol, root)
    depth = None if "**" in parts else len(parts) - first
    for info in _walk(base, depth):
        if pattern.match(info.key):
            yield info
