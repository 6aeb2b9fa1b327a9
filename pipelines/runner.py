"""How Beam jobs run: the runner by name, its options, and what a job tells while it runs and when it is done.

Local jobs run in Beam's portable local runner, which is named here on purpose: Beam's default would first
look for a binary to download. One worker runs inside this process, several are processes of their own.
"""

# mypy: disable-error-code="no-untyped-call"
# Beam is typed in parts only.
from __future__ import annotations

import contextlib
import logging
import os
import shlex
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import apache_beam as beam
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.runners.portability.fn_api_runner.fn_runner import FnApiRunner
from apache_beam.transforms.environments import SubprocessSDKEnvironment

from storage.errors import StillstreamError, UsageError
from storage.progress import OnProgress, Progress

__all__ = ["JobResult", "ProgressBoard", "RunnerConfig", "pipeline_options", "run_pipeline"]

logger = logging.getLogger(__name__)

RUNNERS = {
    "local": "",
    "flink": "FlinkRunner",
    "spark": "SparkRunner",
    "dataflow": "DataflowRunner",
    "portable": "PortableRunner",
}
POLL_SECONDS = 0.25


@dataclass(frozen=True, kw_only=True, slots=True)
class RunnerConfig:
    """Which Beam runner does the work, with how many workers, and its own options as `--name=value`.

    Flink and Spark need a job server and workers that can reach it, for example
    `options=("--flink_master=host:8081", "--environment_type=EXTERNAL", "--environment_config=host:50000")`.
    """

    name: str = "local"
    workers: int = 1
    options: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.name.lower() == "dask":
            raise UsageError(
                "the dask runner is refused: it loses data without an error (only the last of two sinks "
                f"runs, and the last batch is dropped); choose one of {', '.join(RUNNERS)}"
            )
        if self.name not in RUNNERS:
            raise UsageError(f"unknown runner {self.name!r}; choose one of {', '.join(RUNNERS)}")
        if self.workers < 1:
            raise UsageError(f"workers must be at least 1, got {self.workers}")
        if wrong := [option for option in self.options if not option.startswith("--")]:
            raise UsageError(f"runner options look like --name=value, got {', '.join(wrong)}")


@dataclass(frozen=True, kw_only=True, slots=True)
class JobResult:
    """What a finished job counted: Beam counters by name, and how long it took in seconds."""

    counters: dict[str, int] = field(default_factory=dict)
    seconds: float = 0.0


class ProgressBoard:
    """A file that workers of this machine append one word to per finished item, and the driver reads.

    Beam's own metrics of a local job are known only when it is over.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def note(self, word: str) -> None:
        """Say that one item ended as `word`; a worker on another machine, without the file, is silent."""
        with contextlib.suppress(OSError):
            descriptor = os.open(self.path, os.O_WRONLY | os.O_APPEND)
            try:
                os.write(descriptor, f"{word}\n".encode())  # short appends are atomic
            finally:
                os.close(descriptor)

    def counts(self) -> Counter[str]:
        """Items by word so far."""
        return Counter(self.path.read_text().split())


def pipeline_options(config: RunnerConfig) -> PipelineOptions:
    """The runner's options; those given by the user come last and win."""
    flags = list(config.options)
    if config.name == "local":
        flags.insert(0, f"--direct_num_workers={config.workers}")
    else:
        flags.insert(0, f"--runner={RUNNERS[config.name]}")
        if config.name == "flink":
            flags.insert(1, f"--parallelism={config.workers}")
        # A worker pool starts one process per unit of parallelism only when it is told to.
        if not any(flag.startswith("--sdk_worker_parallelism") for flag in flags):
            flags.append(f"--sdk_worker_parallelism={config.workers}")
    return PipelineOptions(flags)


def run_pipeline(
    build: Callable[[beam.Pipeline, ProgressBoard], Any],
    config: RunnerConfig,
    *,
    stage: str,
    total: int | None = None,
    on_progress: OnProgress | None = None,
) -> JobResult:
    """Build a pipeline, run it to its end and return what it counted.

    `build(pipeline, board)` applies the transforms; its workers may `board.note(word)` for every item. An
    error of ours inside a worker comes out as itself, not wrapped by the runner.
    """
    begin = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="stillstream-job-") as folder:
        board = ProgressBoard(Path(folder) / "progress")
        board.path.touch()
        with _watch(board, stage, total, on_progress):
            counters = _run(build, board, config)
    seconds = time.perf_counter() - begin
    logger.info("%s took %.1f s on %s: %s", stage, seconds, config.name, counters)
    return JobResult(counters=counters, seconds=seconds)


def _run(
    build: Callable[[beam.Pipeline, ProgressBoard], Any], board: ProgressBoard, config: RunnerConfig
) -> dict[str, int]:
    runner = _local_runner(config.workers) if config.name == "local" else None
    pipeline = beam.Pipeline(runner=runner, options=pipeline_options(config))
    build(pipeline, board)
    try:
        result = pipeline.run()
        result.wait_until_finish()
    except Exception as exc:
        if ours := _our_error(exc):
            raise ours from exc
        raise
    counters: Counter[str] = Counter()
    for metric in result.metrics().query()["counters"]:
        counters[metric.key.metric.name] += metric.committed or 0
    return dict(counters)


def _local_runner(workers: int) -> FnApiRunner:
    """In this process for one worker, else in processes of their own."""
    if workers == 1:
        return FnApiRunner()
    command = f"{shlex.quote(sys.executable)} -m pipelines.local_worker"
    return FnApiRunner(default_environment=SubprocessSDKEnvironment.from_command_string(command))


def _our_error(exc: BaseException) -> StillstreamError | None:
    """The error of ours behind a runner's: by the chain of causes, as far as the runner kept it."""
    seen: BaseException | None = exc
    while seen is not None:
        if isinstance(seen, StillstreamError):
            return seen
        seen = seen.__cause__ or seen.__context__
    return None


@contextlib.contextmanager
def _watch(
    board: ProgressBoard, stage: str, total: int | None, on_progress: OnProgress | None
) -> Iterator[None]:
    if on_progress is None:
        yield
        return
    over = threading.Event()

    def report() -> None:
        counts = board.counts()
        on_progress(Progress(stage=stage, done=counts.total(), total=total, counts=dict(counts)))

    def poll() -> None:
        while not over.wait(POLL_SECONDS):
            report()

    watcher = threading.Thread(target=poll, name=f"progress of {stage}", daemon=True)
    watcher.start()
    try:
        yield
    finally:
        over.set()
        watcher.join()
        report()
