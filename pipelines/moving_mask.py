"""Which pixels of a clip move: optical flow says roughly, the pixels themselves say exactly.

Optical flow compares patches, so motion leaks some pixels over the border of what moves, and is too slow just
inside it. Still ground gives itself away: its pixels keep their values although there is texture that
motion would shift.

Shapes: average_2HW px/frame at 30 fps; moving_HW bool; change_HW mean |difference of adjacent frames| in grey
levels; mean_HW the mean frame in grey levels.
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

__all__ = ["Change", "find_moving", "sharpen_border"]

Plane = NDArray[np.float32]

# A pixel is still when it changes by less than this share of what its texture would under its motion.
TEXTURE_SHARE = 0.25
# ... or by less than this share of what moving pixels around it do, and by no more than so many levels.
NEIGHBOUR_SHARE = 0.35
STILL_LEVELS = 2.0
# Widths for a picture of 512 px; they grow with it as the reach of optical flow does.
NEIGHBOURHOOD = 31
BORDER = 16
BORDER_WINDOW = 21


class Change:
    """Sums up how the pixels of a clip's grey frames change, frame by frame."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        self._change_HW = np.zeros(shape, dtype=np.float32)
        self._sum_HW = np.zeros(shape, dtype=np.float32)
        self._pairs = 0

    def add(self, first: NDArray[np.uint8], second: NDArray[np.uint8]) -> None:
        """Take in one pair of adjacent frames."""
        cv2.accumulate(cv2.absdiff(first, second), self._change_HW)
        cv2.accumulate(second, self._sum_HW)
        self._pairs += 1

    @property
    def change_HW(self) -> Plane:  # noqa: N802
        """Mean change of a pixel from frame to frame, grey levels."""
        return self._change_HW / np.float32(max(self._pairs, 1))

    @property
    def mean_HW(self) -> Plane:  # noqa: N802
        """The mean frame, grey levels."""
        return self._sum_HW / np.float32(max(self._pairs, 1))


def find_moving(average_2HW: Plane, change: Change, limit: float) -> NDArray[np.bool_]:
    """Pixels that move faster than `limit` (px/frame) and are not seen to stand still; no specks."""
    speed_HW = cv2.magnitude(average_2HW[0], average_2HW[1])
    fast_HW: Any = (speed_HW > limit).astype(np.uint8)
    if not fast_HW.any():
        return np.zeros(fast_HW.shape, dtype=bool)
    # Optical flow has no detail finer than its patches: what is smaller is noise.
    size = max(3, min(fast_HW.shape) // 64 | 1)
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (size, size))
    fast_HW = cv2.morphologyEx(fast_HW, cv2.MORPH_CLOSE, kernel)
    moving_HW: Any = fast_HW & ~_seen_still(average_2HW, change, fast_HW)
    moving_HW = cv2.morphologyEx(moving_HW, cv2.MORPH_CLOSE, kernel)
    return np.asarray(cv2.morphologyEx(moving_HW, cv2.MORPH_OPEN, kernel), dtype=bool)


def _seen_still(average_2HW: Plane, change: Change, fast_HW: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """1 where the pixels themselves show that nothing moves."""
    change_HW = cv2.blur(change.change_HW, (3, 3))
    mean_HW = change.mean_HW
    # Moving texture blurs in the mean frame, so that only still texture has a gradient there.
    across_HW = cv2.Sobel(mean_HW, cv2.CV_32F, 1, 0, ksize=3, scale=0.125)
    down_HW = cv2.Sobel(mean_HW, cv2.CV_32F, 0, 1, ksize=3, scale=0.125)
    # Only texture across the motion tells: a streak that slides along itself looks the same.
    expected_HW = TEXTURE_SHARE * cv2.blur(
        np.abs(average_2HW[0] * across_HW + average_2HW[1] * down_HW), (5, 5)
    )
    size = _window(NEIGHBOURHOOD, fast_HW.shape)
    weight_HW = fast_HW.astype(np.float32)
    around_HW = cv2.blur(change_HW * weight_HW, size) / np.maximum(cv2.blur(weight_HW, size), 1e-3)
    quiet_HW = change_HW < np.minimum(STILL_LEVELS, NEIGHBOUR_SHARE * around_HW)
    return np.asarray((change_HW < expected_HW) | quiet_HW, dtype=np.uint8)


def sharpen_border(average_2HW: Plane, moving_HW: NDArray[np.bool_]) -> Plane:
    """The motion of moving pixels, zero elsewhere; near the border it is taken from faster pixels around.

    There optical flow mixes what moves with what does not, so a mean weighted by speed is nearer the truth.
    """
    moving = moving_HW.astype(np.float32)
    speed_HW = np.asarray(cv2.magnitude(average_2HW[0], average_2HW[1]), dtype=np.float32) * moving
    size = _window(BORDER_WINDOW, moving.shape)
    total_HW = cv2.blur(speed_HW, size) + np.float32(1e-6)
    inward_2HW = np.stack([cv2.blur(plane * speed_HW, size) / total_HW for plane in average_2HW])
    depth_HW = cv2.distanceTransform(moving_HW.astype(np.uint8), cv2.DIST_L2, 3)
    reach = BORDER * max(moving.shape) / 512.0
    share_HW = np.clip(1.0 - depth_HW / reach, 0.0, 1.0).astype(np.float32)
    mixed_2HW = average_2HW + share_HW * (inward_2HW - average_2HW)
    return np.asarray(mixed_2HW * moving, dtype=np.float32)


def _window(size: int, shape: tuple[int, ...]) -> tuple[int, int]:
    scaled = round(size * max(shape) / 512.0) | 1
    return scaled, scaled
