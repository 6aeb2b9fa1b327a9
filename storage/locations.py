"""Where an object is: a URL taken apart, and the file system that serves it.

URLs are literal, never percent-decoded: a photo called `50% #1?.jpg` is found under exactly that name.
Local paths, `file://`, `s3://` and `memory://` are at home here; other fsspec protocols work as far as
their file systems do.
"""

from __future__ import annotations

import os
import re
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fsspec

from storage.errors import UsageError

__all__ = [
    "TEMPORARY_PREFIX",
    "TEMPORARY_SUFFIX",
    "Location",
    "ObjectInfo",
    "filesystem",
    "is_temporary",
    "join_url",
    "local_path",
    "parse_url",
]

# Our unfinished objects. The name has a fixed length, so that long object names still fit their file system.
TEMPORARY_PREFIX = ".stillstream-"
TEMPORARY_SUFFIX = ".tmp"

S3_PROTOCOLS = frozenset({"s3", "s3a"})
# Stores where an upload appears whole or not at all, so that a temporary object would only add a copy.
WHOLE_PUT_PROTOCOLS = S3_PROTOCOLS | {"gs", "gcs", "az", "abfs", "adl", "memory"}

_PROTOCOL = re.compile(r"([A-Za-z][A-Za-z0-9+.\-]*)://(.*)", re.DOTALL)
_filesystems: dict[tuple[int, str], Any] = {}
_filesystems_lock = threading.Lock()


@dataclass(frozen=True, kw_only=True, slots=True)
class ObjectInfo:
    """One stored object.

    `key` is its path relative to the listed root with "/" between parts, `size` is in bytes, and `etag`
    changes when the content does: the store's entity tag, or modification time and size of a local file.
    """

    url: str
    key: str
    size: int
    etag: str


@dataclass(frozen=True, slots=True)
class Location:
    """A URL taken apart: `path` is what the protocol's file system calls the object."""

    url: str
    protocol: str
    path: str

    @property
    def is_local(self) -> bool:
        return self.protocol == "file"

    @property
    def is_s3(self) -> bool:
        return self.protocol in S3_PROTOCOLS

    @property
    def has_whole_put(self) -> bool:
        return self.protocol in WHOLE_PUT_PROTOCOLS

    @property
    def bucket_and_key(self) -> tuple[str, str]:
        """The S3 bucket and the key inside it."""
        bucket, _, key = self.path.partition("/")
        return bucket, key

    def url_of(self, path: str) -> str:
        """The URL of another path of the same store, written the way the user wrote this one."""
        if _PROTOCOL.fullmatch(self.url) is None:
            return path
        path = path.lstrip("/") if self.protocol == "memory" else path
        return f"{self.url.partition('://')[0]}://{path}"


def parse_url(url: str | os.PathLike[str]) -> Location:
    """Take a URL or plain path apart; raises UsageError for an empty one or an unknown protocol."""
    text = os.fspath(url)
    if not text or "\0" in text:
        raise UsageError(
            f"expected a path or URL, got {text!r}; give a file, a folder or a URL such as s3://…"
        )
    match = _PROTOCOL.fullmatch(text)
    if match is None:
        return Location(text, "file", os.path.expanduser(text))
    protocol, path = match[1].lower(), match[2]
    if protocol in ("file", "local"):
        return Location(text, "file", path)
    if protocol in S3_PROTOCOLS and not path.partition("/")[0]:
        raise UsageError(f"{text} names no bucket; write s3://bucket/path")
    if protocol not in fsspec.available_protocols():
        raise UsageError(f"unknown protocol {protocol}:// in {text}; use a path, file://, s3:// or memory://")
    if protocol == "memory":
        return Location(text, protocol, "/" + path.strip("/"))  # without the slash it misreads "::" in names
    return Location(text, protocol, path if protocol.startswith("http") else path.lstrip("/"))


def join_url(url: str | os.PathLike[str], *parts: str) -> str:
    """Append parts to a folder's URL; a part may hold "/" but may not climb out of the folder."""
    base = os.fspath(url)
    for part in parts:
        if ".." in part.split("/"):
            raise UsageError(f"{part!r} would lead out of {base}; names may not contain '..' folders")
        part = part.strip("/")
        if part:
            base = f"{base}{part}" if base.endswith("/") else f"{base}/{part}"
    return base


def is_temporary(name: str) -> bool:
    """Whether a name (or the last part of a path) is that of one of our unfinished objects."""
    name = name.rpartition("/")[2]
    return name.startswith(TEMPORARY_PREFIX) and name.endswith(TEMPORARY_SUFFIX)


def filesystem(location: Location) -> Any:
    """The fsspec file system for a location, made once per process and protocol.

    Keyed by process id: an event loop and its connections do not survive a fork into a Beam worker.
    """
    key = (os.getpid(), location.protocol)
    with _filesystems_lock:
        if key not in _filesystems:
            _filesystems[key] = _make_filesystem(location)
        return _filesystems[key]


def local_path(location: Location) -> Path:
    """The path of a local location."""
    assert location.is_local, location
    return Path(location.path)


def _forget_filesystems() -> None:
    # A forked child must neither use its parent's connections nor wait for a lock that nobody holds there.
    global _filesystems_lock
    _filesystems_lock = threading.Lock()
    _filesystems.clear()


os.register_at_fork(after_in_child=_forget_filesystems)


def _make_filesystem(location: Location) -> Any:
    if not location.is_s3:
        return fsspec.filesystem(location.protocol)
    # Retries live in storage.retries alone, so the layers below get one attempt each. The endpoint and
    # the keys come from AWS_ENDPOINT_URL, AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY through botocore.
    made = fsspec.filesystem(
        "s3",
        skip_instance_cache=True,
        use_listings_cache=False,
        config_kwargs={"retries": {"total_max_attempts": 1}, "connect_timeout": 5, "read_timeout": 30},
    )
    made.retries = 1
    return made
