"""Verification: re-read everything a dataset claims to hold and list what does not hold."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from storage.dataset_format import (
    SHARDS_FOLDER,
    DatasetInfo,
    manifest_url,
    read_dataset_json,
    shard_url,
)
from storage.errors import FormatError, UsageError
from storage.listing import list_objects
from storage.locations import is_temporary
from storage.manifest import count_statuses, read_rows
from storage.objects import Url, digest_object, exists, join_url, stat_object
from storage.reasons import Status
from storage.shards import Sample, ShardInfo, read_shard

__all__ = ["verify_dataset"]


def verify_dataset(url: Url) -> list[str]:
    """Every problem of a dataset as one line each; empty when all is well.

    Re-reads every shard and checks size, digest, sample count, every frame of every sample, and that
    manifest, shards and dataset.json tell the same story. Raises FormatError when there is no dataset.
    """
    info = read_dataset_json(url)
    seen = _Seen()
    for shard in info.shards:
        seen.problems.extend(_shard_problems(url, shard, seen))
    seen.problems.extend(_unlisted_shards(url, info))
    if info.splits != dict(seen.splits):
        seen.problems.append(f"dataset.json says splits {info.splits}, the shards hold {dict(seen.splits)}")
    seen.problems.extend(_manifest_problems(url, info, seen))
    return seen.problems


@dataclass
class _Seen:
    """What the shards were found to hold."""

    problems: list[str] = field(default_factory=list)
    shard_of: dict[str, str] = field(default_factory=dict)
    split_of: dict[str, str] = field(default_factory=dict)
    splits: Counter[str] = field(default_factory=Counter)


def _shard_problems(url: Url, shard: ShardInfo, seen: _Seen) -> Iterator[str]:
    where = shard_url(url, shard.name)
    if not exists(where):
        yield f"shard {shard.name} is missing"
        return
    size = stat_object(where).size
    if size != shard.bytes:
        yield f"shard {shard.name} has {size} bytes, expected {shard.bytes}"
    elif (digest := digest_object(where)) != shard.sha256:
        yield f"shard {shard.name} has digest {digest[:16]}…, expected {shard.sha256[:16]}…"
    errors: list[FormatError] = []
    count = 0
    with read_shard(where, on_error=errors.append) as samples:
        for sample in samples:
            count += 1
            yield from _sample_problems(sample, shard, seen)
    yield from (str(error) for error in errors)
    if count != shard.samples:
        yield f"shard {shard.name} has {count} readable samples, expected {shard.samples}"


def _sample_problems(sample: Sample, shard: ShardInfo, seen: _Seen) -> Iterator[str]:
    if sample.key in seen.shard_of:
        yield f"sample {sample.key} is in shard {seen.shard_of[sample.key]} and again in {shard.name}"
    split = str(sample.info.get("split", ""))
    seen.shard_of[sample.key] = shard.name
    seen.split_of[sample.key] = split
    seen.splits[split] += 1
    try:
        for _ in sample.frames:
            pass
    except FormatError as exc:
        yield f"shard {shard.name}: {exc}"


def _unlisted_shards(url: Url, info: DatasetInfo) -> Iterator[str]:
    listed = {shard.name for shard in info.shards}
    try:
        found = [
            item.key for item in list_objects(join_url(url, SHARDS_FOLDER)) if not is_temporary(item.key)
        ]
    except UsageError:
        return
    for name in found:
        if name not in listed:
            yield f"shard {name} is not listed in dataset.json"


def _manifest_problems(url: Url, info: DatasetInfo, seen: _Seen) -> Iterator[str]:
    where = manifest_url(url)
    if not exists(where):
        yield "manifest.parquet is missing"
        return
    try:
        rows = list(read_rows(where, columns=["key", "status", "split", "shard"]))
        counts = count_statuses(rows)
    except FormatError as exc:
        yield str(exc)
        return
    for name in ("attempted", *Status):
        said, got = info.counts.get(name), getattr(counts, name)
        if said != got:
            yield f"dataset.json says {said} {name}, the manifest has {got}"
    yield from _row_problems([row for row in rows if row["status"] == Status.OK], seen)


def _row_problems(rows: list[dict[str, Any]], seen: _Seen) -> Iterator[str]:
    for key, times in Counter(row["key"] for row in rows).items():
        if times > 1:
            yield f"the manifest has {times} ok rows for sample {key}"
    for row in rows:
        key = row["key"]
        if key not in seen.shard_of:
            yield f"the manifest has sample {key} as ok, but no shard holds it"
        elif (row["shard"], row["split"]) != (seen.shard_of[key], seen.split_of[key]):
            yield (
                f"the manifest has sample {key} in {row['shard']} ({row['split']}), "
                f"it lies in {seen.shard_of[key]} ({seen.split_of[key]})"
            )
    for key in seen.shard_of.keys() - {row["key"] for row in rows}:
        yield f"sample {key} lies in {seen.shard_of[key]}, but the manifest has no ok row for it"
