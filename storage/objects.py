"""Objects at any fsspec URL: read, write whole or not at all, stat, digest, list.

Names are literal on every protocol. A write appears under its final name only when it is complete:
local files by a temporary file, fsync and rename; object stores by an upload that is whole or nothing.
"""

from __future__ import annotations

import contextlib
import io
import mimetypes
import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, BinaryIO, cast

from storage.digest import digest_stream
from storage.errors import StoreError, UsageError
from storage.listing import find_object, list_objects, remove_temporaries
from storage.locations import (
    TEMPORARY_PREFIX,
    TEMPORARY_SUFFIX,
    Location,
    ObjectInfo,
    filesystem,
    join_url,
    local_path,
    parse_url,
)
from storage.retries import ShortReadError, attempt, attempt_keeping_missing, translating_disk_trouble

__all__ = [
    "ObjectInfo",
    "Url",
    "atomic_path",
    "atomic_writer",
    "delete_object",
    "digest_object",
    "exists",
    "is_local",
    "join_url",
    "list_objects",
    "local_copy",
    "open_object",
    "publish_file",
    "read_bytes",
    "remove_temporaries",
    "stat_object",
    "write_bytes",
]

READ_BLOCK_BYTES = 4 << 20
UPLOAD_PART_BYTES = 16 << 20

Url = str | os.PathLike[str]


def is_local(url: Url) -> bool:
    """Whether a URL names a file of this machine."""
    return parse_url(url).is_local


def read_bytes(url: Url) -> bytes:
    """The whole object; raises UsageError when it is missing."""
    location = parse_url(url)
    if location.is_local:
        return attempt(local_path(location).read_bytes, doing="read", url=location.url)
    return cast(bytes, _call(location, "cat_file", doing="read"))


def exists(url: Url) -> bool:
    """Whether there is an object (not a folder) at a URL."""
    location = parse_url(url)
    return find_object(location) is not None


def stat_object(url: Url) -> ObjectInfo:
    """Size and entity tag of one object; raises UsageError when it is missing or a folder."""
    location = parse_url(url)
    found = find_object(location)
    if found is None:
        raise UsageError(f"there is no file at {location.url}; check the path")
    return found


def delete_object(url: Url) -> None:
    """Delete one object; it is no error when it is already gone."""
    location = parse_url(url)
    with contextlib.suppress(FileNotFoundError):
        if location.is_local:
            attempt_keeping_missing(local_path(location).unlink, doing="delete", url=location.url)
        else:
            fs = filesystem(location)
            attempt_keeping_missing(lambda: fs.rm_file(location.path), doing="delete", url=location.url)


def open_object(url: Url, mode: str = "rb") -> IO[Any]:
    """Open an object for reading ("rb", or "r" for UTF-8 text); large ones are streamed in blocks.

    Writing goes through `atomic_writer`, which never leaves half an object under the final name.
    """
    if mode not in ("r", "rb", "rt"):
        raise UsageError(f"objects open for reading only ('rb' or 'r'), got {mode!r}; write by atomic_writer")
    location = parse_url(url)
    stream = _open_binary(location)
    return stream if mode == "rb" else io.TextIOWrapper(stream, encoding="utf-8", newline="")


def digest_object(url: Url) -> str:
    """SHA-256 of an object in hex, streamed."""
    with _open_binary(parse_url(url)) as stream:
        return digest_stream(stream)


@contextmanager
def local_copy(url: Url) -> Iterator[Path]:
    """The object as a local file: itself when it is local, else a temporary download, removed afterwards."""
    location = parse_url(url)
    if location.is_local:
        stat_object(location.url)
        yield local_path(location)
        return
    suffix = os.path.splitext(location.path)[1]
    with tempfile.TemporaryDirectory(prefix="stillstream-") as folder:
        # A fixed name: the object's own may be too long or hold characters the local disk refuses.
        path = Path(folder) / f"object{suffix if suffix.isascii() and len(suffix) < 10 else ''}"
        _download(location, path)
        yield path


def write_bytes(url: Url, data: bytes) -> ObjectInfo:
    """Write a whole object, atomically; returns what the store then says about it."""
    location = parse_url(url)
    if location.is_local or not location.has_whole_put:
        with atomic_writer(location.url) as stream:
            stream.write(data)
        return stat_object(location.url)
    _call(location, "pipe_file", data, doing="write", **_upload_options(location))
    return _check_published(location, len(data))


def publish_file(local: Path | str, url: Url) -> ObjectInfo:
    """Put a finished local file under a URL, atomically; the local file stays."""
    location = parse_url(url)
    path = Path(local)
    if location.is_local:
        with path.open("rb") as source, atomic_writer(location.url) as target:
            shutil.copyfileobj(source, target, READ_BLOCK_BYTES)
        return stat_object(location.url)
    _upload(location, path)
    return _check_published(location, path.stat().st_size)


@contextmanager
def atomic_path(url: Url) -> Iterator[Path]:
    """A local path to write a file to; it appears under `url` when the block ends well, else not at all.

    For writers that need a name, such as video muxers. The path has no telling suffix.
    """
    location = parse_url(url)
    if location.is_local:
        with _local_temporary(location) as path:
            yield path
        return
    with tempfile.TemporaryDirectory(prefix="stillstream-") as folder:
        path = Path(folder) / "object"
        with translating_disk_trouble(location.url):
            yield path
        publish_file(path, location.url)


@contextmanager
def atomic_writer(url: Url) -> Iterator[BinaryIO]:
    """A binary stream whose content appears under `url` when the block ends well, else not at all."""
    with atomic_path(url) as path, path.open("w+b") as stream:
        yield stream


@contextmanager
def _local_temporary(location: Location) -> Iterator[Path]:
    final = local_path(location)
    temporary = final.with_name(f"{TEMPORARY_PREFIX}{secrets.token_hex(8)}{TEMPORARY_SUFFIX}")

    def begin() -> None:
        if final.is_dir():
            raise IsADirectoryError(location.path)
        final.parent.mkdir(parents=True, exist_ok=True)
        temporary.touch(exist_ok=False)

    def finish() -> None:
        with temporary.open("rb") as written:
            os.fsync(written.fileno())
        os.replace(temporary, final)

    attempt(begin, doing="write", url=location.url)
    try:
        with translating_disk_trouble(location.url):
            yield temporary
        attempt(finish, doing="write", url=location.url)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    _sync_folder(final.parent)


def _sync_folder(folder: Path) -> None:
    # Without it a power cut may undo the rename; folders that cannot be synced are no reason to fail.
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _call(location: Location, method: str, *args: Any, doing: str, **kwargs: Any) -> Any:
    fs = filesystem(location)
    return attempt(lambda: getattr(fs, method)(location.path, *args, **kwargs), doing=doing, url=location.url)


def _check_published(location: Location, size: int) -> ObjectInfo:
    """Ask the store what it holds now: an upload that was swallowed must not pass for a success."""
    found = find_object(location)
    if found is None or found.size != size:
        got = "nothing" if found is None else f"{found.size} bytes"
        raise StoreError(f"wrote {size} bytes to {location.url} but the store then held {got}; run again")
    return found


def _upload_options(location: Location) -> dict[str, Any]:
    if not location.is_s3:
        return {}
    content_type, _ = mimetypes.guess_type(f"x{os.path.splitext(location.path)[1]}")
    return {"ContentType": content_type or "application/octet-stream"}


def _upload(location: Location, path: Path) -> None:
    options = _upload_options(location)
    fs = filesystem(location)
    if location.is_s3:
        options |= {"chunksize": UPLOAD_PART_BYTES, "max_concurrency": 2}
    if location.has_whole_put:
        attempt(lambda: fs.put_file(str(path), location.path, **options), doing="write", url=location.url)
        return
    parent = location.path.rpartition("/")[0]
    temporary = f"{parent}/{TEMPORARY_PREFIX}{secrets.token_hex(8)}{TEMPORARY_SUFFIX}"

    def put_and_move() -> None:
        fs.makedirs(parent, exist_ok=True)
        try:
            fs.put_file(str(path), temporary)
            fs.mv(temporary, location.path)
        except BaseException:
            with contextlib.suppress(OSError):
                fs.rm_file(temporary)
            raise

    attempt(put_and_move, doing="write", url=location.url)


def _download(location: Location, path: Path) -> None:
    before = stat_object(location.url)
    with translating_disk_trouble(str(path)), _open_binary(location) as source, path.open("wb") as target:
        shutil.copyfileobj(source, target, READ_BLOCK_BYTES)
    after = stat_object(location.url)
    if path.stat().st_size != before.size or after.etag != before.etag:
        raise StoreError(f"{location.url} changed while it was being read; run again when it is at rest")


def _open_binary(location: Location) -> BinaryIO:
    if location.is_local:
        path = local_path(location)
        return cast(BinaryIO, attempt(lambda: path.open("rb"), doing="open", url=location.url))
    if location.protocol == "memory":
        # The memory file system hands out one shared stream; a copy has a position of its own.
        return io.BytesIO(read_bytes(location.url))
    if location.is_s3:
        size = stat_object(location.url).size
        return cast(BinaryIO, io.BufferedReader(_RangeReader(location, size), READ_BLOCK_BYTES))
    return cast(BinaryIO, _call(location, "open", "rb", doing="open"))


class _RangeReader(io.RawIOBase):
    """Reads an object range by range, each with its own retries, so that a store may restart."""

    def __init__(self, location: Location, size: int) -> None:
        super().__init__()
        self._location = location
        self._size = size
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        self._position = max(start + offset, 0)
        return self._position

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")
        start, end = self._position, min(self._position + len(view), self._size)
        if end <= start:
            return 0
        data = attempt(lambda: self._fetch(start, end), doing="read", url=self._location.url)
        view[: len(data)] = data
        self._position = end
        return len(data)

    def _fetch(self, start: int, end: int) -> bytes:
        data = cast(bytes, filesystem(self._location).cat_file(self._location.path, start=start, end=end))
        if len(data) != end - start:
            raise ShortReadError(f"asked for bytes {start} to {end}, got {len(data)}")
        return data
