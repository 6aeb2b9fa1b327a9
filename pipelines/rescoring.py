"""Rescoring: judge a finished dataset's clips by other limits, without decoding or measuring anything.

Samples that change sides between the shards and those held back are copied into new shards, together with
their neighbours in the shards they leave; all other shards stay. The result is a version of its own.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict

from pipelines.assembly import HELD_FOLDER, ShardPlan, all_shards, commit, sweep
from pipelines.distil import Row
from pipelines.selection import SELECTED, SelectionConfig, select_row
from storage.dataset_format import SHARDS_FOLDER, DatasetInfo, manifest_url
from storage.manifest import read_rows
from storage.objects import join_url
from storage.reasons import Status
from storage.samples import Sample
from storage.shards import ShardInfo, read_shard, write_shard

__all__ = ["place_of", "rescore"]

Place = tuple[str, str]  # folder and name of a shard


def rescore(dataset_url: str, info: DatasetInfo, selection: SelectionConfig, shard_bytes: int) -> DatasetInfo:
    """Apply another selection to a dataset and commit the result; returns the new dataset.json."""
    rows = [select_row(row, selection) for row in read_rows(manifest_url(dataset_url))]
    shards = {(folder, shard.name): shard for folder, shard in all_shards(info)}
    changed = _changed_shards(rows, shards)
    plan = ShardPlan(all_shards(info), shard_bytes)
    moved = _replaced(rows, changed, shards, plan)
    written = _copy(dataset_url, plan, changed)
    kept = [(place[0], shard) for place, shard in shards.items() if place not in changed]
    config = {**info.config, "selection": asdict(selection)}
    new = commit(dataset_url, iter(moved), kept + written, config, info.config_digest)
    sweep(dataset_url, new)
    return new


def place_of(row: Row, shards: dict[Place, ShardInfo]) -> Place | None:
    """The shard in which a row's sample lies; None where it has none."""
    if row["stage"] != SELECTED or row["shard"] is None:
        return None
    folder, _, name = row["shard"].rpartition("/")
    place = (folder or SHARDS_FOLDER, name)
    assert place in shards, row
    return place


def _folder(row: Row) -> str:
    return SHARDS_FOLDER if row["status"] == Status.OK else HELD_FOLDER


def _changed_shards(rows: list[Row], shards: dict[Place, ShardInfo]) -> list[Place]:
    """The shards that some sample leaves, in order."""
    changed = set()
    for row in rows:
        place = place_of(row, shards)
        if place is not None and place[0] != _folder(row):
            changed.add(place)
    return [place for place in shards if place in changed]


def _replaced(
    rows: list[Row], changed: list[Place], shards: dict[Place, ShardInfo], plan: ShardPlan
) -> list[Row]:
    """The rows with the new places of the samples in changed shards."""
    moved = []
    for row in rows:
        place = place_of(row, shards)
        if place is not None and place in changed:
            size = shards[place].bytes // max(shards[place].samples, 1)
            source = "/".join(place)
            row = {**row, "shard": plan.place(_folder(row), row["split"], (source, row["key"]), size)}
        moved.append(row)
    return moved


def _copy(dataset_url: str, plan: ShardPlan, changed: list[Place]) -> list[tuple[str, ShardInfo]]:
    """Write the planned shards from the ones that samples leave."""

    def samples(wanted: dict[str, set[str]]) -> Iterator[Sample]:
        for place in changed:
            keys = wanted.get("/".join(place), set())
            if keys:
                with read_shard(join_url(dataset_url, *place)) as stored:
                    yield from (sample for sample in stored if sample.key in keys)

    written = []
    for shard in plan.shards:
        wanted: dict[str, set[str]] = {}
        for source, key in shard.samples:
            wanted.setdefault(source, set()).add(key)
        url = join_url(dataset_url, shard.folder, shard.name)
        written.append((shard.folder, write_shard(url, samples(wanted))))
    return written
