"""Parts: what one source gave, kept under `<dataset>/parts/` until the dataset is committed.

A part is `<name>.tar` with the measured samples and `<name>.json` with the rows, which is written last: a
part without it was interrupted and is made again. The name follows from the source's URL and entity tag and
from the configuration, so that a rerun takes up what a killed run left and nothing that is out of date.
"""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from pipelines.distil import Distilled, Row
from storage.digest import digest_bytes
from storage.errors import FormatError, UsageError
from storage.locations import local_path, parse_url
from storage.objects import (
    ObjectInfo,
    delete_object,
    exists,
    is_local,
    join_url,
    list_objects,
    read_bytes,
    remove_temporaries,
    write_bytes,
)
from storage.samples import Sample
from storage.shards import read_shard, write_shard

__all__ = ["PARTS_FOLDER", "Part", "PartStore", "read_chunk", "source_tag"]

PARTS_FOLDER = "parts"
SOURCES_IN_CHUNK = 500


@dataclass(frozen=True, kw_only=True, slots=True)
class Part:
    """The rows of one source, and the bytes that its samples take by key."""

    name: str
    source: str
    tag: str
    sha256: str
    rows: list[Row]
    sample_bytes: dict[str, int]


@dataclass(frozen=True, kw_only=True, slots=True)
class PartStore:
    """The parts of a dataset that is being built with one configuration."""

    dataset_url: str
    config_digest: str

    @property
    def url(self) -> str:
        """The folder of this configuration's parts."""
        return join_url(self.dataset_url, PARTS_FOLDER, self.config_digest[:16])

    def name_of(self, source: ObjectInfo) -> str:
        """The name of a source's part."""
        return digest_bytes(f"{source.url}\n{source_tag(source)}".encode())[:32]

    def holds(self, source: ObjectInfo) -> bool:
        """Whether a source's part is complete."""
        return exists(self._rows_url(self.name_of(source)))

    def write(self, source: ObjectInfo, sha256: str, distilled: Distilled) -> None:
        """Publish a part, its rows last."""
        name = self.name_of(source)
        if distilled.samples:
            write_shard(self._samples_url(name), distilled.samples)
        sizes = {sample.key: _size(sample) for sample in distilled.samples}
        plain = {
            "source": source.url,
            "tag": source_tag(source),
            "sha256": sha256,
            "rows": distilled.rows,
            "sample_bytes": sizes,
        }
        write_bytes(self._rows_url(name), json.dumps(plain, sort_keys=True, allow_nan=False).encode())

    def read(self, source: ObjectInfo) -> Part:
        """A complete part; raises FormatError when it is not there."""
        name = self.name_of(source)
        try:
            plain = json.loads(read_bytes(self._rows_url(name)))
        except (UsageError, ValueError) as exc:
            raise FormatError(f"the part of {source.url} is missing or damaged ({exc}); run again") from exc
        return Part(name=name, **plain)

    def samples(self, name: str, keys: set[str]) -> Iterator[Sample]:
        """The named samples of a part, in the part's order."""
        with read_shard(self._samples_url(name)) as samples:
            yield from (sample for sample in samples if sample.key in keys)

    def write_listing(self, sources: Iterable[ObjectInfo]) -> list[str]:
        """Keep the sources of this run as chunks that workers read; returns the chunks' URLs."""
        urls: list[str] = []
        chunk: list[ObjectInfo] = []
        for source in sources:
            chunk.append(source)
            if len(chunk) == SOURCES_IN_CHUNK:
                urls.append(self._write_chunk(len(urls), chunk))
                chunk = []
        if chunk:
            urls.append(self._write_chunk(len(urls), chunk))
        return urls

    def clear(self) -> None:
        """Remove every part of every configuration, and unfinished objects of the whole dataset."""
        folder = join_url(self.dataset_url, PARTS_FOLDER)
        with contextlib.suppress(UsageError):  # nothing there
            for item in list(list_objects(folder)):
                delete_object(item.url)
        if is_local(folder):  # object stores have no folders that could stay behind
            shutil.rmtree(local_path(parse_url(folder)), ignore_errors=True)
        remove_temporaries(self.dataset_url)

    def _write_chunk(self, index: int, chunk: list[ObjectInfo]) -> str:
        url = join_url(self.url, "sources", f"{index:06d}.json")
        plain = [[item.url, item.key, item.size, item.etag] for item in chunk]
        write_bytes(url, json.dumps(plain).encode())
        return url

    def _rows_url(self, name: str) -> str:
        return join_url(self.url, f"{name}.json")

    def _samples_url(self, name: str) -> str:
        return join_url(self.url, f"{name}.tar")


def source_tag(source: ObjectInfo) -> str:
    """What changes when a source changes."""
    return f"{source.size}:{source.etag}"


def read_chunk(url: str) -> list[ObjectInfo]:
    """The sources in one chunk of a listing."""
    plain: list[list[Any]] = json.loads(read_bytes(url))
    return [ObjectInfo(url=item[0], key=item[1], size=item[2], etag=item[3]) for item in plain]


def _size(sample: Sample) -> int:
    """About how many bytes a sample takes in a shard."""
    frames = getattr(sample.frames, "encoded", ())
    return sum(len(data) for data in frames) + sample.motion_2HW.size * 2 + 4096
