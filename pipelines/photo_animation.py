"""Photos in, living pictures out: list → chunks → read, animate, publish → ledger.

The plan is made before the pipeline begins: it says what needs work. What travels through Beam are slices of
that plan; each photo is decoded, rendered and encoded inside one DoFn, which publishes results and row.
"""

# mypy: disable-error-code="no-untyped-call"
# Beam is typed in parts only.

import contextlib
import dataclasses
import json
import os
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import apache_beam as beam
import torch
from apache_beam.metrics.metric import Metrics

from models.animate import load_networks, networks_digest
from pipelines.animate_record import StoppedError, Studio, animate_record
from pipelines.animation_config import AnimationConfig
from pipelines.animation_ledger import LedgerWriter, compact_ledger, ledger_parts
from pipelines.animation_plan import TaskSlice, clear_todo, plan_run, read_slice
from pipelines.animation_summary import AnimationSummary, Tally, summarise
from pipelines.photo_hints import load_run_hints
from pipelines.photo_listing import has_photos
from pipelines.runner import ProgressBoard, RunnerConfig, run_pipeline
from storage.lease import hold_lease
from storage.model_registry import pin_weights
from storage.objects import read_bytes, remove_temporaries
from storage.progress import OnProgress

__all__ = ["AnimatePhotos", "AnimationConfig", "AnimationSummary", "animate_new", "animate_photos"]

NAMESPACE = "stillstream"


def animate_photos(
    photos: str,
    out: str,
    config: AnimationConfig | None = None,
    runner: RunnerConfig | None = None,
    on_progress: OnProgress | None = None,
) -> AnimationSummary:
    """Animate every photo of a file, folder, glob or URL into `out`; what is done already is left alone.

    SIGTERM or SIGINT end it with what is finished recorded. Raises UsageError when another run writes to
    `out`, when there is no photo, no weights, or a wrong hints file, and StoreError when the store fails for
    good.
    """
    config, runner = config or AnimationConfig(), runner or RunnerConfig()
    begin = time.perf_counter()
    load_run_hints(config)
    # A registry's current version is looked up once: a promotion in the middle of a run changes nothing.
    pinned = pin_weights(config.checkpoint)
    config = dataclasses.replace(config, checkpoint=pinned.checkpoint)
    weights = networks_digest(config.checkpoint, config.renderer)
    stop, tally = _Stop(), Tally()
    with hold_lease(out, on_lost=stop.end) as lease:
        _clean_up(out)
        plan = plan_run(photos, out, config, weights=weights)
        if plan.todo:
            with tempfile.TemporaryDirectory(prefix="stillstream-") as folder, _ending_on_signal(stop):
                stop.path = Path(folder) / "stop"
                studio_maker = _StudioMaker(
                    out=out, config=config, weights_digest=weights, model_version=pinned.version,
                    plan_orphans=plan.orphans_url, stop_path=str(stop.path), workers=runner.workers,
                )  # fmt: skip
                result = run_pipeline(
                    partial(_build, plan.slices, studio_maker),
                    runner, stage="animate", total=plan.todo, on_progress=on_progress,
                )  # fmt: skip
                lease.check()
                tally.read(out)
                tally.counters = result.counts
        clear_todo(out)
        compact_ledger(out)
        return summarise(plan, tally, out, time.perf_counter() - begin, stopped=stop.asked)


def animate_new(
    photos: str,
    out: str,
    config: AnimationConfig | None = None,
    runner: RunnerConfig | None = None,
    *,
    interval_s: float = 30.0,
    stop: Callable[[], bool] = bool,
) -> Iterator[AnimationSummary]:
    """Look for new photos every `interval_s` seconds until `stop()`; yields a summary per round with work."""
    while not stop():
        if has_photos(photos, out):
            summary = animate_photos(photos, out, config, runner)
            if summary.stopped or summary.skipped < summary.counts["attempted"]:
                yield summary
            if summary.stopped:
                return
        waited = 0.0
        while waited < interval_s and not stop():
            time.sleep(min(0.2, interval_s - waited))
            waited += 0.2


def _clean_up(out: str) -> None:
    """Take up what a killed run left: rows that are not merged, chunks, unfinished objects."""
    clear_todo(out)
    if ledger_parts(out):
        compact_ledger(out)
    remove_temporaries(out)


@dataclass(frozen=True, kw_only=True, slots=True)
class _StudioMaker:
    """What a worker needs to set itself up; plain values, so that it travels."""

    out: str
    config: AnimationConfig
    weights_digest: str
    model_version: str | None
    plan_orphans: str | None
    stop_path: str
    workers: int

    def make(self) -> Studio:
        threads = max(1, _usable_cores() // self.workers)
        torch.set_num_threads(threads)
        return Studio(
            out=self.out,
            config=self.config,
            config_digest=self.config.digest(),
            weights_digest=self.weights_digest,
            model_version=self.model_version,
            networks=load_networks(self.config.checkpoint, self.config.renderer),
            ledger=LedgerWriter(self.out),
            threads=threads,
            orphans=json.loads(read_bytes(self.plan_orphans)) if self.plan_orphans else {},
            stopped=partial(os.path.exists, self.stop_path),
        )


def _usable_cores() -> int:
    """The cores this process may run on, which may be fewer than the machine has."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not on every system
        return os.cpu_count() or 1


def _build(
    slices: list[TaskSlice], studio_maker: _StudioMaker, pipeline: beam.Pipeline, board: ProgressBoard
) -> Any:
    return (
        pipeline
        | "Slices" >> beam.Create(slices)
        | "Spread" >> beam.Reshuffle()
        | "Animate" >> beam.ParDo(AnimatePhotos(studio_maker, board))
    )


class AnimatePhotos(beam.DoFn):  # type: ignore[misc]
    """Works through slices of the plan; every photo ends as a row in the ledger."""

    def __init__(self, studio_maker: _StudioMaker, board: ProgressBoard) -> None:
        super().__init__()
        self._maker = studio_maker
        self._board = board

    def setup(self) -> None:
        """Load the networks, once per worker process."""
        self._studio = self._maker.make()

    def process(self, part: TaskSlice) -> None:
        """Animate the photos of one slice."""
        for task in read_slice(part):
            if self._studio.stopped():
                return
            try:
                row = animate_record(task, self._studio)
            except StoppedError:
                return
            self._studio.ledger.add(row)
            self._board.note(row["status"])
            Metrics.counter(NAMESPACE, row["status"]).inc()
            if row.get("reason"):
                Metrics.counter(NAMESPACE, f"{row['status']}: {row['reason']}").inc()

    def finish_bundle(self) -> None:
        """Publish the rows that are still waiting."""
        self._studio.ledger.flush()


class _Stop:
    """Whether the run was asked to end; workers see it as a file."""

    def __init__(self) -> None:
        self.path: Path | None = None
        self.asked = False

    def ask(self, *_: object) -> None:
        if self.asked:
            raise KeyboardInterrupt  # a second signal does not wait
        self.asked = True
        self.end()

    def end(self) -> None:
        if self.path is not None:
            self.path.touch()


@contextlib.contextmanager
def _ending_on_signal(stop: _Stop) -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, stop.ask) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
