"""Selection: which measured clips are good enough to learn from. Applied last, and again whenever it changes.

Every score stays in the manifest, so that other limits only move samples between the shards and those held
back, without decoding anything again.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from storage.errors import UsageError
from storage.reasons import Reason, Status

__all__ = ["MEASURED", "SELECTED", "SelectionConfig", "select_row"]

MEASURED = "measured"  # the stage of a row that has all its scores and waits for a judgement
SELECTED = "select"  # the stage of a row that was judged


@dataclass(frozen=True, kw_only=True, slots=True)
class SelectionConfig:
    """Limits on the scores of a clip.

    `least_speed`: mean speed of the moving pixels, diagonals of the picture per second. `least_moving` and
    `most_moving`: share of the picture that moves. `least_coherence`: how much of the motion is left in its
    average. `largest_drift`: what is left of the camera's motion, share of the diagonal. `least_fluid`: see
    `pipelines.fluidity`.
    """

    least_speed: float = 0.004
    least_moving: float = 0.015
    most_moving: float = 1.0
    least_coherence: float = 0.25
    largest_drift: float = 0.004
    least_fluid: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.least_moving < self.most_moving <= 1:
            raise UsageError(
                "expected 0 <= least_moving < most_moving <= 1, "
                f"got {self.least_moving} and {self.most_moving}"
            )
        if min(self.least_speed, self.largest_drift) < 0:
            raise UsageError("least_speed and largest_drift must be 0 or more")
        for name in ("least_coherence", "least_fluid"):
            if not 0 <= getattr(self, name) <= 1:
                raise UsageError(f"{name} must be in [0, 1], got {getattr(self, name)}")


def select_row(row: dict[str, Any], config: SelectionConfig) -> dict[str, Any]:
    """The row with its judgement. Rows that ended before they were measured stay as they are."""
    if row["stage"] not in (MEASURED, SELECTED):
        return row
    problem = _problem(row, config)
    if problem is None:
        return {**row, "stage": SELECTED, "status": Status.OK, "reason": None, "message": None}
    reason, message = problem
    return {**row, "stage": SELECTED, "status": Status.REJECTED, "reason": reason, "message": message}


def _problem(row: dict[str, Any], config: SelectionConfig) -> tuple[Reason, str] | None:
    share, speed = row["moving_share"], row["mean_speed"]
    if share < config.least_moving:
        return Reason.NO_MOTION, f"{share:.1%} of the picture moves, less than {config.least_moving:.1%}"
    if speed < config.least_speed:
        return Reason.NO_MOTION, f"moves at {speed:.4f} diagonals a second, less than {config.least_speed}"
    if row["camera_drift"] > config.largest_drift:
        drift = row["camera_drift"]
        return (
            Reason.CAMERA_MOTION,
            f"the camera still moves by {drift:.2%}, more than {config.largest_drift:.2%}",
        )
    if share > config.most_moving:
        return Reason.CAMERA_MOTION, f"{share:.0%} of the picture moves, more than {config.most_moving:.0%}"
    if row["coherence"] < config.least_coherence:
        coherence = row["coherence"]
        return Reason.INCOHERENT_MOTION, f"coherence {coherence:.2f} is below {config.least_coherence}"
    fluid = row.get("fluid_score")
    if fluid is not None and fluid < config.least_fluid:
        return Reason.NOT_FLUID, f"fluid score {fluid:.2f} is below {config.least_fluid}"
    return None
