"""The displacements of a loop's frames, made one after the other, so that memory stays flat.

Fields are (2, h, w) float32 on whatever grid the motion has, in that grid's cells.
"""

import math
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from models.euler import euler_step

__all__ = ["backward_displacements", "loop_displacements"]

Floats = NDArray[np.float32]


def loop_displacements(motion: Floats, period: int) -> Iterator[tuple[Floats, Floats, float]]:
    """Yield F(0→t), F(0→t−N) and α = t/N for t = 0 … N−1, where N is the period."""
    forward = np.zeros_like(motion)
    for t, backward in enumerate(backward_displacements(motion, period)):
        yield forward, backward, t / period
        if t + 1 < period:
            forward = euler_step(forward, motion)


def backward_displacements(motion: Floats, period: int) -> Iterator[Floats]:
    """Yield F(0→−N), F(0→−N+1), … F(0→−1), although integration runs the other way.

    Every √N-th field is kept and those between are integrated a second time: √N fields in memory, not N.
    """
    stride = max(1, math.isqrt(period))
    reverse = -motion
    field = np.zeros_like(motion)
    kept = [field]
    for step in range(1, period + 1):
        field = euler_step(field, reverse)
        if step % stride == 0:
            kept.append(field)
    end = period
    while kept:
        run = [kept.pop()]
        start = len(kept) * stride
        while start + len(run) <= end:
            run.append(euler_step(run[-1], reverse))
        # F(0→0) itself is nobody's backward displacement.
        yield from reversed(run if start > 0 else run[1:])
        end = start - 1
