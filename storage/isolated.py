"""Running code that may crash or hang, such as decoders on strangers' files, in a killable process.

Workers are plain child processes that live on between calls, so a call costs a message and not a start.
They work inside Beam workers, are not shared across forks, and end by themselves when their parent dies.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import logging
import os
import pickle
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from multiprocessing.connection import Pipe
from typing import Any, TypeVar

from storage.errors import MediaError, UsageError
from storage.isolated_worker import Job
from storage.reasons import Reason

__all__ = ["PINNED", "run_isolated", "stop_workers"]

logger = logging.getLogger(__name__)

START_SECONDS = 120.0
# A fresh process now and then bounds whatever native libraries leak.
JOBS_PER_WORKER = 500
PINNED = {
    name: "1"
    for name in (
        "OMP_NUM_THREADS",
        "OPENBLAS_NUM_THREADS",
        "MKL_NUM_THREADS",
        "NUMBA_NUM_THREADS",
        "OPENCV_FOR_THREADS_NUM",
    )
}
BOOT = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); "
    "from storage.isolated_worker import main; main(int(sys.argv[2]), int(sys.argv[3]))"
)

T = TypeVar("T")


def run_isolated(
    function: Callable[..., T], *args: Any, timeout_s: float, memory_bytes: int | None = None
) -> T:
    """Call `function(*args)` in a worker process and return its result.

    `function` must be importable by its module and name, arguments and result must pickle. Errors raised
    inside come back as themselves. Raises MediaError with reason timeout when the call takes longer than
    `timeout_s` seconds (starting a worker and importing do not count), or crashed when the process dies or
    needs `memory_bytes` more than it had. Safe to call from several threads, each then has its own worker.
    """
    if timeout_s <= 0:
        raise UsageError(f"timeout_s must be above 0 seconds, got {timeout_s}")
    module, name = function.__module__, function.__qualname__
    if module == "__main__" or "<" in name:
        raise UsageError(f"{module}.{name} cannot be imported by a worker; move it to the top of a module")
    job = Job(module=module, name=name, args=args, timeout_s=timeout_s, memory_bytes=memory_bytes)
    pool = _pool
    worker = pool.take()
    try:
        answer = worker.run(job)
    except BaseException:
        worker.kill()
        raise
    pool.give_back(worker)
    if answer[0] == "error":
        _, error, text = answer
        error.add_note(f"in a worker process:\n{text}")
        raise error
    result: T = answer[1]
    return result


def stop_workers() -> None:
    """End this process's idle workers; the next call starts a new one."""
    _pool.stop()


class _Worker:
    """One child process, used by one call at a time."""

    def __init__(self) -> None:
        self.jobs = 0
        # What native code prints must not run into the progress bars; its last words go into the error.
        self._output = tempfile.TemporaryFile()  # noqa: SIM115 (lives as long as the worker)
        self._connection, theirs = Pipe()
        command = [sys.executable, "-c", BOOT, json.dumps(sys.path), str(theirs.fileno()), str(os.getpid())]
        with theirs:
            self._process = subprocess.Popen(  # noqa: S603 (our own interpreter and code)
                command,
                env={**os.environ, **PINNED},
                stdin=subprocess.DEVNULL,
                stdout=self._output,
                stderr=self._output,
                pass_fds=[theirs.fileno()],
                start_new_session=True,  # Ctrl-C is the parent's to handle
            )

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def run(self, job: Job) -> tuple[Any, ...]:
        """The worker's last answer to a job."""
        self.jobs += 1
        self._send(job)
        answer = self._receive(START_SECONDS, job)
        if answer[0] == "started":
            answer = self._receive(job.timeout_s, job)
        return answer

    def kill(self) -> None:
        """End the process now."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._connection.close()
        self._output.close()

    def _send(self, job: Job) -> None:
        data = pickle.dumps(job, protocol=pickle.HIGHEST_PROTOCOL)
        try:
            self._connection.send_bytes(data)
        except (BrokenPipeError, ConnectionResetError) as exc:
            raise self._crashed(job) from exc

    def _receive(self, timeout_s: float, job: Job) -> tuple[Any, ...]:
        try:
            if not self._connection.poll(timeout_s):
                message = f"{job.name} took longer than {timeout_s:g} s and was stopped"
                raise MediaError(message, reason=Reason.TIMEOUT)
            answer: tuple[Any, ...] = pickle.loads(self._connection.recv_bytes())  # noqa: S301 (our own child)
            return answer
        except (EOFError, ConnectionResetError) as exc:
            raise self._crashed(job) from exc

    def _crashed(self, job: Job) -> MediaError:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(5)
        code = self._process.returncode
        how = (
            f"signal {signal.Signals(-code).name}" if code is not None and code < 0 else f"exit status {code}"
        )
        words = self._last_words()
        return MediaError(
            f"{job.name} crashed its process ({how}){f': {words}' if words else ''}", reason=Reason.CRASHED
        )

    def _last_words(self) -> str:
        self._output.seek(0, os.SEEK_END)
        self._output.seek(max(self._output.tell() - 300, 0))
        lines = self._output.read().decode(errors="replace").strip().splitlines()
        return lines[-1] if lines else ""


@dataclass
class _Pool:
    """The idle workers of one process."""

    idle: list[_Worker] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)
    # Workers die with the thread that started them, so it must be one that lives as long as the process.
    starter: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(max_workers=1))

    def take(self) -> _Worker:
        with self.lock:
            while self.idle:
                worker = self.idle.pop()
                if worker.alive:
                    return worker
                worker.kill()
        return self.starter.submit(_Worker).result()

    def give_back(self, worker: _Worker) -> None:
        if worker.jobs >= JOBS_PER_WORKER:
            worker.kill()
            return
        with self.lock:
            self.idle.append(worker)

    def stop(self) -> None:
        with self.lock:
            while self.idle:
                self.idle.pop().kill()


_pool = _Pool()


def _renew_pool() -> None:
    global _pool
    _pool = _Pool()


# After a fork the workers still belong to the parent.
os.register_at_fork(after_in_child=_renew_pool)
atexit.register(lambda: _pool.stop())
