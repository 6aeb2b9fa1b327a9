"""Transforms that workers of a pool import by this module's name."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import apache_beam as beam

__all__ = ["SayWho"]


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
