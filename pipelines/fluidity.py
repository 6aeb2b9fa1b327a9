"""Fluid or not: what tells flowing and billowing from people, vehicles, animals and swaying plants.

A fluid keeps moving past a place for as long as the clip lasts. What travels as a body (a walker, a car, a
bird) moves past a place once and is gone; what is held by its roots sways there and back. Neither needs to be
recognised: both show in how the optical flow of single pixels goes over time.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2

from pipelines.optical_flow import MotionEstimate

__all__ = ["Fluidity", "measure_fluidity"]

SWAYING_COHERENCE = 0.3  # below it, motion to and fro outweighs motion onwards
SWAYING_FLOOR = 0.25  # px/frame at 30 fps; slower than this, to and fro is noise


@dataclass(frozen=True, kw_only=True, slots=True)
class Fluidity:
    """Scores in [0, 1].

    `persistence`: share of the clip's time during which a moving pixel is busy, mean over the moving pixels;
    what passes by is busy only as long as it takes to pass. `travelling`: how far motion moves on with what
    moves. `sway`: of all that is active, the share that goes to and fro; waves and flames do so too, but
    never all of them. `score`: 1 for fluid, from the first two. `rest`, `reversal`: see `pipelines.rhythm`;
    the latter may be above 1.
    """

    persistence: float
    travelling: float
    sway: float
    score: float
    rest: float
    reversal: float


def measure_fluidity(estimate: MotionEstimate) -> Fluidity:
    """Judge the motion of one clip; all zero where nothing moves."""
    moving_HW = estimate.moving_HW
    if not moving_HW.any():
        return Fluidity(persistence=0.0, travelling=0.0, sway=0.0, score=0.0, rest=0.0, reversal=0.0)
    persistence = float(estimate.persistence_HW[moving_HW].mean())
    speed_HW = cv2.magnitude(estimate.average_2HW[0], estimate.average_2HW[1])
    swaying_HW = (estimate.activity_HW > SWAYING_FLOOR) & (
        speed_HW < SWAYING_COHERENCE * estimate.activity_HW
    )
    sway = float(swaying_HW.sum() / (swaying_HW | moving_HW).sum())
    return Fluidity(
        persistence=persistence,
        travelling=estimate.travelling,
        sway=sway,
        # Half of the motion moving on is as much as legs and wheels leave of it.
        score=persistence * max(0.0, 1.0 - 2.0 * estimate.travelling),
        rest=estimate.rhythm.rest,
        reversal=estimate.rhythm.reversal,
    )
