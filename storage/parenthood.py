"""Processes that must not outlive the one that started them."""

from __future__ import annotations

import contextlib
import ctypes
import signal

__all__ = ["end_with_parent"]


def end_with_parent(number: int = signal.SIGKILL) -> None:
    """On Linux the kernel sends us `number` when the thread that started us ends, even in native code."""
    set_parent_death_signal = 1
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(set_parent_death_signal, number)
