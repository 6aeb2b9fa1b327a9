"""The killable worker: crashes and hangs cost one call, errors come back as themselves, nothing stays."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import isolated_jobs as jobs
import numpy as np
import psutil
import pytest

from storage.errors import MediaError, RejectedError, UsageError
from storage.isolated import run_isolated, stop_workers
from storage.reasons import Reason


@pytest.fixture(autouse=True)
def no_worker_stays() -> Iterator[None]:
    stop_workers()
    before = len(psutil.Process().children())
    yield
    stop_workers()
    assert len(psutil.Process().children()) == before


def test_results_come_back_and_the_worker_stays() -> None:
    assert run_isolated(jobs.add, 1, 2, timeout_s=10) == 3
    worker = run_isolated(jobs.pid, timeout_s=10)
    assert worker != os.getpid()
    assert run_isolated(jobs.pid, timeout_s=10) == worker
    picture = np.arange(3_000_000, dtype=np.uint8).reshape(1000, 1000, 3)
    np.testing.assert_array_equal(run_isolated(jobs.echo, picture, timeout_s=10), picture)


def test_a_call_costs_a_message_and_not_a_start() -> None:
    run_isolated(jobs.add, 1, 2, timeout_s=10)
    began = time.perf_counter()
    for _ in range(100):
        run_isolated(jobs.add, 1, 2, timeout_s=10)
    assert (time.perf_counter() - began) / 100 < 0.02


@pytest.mark.parametrize("job", [jobs.hang, jobs.hang_in_native_code])
def test_a_hang_ends_at_its_time_limit(job: Callable[[], None]) -> None:
    run_isolated(jobs.pid, timeout_s=10)
    began = time.perf_counter()
    with pytest.raises(MediaError, match=r"longer than 0\.5 s") as caught:
        run_isolated(job, timeout_s=0.5)
    assert caught.value.reason is Reason.TIMEOUT
    assert time.perf_counter() - began < 5
    assert run_isolated(jobs.add, 2, 2, timeout_s=10) == 4


def test_a_crash_is_one_items_failure() -> None:
    with pytest.raises(MediaError, match="SIGSEGV") as caught:
        run_isolated(jobs.crash, timeout_s=10)
    assert caught.value.reason is Reason.CRASHED
    with pytest.raises(MediaError, match="exit status 3") as caught:
        run_isolated(jobs.leave, timeout_s=10)
    assert caught.value.reason is Reason.CRASHED
    assert run_isolated(jobs.add, 2, 2, timeout_s=10) == 4


def test_a_worker_that_died_between_calls_is_replaced() -> None:
    worker = run_isolated(jobs.pid, timeout_s=10)
    os.kill(worker, signal.SIGKILL)
    psutil.Process(worker).wait(5) if psutil.pid_exists(worker) else None
    assert run_isolated(jobs.pid, timeout_s=10) != worker


def test_errors_come_back_as_themselves() -> None:
    worker = run_isolated(jobs.pid, timeout_s=10)
    with pytest.raises(RejectedError, match="a cut at") as caught:
        run_isolated(jobs.reject, timeout_s=10)
    assert caught.value.reason is Reason.CUT
    with pytest.raises(KeyError, match="a bug of ours") as bug:
        run_isolated(jobs.bug, timeout_s=10)
    assert any("isolated_jobs.py" in note for note in bug.value.__notes__)
    assert run_isolated(jobs.pid, timeout_s=10) == worker, "an error is no reason for a new worker"


def test_memory_is_limited_per_call() -> None:
    assert run_isolated(jobs.allocate, 100 << 20, timeout_s=10, memory_bytes=400 << 20) == 100 << 20
    with pytest.raises(MediaError, match="400 MiB") as caught:
        run_isolated(jobs.allocate, 600 << 20, timeout_s=10, memory_bytes=400 << 20)
    assert caught.value.reason is Reason.CRASHED
    assert run_isolated(jobs.allocate, 600 << 20, timeout_s=10) == 600 << 20


def test_threads_are_pinned() -> None:
    assert run_isolated(jobs.threads, timeout_s=30) == {"opencv": 1, "openmp": "1"}


def test_what_cannot_be_imported_is_refused() -> None:
    with pytest.raises(UsageError, match="top of a module"):
        run_isolated(lambda: 1, timeout_s=1)
    with pytest.raises(UsageError, match="timeout_s"):
        run_isolated(jobs.pid, timeout_s=0)


def test_threads_have_workers_of_their_own_which_outlive_them() -> None:
    pids: list[int] = []

    def call() -> None:
        run_isolated(time.sleep, 0.2, timeout_s=10)
        pids.append(run_isolated(jobs.pid, timeout_s=10))

    began = time.perf_counter()
    callers = [threading.Thread(target=call) for _ in range(3)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert time.perf_counter() - began < 10
    assert len(pids) == 3
    time.sleep(0.7)
    assert all(psutil.pid_exists(one) for one in set(pids))
    assert run_isolated(jobs.pid, timeout_s=10) in pids


def _call_in_child(results: multiprocessing.Queue[tuple[int, int]]) -> None:
    results.put((os.getppid(), run_isolated(jobs.pid, timeout_s=10)))


@pytest.mark.parametrize("daemon", [False, True])
def test_it_works_in_forked_and_daemonic_processes(daemon: bool) -> None:
    """Beam's and the trainer's workers may be either; ours is shared with none of them."""
    ours = run_isolated(jobs.pid, timeout_s=10)
    context = multiprocessing.get_context("fork")
    results: multiprocessing.Queue[tuple[int, int]] = context.Queue()
    child = context.Process(target=_call_in_child, args=(results,), daemon=daemon)
    child.start()
    parent, theirs = results.get(timeout=30)
    child.join(10)
    assert parent == os.getpid() and theirs != ours
    assert run_isolated(jobs.pid, timeout_s=10) == ours
    _wait_until_gone(theirs)


@pytest.mark.parametrize("job", ["pid", "hang", "hang_in_native_code"])
def test_workers_die_with_a_killed_parent(tmp_path: Path, job: str) -> None:
    """Idle, asleep, or in native code that gives Python no turn."""
    code = (
        "import sys, threading, time, psutil; sys.path.insert(0, sys.argv[1]); import isolated_jobs as jobs\n"
        "from storage.isolated import run_isolated\n"
        "run_isolated(jobs.pid, timeout_s=10)\n"
        f"call = lambda: run_isolated(jobs.{job}, timeout_s=600)\n"
        "threading.Thread(target=call, daemon=True).start()\n"
        "time.sleep(0.3); print(*(c.pid for c in psutil.Process().children()), flush=True); time.sleep(600)"
    )
    command = [sys.executable, "-c", code, str(Path(__file__).parent)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        workers = [int(word) for word in parent.stdout.readline().split()]
        assert len(workers) == 1 and psutil.pid_exists(workers[0])
        parent.send_signal(signal.SIGKILL)
    _wait_until_gone(workers[0])


def test_it_works_inside_beam() -> None:
    import apache_beam as beam
    from apache_beam.testing.util import assert_that, equal_to

    with beam.Pipeline(runner="FnApiRunner") as pipeline:
        numbers = pipeline | beam.Create([1, 2, 3]) | beam.Map(_isolated_add)
        assert_that(numbers, equal_to([2, 3, 4]))


def _isolated_add(number: int) -> int:
    return run_isolated(jobs.add, number, 1, timeout_s=30)


def _wait_until_gone(pid: int) -> None:
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        if not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
            return
        time.sleep(0.05)
    raise AssertionError(f"process {pid} is still there")
