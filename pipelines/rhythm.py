"""How motion goes over time: a fluid flows on, a body passes and leaves rest behind, a plant turns back."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["Rhythm", "measure_rhythm"]

GRID = 4  # every so-manieth pixel is looked at
ACTIVE_FLOOR = 0.25  # px/frame in the mean over time; slower than this is noise
ACTIVE_SHARE = 0.1  # of the fastest pixels' speed
REST_PAIRS = 5  # speeds are smoothed over so many pairs before they count as rest
REST_SHARE = 0.05  # of what a pixel reaches in the busiest tenth of the time
SWING_SHARE = 1 / 7  # of the clip; shorter swings than this are not a sway but turbulence


@dataclass(frozen=True, kw_only=True, slots=True)
class Rhythm:
    """`rest`: share of the time during which what moves is quite at rest, in [0, 1]: a fluid never is, while
    ground that a body has left is. `reversal`: how fast all that moves goes backwards together at some time,
    as a share of its speed, 0 or more: a plant that sways slowly does."""

    rest: float
    reversal: float


def measure_rhythm(flows_THW2: NDArray[np.float32]) -> Rhythm:
    """From the optical flow of every pair of frames, px/frame; both 0 where nothing moves."""
    thin_THW2 = np.ascontiguousarray(flows_THW2[:, ::GRID, ::GRID])
    speed_THW = np.sqrt(thin_THW2[..., 0] ** 2 + thin_THW2[..., 1] ** 2)
    activity_HW = speed_THW.mean(axis=0)
    active_HW = activity_HW > max(ACTIVE_FLOOR, ACTIVE_SHARE * float(np.percentile(activity_HW, 99)))
    if not active_HW.any():
        return Rhythm(rest=0.0, reversal=0.0)
    speed_TN = _smooth(speed_THW[:, active_HW], REST_PAIRS)
    top_N = np.sort(speed_TN, axis=0)[round(0.9 * (len(speed_TN) - 1))]
    flow_TN2 = thin_THW2[:, active_HW]
    mean_N2 = flow_TN2.mean(axis=0)
    way_N2 = mean_N2 / np.maximum(np.hypot(mean_N2[:, 0], mean_N2[:, 1]), 1e-6)[:, None]
    # Each pixel's way is its own, so that an eddy does not look like a sway.
    onward_TN = np.einsum("tnc,nc->tn", flow_TN2, way_N2)
    onward_T = _smooth(onward_TN, max(3, round(SWING_SHARE * len(onward_TN)))).mean(axis=1)
    return Rhythm(
        rest=float((speed_TN < REST_SHARE * top_N).mean()),
        reversal=max(0.0, -float(onward_T.min()) / float(activity_HW[active_HW].mean())),
    )


def _smooth(values_TN: NDArray[np.float32], width: int) -> NDArray[np.float64]:
    """The mean over `width` neighbours in time; all there are where they are fewer."""
    width = min(width, len(values_TN))
    sums_TN = np.cumsum(values_TN, axis=0, dtype=np.float64)
    sums_TN = np.concatenate([np.zeros_like(sums_TN[:1]), sums_TN])
    return np.asarray((sums_TN[width:] - sums_TN[:-width]) / width)
