"""How Beam jobs run: the runner by name, its options, and what a job tells while it runs and when it is done.

Local jobs run in Beam's portable local runner, which is named here on purpose: Beam's default would first
look for a binary to download. One worker runs inside this process, several are processes of their own.

Other runners get the same pipelines through Beam's portable job service (Flink, Spark, or any other at
`job_endpoint`); the work itself is done by worker pools of ours (`pipelines.worker_pool`), which need what a
local worker needs: this package and the store's credentials in their environment.
"""

# mypy: disable-error-code="no-untyped-call"
# Beam is typed in parts only.
from __future__ import annotations

import contextlib
import logging
import os
import re
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
import grpc  # type: ignore[import-untyped]
from apache_beam.metrics.metric import MetricsFilter
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.runners.portability.fn_api_runner.fn_runner import FnApiRunner
from apache_beam.runners.runner import PipelineResult
from apache_beam.transforms.environments import ExternalEnvironment, SubprocessSDKEnvironment

from pipelines.lost_workers import LOST, notice_lost_workers
from storage.errors import JobError, StillstreamError, UsageError
from storage.progress import OnProgress, Progress

__all__ = ["STAGE_PREFIX", "JobResult", "ProgressBoard", "RunnerConfig", "pipeline_options", "run_pipeline"]

logger = logging.getLogger(__name__)

RUNNERS = {
    "local": "",
    "flink": "FlinkRunner",
    "spark": "SparkRunner",
    "dataflow": "DataflowRunner",
    "portable": "PortableRunner",
}
ADDRESS = re.compile(r"(https?://)?([\w.-]+|\[[0-9a-fA-F:]+\]):\d{1,5}")
DEFAULT_POOL = "localhost:50000"
FLINK_VERSION = "1.20"
CACHE_MILLIS = 600_000
POLL_SECONDS = 0.25
NAMESPACE = "stillstream"  # of our own counters; runners add some of theirs
STAGE_PREFIX = "milliseconds_"  # counters of time, by stage


@dataclass(frozen=True, kw_only=True, slots=True)
class RunnerConfig:
    """Which Beam runner does the work, with how many workers.

    name: local, flink, dataflow, spark or portable. workers: processes that work at a time.
    flink_master: HOST:PORT of a Flink cluster's REST interface. job_server_jar: path or URL of Beam's job
    server for Flink or Spark, which Beam fetches itself otherwise. job_endpoint: HOST:PORT of a job service
    that runs already. worker_pool: HOST:PORT of the pool that does the work, as the cluster's machines see
    it; the local runner, too, takes its workers from there when it is named. options: anything else that
    Beam knows, as `--name=value`; they win over what is set here.
    """

    name: str = "local"
    workers: int = 1
    flink_master: str | None = None
    job_endpoint: str | None = None
    worker_pool: str | None = None
    job_server_jar: str | None = None
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
        self._check_addresses()

    def _check_addresses(self) -> None:
        for name in ("flink_master", "job_endpoint", "worker_pool"):
            value = getattr(self, name)
            if value is not None and not ADDRESS.fullmatch(value):
                raise UsageError(f"{name} is HOST:PORT, such as localhost:8081, got {value!r}")
        jar = self.job_server_jar
        if jar is not None and "://" not in jar and not Path(jar).is_file():
            raise UsageError(f"no job server jar at {jar}")
        if self.name == "flink" and not (
            self.flink_master or self.job_endpoint or self._given("flink_master")
        ):
            raise UsageError("the flink runner needs its cluster: flink_master (--flink-master HOST:PORT)")
        if self.name == "portable" and not (self.job_endpoint or self._given("job_endpoint")):
            raise UsageError(
                "the portable runner needs a job service: job_endpoint (--job-endpoint HOST:PORT)"
            )

    def _given(self, option: str) -> bool:
        return any(each.partition("=")[0] == f"--{option}" for each in self.options)


@dataclass(frozen=True, kw_only=True, slots=True)
class JobResult:
    """What a finished job counted: Beam counters by name, and how long it took in seconds."""

    counters: dict[str, int] = field(default_factory=dict)
    seconds: float = 0.0

    @property
    def counts(self) -> dict[str, int]:
        """The counters that count items."""
        return {name: value for name, value in self.counters.items() if not name.startswith(STAGE_PREFIX)}

    @property
    def stage_seconds(self) -> dict[str, float]:
        """Time per stage, over all workers, in seconds."""
        return {
            name.removeprefix(STAGE_PREFIX): value / 1000
            for name, value in sorted(self.counters.items())
            if name.startswith(STAGE_PREFIX)
        }


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
    if config.name == "local":
        flags = [f"--direct_num_workers={config.workers}"]
    elif config.name == "dataflow":
        flags = ["--runner=DataflowRunner", f"--num_workers={config.workers}"]
    else:
        flags = _portable_flags(config)
    return PipelineOptions([*flags, *config.options])


def _portable_flags(config: RunnerConfig) -> list[str]:
    """What a portable runner is told: where its job service is, and where it finds workers."""
    flags = [f"--runner={RUNNERS[config.name]}"]
    # A worker pool starts one process per unit of parallelism only when it is told to. A worker that has
    # loaded its networks stays for the next stage.
    flags += [f"--sdk_worker_parallelism={config.workers}", f"--environment_cache_millis={CACHE_MILLIS}"]
    if not any(option.startswith("--environment_") for option in config.options):
        flags += ["--environment_type=EXTERNAL", f"--environment_config={config.worker_pool or DEFAULT_POOL}"]
    if config.job_endpoint:
        flags.append(f"--job_endpoint={config.job_endpoint}")
    if config.name == "flink":
        flags += [f"--parallelism={config.workers}", f"--flink_version={FLINK_VERSION}"]
        flags += [f"--flink_master={config.flink_master}"] if config.flink_master else []
    if config.name == "portable":
        flags.append(f"--direct_num_workers={config.workers}")  # Beam's own job service counts by this one
    if config.job_server_jar:
        flags.append(f"--{config.name}_job_server_jar={config.job_server_jar}")
    return flags


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
    runner = _local_runner(config) if config.name == "local" else None
    pipeline = beam.Pipeline(runner=runner, options=pipeline_options(config))
    build(pipeline, board)
    try:
        result = pipeline.run()
        _wait(result)
    except Exception as exc:
        if ours := _our_error(exc):
            raise ours from exc
        if config.name == "local" and LOST not in str(exc):
            raise
        raise JobError(_why(exc, config)) from exc
    counters: Counter[str] = Counter()
    for metric in result.metrics().query(MetricsFilter().with_namespace(NAMESPACE))["counters"]:
        counters[metric.key.metric.name] += metric.committed or 0
    return dict(counters)


def _wait(result: PipelineResult) -> None:
    """Wait for the end; a job on a cluster does not outlive the command that was interrupted."""
    try:
        result.wait_until_finish()
    except KeyboardInterrupt:
        with contextlib.suppress(
            grpc.RpcError, RuntimeError
        ):  # the interruption is what the caller must hear of
            result.cancel()
        raise


def _why(exc: Exception, config: RunnerConfig) -> str:
    """One line from what a job service said, which may be a traceback."""
    if isinstance(exc, grpc.RpcError | grpc.FutureTimeoutError):
        return f"the job service of {config.name} does not answer ({type(exc).__name__})"
    said = [line.strip() for line in str(exc).splitlines() if line.strip()]
    last = said[-1] if said else type(exc).__name__
    return f"the job failed on {config.name}: {last}; the same command goes on from what is finished"


def _local_runner(config: RunnerConfig) -> FnApiRunner:
    """Workers from the pool that is named; else one in this process, or several in processes of their own."""
    notice_lost_workers()
    if config.worker_pool:
        return FnApiRunner(default_environment=ExternalEnvironment(config.worker_pool))
    if config.workers == 1:
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
