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
from apache_beam.runners.portability import portable_runner
from apache_beam.runners.portability.fn_api_runner import fn_runner
from apache_beam.runners.portability.fn_api_runner.fn_runner import FnApiRunner
from apache_beam.runners.runner import PipelineResult
from apache_beam.transforms.environments import ExternalEnvironment, SubprocessSDKEnvironment

from pipelines.lost_workers import LOST, NEVER_CAME, notice_lost_workers, until_cut
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
ANSWER_SECONDS = 20.0  # of a job service; Beam itself would try for six minutes
GO_ON = "the same command goes on from what is finished"
DIED = f"{LOST} (out of memory, killed, or its machine gone)"
LATE = f"{NEVER_CAME} (its pool's log, or standard error, says why)"
# What runners say of a worker that went away or never came, and what it is in one phrase.
WORKER_LOSSES = {
    LOST: DIED,
    NEVER_CAME: LATE,
    "SDK worker disconnected": DIED,  # Prism
    "didn't get control connection": LATE,  # Prism
}
NO_WORKER = "Error starting worker: "  # Beam's words before what a pool answered
NO_JAR = "Unable to fetch remote job server jar"
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
    _check_services(config)
    try:
        result = pipeline.run()
        _wait(result)
    except Exception as exc:
        if ours := _our_error(exc):
            raise ours from exc
        if said := _why(exc, config):
            raise JobError(said) from exc
        raise
    counters: Counter[str] = Counter()
    for metric in result.metrics().query(MetricsFilter().with_namespace(NAMESPACE))["counters"]:
        counters[metric.key.metric.name] += metric.committed or 0
    return dict(counters)


def _check_services(config: RunnerConfig) -> None:
    """Is there a job service where one is said to be? Raises JobError when not."""
    if config.name == "local" or config.job_endpoint is None:
        return
    with grpc.insecure_channel(config.job_endpoint) as channel:
        try:
            grpc.channel_ready_future(channel).result(timeout=ANSWER_SECONDS)
        except grpc.FutureTimeoutError as exc:
            raise JobError(
                f"no job service answers at {config.job_endpoint}; start one there or name another "
                "(--job-endpoint HOST:PORT)"
            ) from exc


def _wait(result: PipelineResult) -> None:
    """Wait for the end; a job on a cluster does not outlive the command that was interrupted."""
    if isinstance(result, portable_runner.PipelineResult):
        # A thread of Beam reads these; the end of the job service is told by its states.
        result._message_stream = until_cut(result._message_stream)
    try:
        result.wait_until_finish()
    except KeyboardInterrupt:
        with contextlib.suppress(
            grpc.RpcError, RuntimeError
        ):  # the interruption is what the caller must hear of
            result.cancel()
        raise


def _why(exc: Exception, config: RunnerConfig) -> str:
    """One line on why a job did not come to its end, with the cure; nothing for a bug of a local job."""
    said = str(exc)
    pool = config.worker_pool or DEFAULT_POOL
    if loss := next((phrase for words, phrase in WORKER_LOSSES.items() if words in said), ""):
        return f"the job failed on {config.name}: {loss}; {GO_ON}"
    if NO_WORKER in said:
        return (
            f"the worker pool at {pool} has no worker: {said.partition(NO_WORKER)[2]}; once it has, {GO_ON}"
        )
    if config.name == "local":
        return _no_pool(exc, pool) if config.worker_pool and isinstance(exc, grpc.RpcError) else ""
    if isinstance(exc, grpc.RpcError | grpc.FutureTimeoutError):
        return _no_answer(exc, config)
    if NO_JAR in said:
        return (
            f"Beam cannot fetch its job server for {config.name} from here; name one that runs "
            f"(--job-endpoint HOST:PORT) or its file (runner.job_server_jar): {said.splitlines()[0]}"
        )
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    return f"the job failed on {config.name}: {lines[-1] if lines else type(exc).__name__}; {GO_ON}"


def _no_pool(exc: grpc.RpcError, pool: str) -> str:
    if _code(exc) == "UNIMPLEMENTED":
        return f"what listens at {pool} is no worker pool; name one (--worker-pool HOST:PORT)"
    port = pool.rpartition(":")[2]
    return (
        f"no worker pool answers at {pool} ({_code(exc)}); start one there (python -m pipelines.worker_pool "
        f"--port {port}) or name another (--worker-pool HOST:PORT)"
    )


def _no_answer(exc: Exception, config: RunnerConfig) -> str:
    """Of a job service that answered when the job began."""
    if _code(exc) == "UNIMPLEMENTED":
        return f"what listens at {config.job_endpoint} is no job service; name one (--job-endpoint HOST:PORT)"
    pool = config.worker_pool or DEFAULT_POOL
    return (
        f"the job service of {config.name} does not answer any more ({_code(exc)}); Prism ends when it "
        f"cannot reach its worker pool: does python -m pipelines.worker_pool_health {pool} succeed there? "
        f"With both running, {GO_ON}"
    )


def _code(exc: Exception) -> str:
    """The name of gRPC's code, as far as there is one."""
    code = getattr(exc, "code", None)
    return str(code().name) if callable(code) else type(exc).__name__


def _local_runner(config: RunnerConfig) -> FnApiRunner:
    """Workers from the pool that is named; else one in this process, or several in processes of their own."""
    notice_lost_workers()
    logging.getLogger(fn_runner.__name__).addFilter(_is_no_advice)
    if config.worker_pool:
        return FnApiRunner(default_environment=ExternalEnvironment(config.worker_pool))
    if config.workers == 1:
        return FnApiRunner()
    command = f"{shlex.quote(sys.executable)} -m pipelines.local_worker"
    return FnApiRunner(default_environment=SubprocessSDKEnvironment.from_command_string(command))


def _is_no_advice(said: logging.LogRecord) -> bool:
    """Beam advises a mode in which it starts its own workers; ours are the job's environment."""
    return "direct_running_mode" not in str(said.msg)


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
