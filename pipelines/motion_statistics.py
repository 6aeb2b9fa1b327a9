"""A clip's motion in numbers that do not depend on its size or frame rate."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pipelines.optical_flow import REFERENCE_FPS, MotionEstimate

__all__ = ["MotionStatistics", "motion_statistics"]


@dataclass(frozen=True, kw_only=True, slots=True)
class MotionStatistics:
    """Speeds in diagonals of the picture per second, over the moving pixels.

    `moving_share`: share of the picture that moves. `coherence` in [0, 1]: how much of what happened to the
    moving pixels is left in the average. `direction`: of the mean motion, degrees, 0 right, 90 down.
    """

    mean_speed: float
    p95_speed: float
    moving_share: float
    coherence: float
    direction: float


def motion_statistics(estimate: MotionEstimate) -> MotionStatistics:
    """Sum up one clip's motion; all zero where nothing moves."""
    moving_HW = estimate.moving_HW
    if not moving_HW.any():
        return MotionStatistics(mean_speed=0.0, p95_speed=0.0, moving_share=0.0, coherence=0.0, direction=0.0)
    per_second = REFERENCE_FPS / float(np.hypot(*moving_HW.shape))
    motion_2N = estimate.motion_2HW[:, moving_HW].astype(np.float64)
    speed_N = np.hypot(*motion_2N)
    dx, dy = motion_2N.mean(axis=1)
    return MotionStatistics(
        mean_speed=float(speed_N.mean()) * per_second,
        p95_speed=float(np.percentile(speed_N, 95)) * per_second,
        moving_share=float(moving_HW.mean()),
        coherence=_coherence(estimate),
        direction=float(np.degrees(np.arctan2(dy, dx))) % 360.0,
    )


def _coherence(estimate: MotionEstimate) -> float:
    """Mean of |mean v| / mean |v| over the moving pixels, weighted by mean |v|."""
    activity_N = estimate.activity_HW[estimate.moving_HW].astype(np.float64)
    speed_N = np.hypot(*estimate.average_2HW[:, estimate.moving_HW].astype(np.float64))
    return float(np.minimum(speed_N, activity_N).sum() / max(float(activity_N.sum()), 1e-9))
