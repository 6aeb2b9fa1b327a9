"""Worker pools as a runner sees them: real processes, real gRPC, and a pool that is killed."""

import contextlib
import os
import re
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import apache_beam as beam
import grpc
import pytest
import worker_pools
from apache_beam.portability.api import beam_fn_api_pb2, beam_fn_api_pb2_grpc
from pool_jobs import SayWho

from pipelines.runner import RunnerConfig, run_pipeline
from pipelines.worker_pool_health import answers
from storage.errors import JobError

ITEMS = 12


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("pools")


@pytest.fixture
def pools(folder):
    """Two pools behind a front."""
    running = [worker_pools.pool(folder, name) for name in ("a", "b")]
    running.append(worker_pools.front(folder, running))
    try:
        yield running
    finally:
        for service in running:
            service.stop()


def run_job(config, out, seconds=0.0):
    def build(pipeline, board):
        items = pipeline | beam.Create(range(ITEMS)) | beam.Reshuffle()
        return items | beam.ParDo(SayWho(str(out), seconds))

    return run_pipeline(build, config, stage="who").counters


def workers_of(out):
    """The processes that wrote, with how many items each."""
    written = [path.name.split("-") for path in out.iterdir()]
    assert len({item for item, _ in written}) == len(written), "an item was done twice"
    return sorted({pid for _, pid in written})


def alive(pid):
    with contextlib.suppress(ProcessLookupError):
        os.kill(int(pid), 0)
        return True
    return False


@pytest.mark.flink
def test_pools_share_a_job_and_the_death_of_one_ends_it_with_a_clear_error(pools, tmp_path):
    first, second, before = pools
    config = RunnerConfig(workers=2, worker_pool=before.address)
    out = tmp_path / "shared"
    out.mkdir()
    assert run_job(config, out) == {"items": ITEMS}
    assert len(list(out.iterdir())) == ITEMS
    assert len(workers_of(out)) == 2
    assert {path.read_text() for path in out.iterdir()} == {"1"}  # threads of native libraries
    assert not re.search("Traceback|apitools", first.log + second.log + before.log)

    out = tmp_path / "killed"
    out.mkdir()

    def kill_when_both_work():
        deadline = time.monotonic() + 60
        while len(workers_of(out)) < 2 and time.monotonic() < deadline:
            time.sleep(0.02)
        second.kill()

    killer = threading.Thread(target=kill_when_both_work)
    killer.start()
    with pytest.raises(JobError, match="a worker process has died"):
        run_job(config, out, seconds=0.3)
    killer.join()
    assert 2 <= len(list(out.iterdir())) < ITEMS
    _wait_until(lambda: not all(alive(pid) for pid in workers_of(out)), "the dead pool's worker lives on")

    out = tmp_path / "again"  # all workers now come from the pool that is left
    out.mkdir()
    assert run_job(config, out) == {"items": ITEMS}
    assert f"{second.address} does not answer" in before.log

    first.stop()
    with pytest.raises(JobError, match="has no worker: the worker pool .*, the worker pool .* not answer"):
        run_job(config, out)


def test_health_is_that_of_a_service_that_answers(folder):
    service = worker_pools.pool(folder, "health")
    command = [sys.executable, "-m", "pipelines.worker_pool_health", service.address]
    try:
        assert subprocess.run(command, check=False).returncode == 0
        taken = [sys.executable, "-m", "pipelines.worker_pool", "--port", str(service.port)]
        again = subprocess.run(taken, check=False, capture_output=True, text=True)
        assert again.returncode == 1 and "another pool" in again.stderr
        with pytest.raises(JobError, match=f"{service.address} is no job service; name one"):
            run_job(RunnerConfig(name="portable", job_endpoint=service.address), folder)
    finally:
        service.stop()
    assert service.process.returncode == 0
    assert not answers(service.address)
    assert subprocess.run(command, check=False).returncode == 1


def test_a_job_without_its_service_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr("pipelines.runner.ANSWER_SECONDS", 1.0)
    nowhere = f"localhost:{worker_pools.free_port()}"
    with pytest.raises(JobError, match=f"no job service answers at {nowhere}; start one there or name"):
        run_job(RunnerConfig(name="portable", job_endpoint=nowhere), tmp_path)


def test_a_job_without_its_pool_says_so(tmp_path):
    nowhere = f"localhost:{worker_pools.free_port()}"
    with pytest.raises(JobError, match=f"no worker pool answers at {nowhere} .*start one there"):
        run_job(RunnerConfig(workers=2, worker_pool=nowhere), tmp_path)


def test_a_worker_that_never_comes_ends_the_job(tmp_path, monkeypatch):
    """As one does whose imports fail: the pool has started it, the runner waits for it."""
    monkeypatch.setattr("pipelines.lost_workers.COMING_SECONDS", 1.0)
    server = grpc.server(ThreadPoolExecutor(1))
    port = server.add_insecure_port("127.0.0.1:0")
    beam_fn_api_pb2_grpc.add_BeamFnExternalWorkerPoolServicer_to_server(Idle(), server)
    server.start()
    try:
        with pytest.raises(JobError, match="a worker process was started and never came"):
            run_job(RunnerConfig(worker_pool=f"localhost:{port}"), tmp_path)
    finally:
        server.stop(None).wait()


class Idle(beam_fn_api_pb2_grpc.BeamFnExternalWorkerPoolServicer):
    """A pool whose workers die while they are being started."""

    def StartWorker(self, request, context):  # noqa: N802
        return beam_fn_api_pb2.StartWorkerResponse()


def _wait_until(holds, otherwise):
    deadline = time.monotonic() + 20
    while not holds():
        assert time.monotonic() < deadline, otherwise
        time.sleep(0.05)
