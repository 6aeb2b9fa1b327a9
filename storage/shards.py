"""Shards: tar archives of samples in WebDataset's layout, with the same bytes for the same samples.

The reader takes the archive apart itself: Python's `tarfile` takes an archive that ends at a member's
border for whole, and cannot go on behind a damaged header.
"""

from __future__ import annotations

import hashlib
import logging
import tarfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import IO, Any, BinaryIO

from storage.errors import FormatError, UsageError
from storage.objects import Url, atomic_writer, open_object
from storage.samples import JpegFrames, Sample, decode_sample, encode_sample, sample_key, split_of

__all__ = [
    "JpegFrames",
    "Sample",
    "ShardInfo",
    "ShardReader",
    "decode_sample",
    "encode_sample",
    "read_shard",
    "sample_key",
    "split_of",
    "write_shard",
]

logger = logging.getLogger(__name__)

BLOCK_BYTES = 512
# tar pads archives to this; the end marker is at least two zero blocks.
RECORD_BYTES = 20 * BLOCK_BYTES
# A damaged size must not make us ask for all the memory there is.
MAX_MEMBER_BYTES = 1 << 30
CURE = "run `stillstream dataset --verify` on the dataset and build the shard again"


@dataclass(frozen=True, kw_only=True, slots=True)
class ShardInfo:
    """A finished shard: its file name, samples, size in bytes, SHA-256, and split ("" when mixed)."""

    name: str
    samples: int
    bytes: int
    sha256: str
    split: str = ""


def write_shard(url: Url, samples: Iterable[Sample]) -> ShardInfo:
    """Write samples as one tar archive, atomically; raises UsageError for none or for a repeated key."""
    keys: set[str] = set()
    splits: set[str] = set()
    with atomic_writer(url) as stream:
        archive = _DigestingWriter(stream)
        for sample in samples:
            if sample.key in keys:
                raise UsageError(f"sample {sample.key} comes twice in shard {url}; keys must be unique")
            keys.add(sample.key)
            splits.add(str(sample.info.get("split", "")))
            for name, data in encode_sample(sample).items():
                _write_member(archive, name, data)
        if not keys:
            raise UsageError(f"shard {url} would hold no sample; write at least one")
        archive.write(bytes(-(archive.size + 2 * BLOCK_BYTES) % RECORD_BYTES + 2 * BLOCK_BYTES))
    return ShardInfo(
        name=str(url).rpartition("/")[2],
        samples=len(keys),
        bytes=archive.size,
        sha256=archive.state.hexdigest(),
        split=splits.pop() if len(splits) == 1 else "",
    )


def read_shard(url: Url, *, on_error: Callable[[FormatError], None] | None = None) -> ShardReader:
    """The samples of a shard, streamed.

    A damaged sample raises a FormatError that names shard, key and cure; the next `next()` goes on behind
    it. With `on_error` that is called instead and the sample left out, which suits a `for` loop.
    """
    return ShardReader(url, on_error=on_error)


class ShardReader(Iterator[Sample]):
    """Iterator over a shard's samples that survives its own errors; closes its object at the end."""

    def __init__(self, url: Url, *, on_error: Callable[[FormatError], None] | None = None) -> None:
        self._url = str(url)
        self._on_error = on_error
        self._stream = open_object(url)
        self._archive = _Archive(self._stream)
        self._ahead: tuple[str, bytes] | None = None
        self._read = 0
        self._ended = False

    def __enter__(self) -> ShardReader:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the object; reading on ends."""
        self._ended = True
        self._stream.close()

    def __next__(self) -> Sample:
        while not self._ended:
            try:
                return self._next_sample()
            except FormatError as exc:
                error = FormatError(f"shard {self._url}: {exc} ({CURE})")
                if self._on_error is None:
                    raise error from exc
                self._on_error(error)
        raise StopIteration

    def _next_sample(self) -> Sample:
        try:
            members = self._next_members()
        except _TruncatedError as exc:
            self.close()
            raise FormatError(f"truncated after {self._read} samples: {exc}") from exc
        if not members:
            self.close()
            raise StopIteration
        sample = decode_sample(members)
        self._read += 1
        return sample

    def _next_members(self) -> dict[str, bytes]:
        """Members up to where the key changes; the one behind is kept for the next call."""
        members: dict[str, bytes] = {}
        if self._ahead is not None:
            members[self._ahead[0]] = self._ahead[1]
            self._ahead = None
        for name, data in self._archive:
            if members and name.partition(".")[0] != next(iter(members)).partition(".")[0]:
                self._ahead = (name, data)
                break
            if name in members:
                raise FormatError(f"member {name} comes twice")
            members[name] = data
        return members


class _TruncatedError(FormatError):
    """The archive ends too early."""


class _Archive(Iterator[tuple[str, bytes]]):
    """Names (without folders) and contents of an archive's files; goes on behind a damaged header."""

    def __init__(self, stream: IO[Any]) -> None:
        self._stream = stream

    def __next__(self) -> tuple[str, bytes]:
        while True:
            header = self._next_header()
            if header is None:
                raise StopIteration
            data = self._read(header.size)
            self._read(-header.size % BLOCK_BYTES)
            if header.isreg():
                return header.name.rpartition("/")[2], data

    def _next_header(self) -> tarfile.TarInfo | None:
        damaged = 0
        while True:
            block = self._read(BLOCK_BYTES)
            try:
                header = tarfile.TarInfo.frombuf(block, "utf-8", "strict")
            except tarfile.EOFHeaderError:  # type: ignore[attr-defined]
                header = None
            except (tarfile.HeaderError, UnicodeDecodeError):  # type: ignore[attr-defined]
                damaged += 1  # resynchronise: members begin at block borders and headers have a checksum
                continue
            if damaged:
                logger.warning("skipped %d blocks behind a damaged tar header", damaged)
            if header is not None and header.size > MAX_MEMBER_BYTES:
                raise _TruncatedError(f"member {header.name} claims {header.size} bytes")
            return header

    def _read(self, size: int) -> bytes:
        data: bytes = self._stream.read(size)
        if len(data) != size:
            raise _TruncatedError("the archive ends without its end marker")
        return data


class _DigestingWriter:
    """Writes through and keeps size and digest of what went by."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self.state = hashlib.sha256()
        self.size = 0

    def write(self, data: bytes) -> None:
        self._stream.write(data)
        self.state.update(data)
        self.size += len(data)


def _write_member(archive: _DigestingWriter, name: str, data: bytes) -> None:
    # No time, owner or machine enters the header: the same samples must give the same bytes.
    header = tarfile.TarInfo(name)
    header.size = len(data)
    header.mode = 0o644
    archive.write(header.tobuf(tarfile.USTAR_FORMAT))
    archive.write(data)
    archive.write(bytes(-len(data) % BLOCK_BYTES))
