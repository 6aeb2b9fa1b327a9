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
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import apache_beam as beam
from apache_beam.metrics.metric import Metrics

from pipelines.crawl_link import (
    CrawlJob,
    Task,
    crawl_link,
    link_row,
    write_sidecar,
)
from pipelines.crawl_manifest import (
    MAX_DISTANCE,
    CrawlManifest,
    Row,
    find_twins,
    keep_merging,
    manifest_url,
    twin_row,
)
from pipelines.links import BadSource, Link, licence_accepted
from pipelines.runner import ProgressBoard, RunnerConfig, run_pipeline
from pipelines.sources import SourceConfig, find_links
from storage.digest import digest_bytes
from storage.errors import ItemError, RejectedError, UsageError
from storage.fetch import FetchConfig, WebClient
from storage.manifest import count_reasons, count_statuses
from storage.objects import delete_object, join_url, list_objects, remove_temporaries
from storage.progress import OnProgress, Progress
from storage.reasons import Reason, Status
from storage.web_address import canonical_url, host_of, is_web_url, public_url

__all__ = ["CrawlConfig", "CrawlLinks", "CrawlSummary", "crawl", "host_key"]

logger = logging.getLogger(__name__)

NAMESPACE = "stillstream"
STORE_GROUPS = 64
# Verdicts that cost nothing and depend on the options alone are reached anew in every run.
CHEAP_VERDICTS = {Reason.LICENCE, Reason.PRIVATE_ADDRESS}


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
    """What became of all URLs ever attempted, and what this run did: links found, fetched now, skipped."""

    out: str
    videos_url: str
    manifest_url: str
    counts: dict[str, int]
    reasons: dict[str, int]
    links: int
    fetched: int
    skipped: int
    seconds: float


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
    manifest = CrawlManifest.read(out)
    plan = _Plan(manifest, config)
    with WebClient(config.fetch) as client:
        for found in find_links(sources, client, config.sources):
            plan.add(found, public_url(sources))
            if on_progress is not None and plan.links % 50 == 0:
                on_progress(Progress(stage="links", done=plan.links))
    manifest.write()
    if plan.tasks:
        _fetch_all(plan.tasks, manifest, config, runner, on_progress)
    _settle_twins(manifest, config)
    with contextlib.suppress(UsageError):
        remove_temporaries(out)
    return _summary(out, manifest, plan, time.perf_counter() - begin)


class _Plan:
    """What is to be fetched: links that are new, failed before, or whose object is gone."""

    def __init__(self, manifest: CrawlManifest, config: CrawlConfig) -> None:
        self._rows = manifest.rows
        self._config = config
        self._objects = set(_stored_objects(manifest.out))
        self._by_place = {canonical_url(url): url for url in manifest.rows if not _is_spelling(manifest, url)}
        self._next = max((row.get("order") or 0 for row in manifest.rows.values()), default=0) + 1
        self._met: set[str] = set()
        self.tasks: list[Task] = []
        self.links = 0
        self.skipped = 0

    def add(self, found: Link | BadSource, source: str) -> None:
        """Judge one link by what can be known without fetching it."""
        self.links += 1
        url = public_url(found.url)
        if url in self._met:
            return
        self._met.add(url)
        known = self._rows.get(url)
        order = known["order"] if known and known.get("order") else self._next
        self._next = max(self._next, order + 1)
        if isinstance(found, BadSource):
            task = Task(link=Link(url=url), source=source, order=order)
            self._rows[url] = _refused(task, found.error, "source")
            return
        task = Task(link=found, source=source, order=order)
        place = canonical_url(found.url)
        first = self._by_place.setdefault(place, url)
        if first != url:
            error = RejectedError(f"another spelling of {first}", reason=Reason.DUPLICATE)
            self._rows[url] = _refused(task, error, "links")
        elif not licence_accepted(found.licence, self._config.licences):
            accepted = ", ".join(self._config.licences)
            message = f"its licence is {found.licence or 'not told'}, accepted are {accepted}"
            self._rows[url] = _refused(task, RejectedError(message, reason=Reason.LICENCE), "links")
        elif known is not None and self._is_done(known):
            self.skipped += 1
        else:
            self.tasks.append(task)

    def _is_done(self, row: Row) -> bool:
        if row["status"] == Status.OK:
            return row["object"] in self._objects
        if row["status"] == Status.FAILED:
            return False
        return row["reason"] not in CHEAP_VERDICTS and not self._lost_original(row)

    def _lost_original(self, row: Row) -> bool:
        """A twin whose original is no longer to be had is worth fetching."""
        if row["reason"] != Reason.DUPLICATE:
            return False
        original = self._rows.get((row["message"] or "").rpartition(" as ")[2])
        return original is None or original["status"] != Status.OK


def _is_spelling(manifest: CrawlManifest, url: str) -> bool:
    row = manifest.rows[url]
    return row.get("reason") == Reason.DUPLICATE and row.get("stage") == "links"


def _refused(task: Task, error: ItemError, stage: str) -> Row:
    verdict = {"status": error.status, "reason": error.reason, "message": str(error)[:1000]}
    return {**link_row(task), **verdict, "stage": stage}


def _stored_objects(out: str) -> Iterator[str]:
    with contextlib.suppress(UsageError):  # nothing yet
        for item in list_objects(join_url(out, "videos")):
            yield f"videos/{item.key}"


def _fetch_all(
    tasks: list[Task],
    manifest: CrawlManifest,
    config: CrawlConfig,
    runner: RunnerConfig,
    on_progress: OnProgress | None,
) -> None:
    job = CrawlJob(out=manifest.out, fetch=config.fetch, probe_seconds=config.probe_seconds)
    with keep_merging(manifest, config.merge_seconds):
        run_pipeline(
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
    candidates = [row for row in rows.values() if row["status"] == Status.OK]
    for url, (original, how) in find_twins(candidates, config.near).items():
        if rows[url]["object"] == original["object"]:
            write_sidecar(manifest.out, original)  # whoever came first wrote it; the original's facts count
        rows[url] = twin_row(rows[url], original, how)
    manifest.write()
    _drop_copies(manifest)


def _drop_copies(manifest: CrawlManifest) -> None:
    """Delete the objects of twins, also those that a killed run had no time to delete."""
    rows = manifest.rows.values()
    kept = {row["sha256"] for row in rows if row["status"] == Status.OK}
    copies = {row["sha256"] for row in rows if row["reason"] == Reason.DUPLICATE and row.get("sha256")} - kept
    if copies:
        for path in list(_stored_objects(manifest.out)):
            if path.rpartition("/")[2].partition(".")[0] in copies:
                delete_object(join_url(manifest.out, path))


def _summary(out: str, manifest: CrawlManifest, plan: _Plan, seconds: float) -> CrawlSummary:
    counts = count_statuses(manifest.rows.values())
    return CrawlSummary(
        out=out,
        videos_url=join_url(out, "videos"),
        manifest_url=manifest_url(out),
        counts={name: getattr(counts, name) for name in ("attempted", "ok", "rejected", "failed")},
        reasons=count_reasons(manifest.rows.values()),
        links=plan.links,
        fetched=len(plan.tasks),
        skipped=plan.skipped,
        seconds=seconds,
    )
