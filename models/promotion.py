"""The gate: a candidate replaces the current weights only when it is better for sure, and worse in nothing.

Both are evaluated on the same clips. Per clip the candidate's figure minus the current one's is taken, and
the mean of these differences gets a bootstrap interval over sources (`models.bootstrap`): pairing removes
what makes clips easy or hard, and clips of one video are no independent witnesses. Two scores decide:

    motion     end-point error over that of no motion + angular error / 90° + 1 − moving IoU, without hints:
               where it moves, which way and how fast, each 1 for a still photo; training minimises it too
    rendering  perceptual distance, where it moves, of frames drawn by the animator with the true motion;
               it only differs between animators

A candidate is promoted when the whole interval of one score's difference lies below zero (less is better) and
no figure's whole interval lies above what may be lost: the scores, their parts, the direction with hints, and
the PSNR of what moves. Some loss is allowed, for with many sources even the least difference is a sure one.
Equal weights differ by nothing, so they are neither better nor worse.

A training chooses its best checkpoint on its validation split, which flatters a candidate a little where the
same clips judge it; `data` in [promotion] names others.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from models.bootstrap import Estimate, estimate_mean
from models.evaluation import HINTED, ClipFigures
from models.protocol import HINTS
from storage.errors import UsageError

__all__ = ["Comparison", "PromotionConfig", "Verdict", "clip_figures", "judge", "too_few"]

SCORES = ("motion", "rendering")
LARGEST_RATIO = 3.0  # of errors: a clip that hardly moves must not outweigh all others
CHANCE_DEGREES = 90.0


@dataclass(frozen=True, kw_only=True, slots=True)
class PromotionConfig:
    """What a candidate is judged on.

    `data`: datasets to judge on, separated by commas (empty: the one that the caller names, or that was
    trained on). `split`: the samples of it (empty: all). `limit`: at most so many, the sources in turn (0:
    all). `least_sources`: an interval over fewer says nothing, and the candidate is refused. `tolerance`: the
    share of a current figure that may be lost.
    """

    data: str = ""
    split: str = "val"
    limit: int = 0
    least_sources: int = 8
    tolerance: float = 0.02

    def __post_init__(self) -> None:
        if self.limit < 0:
            raise UsageError(f"limit must be at least 0, got {self.limit}")
        if self.least_sources < 2:
            raise UsageError(f"least_sources must be at least 2, got {self.least_sources}")
        if not 0 <= self.tolerance < 1:
            raise UsageError(f"tolerance must be at least 0 and below 1, got {self.tolerance}")


@dataclass(frozen=True, kw_only=True, slots=True)
class Comparison:
    """One figure, less being better: both means over sources, and the mean difference with its interval."""

    candidate: float
    current: float
    difference: Estimate

    @property
    def is_better(self) -> bool:
        return self.difference.high < 0

    def is_worse(self, tolerance: float) -> bool:
        return self.difference.low > tolerance * abs(self.current)

    def __str__(self) -> str:
        return f"{self.candidate:.3g} against {self.current:.3g}, difference {self.difference}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Verdict:
    """Whether a candidate is promoted, why in one sentence, and every figure."""

    promoted: bool
    why: str
    figures: Mapping[str, Comparison]
    clips: int
    sources: int

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "promoted": self.promoted,
            "why": self.why,
            "clips": self.clips,
            "sources": self.sources,
            "interval": "95 % bootstrap over sources of the difference candidate − current; less is better",
            "figures": {
                name: {
                    "candidate": each.candidate,
                    "current": each.current,
                    "difference": each.difference.as_json(),
                }
                for name, each in self.figures.items()
            },
        }


def judge(
    candidate: Sequence[ClipFigures], current: Sequence[ClipFigures], config: PromotionConfig | None = None
) -> Verdict:
    """Compare two evaluations on the clips that both have. Raises UsageError when they share none."""
    config = config or PromotionConfig()
    theirs = {clip.key: clip for clip in current}
    pairs = [(clip, theirs[clip.key]) for clip in candidate if clip.key in theirs]
    if not pairs:
        raise UsageError("the two evaluations share no clip; evaluate both on the same data")
    sources = [clip.source for clip, _ in pairs]
    if refused := too_few(len(set(sources)), config):
        return refused
    figures = _compare(pairs, sources)
    promoted, why = _decide(figures, config.tolerance)
    return Verdict(promoted=promoted, why=why, figures=figures, clips=len(pairs), sources=len(set(sources)))


def too_few(sources: int, config: PromotionConfig) -> Verdict | None:
    """The refusal where there are too few sources to judge anything on; None where there are enough."""
    if sources >= config.least_sources:
        return None
    why = f"{sources} sources are too few to tell; at least {config.least_sources} are needed"
    return Verdict(promoted=False, why=why, figures={}, clips=0, sources=sources)


def clip_figures(clip: ClipFigures) -> dict[str, float]:
    """The figures that count, less being better; those of rendering only where the animator was measured."""
    motion = clip.rows["motion"]
    found, still = motion["automatic"], motion["zero"]
    ratio = min(found["end_point_error"] / max(still["end_point_error"], 1e-6), LARGEST_RATIO)
    # A clip in which nothing moves has no direction; it then counts alike for both.
    angle = float(np.nan_to_num(found["angular_error"], nan=CHANCE_DEGREES))
    figures = {
        "motion": ratio + angle / CHANCE_DEGREES + 1 - found["iou"],
        "end-point error": ratio,
        "angular error": angle,
        "moving IoU missed": 1 - found["iou"],
        f"angular error, {HINTS} hints": motion[HINTED]["angular_error"],
    }
    if drawn := clip.rows.get("rendering", {}).get("deep"):
        figures |= {"rendering": drawn["perceptual_moving"], "PSNR lost": -drawn["psnr_moving"]}
    return figures


def _compare(pairs: list[tuple[ClipFigures, ClipFigures]], sources: list[str]) -> dict[str, Comparison]:
    figures = [(clip_figures(mine), clip_figures(other)) for mine, other in pairs]
    # A clip may lack what others have; a figure that only one side measured tells nothing.
    names = dict.fromkeys(name for mine, other in figures for name in mine if name in other)
    compared = {}
    for name in names:
        values = np.array([(mine.get(name, np.nan), other.get(name, np.nan)) for mine, other in figures])
        values[~np.isfinite(values).all(axis=1)] = np.nan
        if np.isfinite(values).any():
            compared[name] = Comparison(
                candidate=estimate_mean(values[:, 0].tolist(), sources).mean,
                current=estimate_mean(values[:, 1].tolist(), sources).mean,
                difference=estimate_mean((values[:, 0] - values[:, 1]).tolist(), sources),
            )
    return compared


def _decide(figures: Mapping[str, Comparison], tolerance: float) -> tuple[bool, str]:
    scores = {name: figures[name] for name in SCORES if name in figures}
    if worse := {name: each for name, each in figures.items() if each.is_worse(tolerance)}:
        return False, f"worse for sure: {_listed(worse)}"
    if better := {name: each for name, each in scores.items() if each.is_better}:
        return True, f"better for sure, and worse in nothing: {_listed(better)}"
    return False, f"not better for sure: {_listed(scores)}"


def _listed(figures: Mapping[str, Comparison]) -> str:
    return "; ".join(f"{name} {each}" for name, each in figures.items())
