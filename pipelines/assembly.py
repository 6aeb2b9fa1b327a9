"""Assembly: from the parts of all sources, and the version before, to shards, manifest and dataset.json.

    parts → rows judged → plan of shards → shards → manifest → dataset.json (the commit) → parts removed

Everything follows from the parts and the previous version alone and in a fixed order, so that a run killed
at any point is finished by the next one with the same bytes. Shards of the previous version stay as they are.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any

from pipelines.distil import Row
from pipelines.parts import Part, PartStore, source_tag
from pipelines.selection import SELECTED, SelectionConfig, select_row
from storage.dataset_format import (
    SHARDS_FOLDER,
    DatasetInfo,
    archive_dataset_json,
    manifest_url,
    write_dataset_json,
)
from storage.errors import UsageError
from storage.manifest import MANIFEST_SCHEMA, count_statuses, read_rows, write_rows
from storage.objects import (
    ObjectInfo,
    delete_object,
    digest_object,
    exists,
    join_url,
    list_objects,
    read_bytes,
    write_bytes,
)
from storage.reasons import Reason, Status
from storage.samples import Sample
from storage.shards import ShardInfo, write_shard

__all__ = [
    "HELD_FOLDER",
    "Assembly",
    "KnownSources",
    "PlannedShard",
    "Previous",
    "ShardPlan",
    "all_shards",
    "archive_version",
    "archived_manifest_url",
    "collect_parts",
    "commit",
    "plan_assembly",
    "previous_rows",
    "read_known_sources",
    "restore_manifest",
    "sweep",
    "write_shards",
]

# Failures that may have passed by the next run, which therefore tries again.
TRANSIENT = frozenset(
    {Reason.STORE_ERROR, Reason.TIMEOUT, Reason.CRASHED, Reason.NETWORK, Reason.NOT_FOUND, Reason.INTERNAL}
)
HELD_FOLDER = "held"  # measured samples that the selection leaves out; another selection may take them back


@dataclass(kw_only=True, slots=True)
class PlannedShard:
    """One shard to write: its folder and name, and which samples of which parts go into it."""

    folder: str
    name: str
    split: str
    samples: list[tuple[str, str]] = field(default_factory=list)
    bytes: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class Assembly:
    """The new rows in their final order, each with its shard, and the shards to write.

    `replaced`: sources whose earlier rows give way. `touched`: sources with a new tag and the same content.
    """

    rows: list[Row]
    shards: list[PlannedShard]
    replaced: frozenset[str]
    touched: dict[str, str]


class ShardPlan:
    """Puts samples, in their order, into shards of limited size: a series per folder and split."""

    def __init__(self, taken: Iterable[tuple[str, ShardInfo]], shard_bytes: int) -> None:
        self._limit = shard_bytes
        self._open: dict[tuple[str, str], PlannedShard] = {}
        self._next: Counter[tuple[str, str]] = Counter()
        self.shards: list[PlannedShard] = []
        for folder, shard in taken:
            split, _, number = shard.name.removesuffix(".tar").rpartition("-")
            self._next[folder, split] = max(self._next[folder, split], int(number) + 1)

    def place(self, folder: str, split: str, sample: tuple[str, str], size: int) -> str:
        """The name of the shard that takes this sample, given as (part, key)."""
        series = (folder, split)
        shard = self._open.get(series)
        if shard is None or shard.bytes + size > self._limit:
            name = f"{split}-{self._next[series]:05d}.tar"
            self._next[series] += 1
            shard = self._open[series] = PlannedShard(folder=folder, name=name, split=split)
            self.shards.append(shard)
        shard.samples.append(sample)
        shard.bytes += size
        # Readers look below shards/, so that only other folders need to be named.
        return shard.name if folder == SHARDS_FOLDER else f"{folder}/{shard.name}"


@dataclass(frozen=True, kw_only=True, slots=True)
class KnownSources:
    """What the present manifest says about sources, enough to tell what is new."""

    tags: dict[str, str]  # the latest tag by source URL
    digests: dict[str, str]  # the source by content digest
    transient: frozenset[str] = frozenset()  # sources that only failed, for a reason that may have passed

    def is_done(self, source: ObjectInfo) -> bool:
        """Whether this very source needs nothing."""
        return self.tags.get(source.url) == source_tag(source) and source.url not in self.transient


def read_known_sources(dataset_url: str) -> KnownSources:
    """Read the sources of a dataset from its manifest."""
    tags: dict[str, str] = {}
    digests: dict[str, str] = {}
    passing: dict[str, bool] = {}
    columns = ["source", "source_tag", "sha256", "reason"]
    for row in read_rows(manifest_url(dataset_url), columns=columns):
        tags[row["source"]] = row["source_tag"]
        if row["sha256"] and row["reason"] != Reason.DUPLICATE:
            digests.setdefault(row["sha256"], row["source"])
        passing[row["source"]] = passing.get(row["source"], True) and row["reason"] in TRANSIENT
    transient = frozenset(name for name, value in passing.items() if value)
    # What only failed has given nothing yet, so it is no reason to call anything a duplicate.
    digests = {digest: source for digest, source in digests.items() if source not in transient}
    return KnownSources(tags=tags, digests=digests, transient=transient)


@dataclass(frozen=True, kw_only=True, slots=True)
class Previous:
    """The version before. Where `extended`, its shards stay and its rows are copied; else it was measured in
    another way, and only the names of its shards are avoided, so that it stays whole until the commit."""

    info: DatasetInfo
    known: KnownSources
    extended: bool


def all_shards(info: DatasetInfo) -> list[tuple[str, ShardInfo]]:
    """Every shard of a dataset with its folder, those with the samples left out included."""
    held = [ShardInfo(**plain) for plain in info.extra.get(HELD_FOLDER, ())]
    return [(SHARDS_FOLDER, shard) for shard in info.shards] + [(HELD_FOLDER, shard) for shard in held]


def plan_assembly(
    parts: Iterable[Part], previous: Previous | None, selection: SelectionConfig, shard_bytes: int
) -> Assembly:
    """Judge the new rows and give every sample its shard.

    A source whose content another one already gave becomes a single row, rejected as a duplicate.
    """
    taken = [] if previous is None else all_shards(previous.info)
    plan = ShardPlan(taken, shard_bytes)
    first = {} if previous is None else dict(previous.known.digests)
    rows: list[Row] = []
    touched: dict[str, str] = {}
    for part in sorted(parts, key=lambda part: (part.sha256, part.source)):
        owner = first.setdefault(part.sha256, part.source) if part.sha256 else part.source
        if owner != part.source:
            rows.append(_duplicate_row(part, owner))
        elif previous is not None and previous.known.digests.get(part.sha256) == part.source:
            touched[part.source] = part.tag
        else:
            rows.extend(_placed(part, row, plan, selection) for row in part.rows)
    replaced = frozenset() if previous is None else previous.known.transient
    new = {row["source"] for row in rows}
    return Assembly(rows=rows, shards=plan.shards, replaced=replaced & new, touched=touched)


def write_shards(
    assembly: Assembly, store: PartStore, tick: Callable[[], None]
) -> list[tuple[str, ShardInfo]]:
    """Write the planned shards one after the other; returns (folder, shard) in their order."""
    written = []
    for shard in assembly.shards:
        url = join_url(store.dataset_url, shard.folder, shard.name)
        written.append((shard.folder, write_shard(url, _samples(shard, store))))
        tick()
    return written


def commit(
    dataset_url: str,
    rows: Iterable[Row],
    shards: list[tuple[str, ShardInfo]],
    config: dict[str, Any],
    config_digest: str,
) -> DatasetInfo:
    """Write the manifest and then dataset.json, whose parent is the digest of the version before."""
    parent = archive_version(dataset_url)
    splits: Counter[str] = Counter()
    statuses: list[dict[str, Any]] = []

    def counted() -> Iterator[Row]:
        for row in rows:
            statuses.append({"status": row["status"]})
            if row["status"] == Status.OK:
                splits[row["split"]] += 1
            yield _typed(row)

    write_rows(manifest_url(dataset_url), counted(), MANIFEST_SCHEMA)
    info = DatasetInfo(
        config=config,
        config_digest=config_digest,
        counts=asdict(count_statuses(statuses)),
        shards=[shard for folder, shard in shards if folder == SHARDS_FOLDER],
        splits=dict(sorted(splits.items())),
        parent=parent,
        extra={
            HELD_FOLDER: [asdict(shard) for folder, shard in shards if folder == HELD_FOLDER],
            "manifest_sha256": digest_object(manifest_url(dataset_url)),
        },
    )
    write_dataset_json(dataset_url, info)
    return info


def sweep(dataset_url: str, info: DatasetInfo) -> None:
    """Remove the shards that a committed dataset does not list: of the version before, or of a killed run."""
    listed = {(folder, shard.name) for folder, shard in all_shards(info)}
    for folder in (SHARDS_FOLDER, HELD_FOLDER):
        with contextlib.suppress(UsageError):  # no such folder
            for item in list(list_objects(join_url(dataset_url, folder))):
                if (folder, item.key) not in listed:
                    delete_object(item.url)


def archive_version(dataset_url: str) -> str | None:
    """Keep dataset.json and manifest of the present version under versions/; returns its digest."""
    parent = archive_dataset_json(dataset_url)
    if parent is not None:
        write_bytes(archived_manifest_url(dataset_url, parent), read_bytes(manifest_url(dataset_url)))
    return parent


def archived_manifest_url(dataset_url: str, version: str) -> str:
    """Where the manifest of an earlier version is kept."""
    return join_url(dataset_url, "versions", f"{version}.manifest.parquet")


def restore_manifest(dataset_url: str, info: DatasetInfo, version: str) -> None:
    """Undo a manifest that was written for a commit which a killed run did not reach."""
    expected = info.extra.get("manifest_sha256")
    if expected is None or digest_object(manifest_url(dataset_url)) == expected:
        return
    kept = archived_manifest_url(dataset_url, version)
    if exists(kept):
        write_bytes(manifest_url(dataset_url), read_bytes(kept))


def previous_rows(dataset_url: str, assembly: Assembly) -> Iterator[Row]:
    """The rows of the present manifest that stay."""
    for row in read_rows(manifest_url(dataset_url)):
        if row["source"] not in assembly.replaced:
            yield {**row, "source_tag": assembly.touched.get(row["source"], row["source_tag"])}


def _placed(part: Part, row: Row, plan: ShardPlan, selection: SelectionConfig) -> Row:
    row = {**select_row(row, selection), "source_tag": part.tag}
    if row["stage"] != SELECTED:
        return row
    folder = SHARDS_FOLDER if row["status"] == Status.OK else HELD_FOLDER
    name = plan.place(folder, row["split"], (part.name, row["key"]), part.sample_bytes[row["key"]])
    return {**row, "shard": name}


def _duplicate_row(part: Part, owner: str) -> Row:
    seconds = sum(row["seconds_spent"] for row in part.rows)
    return {
        "key": f"{part.sha256[:16]}_{part.name[:16]}",
        "source": part.source,
        "source_tag": part.tag,
        "sha256": part.sha256,
        "status": Status.REJECTED,
        "reason": Reason.DUPLICATE,
        "message": f"has the same content as {owner}",
        "stage": "read",
        "seconds_spent": seconds,
        "stage_seconds": {"read": seconds},
    }


def _samples(shard: PlannedShard, store: PartStore) -> Iterator[Sample]:
    by_part: dict[str, set[str]] = {}
    for name, key in shard.samples:
        by_part.setdefault(name, set()).add(key)
    for name, keys in by_part.items():
        yield from store.samples(name, keys)


def _typed(row: Row) -> Row:
    """Parts are JSON: times come as text."""
    if isinstance(row.get("retrieved_at"), str):
        try:
            said = datetime.fromisoformat(row["retrieved_at"])
            return {**row, "retrieved_at": said if said.tzinfo else said.replace(tzinfo=UTC)}
        except ValueError:
            return {**row, "retrieved_at": None}
    return row


def collect_parts(sources: Iterable[ObjectInfo], store: PartStore) -> Iterator[Part]:
    """The parts of the given sources; all must be there."""
    for source in sources:
        yield store.read(source)
