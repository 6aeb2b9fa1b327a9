"""Selection: which measured clips are good enough to learn from. Applied last, and again whenever it changes.

Every score stays in the manifest, so that other limits only move samples between the shards and those held
back, without decoding anything again.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from typing import Any

from storage.errors import UsageError
from storage.reasons import Reason, Status

__all__ = ["MEASURED", "SELECTED", "SelectionConfig", "select_row"]

MEASURED = "measured"  # the stage of a row that has all its scores and waits for a judgement
TOLERANCE = 1e-5
SELECTED = "select"  # the stage of a row that was judged


@dataclass(frozen=True, kw_only=True, slots=True)
class SelectionConfig:
    """Limits on the scores of a clip.

    `least_speed`: mean speed of the moving pixels, diagonals of the picture per second. `least_moving` and
    `most_moving`: share of the picture that moves. `least_coherence`: how much of the motion is left in its
    average. `largest_drift`: what is left of the camera's motion, share of the diagonal. `least_fluid`:
    the score (0…1) of what flows rather than passes by. `most_sway`: share of what is active that may go to
    and fro. `most_rest`: share of the time during which what moves may be quite at rest. `most_reversal`: how
    fast all of it together may turn back, as a share of its speed. `most_text`: how much burnt-in text may
    cover, as a share of the largest square in the picture.
    """

    least_speed: float = 0.004
    least_moving: float = 0.015
    most_moving: float = 1.0
    least_coherence: float = 0.25
    largest_drift: float = 0.004
    least_fluid: float = 0.38
    most_sway: float = 0.85
    most_rest: float = 0.075
    most_reversal: float = 0.2
    most_text: float = 0.022

    def __post_init__(self) -> None:
        if not 0 <= self.least_moving < self.most_moving <= 1:
            raise UsageError(
                "expected 0 <= least_moving < most_moving <= 1, "
                f"got {self.least_moving} and {self.most_moving}"
            )
        if min(self.least_speed, self.largest_drift) < 0:
            raise UsageError("least_speed and largest_drift must be 0 or more")
        for name in (
            "least_coherence",
            "least_fluid",
            "most_sway",
            "most_rest",
            "most_reversal",
            "most_text",
        ):
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
    """The first limit that a row fails; text comes first, since a person would see it first."""
    scores = row["scores"]
    limits = (
        (Reason.OVERLAY_TEXT, "text_share", scores["text_share"], 0.0, config.most_text),
        (Reason.NOT_FLUID, "sway", scores["sway"], 0.0, config.most_sway),
        (Reason.NO_MOTION, "moving_share", row["moving_share"], config.least_moving, inf),
        (Reason.NO_MOTION, "mean_speed", row["mean_speed"], config.least_speed, inf),
        (Reason.CAMERA_MOTION, "camera_drift", row["camera_drift"], 0.0, config.largest_drift),
        (Reason.CAMERA_MOTION, "moving_share", row["moving_share"], 0.0, config.most_moving),
        (Reason.INCOHERENT_MOTION, "coherence", row["coherence"], config.least_coherence, inf),
        (Reason.NOT_FLUID, "fluid_score", row["fluid_score"], config.least_fluid, inf),
        # What an earlier version measured lacks these.
        (Reason.NOT_FLUID, "rest", scores.get("rest", 0.0), 0.0, config.most_rest),
        (Reason.NOT_FLUID, "reversal", scores.get("reversal", 0.0), 0.0, config.most_reversal),
    )
    for reason, name, value, least, most in limits:
        # The manifest keeps scores as float32, so that one that is 1 may read a little more.
        if not least - TOLERANCE <= value <= most + TOLERANCE:
            limit = f"at least {least:g}" if value < least else f"at most {most:g}"
            return reason, f"{name} should be {limit}, got {value:.4g}"
    return None
