"""Render a photo and a motion field as a loop, by symmetric splatting over the untouched photo.

Frame t of a period of N pushes the moving pixels forward along F(0→t) with weight 1 − t/N and backward along
F(0→t−N) with weight t/N, and divides by the common sum of weights (Holynski et al. 2021, section 4). Frame 0
is the photo, frame N would be frame 0. Still pixels keep the photo's bytes in every frame.

Legend: H, W rows and columns; motion is (2, H, W), (dx, dy) in pixels per output frame, x right, y down.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from models.contrast import plan_contrast
from models.frame_painter import FramePainter
from models.loop_displacements import loop_displacements
from models.loop_plan import LoopConfig, moving_box, prepare_source
from models.seam import even_seam
from storage.errors import UsageError

if TYPE_CHECKING:
    from models.animator import Animator

__all__ = ["LoopConfig", "render_loop"]

logger = logging.getLogger(__name__)

Floats = NDArray[np.float32]
Bytes = NDArray[np.uint8]
Job = tuple[Floats, Floats, float]

# A period's crops are kept for the next period when they fit into this many bytes.
KEPT_BYTES = 128 * 2**20
DEEP_ALONE_PIXELS = 12_000_000  # beyond it deep frames are painted one at a time


def render_loop(
    photo_HW3: Bytes,
    motion_2HW: Floats,
    moving_HW: Floats,
    config: LoopConfig,
    animator: Animator | None = None,
    times: Collection[int] | None = None,
) -> Iterator[Bytes]:
    """Yield `config.frames` frames (H, W, 3) uint8; the first is the photo.

    photo: (H, W, 3) uint8; motion: (2, H, W) pixels per output frame; moving: (H, W) in [0, 1], 0 = still;
    animator: corrects the splatted colours, None leaves them; times: only these frames of the loop, in rising
    order from 0. The result does not depend on the number of threads. Frames are to be read only: they may
    share memory with the photo. Raises UsageError for arrays that do not fit together.
    """
    _check_arrays(photo_HW3, motion_2HW, moving_HW)
    wanted = range(config.frames) if times is None else times
    moving = np.ascontiguousarray(moving_HW, dtype=np.float32)
    if moving_box(moving) is None or config.speed == 0.0:
        return (photo_HW3.copy() for _ in wanted)
    return _loop_frames(photo_HW3, motion_2HW, moving, config, animator, wanted)


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


def _loop_frames(
    photo: Bytes,
    motion: Floats,
    moving: Floats,
    config: LoopConfig,
    animator: Animator | None,
    times: Collection[int],
) -> Iterator[Bytes]:
    painter = _painter(photo, motion, moving, config, animator)
    del motion  # 200 MB at 24 megapixels, and the painter has what it needs of it
    box = painter.source.box
    # A deep frame of a huge photo takes half a gigabyte, and its convolutions use all cores anyway.
    alone = animator is not None and box.height * box.width > DEEP_ALONE_PIXELS
    crops = _painted(painter, 1 if alone else config.threads, times)
    for crop in even_seam(crops, config.frames, times):
        if crop.shape == photo.shape:
            yield crop  # a copy of a huge one would be a hundred megabytes
            continue
        frame = photo.copy()
        frame[box.slices] = crop
        yield frame


def _painter(
    photo: Bytes, motion: Floats, moving: Floats, config: LoopConfig, animator: Animator | None
) -> FramePainter:
    source = prepare_source(photo, motion, moving, config)
    logger.debug("periods %s, displacements on a grid of step %d", source.periods, source.step)
    contrast = plan_contrast(source, max(photo.shape[:2])) if config.contrast else None
    correction = None
    if animator is not None:
        from models.deep_correction import DeepCorrection

        correction = DeepCorrection(animator, source)
    return FramePainter(photo=photo, moving=moving, source=source, contrast=contrast, correction=correction)


def _painted(painter: FramePainter, threads: int, times: Collection[int]) -> Iterator[Bytes]:
    """The moving crops of a loop's frames; a period that was just painted is shown again, not painted."""
    source = painter.source
    kept: list[Bytes] = []
    start = 0
    with ThreadPoolExecutor(threads) as pool:
        for period in source.periods:
            wanted = [time - start for time in times if start <= time < start + period]
            start += period
            if len(kept) == len(wanted) == period:
                yield from kept
                continue
            fits = period * source.box.height * source.box.width * 3 <= KEPT_BYTES
            keep = fits and len(source.periods) > 1
            kept = []
            every = loop_displacements(source.motion_grid, period)
            jobs = (job for time, job in enumerate(every) if time in wanted)
            for crop in _in_order(pool, painter.paint, jobs, threads):
                if keep:
                    kept.append(crop)
                yield crop


def _in_order(
    pool: ThreadPoolExecutor, paint: Callable[[Floats, Floats, float], Bytes], jobs: Iterator[Job], ahead: int
) -> Iterator[Bytes]:
    """Results in the jobs' order, at most `ahead` of them under way or waiting: memory stays flat."""
    waiting: deque[Future[Bytes]] = deque()
    try:
        for job in jobs:
            waiting.append(pool.submit(paint, *job))
            if len(waiting) >= ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        # The caller may stop early; nothing it will not look at should still be painted.
        for future in waiting:
            future.cancel()
