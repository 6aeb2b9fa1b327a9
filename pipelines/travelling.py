"""Whether what moves takes its motion along, as a body does, or leaves it where it is, as a stream does."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["travelling_share"]

GRID = 4  # every so-manieth pixel is looked at
ACTIVE_SHARE = 0.25  # of the fastest pixels' speed, for a pixel to belong to what moves
SLOWEST = 0.3  # px/frame; a centre that shifts less is at rest


def travelling_share(flows_THW2: NDArray[np.float32]) -> float:
    """How fast the centre of all that moves goes in the direction of its motion, as a share of its speed.

    `flows_THW2`: optical flow of every pair of frames at half the size, in px/frame of the whole. 1 for a
    body that crosses the picture and about 0 for a fluid, whose motion stays in its bed.
    """
    thin_THW2 = np.ascontiguousarray(flows_THW2[:, ::GRID, ::GRID])
    speed_THW = np.hypot(thin_THW2[..., 0], thin_THW2[..., 1])
    limit = max(ACTIVE_SHARE * float(np.percentile(speed_THW, 99)), SLOWEST)
    weight_THW = np.where(speed_THW > limit, np.minimum(speed_THW, 4 * limit), 0.0)
    total_T = weight_THW.sum(axis=(1, 2))
    seen_T = total_T > 0.1 * total_T.max()
    if total_T.max() <= 0 or seen_T.sum() < 6:
        return 0.0
    y_HW, x_HW = np.mgrid[0 : speed_THW.shape[1], 0 : speed_THW.shape[2]].astype(np.float32) * (2 * GRID)
    times = np.flatnonzero(seen_T)
    centre_T2 = np.stack(
        [(weight_THW[seen_T] * axis_HW).sum(axis=(1, 2)) / total_T[seen_T] for axis_HW in (x_HW, y_HW)],
        axis=1,
    )
    mean_2 = (weight_THW[seen_T][..., None] * thin_THW2[seen_T]).sum(axis=(0, 1, 2)) / total_T[seen_T].sum()
    line_22 = np.polyfit(times, centre_T2, 1)
    going_2 = line_22[0]
    if np.hypot(*going_2) < SLOWEST:
        return 0.0
    # Waves and flames shift their centre too, but not evenly, and not all one way.
    missed_T2 = centre_T2 - times[:, None] * going_2 - line_22[1]
    evenness = 1.0 - float((missed_T2**2).sum() / ((centre_T2 - centre_T2.mean(axis=0)) ** 2).sum())
    speed = float((weight_THW[seen_T] * speed_THW[seen_T]).sum() / total_T[seen_T].sum())
    one_way = float(np.hypot(*mean_2)) / max(speed, 1e-6)
    share = float(np.clip((going_2 @ mean_2) / max(float(mean_2 @ mean_2), 1e-6), 0.0, 1.0))
    return share * max(evenness, 0.0) * min(one_way, 1.0)
