"""The mean of a clip's optical flow over time, pixel by pixel, without the pairs in which it went astray.

Many short loops over one row of pixels: each becomes vector instructions, as one loop of them all would not.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from models.compiled import compiled

__all__ = ["mean_without_outliers"]

Plane = NDArray[np.float32]

OUTLIER_SIGMAS = 3.0
SLACK = 1e-4  # px/frame, for equal speeds
BUSY_SHARE = 0.4  # of a pixel's mean speed; below it the pixel rests


@compiled
def mean_without_outliers(flows_THW2: Plane) -> tuple[Plane, Plane, Plane]:
    """Mean flow (H, W, 2) and mean speed (H, W) over time, without pairs beyond three standard deviations,
    and the share of all pairs in which a pixel was busy, (H, W).

    Where motion is steady, a slow pair is one in which optical flow lost the texture. So the mean leans to
    the mean weighted by speed there, by the square of the coherence; to and fro still cancels in either.
    """
    frames, height, width, _ = flows_THW2.shape
    mean_HW2 = np.zeros((height, width, 2), dtype=np.float32)
    activity_HW = np.zeros((height, width), dtype=np.float32)
    persistence_HW = np.zeros((height, width), dtype=np.float32)
    speed_TW = np.empty((frames, width), dtype=np.float32)
    for y in range(height):
        flow_TW2 = flows_THW2[:, y]
        usual_W, reach_W = _speeds(flow_TW2, speed_TW)
        _busy(speed_TW, usual_W, persistence_HW[y])
        _average(flow_TW2, speed_TW, usual_W, reach_W, mean_HW2[y], activity_HW[y])
    return mean_HW2, activity_HW, persistence_HW


@compiled
def _speeds(flow_TW2: Plane, speed_TW: Plane) -> tuple[Plane, Plane]:
    """Fill in the speeds; the mean speed of each pixel and how far from it a speed is no outlier, (W,)."""
    frames, width, _ = flow_TW2.shape
    usual_W = np.zeros(width, dtype=np.float32)
    reach_W = np.zeros(width, dtype=np.float32)
    for t in range(frames):
        flow_W2, speed_W = flow_TW2[t], speed_TW[t]
        for x in range(width):
            speed_W[x] = flow_W2[x, 0] * flow_W2[x, 0] + flow_W2[x, 1] * flow_W2[x, 1]
        for x in range(width):
            reach_W[x] += speed_W[x]
        for x in range(width):
            speed_W[x] = np.sqrt(speed_W[x])
        for x in range(width):
            usual_W[x] += speed_W[x]
    for x in range(width):
        usual_W[x] /= frames
        variance = max(reach_W[x] / frames - usual_W[x] * usual_W[x], 0.0)
        reach_W[x] = OUTLIER_SIGMAS * np.sqrt(variance) + SLACK
    return usual_W, reach_W


@compiled
def _busy(speed_TW: Plane, usual_W: Plane, persistence_W: Plane) -> None:
    """The share of the pairs in which each pixel is busy."""
    frames, width = speed_TW.shape
    limit_W = np.float32(BUSY_SHARE) * usual_W
    for t in range(frames):
        speed_W = speed_TW[t]
        for x in range(width):
            persistence_W[x] += np.float32(1.0) if speed_W[x] > limit_W[x] else np.float32(0.0)
    for x in range(width):
        persistence_W[x] /= frames


@compiled
def _average(
    flow_TW2: Plane, speed_TW: Plane, usual_W: Plane, reach_W: Plane, mean_W2: Plane, activity_W: Plane
) -> None:
    """Fill in mean flow and mean speed over the pairs within reach; speeds beyond it become zero."""
    frames, width, _ = flow_TW2.shape
    keep_W, kept_W = np.zeros(width, dtype=np.float32), np.zeros(width, dtype=np.float32)
    weighted_W2 = np.zeros((width, 2), dtype=np.float32)
    for t in range(frames):
        flow_W2, speed_W = flow_TW2[t], speed_TW[t]
        for x in range(width):
            within = abs(speed_W[x] - usual_W[x]) <= reach_W[x]
            keep_W[x] = np.float32(1.0) if within else np.float32(0.0)
        for x in range(width):
            kept_W[x] += keep_W[x]
        for x in range(width):
            speed_W[x] *= keep_W[x]
        for x in range(width):
            activity_W[x] += speed_W[x]
        for x in range(width):
            mean_W2[x, 0] += keep_W[x] * flow_W2[x, 0]
            mean_W2[x, 1] += keep_W[x] * flow_W2[x, 1]
        for x in range(width):
            weighted_W2[x, 0] += speed_W[x] * flow_W2[x, 0]
            weighted_W2[x, 1] += speed_W[x] * flow_W2[x, 1]
    for x in range(width):
        speeds, pairs = max(activity_W[x], np.float32(1e-9)), max(kept_W[x], np.float32(1.0))
        steady = (mean_W2[x, 0] ** 2 + mean_W2[x, 1] ** 2) / (speeds * speeds)
        for axis in range(2):
            plain, leaning = mean_W2[x, axis] / pairs, weighted_W2[x, axis] / speeds
            mean_W2[x, axis] = (np.float32(1.0) - steady) * plain + steady * leaning
        activity_W[x] /= pairs
