"""Functions that behave badly, for the tests of the killable worker."""

from __future__ import annotations

import ctypes
import os
import re
import time
from typing import Any

from storage.errors import RejectedError
from storage.reasons import Reason

__all__ = [
    "add",
    "allocate",
    "crash",
    "echo",
    "hang",
    "hang_in_native_code",
    "leave",
    "pid",
    "reject",
    "threads",
]


def add(first: int, second: int) -> int:
    return first + second


def echo(value: Any) -> Any:
    return value


def pid() -> int:
    return os.getpid()


def hang() -> None:
    time.sleep(3600)


def hang_in_native_code() -> None:
    """Backtracks for ages without ever giving another Python thread a turn."""
    re.match(r"(a+)+$", "a" * 60 + "b")


def crash() -> None:
    ctypes.string_at(0)


def leave() -> None:
    print("some last words")  # noqa: T201 (what a native library might say)
    os._exit(3)


def reject() -> None:
    raise RejectedError("a cut at 1.2 s", reason=Reason.CUT)


def bug() -> None:
    raise KeyError("a bug of ours")


def allocate(size: int) -> int:
    return len(bytearray(size))


def threads() -> dict[str, Any]:
    import cv2

    return {"opencv": cv2.getNumThreads(), "openmp": os.environ["OMP_NUM_THREADS"]}
