"""Datasets from videos: list → distil every source into a part → assemble → commit.

    build_dataset   videos (any URL) → `<out>/shards/*.tar`, `manifest.parquet`, `dataset.json`
    rescore_dataset the same samples under other limits, without decoding anything

A run that was killed is taken up by the next one; videos added later only write new shards.
"""

# mypy: disable-error-code="no-untyped-call"
# Beam is typed in parts only.
from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from itertools import chain
from typing import Any

import apache_beam as beam

from pipelines.assembly import (
    Assembly,
    KnownSources,
    Previous,
    all_shards,
    collect_parts,
    commit,
    plan_assembly,
    previous_rows,
    read_known_sources,
    restore_manifest,
    sweep,
    write_shards,
)
from pipelines.distil import MEASURE_VERSION, STAGES, MeasureConfig
from pipelines.parts import PartStore, read_chunk
from pipelines.rescoring import rescore
from pipelines.runner import JobResult, RunnerConfig, run_pipeline
from pipelines.selection import SelectionConfig
from pipelines.transforms import DistilJob, DistilVideos
from storage.dataset_format import DATASET_FILE, DatasetInfo, manifest_url, read_dataset_json
from storage.digest import digest_json
from storage.errors import UsageError
from storage.manifest import count_reasons, read_rows
from storage.objects import ObjectInfo, digest_object, exists, join_url, list_objects
from storage.progress import OnProgress, Progress
from storage.reasons import Status
from storage.shards import ShardInfo
from storage.video_input import VIDEO_SUFFIXES

__all__ = ["DatasetConfig", "DatasetSummary", "build_dataset", "rescore_dataset"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class DatasetConfig:
    """How a dataset is built.

    `measure`: all that changes the samples themselves. `selection`: limits on their scores, changeable
    afterwards. `shard_bytes`: size at which a shard is full. `time_limit`: seconds that one video may take.
    """

    measure: MeasureConfig = field(default_factory=MeasureConfig)
    selection: SelectionConfig = field(default_factory=SelectionConfig)
    shard_bytes: int = 64_000_000
    time_limit: float = 600.0

    def __post_init__(self) -> None:
        if self.shard_bytes < 1_000_000:
            raise UsageError(f"shard_bytes must be at least 1000000, got {self.shard_bytes}")
        if self.time_limit <= 0:
            raise UsageError(f"time_limit must be above 0 s, got {self.time_limit}")

    @property
    def measure_digest(self) -> str:
        """What a sample's content depends on, besides its video."""
        return digest_json({"measure": self.measure, "version": MEASURE_VERSION})

    def plain(self) -> dict[str, Any]:
        """As dataset.json keeps it; what has no influence on the result is left out."""
        return {
            "measure": asdict(self.measure),
            "selection": asdict(self.selection),
            "version": MEASURE_VERSION,
        }


@dataclass(frozen=True, kw_only=True, slots=True)
class DatasetSummary:
    """What became of a build: rows by status, the others by reason, and where the time went (seconds).

    `stages`: per stage how many came to it (attempted) and what became of them there; ok went on. `counters`
    and `stage_seconds` are those of this run's Beam job, over all workers.
    """

    dataset_url: str
    counts: dict[str, int]
    reasons: dict[str, int]
    stages: dict[str, dict[str, int]]
    splits: dict[str, int]
    sources: dict[str, int]
    seconds: float
    stage_seconds: dict[str, float]
    counters: dict[str, int]


def build_dataset(
    videos: str,
    out: str,
    config: DatasetConfig | None = None,
    runner: RunnerConfig | None = None,
    on_progress: OnProgress | None = None,
) -> DatasetSummary:
    """Build the dataset `out` from `videos` (file, folder, glob or any fsspec URL), or extend it.

    Raises UsageError when there are no videos. Single videos never stop the run: they become rows.
    """
    begin = time.perf_counter()
    config, runner = config or DatasetConfig(), runner or RunnerConfig()
    listed = list_objects(videos, suffixes=None if _is_single(videos) else VIDEO_SUFFIXES)
    previous = _previous(out, config)
    store = PartStore(dataset_url=out, config_digest=config.measure_digest)
    todo = (source for source in listed if previous is None or not previous.known.is_done(source))
    chunks = store.write_listing(todo)
    if not chunks and previous is not None:
        sweep(out, previous.info)
        store.clear()
        return _summary(out, previous.info, JobResult(), time.perf_counter() - begin)
    total = sum(len(read_chunk(chunk)) for chunk in chunks)
    job = DistilJob(parts=store, measure=config.measure, time_limit=config.time_limit)
    result = run_pipeline(
        lambda pipeline, board: pipeline | beam.Create(chunks) | "Distil videos" >> DistilVideos(job, board),
        runner,
        stage="distil",
        total=total,
        on_progress=on_progress,
    )
    info = _assemble(chunks, store, previous, config, on_progress)
    sweep(out, info)
    store.clear()
    return _summary(out, info, result, time.perf_counter() - begin)


def rescore_dataset(url: str, config: DatasetConfig | None = None) -> DatasetSummary:
    """Apply `config.selection` to a finished dataset; nothing is decoded or measured again.

    Raises FormatError when there is no finished dataset.
    """
    begin = time.perf_counter()
    config = config or DatasetConfig()
    info = read_dataset_json(url)
    restore_manifest(url, info, digest_object(join_url(url, DATASET_FILE)))
    if info.config["selection"] != asdict(config.selection):
        info = rescore(url, info, config.selection, config.shard_bytes)
    return _summary(url, info, JobResult(), time.perf_counter() - begin)


def _is_single(videos: str) -> bool:
    """A file that is named is taken whatever it is called."""
    return exists(videos)


def _previous(out: str, config: DatasetConfig) -> Previous | None:
    """The version before, judged by the present selection; None when there is none yet."""
    if not exists(join_url(out, DATASET_FILE)):
        return None
    info = read_dataset_json(out)
    restore_manifest(out, info, digest_object(join_url(out, DATASET_FILE)))
    if info.config_digest != config.measure_digest:
        logger.warning("%s was measured with another configuration and is built anew", out)
        return Previous(info=info, known=KnownSources(tags={}, digests={}), extended=False)
    if info.config["selection"] != asdict(config.selection):
        info = rescore(out, info, config.selection, config.shard_bytes)
    return Previous(info=info, known=read_known_sources(out), extended=True)


def _assemble(
    chunks: list[str],
    store: PartStore,
    previous: Previous | None,
    config: DatasetConfig,
    on_progress: OnProgress | None,
) -> DatasetInfo:
    parts = collect_parts(_sources(chunks), store)
    assembly = plan_assembly(parts, previous, config.selection, config.shard_bytes)
    done = 0

    def tick() -> None:
        nonlocal done
        done += 1
        if on_progress is not None:
            on_progress(Progress(stage="shards", done=done, total=len(assembly.shards)))

    written = write_shards(assembly, store, tick)
    rows = chain(_kept_rows(store.dataset_url, previous, assembly), assembly.rows)
    shards = _kept_shards(previous) + written
    return commit(store.dataset_url, rows, shards, config.plain(), config.measure_digest)


def _sources(chunks: list[str]) -> Iterator[ObjectInfo]:
    for chunk in chunks:
        yield from read_chunk(chunk)


def _kept_rows(out: str, previous: Previous | None, assembly: Assembly) -> Iterator[dict[str, Any]]:
    return previous_rows(out, assembly) if previous is not None and previous.extended else iter(())


def _kept_shards(previous: Previous | None) -> list[tuple[str, ShardInfo]]:
    return all_shards(previous.info) if previous is not None and previous.extended else []


def _count_stages(rows: Iterable[Mapping[str, Any]]) -> dict[str, dict[str, int]]:
    """attempted = ok + rejected + failed for every stage, and what is ok is attempted at the next."""
    ended: Counter[tuple[str, str]] = Counter((row["stage"], str(row["status"])) for row in rows)
    stages, left = {}, ended.total()
    for stage in STAGES:
        rejected, failed = ended[stage, Status.REJECTED], ended[stage, Status.FAILED]
        ok = left - rejected - failed
        stages[stage] = {"attempted": left, "ok": ok, "rejected": rejected, "failed": failed}
        left = ok
    assert left == ended[STAGES[-1], Status.OK], ended
    return stages


def _summary(out: str, info: DatasetInfo, result: JobResult, seconds: float) -> DatasetSummary:
    return DatasetSummary(
        dataset_url=out,
        counts=info.counts,
        reasons=count_reasons(read_rows(manifest_url(out), columns=["status", "reason"])),
        stages=_count_stages(read_rows(manifest_url(out), columns=["status", "stage"])),
        splits=info.splits,
        sources={name: value for name, value in result.counts.items() if name.startswith("sources")},
        seconds=seconds,
        stage_seconds=result.stage_seconds,
        counters=result.counts,
    )
