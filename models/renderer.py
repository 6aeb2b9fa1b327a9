# ruff: noqa: N803 - names carry their dimensions
"""Render a photo and a motion field as a loop, by symmetric splatting over the untouched photo.

Frame t of a period of N pushes the moving pixels forward along F(0→t) with weight 1 − t/N and backward along
F(0→t−N) with weight t/N, and divides by the common sum of weights (Holynski et al. 2021, section 4). Frame 0
is the photo, frame N would be frame 0. Still pixels keep the photo's bytes in every frame.

Legend: H, W rows and columns; motion is (2, H, W), (dx, dy) in pixels per output frame, x right, y down.
"""

import logging
import math
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

from models.euler import euler_step
from models.loop_kernels import average_band, composite_band, splat_window
from models.loop_plan import Box, LoopConfig, LoopSource, moving_box, prepare_source
from models.push_pull import push_pull
from storage.errors import UsageError

__all__ = ["LoopConfig", "render_loop"]

logger = logging.getLogger(__name__)

Floats = NDArray[np.float32]
Bytes = NDArray[np.uint8]

# Below this sum of weights a pixel is filled from its surroundings, gradually.
ENOUGH_WEIGHT = 0.05
# Frames are drawn in bands of about this many pixels, so that buffers stay small for huge photos.
BAND_PIXELS = 1_000_000


def render_loop(
    photo_HW3: Bytes, motion_2HW: Floats, moving_HW: Floats, config: LoopConfig
) -> Iterator[Bytes]:
    """Yield `config.frames` frames (H, W, 3) uint8; the first is the photo.

    photo: (H, W, 3) uint8; motion: (2, H, W) pixels per output frame; moving: (H, W) in [0, 1], 0 = still.
    The result does not depend on the number of threads. Raises UsageError for arrays that do not fit.
    """
    _check_arrays(photo_HW3, motion_2HW, moving_HW)
    moving = np.ascontiguousarray(moving_HW, dtype=np.float32)
    if moving_box(moving) is None:
        return (photo_HW3.copy() for _ in range(config.frames))
    source = prepare_source(photo_HW3, motion_2HW, moving, config)
    logger.debug("loop of periods %s on a grid of step %d", source.periods, source.step)
    return _frames(photo_HW3, moving, source, config)


def _check_arrays(photo: Bytes, motion: Floats, moving: Floats) -> None:
    if photo.ndim != 3 or photo.shape[2] != 3 or photo.dtype != np.uint8:
        raise UsageError(f"photo must be (H, W, 3) uint8, got {photo.shape} {photo.dtype}; convert it to RGB")
    size = photo.shape[:2]
    if motion.shape != (2, *size):
        raise UsageError(f"motion must be {(2, *size)}, got {motion.shape}; use resize_motion")
    if moving.shape != size:
        raise UsageError(f"moving must be {size}, got {moving.shape}; resize the mask to the photo")
    if not np.isfinite(motion).all():
        raise UsageError("motion holds values that are not finite; set them to zero where nothing moves")


def _frames(photo: Bytes, moving: Floats, source: LoopSource, config: LoopConfig) -> Iterator[Bytes]:
    def draw(forward: Floats, backward: Floats, alpha: float) -> Bytes:
        if alpha == 0.0:
            return photo.copy()
        return _draw_frame(photo, moving, source, (forward, backward), alpha)

    jobs = (job for period in source.periods for job in _displacements(source.motion_grid, period))
    if config.threads == 1:
        yield from (draw(*job) for job in jobs)
        return
    with ThreadPoolExecutor(config.threads) as pool:
        yield from _in_order(pool, draw, jobs, config.threads + 1)


def _in_order(
    pool: ThreadPoolExecutor,
    draw: Callable[[Floats, Floats, float], Bytes],
    jobs: Iterator[tuple[Floats, Floats, float]],
    ahead: int,
) -> Iterator[Bytes]:
    """Results in the jobs' order with at most `ahead` of them under way: memory stays flat."""
    waiting: deque[Future[Bytes]] = deque()
    for job in jobs:
        waiting.append(pool.submit(draw, *job))
        if len(waiting) >= ahead:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


def _displacements(motion: Floats, period: int) -> Iterator[tuple[Floats, Floats, float]]:
    """F(0→t), F(0→t−N) and t/N for t = 0 … N−1."""
    forward = np.zeros_like(motion)
    for t, backward in enumerate(_backwards(motion, period)):
        yield forward, backward, t / period
        forward = euler_step(forward, motion)


def _backwards(motion: Floats, period: int) -> Iterator[Floats]:
    """F(0→−N), F(0→−N+1), … F(0→−1), although integration runs the other way.

    Every √N-th field is kept and the ones between are integrated again: √N fields in memory instead of N.
    """
    stride = max(1, math.isqrt(period))
    reverse = -motion
    field = np.zeros_like(motion)
    kept = [field]
    for step in range(1, period + 1):
        field = euler_step(field, reverse)
        if step % stride == 0:
            kept.append(field)
    for index in range(len(kept) - 1, -1, -1):
        first, last = index * stride, min(index * stride + stride - 1, period)
        run = [kept[index]]
        for _ in range(first, last):
            run.append(euler_step(run[-1], reverse))
        for steps, field in zip(range(last, first - 1, -1), reversed(run), strict=True):
            if steps > 0:
                yield field


def _draw_frame(
    photo: Bytes, moving: Floats, source: LoopSource, fields: tuple[Floats, Floats], alpha: float
) -> Bytes:
    frame = photo.copy()
    for band in _bands(source.box):
        colour = _splat_band(moving[band.slices], source, band, fields, alpha)
        composite_band(colour, moving[band.slices], photo[band.slices], frame[band.slices])
    return frame


def _bands(box: Box) -> Iterator[Box]:
    height = max(64, BAND_PIXELS // box.width)
    for top in range(box.top, box.bottom, height):
        yield Box(top=top, left=box.left, bottom=min(top + height, box.bottom), right=box.right)


def _splat_band(
    moving: Floats, source: LoopSource, band: Box, fields: tuple[Floats, Floats], alpha: float
) -> Floats:
    """Colours (h, w, 3) of one band, 0 … 255, holes filled."""
    sums = np.zeros((band.height + 2, band.width + 2, 4), np.float32)
    offset_y = source.offset[0] + source.box.top - band.top
    for field, share in zip(fields, (1.0 - alpha, alpha), strict=True):
        splat_window(
            source.weighted_hw4, source.active, field, source.step, share, offset_y, source.offset[1], sums
        )
    colour = np.empty((band.height, band.width, 3), np.float32)
    if average_band(sums, moving, ENOUGH_WEIGHT, colour):
        return push_pull(colour, sums[1:-1, 1:-1, 3], enough=ENOUGH_WEIGHT)
    return colour
