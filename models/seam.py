"""Keep the step from the last frame to the first no larger than the largest step inside the loop.

By symmetry the two are nearly equal, since the photo is both the loop's start and its end; which of them is
larger by a percent is chance. Where it is the seam, the last frame is pulled towards the first by as much.
"""

import math
from collections.abc import Iterable, Iterator

import numpy as np
from numpy.typing import NDArray

from models.compiled import compiled

__all__ = ["even_seam", "step_size"]

Bytes = NDArray[np.uint8]
Step = tuple[float, float]


def even_seam(frames: Iterator[Bytes], count: int, times: Iterable[int] | None = None) -> Iterator[Bytes]:
    """Pass a loop's frames on, the last one adjusted so that the loop closes without its largest step.

    `times`: which of the loop's `count` frames come (None: all); only steps between neighbours count.
    """
    first = previous = None
    before = 0
    largest: Step = (0.0, 0.0)
    for time, frame in zip(range(count) if times is None else times, frames, strict=True):
        if first is None or previous is None:
            first = frame
        elif time == count - 1:
            frame = _pulled(frame, first, previous, largest)
        elif time == before + 1:
            largest = _larger(largest, step_size(previous, frame))
        previous, before = frame, time
        yield frame


def step_size(one: Bytes, other: Bytes) -> Step:
    """Sum of |Δ| and root of the sum of Δ² between two frames (h, w, 3) uint8, in grey levels."""
    total, squares = _differences(one.reshape(-1), other.reshape(-1))
    return float(total), math.sqrt(float(squares))


def _pulled(last: Bytes, first: Bytes, previous: Bytes, largest: Step) -> Bytes:
    seam = step_size(last, first)
    frame = last
    pull = 0.0
    while any(
        own > other for own, other in zip(seam, _larger(largest, step_size(previous, frame)), strict=True)
    ):
        pull += 0.005
        frame = _mixed(last, first, min(pull, 1.0))
        seam = step_size(frame, first)
    return frame


def _mixed(last: Bytes, first: Bytes, share: float) -> Bytes:
    """The last frame with so much of the first; row by row, for whole planes of floats take gigabytes."""
    mixed = np.empty_like(last)
    for own, other, row in zip(last, first, mixed, strict=True):
        row[:] = np.rint(own + np.float32(share) * (other.astype(np.float32) - own))
    return mixed


def _larger(one: Step, other: Step) -> Step:
    return max(one[0], other[0]), max(one[1], other[1])


@compiled
def _differences(one: Bytes, other: Bytes) -> tuple[np.int64, np.int64]:
    total = squares = np.int64(0)
    for i in range(one.size):
        # Signed on purpose: the compiler would subtract bytes as unsigned numbers.
        difference = np.int64(one[i]) - np.int64(other[i])
        total += abs(difference)
        squares += difference * difference
    return total, squares
