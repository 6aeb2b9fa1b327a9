"""What an evaluation found: every clip's figures, and their means over sources beside those of the baselines.

A source is the video that clips were cut from: clips of one video are no independent witnesses. What is
compared between two evaluations is therefore paired by source, which is why every clip's rows are kept.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.bootstrap import Estimate, estimate_mean, estimate_ratio
from models.protocol import HINTS, Row

__all__ = [
    "HINTED",
    "ClipFigures",
    "Evaluation",
    "Example",
    "Tables",
    "category_tables",
    "error_ratios",
    "source_means",
    "tables",
]

HINTED = f"hints_{HINTS}"

Rows = dict[str, dict[str, Row]]  # by part and method
Tables = dict[str, dict[str, dict[str, Estimate]]]  # by part, method and measure


@dataclass(frozen=True, kw_only=True, slots=True)
class ClipFigures:
    """One clip: whose it is, what the network said of it, and its rows by part and method."""

    key: str
    source: str
    category: str
    confidence: float
    nothing_to_animate: bool
    rows: Rows

    def as_json(self) -> dict[str, Any]:
        """Plain values; None where a measure has no number."""
        return {
            "key": self.key,
            "source": self.source,
            "category": self.category,
            "confidence": self.confidence,
            "nothing_to_animate": self.nothing_to_animate,
            "rows": _finite(self.rows),
        }


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Example:
    """One clip in pictures: motion in pixels per frame at the photo's size, four frames of its loop."""

    key: str
    source: str
    category: str
    photo_HW3: NDArray[np.uint8]
    target_2HW: NDArray[np.float32]
    predicted_2HW: NDArray[np.float32]
    hinted_2HW: NDArray[np.float32]
    frames: tuple[NDArray[np.uint8], ...]
    confidence: float
    nothing_to_animate: bool
    rows: Rows


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Evaluation:
    """The result: `tables` by part, method and measure; the same by category; every clip; pictures of a few.

    `ratios`: end-point error over that of zero and of mean motion. `nothing_to_animate`: share of the clips
    that the network would not have animated.
    """

    data: str
    checkpoint: str
    weights: dict[str, str | None]
    samples: int
    sources: int
    categories: dict[str, int]
    splits: dict[str, int]
    skipped: list[str]
    tables: Tables
    ratios: dict[str, dict[str, Estimate]]
    by_category: dict[str, Tables]
    nothing_to_animate: Estimate
    seconds: float
    examples: list[Example]
    clips: list[ClipFigures] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        """Plain values, without the pictures."""
        return {
            "data": self.data,
            "checkpoint": self.checkpoint,
            "weights": self.weights,
            "samples": self.samples,
            "sources": self.sources,
            "categories": self.categories,
            "splits": self.splits,
            "skipped": self.skipped,
            "interval": "95 % bootstrap over sources",
            "tables": _plain(self.tables),
            "ratios": _plain(self.ratios),
            "by_category": _plain(self.by_category),
            "nothing_to_animate": self.nothing_to_animate.as_json(),
            "seconds": round(self.seconds, 1),
            "by_source": _finite(source_means(self.clips)),
            "clips": [clip.as_json() for clip in self.clips],
        }

    to_json = as_json

    def headline(self) -> dict[str, str]:
        """The few figures that matter most, as texts."""
        lines = {"clips": f"{self.samples} of {self.sources} sources"}
        automatic, hinted = self.tables["motion"]["automatic"], self.tables["motion"][HINTED]
        lines["moving IoU"] = str(automatic["iou"])
        lines["angular error"] = f"{automatic['angular_error']} °"
        lines[f"angular error, {HINTS} hints"] = f"{hinted['angular_error']} °"
        for base, ratio in self.ratios["automatic"].items():
            lines[f"end-point error / {base} motion"] = str(ratio)
        for method, row in self.tables.get("rendering", {}).items():
            lines[f"PSNR moving, {method.replace('_', '-')}"] = f"{row['psnr_moving']} dB"
        for method, row in self.tables.get("loop", {}).items():
            if method in ("splat", "deep"):
                lines[f"still pixels changed, {method}"] = f"{row['still_changed'].largest:.2%}"
        return lines


def source_means(clips: Sequence[ClipFigures]) -> dict[str, Rows]:
    """Every source's means over its clips: what two evaluations are compared by, source by source."""
    found: dict[str, Rows] = {}
    for source in sorted({clip.source for clip in clips}):
        for part, method, rows in _grouped([clip for clip in clips if clip.source == source]):
            means = {measure: _mean([row[measure] for _, row in rows]) for measure in rows[0][1]}
            found.setdefault(source, {}).setdefault(part, {})[method] = means
    return found


def tables(clips: Sequence[ClipFigures]) -> Tables:
    """Means over sources with their intervals."""
    found: Tables = {}
    for part, method, rows in _grouped(clips):
        sources = [source for source, _ in rows]
        found.setdefault(part, {})[method] = {
            measure: estimate_mean([row[measure] for _, row in rows], sources) for measure in rows[0][1]
        }
    return found


def category_tables(clips: Sequence[ClipFigures]) -> dict[str, Tables]:
    """The same for the clips of every category."""
    names = sorted({clip.category for clip in clips})
    return {name: tables([clip for clip in clips if clip.category == name]) for name in names}


def error_ratios(clips: Sequence[ClipFigures]) -> dict[str, dict[str, Estimate]]:
    """End-point errors over those of the baselines, for predictions without and with hints."""
    sources = [clip.source for clip in clips]

    def errors(method: str) -> list[float]:
        return [clip.rows["motion"][method]["end_point_error"] for clip in clips]

    return {
        method: {base: estimate_ratio(errors(method), errors(base), sources) for base in ("zero", "mean")}
        for method in ("automatic", HINTED)
    }


def _grouped(clips: Iterable[ClipFigures]) -> list[tuple[str, str, list[tuple[str, Row]]]]:
    """Part, method, and the rows of every clip that has them, each with its source."""
    found: dict[tuple[str, str], list[tuple[str, Row]]] = {}
    for clip in clips:
        for part, methods in clip.rows.items():
            for method, row in methods.items():
                found.setdefault((part, method), []).append((clip.source, row))
    return [(part, method, rows) for (part, method), rows in found.items()]


def _mean(values: Sequence[float]) -> float:
    finite = [value for value in values if np.isfinite(value)]
    return float(np.mean(finite)) if finite else float("nan")


def _plain(value: Any) -> Any:
    if isinstance(value, Estimate):
        return value.as_json()
    return {name: _plain(each) for name, each in value.items()}


def _finite(value: Any) -> Any:
    """Nested numbers for JSON, which has no word for what is not a number."""
    if isinstance(value, float):
        return value if np.isfinite(value) else None
    return {name: _finite(each) for name, each in value.items()}
