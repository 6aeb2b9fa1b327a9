"""What a folder holds and how many of its items are in which state, finished or still being worked on.

    dataset.json     a dataset: its clips      (without it but with parts/: one that is being built)
    registry.json    a model registry: its versions
    ledger.parquet   an animated library: its photos (also while a run is going on)
    crawl.parquet    a crawl: its URLs

Rows are streamed and listings counted, so memory does not grow with the folder.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from pipelines.animation_ledger import LEDGER_NAME, PARTS_FOLDER, ledger_parts, read_ledger
from pipelines.animation_plan import PENDING_PREFIX
from pipelines.crawl_manifest import manifest_url as crawl_url
from pipelines.parts import PARTS_FOLDER as DATASET_PARTS
from pipelines.parts import read_chunk
from storage.dataset_format import DATASET_FILE, manifest_url, read_dataset_json
from storage.errors import UsageError
from storage.manifest import column_names, read_rows
from storage.model_registry import ModelRegistry, is_registry
from storage.objects import ObjectInfo, exists, join_url, list_objects, open_object

__all__ = ["FolderStatus", "read_status"]

WAITING = "waiting"


@dataclass(frozen=True, kw_only=True, slots=True)
class FolderStatus:
    """What lies at `url`: its items (`unit`s) by state, the reasons of those not ok, and other facts."""

    what: str
    url: str
    unit: str
    states: Mapping[str, int]
    reasons: Mapping[str, int] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)

    @property
    def total(self) -> int:
        """All items."""
        return sum(self.states.values())


def read_status(url: str) -> FolderStatus:
    """Tell what a folder holds. Raises UsageError for one that stillstream did not write."""
    if exists(join_url(url, DATASET_FILE)):
        return _dataset(url)
    if is_registry(url):
        return _registry(url)
    if exists(join_url(url, LEDGER_NAME)) or ledger_parts(url) or _pending(url):
        return _library(url)
    if exists(crawl_url(url)):
        return _crawl(url)
    if any(True for _ in _listed(url, DATASET_PARTS)):
        return _unfinished_dataset(url)
    raise UsageError(
        f"{url} is no dataset, model registry, animated library or crawl: it has no {DATASET_FILE}, "
        f"registry.json, {LEDGER_NAME} or crawl.parquet; check the path"
    )


def _dataset(url: str) -> FolderStatus:
    info = read_dataset_json(url)
    states, reasons = _count(read_rows(manifest_url(url), columns=["status", "reason"]))
    building = _building(url)
    return FolderStatus(
        what="dataset",
        url=url,
        unit="clips",
        states=states,
        reasons=reasons,
        facts={
            "splits": dict(info.splits),
            "shards": len(info.shards),
            "bytes": sum(shard.bytes for shard in info.shards),
            "configuration": info.config_digest[:12],
            **({"being extended": building} if building else {}),
        },
    )


def _unfinished_dataset(url: str) -> FolderStatus:
    return FolderStatus(what="unfinished dataset", url=url, unit="videos", states=_building(url))


def _building(url: str) -> dict[str, int]:
    """Videos of a build that is going on, or was killed: measured already, and waiting."""
    listed = measured = 0
    for info in _listed(url, DATASET_PARTS, suffix=".json"):
        if info.key.rpartition("/")[0].endswith("sources"):
            listed += len(read_chunk(info.url))
        else:
            measured += 1
    if not listed and not measured:
        return {}
    return {"measured": measured, WAITING: max(0, listed - measured)}


def _registry(url: str) -> FolderStatus:
    registry = ModelRegistry(url)
    registry.require()
    counts = Counter(registry.states().values())
    order = ("current", "former", "refused", "candidate")
    last = max(registry.history(), key=lambda event: event.at, default=None)
    decided = {} if last is None else {"last decision": f"{last.version} {last.kind}: {last.why}"}
    return FolderStatus(
        what="model registry",
        url=url,
        unit="versions",
        states={state: counts[state] for state in order},
        facts={"current version": registry.current(), **decided},
    )


def _library(url: str) -> FolderStatus:
    versions: Counter[str] = Counter()

    def rows() -> Iterator[Mapping[str, Any]]:
        for row in _ledger_rows(url):
            if row.get("model_version"):
                versions[row["model_version"]] += 1
            yield row

    states, reasons = _count(rows())
    waiting = _waiting_photos(url)
    return FolderStatus(
        what="animated library",
        url=url,
        unit="photos",
        states={**states, WAITING: waiting} if waiting else states,
        reasons=reasons,
        facts={"model versions": dict(versions.most_common())} if versions else {},
    )


def _ledger_rows(url: str) -> Iterator[Mapping[str, Any]]:
    if ledger_parts(url):
        return read_ledger(url)
    ledger = join_url(url, LEDGER_NAME)
    if not exists(ledger):
        return iter(())
    wanted = ("status", "reason", "model_version")
    return read_rows(ledger, columns=[name for name in column_names(ledger) if name in wanted])


def _waiting_photos(url: str) -> int:
    """Photos that a run planned, less those it has done: what a killed run left undone, too."""
    planned = sum(_lines(info.url) for info in _pending(url))
    return max(0, planned - sum(_lines(part) for part in ledger_parts(url))) if planned else 0


def _pending(url: str) -> list[ObjectInfo]:
    return [
        info
        for info in _listed(url, PARTS_FOLDER, suffix=".jsonl")
        if info.key.startswith(PENDING_PREFIX) and info.key.removesuffix(".jsonl")[-1].isdigit()
    ]


def _lines(url: str) -> int:
    with open_object(url) as stream:
        return sum(1 for _ in stream)


def _crawl(url: str) -> FolderStatus:
    states, reasons = _count(read_rows(crawl_url(url), columns=["status", "reason"]))
    unmerged = sum(1 for _ in _listed(url, "rows", suffix=".json"))
    return FolderStatus(
        what="crawl",
        url=url,
        unit="links",
        states=states,
        reasons=reasons,
        facts={"finished since the manifest was written": unmerged} if unmerged else {},
    )


def _count(rows: Iterable[Mapping[str, Any]]) -> tuple[dict[str, int], dict[str, int]]:
    """Rows by status, and those not ok by reason, the most frequent first."""
    statuses: Counter[str] = Counter()
    reasons: Counter[str] = Counter()
    for row in rows:
        statuses[row["status"]] += 1
        if row["reason"]:
            reasons[row["reason"]] += 1
    return {name: statuses[name] for name in ("ok", "rejected", "failed")}, dict(reasons.most_common())


def _listed(url: str, folder: str, suffix: str = "") -> Iterator[ObjectInfo]:
    with suppress(UsageError):  # no such folder
        yield from list_objects(join_url(url, folder), suffixes={suffix} if suffix else None)
