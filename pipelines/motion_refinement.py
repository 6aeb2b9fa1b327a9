"""The average motion of a clip made exact, by what it leaves unexplained in frames some steps apart.

Flow from one frame to the next is too slow by a few hundredths of a pixel: grain, and what compression leaves
standing, look like rest, and the average keeps that. Over several frames the same miss grows, and grain does
not. Since the motion is steady, all pairs of frames share one field, and one step of least squares over them
(Lucas and Kanade, IJCAI 1981, summed over pairs as well as over a window) finds what is missing.

H, W: the clip's own size; h, w: half of it, on which windows are compared. Motion is (dx, dy) in px/frame of
the whole size at 30 fps.
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

__all__ = ["refine_motion"]

Plane = NDArray[np.float32]

PAIRS = 8  # spread over the clip
SPAN = 4.0  # frames of 30 fps from the one to the other
REACH = 16.0  # px that the fastest may move meanwhile; farther, what is missed outgrows the window
FASTEST = 95  # percentile of the moving pixels' speed
WINDOW = 1.5  # px of the half size, sigma of the window in which pixels move alike
WINDOW_SIDE = (7, 7)
LEAST_TEXTURE = 1.0  # squared levels per pixel, added to every window's
FARTHEST = 1.0  # px/frame; what is missed by more was lost, not inexact
MARGIN = 12  # px around what moves, for the windows
AGREEMENT_SIDE = (9, 9)  # px of the half size, over which the halves of the pairs are compared


def refine_motion(
    average_2HW: Plane,
    moving_HW: NDArray[np.bool_],
    trust_HW: Plane,
    grey: list[NDArray[np.uint8]],
    steps_T: NDArray[np.float64],
) -> Plane:
    """The motion near `average_2HW` that explains best how the frames of a clip follow from each other.

    `moving_HW`: where it matters. `trust_HW`: in [0, 1], how much of the correction to take. `grey`: frames
    (H, W); `steps_T`: how many frames of 30 fps lie between neighbours. Two frames are too few to correct
    anything by.
    """
    if not moving_HW.any():
        return average_2HW
    fast = float(np.percentile(np.hypot(*average_2HW[:, moving_HW]), FASTEST))
    pairs = _spread_pairs(steps_T, REACH / max(fast, REACH / SPAN))
    box = _box(moving_HW)
    ways = _ways(average_2HW, box, {span for _, _, span in pairs})
    one, other = (_missing(grey, half, ways) for half in (pairs[::2], pairs[1::2]))
    # What noise, flicker or a flame suggests to the one half, it does not suggest to the other.
    mean_2hw = (one + other) * np.float32(0.5)
    agreeing_hw = cv2.blur((one * other).sum(axis=0), AGREEMENT_SIDE)
    whole_hw = cv2.blur((mean_2hw * mean_2hw).sum(axis=0), AGREEMENT_SIDE)
    share_hw = np.clip(agreeing_hw / np.maximum(whole_hw, np.float32(1e-9)), 0.0, 1.0)
    length_hw = cv2.magnitude(mean_2hw[0], mean_2hw[1])
    share_hw *= FARTHEST / np.maximum(length_hw, np.float32(FARTHEST))
    refined_2HW = average_2HW.copy()
    for plane_HW, missing_hw in zip(refined_2HW, mean_2hw, strict=True):
        place = plane_HW[box]
        place += trust_HW[box] * cv2.resize(missing_hw * share_hw, place.shape[::-1])
    return refined_2HW


def _spread_pairs(steps_T: NDArray[np.float64], span: float) -> list[tuple[int, int, float]]:
    """First frame, last frame, and the frames of 30 fps between them: about `span`, at least one step."""
    times = np.concatenate([[0.0], np.cumsum(steps_T)])
    latest = int(np.searchsorted(times, times[-1] - span + 0.5, side="right")) - 1
    pairs = []
    for first in np.unique(np.linspace(0, np.clip(latest, 0, len(steps_T) - 1), PAIRS).round().astype(int)):
        last = max(int(first) + 1, int(np.argmin(np.abs(times - times[first] - span))))
        pairs.append((int(first), last, round(float(times[last] - times[first]), 3)))
    return pairs


def _box(moving_HW: NDArray[np.bool_]) -> tuple[slice, slice]:
    """Rows and columns around all that moves."""
    rows, columns = np.flatnonzero(moving_HW.any(axis=1)), np.flatnonzero(moving_HW.any(axis=0))
    return (
        slice(max(0, rows[0] - MARGIN), rows[-1] + 1 + MARGIN),
        slice(max(0, columns[0] - MARGIN), columns[-1] + 1 + MARGIN),
    )


def _ways(motion_2HW: Plane, box: tuple[slice, slice], spans: set[float]) -> dict[float, tuple[Plane, Plane]]:
    """Where the points of a box were before, and will be after, half of every span, (2, H, W) px each."""
    height, width = motion_2HW.shape[1:]
    place_2HW = np.stack(np.meshgrid(np.arange(width)[box[1]], np.arange(height)[box[0]])).astype(np.float32)
    motion_2HW = motion_2HW[:, *box]
    return {
        span: (place_2HW - motion_2HW * np.float32(span / 2), place_2HW + motion_2HW * np.float32(span / 2))
        for span in spans
    }


def _missing(
    grey: list[NDArray[np.uint8]],
    pairs: list[tuple[int, int, float]],
    ways: dict[float, tuple[Plane, Plane]],
) -> Plane:
    """What the motion misses by these pairs of frames, (2, h, w); zero without pairs."""
    # Products of the gradient (across, down) with itself and with the change along the motion.
    shape = next(iter(ways.values()))[0].shape[1:]
    sums: list[Any] = [np.zeros(shape, dtype=np.float32) for _ in range(5)]
    for first, last, span in pairs:
        # Each frame is moved half the way, so that both are sharp alike and a bend in the way cancels.
        before_HW, after_HW = map(_sampled, (grey[first], grey[last]), ways[span])
        between_HW = cv2.addWeighted(before_HW, 0.5, after_HW, 0.5, 0.0)
        across_HW = cv2.Scharr(between_HW, cv2.CV_32F, 1, 0, scale=1 / 32)
        down_HW = cv2.Scharr(between_HW, cv2.CV_32F, 0, 1, scale=1 / 32)
        change_HW = cv2.addWeighted(after_HW, 1 / span, before_HW, -1 / span, 0.0)
        cv2.accumulateProduct(across_HW, across_HW, sums[0])
        cv2.accumulateProduct(across_HW, down_HW, sums[1])
        cv2.accumulateProduct(down_HW, down_HW, sums[2])
        cv2.accumulateProduct(across_HW, change_HW, sums[3])
        cv2.accumulateProduct(down_HW, change_HW, sums[4])
    xx, xy, yy, xt, yt = (_windows(total) for total in sums)
    floor = np.float32(LEAST_TEXTURE * max(len(pairs), 1))
    xx, yy = xx + floor, yy + floor
    determinant = xx * yy - xy * xy
    return np.stack([(xy * yt - yy * xt) / determinant, (xy * xt - xx * yt) / determinant])


def _windows(sum_HW: Plane) -> Any:
    """The mean over the window around every second pixel, (h, w)."""
    size = (max(1, sum_HW.shape[1] // 2), max(1, sum_HW.shape[0] // 2))
    return cv2.GaussianBlur(cv2.resize(sum_HW, size, interpolation=cv2.INTER_AREA), WINDOW_SIDE, WINDOW)


def _sampled(frame_HW: NDArray[np.uint8], place_2HW: Plane) -> Any:
    """What a frame shows at the places, (H, W) float32."""
    frame: Plane = frame_HW.astype(np.float32)
    across, down = place_2HW
    return cv2.remap(frame, across, down, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
