"""What every figure is compared with: pictures made without the animator, motion made without the network.

Pictures at time t between a start and an end: the start held still, a cross-fade, a plain splat of colours.
Motion: none at all, and the mean motion of all other sources. Legend: H, W rows and columns; motion (2, H, W)
in pixels per frame, (dx, dy), y down; frames (H, W, 3) uint8; moving (H, W) in [0, 1].
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from models.euler import euler_step, integrate_motion
from models.softmax_splatting import splat_sums_numpy
from models.warp import bilinear_warp, resize_motion

__all__ = ["cross_fade", "cross_fade_loop", "mean_motions", "splat_between"]

Floats = NDArray[np.float32]
Bytes = NDArray[np.uint8]

LEAST_WEIGHT = 1e-6  # of a still source: as good as nothing, and its logarithm is finite
MEAN_GRID = (36, 64)


def cross_fade(start_HW3: Bytes, end_HW3: Bytes, alpha: float) -> Bytes:
    """(1 − alpha) · start + alpha · end."""
    return np.asarray(cv2.addWeighted(start_HW3, 1 - alpha, end_HW3, alpha, 0), np.uint8)


def splat_between(
    start_HW3: Bytes, end_HW3: Bytes, fields: tuple[Floats, Floats], moving_HW: Floats, alpha: float
) -> Bytes:
    """Colours of start and end pushed along `fields` (start → t, end → t) and averaged; holes cross-fade."""
    importance = np.log(np.maximum(moving_HW, LEAST_WEIGHT)).astype(np.float32)
    sources: list[tuple[Floats, Floats, Floats | None, float]] = [
        (picture.astype(np.float32), field, importance, math.log(share))
        for picture, field, share in zip((start_HW3, end_HW3), fields, (1 - alpha, alpha), strict=True)
        if share > 0
    ]
    sums, weights = splat_sums_numpy(sources)
    faded = cross_fade(start_HW3, end_HW3, alpha).astype(np.float32)
    landed = np.divide(sums, weights[..., None], out=faded, where=weights[..., None] > 0)
    return _over(start_HW3, landed, moving_HW)


def cross_fade_loop(
    photo_HW3: Bytes,
    motion_2HW: Floats,
    moving_HW: Floats,
    frames: int,
    times: Collection[int] | None = None,
) -> Iterator[Bytes]:
    """A loop without splatting: the photo looked up along the motion, forward and backward, cross-faded.

    What many animation tools do: pixel x of frame t shows the photo at x − F, blended as α = t/N. `times`:
    only these frames.
    """
    photo = np.ascontiguousarray(photo_HW3, np.float32)
    backward = list(integrate_motion(motion_2HW, frames))  # all of them: for clips, not for large photos
    forward = np.zeros_like(motion_2HW)
    for t in range(frames):
        if times is None or t in times:
            # A lookup goes against the motion: to show what arrives at t, follow it back for t frames.
            ahead, behind = bilinear_warp(photo, forward), bilinear_warp(photo, backward[frames - t])
            yield _over(photo_HW3, (1 - t / frames) * ahead + t / frames * behind, moving_HW)
        forward = euler_step(forward, -motion_2HW)


def mean_motions(
    motions: Sequence[Floats], movings: Sequence[Floats], sources: Sequence[str]
) -> list[tuple[Floats, Floats]]:
    """For each sample the mean motion and mean moving mask of all other sources, at the sample's size.

    Motion is averaged relative to the picture's size, place by place; every source counts once.
    """
    names = sorted(set(sources))
    per_source = {name: [i for i, source in enumerate(sources) if source == name] for name in names}
    relative = [_relative(motion, moving) for motion, moving in zip(motions, movings, strict=True)]
    means = {name: np.mean([relative[i] for i in rows], axis=0) for name, rows in per_source.items()}
    found = []
    for motion, source in zip(motions, sources, strict=True):
        others = [means[name] for name in names if name != source]
        mean = np.mean(others, axis=0) if others else np.zeros((3, *MEAN_GRID))
        size = (motion.shape[1], motion.shape[2])
        field = resize_motion(mean[:2].astype(np.float32), size)
        moving = cv2.resize(mean[2].astype(np.float32), size[::-1], interpolation=cv2.INTER_LINEAR)
        found.append((field, np.asarray(moving, np.float32)))
    return found


def _relative(motion_2HW: Floats, moving_HW: Floats) -> NDArray[np.float64]:
    field = resize_motion(np.ascontiguousarray(motion_2HW * moving_HW, np.float32), MEAN_GRID)
    moving = cv2.resize(moving_HW, MEAN_GRID[::-1], interpolation=cv2.INTER_AREA)
    return np.concatenate((field, np.asarray(moving)[None]), 0).astype(np.float64)


def _over(photo_HW3: Bytes, colours_HW3: Floats, moving_HW: Floats) -> Bytes:
    """The colours over the photo where something moves."""
    photo = photo_HW3.astype(np.float32)
    blended = photo + moving_HW[..., None] * (colours_HW3 - photo)
    return np.clip(np.rint(blended), 0, 255).astype(np.uint8)
