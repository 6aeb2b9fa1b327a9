"""Crawl: sources → links → videos in a folder, with a row for every URL ever attempted.

    <out>/videos/<first two of digest>/<sha256>.<suffix>    the video, as it came
    <out>/videos/<first two of digest>/<sha256>.json        where it is from, licence, author, …
    <out>/crawl.parquet                                     one row per URL; ok + rejected + failed = all

Links are grouped by host; a host's links are fetched one after the other by one worker, hosts in parallel.
A rerun fetches what is new or failed before, and what somebody deleted.
"""

# mypy: disable-error-code="no-untyped-call, type-arg, name-defined"
# Beam is typed in parts only.
from __future__ import annotations

import contextlib
import logging
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace

import apache_beam as beam
from apache_beam.metrics.metric import Metrics

from pipelines.crawl_link import CrawlJob, crawl_link, write_sidecar
from pipelines.crawl_manifest import CrawlManifest, keep_merging, manifest_url
from pipelines.crawl_plan import CrawlPlan, stored_objects
from pipelines.crawl_table import Task
from pipelines.crawl_twins import MAX_DISTANCE, find_twins, twin_row
from pipelines.runner import STAGE_PREFIX, JobResult, ProgressBoard, RunnerConfig, run_pipeline
from pipelines.sources import SourceConfig, find_links
from storage.digest import digest_bytes
from storage.errors import ItemError, UsageError
from storage.fetch import FetchConfig, WebClient
from storage.manifest import count_reasons, count_statuses
from storage.objects import delete_object, join_url, remove_temporaries
from storage.progress import OnProgress, Progress
from storage.reasons import Status
from storage.web_address import host_of, is_web_url, public_url

__all__ = ["CrawlConfig", "CrawlLinks", "CrawlSummary", "crawl", "host_key"]

logger = logging.getLogger(__name__)

NAMESPACE = "stillstream"
STORE_GROUPS = 64
TASKS_AT_ONCE = 50_000


@dataclass(frozen=True, kw_only=True, slots=True)
class CrawlConfig:
    """How a crawl looks, asks and chooses.

    `licences`: those accepted, all when empty. `near`: bits in which fingerprints of the same video may
    differ (of 256), -1 to compare bytes only. `merge_seconds`: how often the manifest is written.
    `probe_seconds`: what decoding four frames for the fingerprint may take.
    """

    sources: SourceConfig = field(default_factory=SourceConfig)
    fetch: FetchConfig = field(default_factory=FetchConfig)
    licences: tuple[str, ...] = ()
    near: int = 12
    merge_seconds: float = 30.0
    probe_seconds: float = 60.0

    def __post_init__(self) -> None:
        if not -1 <= self.near <= MAX_DISTANCE:
            raise UsageError(f"near must be between -1 and {MAX_DISTANCE} bits, got {self.near}")
        if self.merge_seconds <= 0 or self.probe_seconds <= 0:
            raise UsageError("merge_seconds and probe_seconds must be above 0")


@dataclass(frozen=True, kw_only=True, slots=True)
class CrawlSummary:
    """What became of all URLs ever attempted, and what this run did: links found, fetched now, skipped.

    `counters`: those of this run's Beam jobs. `stage_seconds`: finding links, fetching (over all workers),
    telling twins.
    """

    out: str
    videos_url: str
    manifest_url: str
    counts: dict[str, int]
    reasons: dict[str, int]
    links: int
    fetched: int
    skipped: int
    seconds: float
    stage_seconds: dict[str, float]
    counters: dict[str, int]


def crawl(
    sources: str,
    out: str,
    config: CrawlConfig | None = None,
    runner: RunnerConfig | None = None,
    on_progress: OnProgress | None = None,
) -> CrawlSummary:
    """Fetch the videos that `sources` leads to into `out`, or go on with an earlier crawl.

    Raises UsageError when the source is none. Single links never stop the run: they become rows.
    """
    begin = time.perf_counter()
    config, runner = config or CrawlConfig(), runner or RunnerConfig()
    with CrawlManifest.read(out) as manifest:
        plan = CrawlPlan(manifest, config.licences)
        with WebClient(config.fetch) as client:
            for found in find_links(sources, client, config.sources):
                plan.add(found, public_url(sources))
                if on_progress is not None and plan.links % 50 == 0:
                    on_progress(Progress(stage="links", done=plan.links))
        manifest.write()
        found_all = time.perf_counter()
        job = _fetch_all(manifest, config, runner, on_progress)
        fetched_all = time.perf_counter()
        _settle_twins(manifest, config)
        with contextlib.suppress(UsageError):
            remove_temporaries(out)
        end = time.perf_counter()
        stages = {"links": found_all - begin, **job.stage_seconds, "twins": end - fetched_all}
        return _summary(plan, manifest, JobResult(counters=job.counters, seconds=end - begin), stages)


def _fetch_all(
    manifest: CrawlManifest, config: CrawlConfig, runner: RunnerConfig, on_progress: OnProgress | None
) -> JobResult:
    job = CrawlJob(out=manifest.out, fetch=config.fetch, probe_seconds=config.probe_seconds)
    total, done = manifest.rows.count_tasks(), 0
    counters: Counter[str] = Counter()

    def report(step: Progress) -> None:
        if on_progress is not None:
            on_progress(replace(step, done=done + step.done, total=total))

    with keep_merging(manifest, config.merge_seconds):
        # A runner of this machine holds all that it groups by host.
        for tasks in manifest.rows.task_pages(TASKS_AT_ONCE):
            result = _fetch(tasks, job, runner, report if on_progress is not None else None)
            counters.update(result.counters)
            done += len(tasks)
    return JobResult(counters=dict(counters))


def _fetch(
    tasks: list[Task], job: CrawlJob, runner: RunnerConfig, on_progress: OnProgress | None
) -> JobResult:
    return run_pipeline(
        lambda pipeline, board: pipeline | beam.Create(tasks) | "Crawl" >> CrawlLinks(job, board),
        runner,
        stage="crawl",
        total=len(tasks),
        on_progress=on_progress,
    )


class CrawlLinks(beam.PTransform):  # type: ignore[misc]
    """Links → rows as (URL, status): one worker per host at a time, its links one after the other."""

    def __init__(self, job: CrawlJob, board: ProgressBoard) -> None:
        super().__init__()
        self._job = job
        self._board = board

    def expand(self, tasks: beam.PCollection) -> beam.PCollection:
        """Group by host, then fetch."""
        return (
            tasks
            | "By host" >> beam.WithKeys(host_key)
            | "Group" >> beam.GroupByKey()
            | "Fetch" >> beam.ParDo(_FetchHost(self._job, self._board))
        )


class _FetchHost(beam.DoFn):  # type: ignore[misc]
    """Fetch the links of one host in their order."""

    def __init__(self, job: CrawlJob, board: ProgressBoard) -> None:
        self._job = job
        self._board = board

    def process(self, group: tuple[str, Iterable[Task]]) -> Iterator[tuple[str, str]]:
        """One client per host: its connections and robots.txt serve all links."""
        with WebClient(self._job.fetch) as client:
            for task in sorted(group[1], key=lambda task: task.order):
                row = crawl_link(task, self._job, client)
                Metrics.counter(NAMESPACE, f"links_{row['status']}").inc()
                Metrics.counter(NAMESPACE, f"{STAGE_PREFIX}fetch").inc(round(row["seconds_spent"] * 1000))
                self._board.note(str(row["status"]))
                yield row["url"], str(row["status"])


def host_key(task: Task) -> str:
    """What is polite to do one after the other; objects in stores are only spread."""
    url = task.link.url
    try:
        if is_web_url(url):
            return host_of(url)
    except ItemError:
        pass  # fetching will say what is wrong with it
    return f"store {int(digest_bytes(url.encode())[:8], 16) % STORE_GROUPS}"


def _settle_twins(manifest: CrawlManifest, config: CrawlConfig) -> None:
    """Reject what shows the same as an earlier link, and keep no second copy of it."""
    rows = manifest.rows
    candidates = (row for row in rows if row["status"] == Status.OK)
    for row, original, how in find_twins(candidates, config.near):
        if row["object"] == original["object"]:
            first = rows.get(original["url"])
            assert first is not None
            write_sidecar(manifest.out, first)  # whoever came first wrote it; the original's facts count
        rows.put(twin_row(row, original, how))
    manifest.write()
    # Also those that a killed run had no time to delete.
    if copies := set(rows.dropped_digests()):
        for path in list(stored_objects(manifest.out)):
            if path.rpartition("/")[2].partition(".")[0] in copies:
                delete_object(join_url(manifest.out, path))


def _summary(
    plan: CrawlPlan, manifest: CrawlManifest, job: JobResult, stages: dict[str, float]
) -> CrawlSummary:
    out = manifest.out
    counts = count_statuses(manifest.rows)
    return CrawlSummary(
        out=out,
        videos_url=join_url(out, "videos"),
        manifest_url=manifest_url(out),
        counts={name: getattr(counts, name) for name in ("attempted", "ok", "rejected", "failed")},
        reasons=count_reasons(manifest.rows),
        links=plan.links,
        fetched=manifest.rows.count_tasks(),
        skipped=plan.skipped,
        seconds=job.seconds,
        stage_seconds=stages,
        counters=job.counts,
    )
