"""Transforms that workers of a pool import by this module's name."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

import apache_beam as beam

__all__ = ["KillYourself", "SayWho"]


class SayWho(beam.DoFn):
    """Writes a file per item that says which process it was done in, slowly when asked to."""

    def __init__(self, folder: str, seconds: float) -> None:
        self._folder = folder
        self._seconds = seconds

    def process(self, item: int) -> Any:
        time.sleep(self._seconds)
        threads = os.environ["NUMBA_NUM_THREADS"]
        Path(self._folder, f"{item}-{os.getpid()}").write_text(threads)
        beam.metrics.Metrics.counter("stillstream", "items").inc()
        yield item


class KillYourself(beam.DoFn):
    """Does to its process what a full memory does."""

    def process(self, item: int) -> Any:
        os.kill(os.getpid(), signal.SIGKILL)
        yield item
