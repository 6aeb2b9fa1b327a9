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
    thin_THW2 = flows_THW2[:, ::GRID, ::GRID]
    count, height, width, _ = thin_THW2.shape
    flow_TN2 = thin_THW2.reshape(count, height * width, 2)
    speed_TN = np.sqrt(flow_TN2[..., 0] ** 2 + flow_TN2[..., 1] ** 2)
    limit = max(ACTIVE_SHARE * float(np.percentile(speed_TN, 99)), SLOWEST)
    weight_TN = np.where(speed_TN > limit, np.minimum(speed_TN, 4 * limit), 0.0).astype(np.float64)
    total_T = weight_TN.sum(axis=1)
    seen_T = total_T > 0.1 * total_T.max()
    if total_T.max() <= 0 or seen_T.sum() < 6:
        return 0.0
    times = np.flatnonzero(seen_T)
    flow_TN2, speed_TN, weight_TN, total_T = (
        values_T[seen_T] for values_T in (flow_TN2, speed_TN, weight_TN, total_T)
    )
    place_N2 = np.mgrid[0:height, 0:width][::-1].reshape(2, -1).T * (2.0 * GRID)
    centre_T2 = np.einsum("tn,nc->tc", weight_TN, place_N2) / total_T[:, None]
    mean_2 = np.einsum("tn,tnc->c", weight_TN, flow_TN2) / total_T.sum()
    line_22 = np.polyfit(times, centre_T2, 1)
    going_2 = line_22[0]
    if np.hypot(*going_2) < SLOWEST:
        return 0.0
    # Waves and flames shift their centre too, but not evenly, and not all one way.
    missed_T2 = centre_T2 - times[:, None] * going_2 - line_22[1]
    evenness = 1.0 - float((missed_T2**2).sum() / ((centre_T2 - centre_T2.mean(axis=0)) ** 2).sum())
    speed = float(np.einsum("tn,tn->", weight_TN, speed_TN) / total_T.sum())
    one_way = float(np.hypot(*mean_2)) / max(speed, 1e-6)
    share = float(np.clip((going_2 @ mean_2) / max(float(mean_2 @ mean_2), 1e-6), 0.0, 1.0))
    return share * max(evenness, 0.0) * min(one_way, 1.0)
