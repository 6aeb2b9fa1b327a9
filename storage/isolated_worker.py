"""The worker process behind storage.isolated: runs one job after the other, never outlives its parent.

Messages are pickles on one socket. For each job: ("started",) once its function is imported, then
("result", value) or ("error", exception, its traceback as text).
"""

from __future__ import annotations

import importlib
import os
import pickle
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

from storage.errors import MediaError
from storage.parenthood import end_with_parent
from storage.reasons import Reason

__all__ = ["Job", "main"]

PARENT_CHECK_SECONDS = 0.5
# The parent kills us at the time limit; this is for when it cannot any more.
GRACE_SECONDS = 10.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Job:
    """A function by module and name, its arguments, and the limits it runs under."""

    module: str
    name: str
    args: tuple[Any, ...]
    timeout_s: float
    memory_bytes: int | None


def main(descriptor: int, parent: int) -> None:
    """Run jobs from the socket until it closes or the parent is gone."""
    end_with_parent()
    threading.Thread(target=_follow_parent, args=(parent,), daemon=True).start()
    with Connection(descriptor) as connection:
        while True:
            try:
                data = connection.recv_bytes()
            except (EOFError, OSError):
                return
            for answer in _answers(data):
                connection.send_bytes(answer)


def _follow_parent(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(PARENT_CHECK_SECONDS)
    os._exit(1)


def _answers(data: bytes) -> Any:
    try:
        job: Job = pickle.loads(data)  # noqa: S301 (from our own parent)
        function = _find(job)
        yield pickle.dumps(("started",))
        yield pickle.dumps(("result", _run(job, function)), protocol=pickle.HIGHEST_PROTOCOL)
    except BaseException as exc:  # noqa: BLE001 (every error is the caller's to see, under its own name)
        yield _pickle_error(exc)


def _find(job: Job) -> Callable[..., Any]:
    found: Any = importlib.import_module(job.module)
    for part in job.name.split("."):
        found = getattr(found, part)
    if (cv2 := sys.modules.get("cv2")) is not None:
        cv2.setNumThreads(1)
    function: Callable[..., Any] = found
    return function


def _run(job: Job, function: Callable[..., Any]) -> Any:
    # The default action of SIGALRM ends the process even when native code hangs without giving Python a turn.
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_REAL, job.timeout_s + GRACE_SECONDS)
    try:
        with _MemoryLimit(job.memory_bytes):
            return function(*job.args)
    except MemoryError as exc:
        limit = "" if job.memory_bytes is None else f" than {job.memory_bytes >> 20} MiB"
        raise MediaError(f"it needs more memory{limit}", reason=Reason.CRASHED) from exc
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


class _MemoryLimit:
    """Lets the block allocate so many bytes more than the process has now (Linux; elsewhere no limit)."""

    def __init__(self, more: int | None) -> None:
        self._more = more
        self._before: tuple[int, int] | None = None

    def __enter__(self) -> None:
        now = _address_space()
        if self._more is None or now is None:
            return
        import resource

        self._before = resource.getrlimit(resource.RLIMIT_AS)
        resource.setrlimit(resource.RLIMIT_AS, (now + self._more, self._before[1]))

    def __exit__(self, *exc: object) -> None:
        if self._before is not None:
            import resource

            resource.setrlimit(resource.RLIMIT_AS, self._before)


def _address_space() -> int | None:
    try:
        with open("/proc/self/statm", encoding="ascii") as stream:
            return int(stream.read().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError):
        return None


def _pickle_error(exc: BaseException) -> bytes:
    text = "".join(traceback.format_exception(exc))
    try:
        data = pickle.dumps(("error", exc, text))
        pickle.loads(data)  # noqa: S301 (some errors pickle but do not come back)
        return data
    except BaseException:  # noqa: BLE001 (whatever a foreign error's pickling does)
        return pickle.dumps(("error", RuntimeError(f"{type(exc).__name__}: {exc}"), text))
