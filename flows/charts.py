"""Numbers of the charts: where bars begin and end. The templates draw them as SVG beside a table or label.

SVG lengths are in the units of the chart's own view box.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from models.colour_wheel import motion_to_colour

__all__ = ["Bar", "Histogram", "Petal", "Rose", "bars", "histogram", "rose"]

HISTOGRAM_BINS = 24
ROSE_BINS = 16
ROSE_RADIUS = 100.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Bar:
    """One bar: its label and count, where it stands and its length, both in 0…100."""

    label: str
    count: int
    length: float
    start: float = 0.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Histogram:
    """Bars from left to right, the axis' ends, and a sentence that says what they show."""

    bars: list[Bar]
    low: str
    high: str
    summary: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Petal:
    """One petal of a rose: an SVG path around the centre, its colour and count."""

    path: str
    colour: str
    count: int
    label: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Rose:
    """Petals by direction, and a sentence that says what they show."""

    petals: list[Petal]
    summary: str


def bars(counts: Sequence[tuple[str, int]]) -> list[Bar]:
    """Bars beside each other's largest."""
    largest = max((count for _, count in counts), default=0) or 1
    return [Bar(label=label, count=count, length=100 * count / largest) for label, count in counts]


def histogram(values: Sequence[float], *, unit: str) -> Histogram | None:
    """How values are spread; what lies above the 99th percentile is in the last bar. None without values."""
    if not values:
        return None
    data = np.asarray(values, dtype=np.float64)
    high = float(np.percentile(data, 99)) or 1.0
    counts, edges = np.histogram(np.minimum(data, high), bins=HISTOGRAM_BINS, range=(0.0, high))
    tallest = max(int(counts.max()), 1)
    columns = [
        Bar(
            label=f"{edges[index]:.2f} to {edges[index + 1]:.2f} {unit}",
            count=int(count),
            length=100 * int(count) / tallest,
            start=100 * index / HISTOGRAM_BINS,
        )
        for index, count in enumerate(counts)
    ]
    summary = f"{len(values):,} clips, median {np.median(data):.2f} {unit}, 99 in 100 below {high:.2f}"
    return Histogram(bars=columns, low="0", high=f"{high:.1f} {unit}", summary=summary)


def rose(directions: Sequence[float]) -> Rose | None:
    """How directions (degrees, 0 to the right, 90 down) are spread; equal counts have equal areas."""
    if not directions:
        return None
    step = 360.0 / ROSE_BINS
    indices = np.round(np.asarray(directions) / step).astype(int) % ROSE_BINS
    counts = np.bincount(indices, minlength=ROSE_BINS)
    largest = max(int(counts.max()), 1)
    petals = [_petal(index * step, step, int(count), largest) for index, count in enumerate(counts)]
    best = int(counts.argmax())
    return Rose(
        petals=petals,
        summary=f"{len(directions):,} clips; most, {int(counts[best]):,}, flow {_compass(best * step)}",
    )


def _petal(angle: float, step: float, count: int, largest: int) -> Petal:
    radius = ROSE_RADIUS * math.sqrt(count / largest)
    half = math.radians(step) * 0.46
    middle = math.radians(angle)
    x0, y0 = radius * math.cos(middle - half), radius * math.sin(middle - half)
    x1, y1 = radius * math.cos(middle + half), radius * math.sin(middle + half)
    path = f"M0 0L{x0:.2f} {y0:.2f}A{radius:.2f} {radius:.2f} 0 0 1 {x1:.2f} {y1:.2f}Z"
    pixel = motion_to_colour(
        np.array([[[math.cos(middle)]], [[math.sin(middle)]]], dtype=np.float32), max_speed=1.0
    )[0, 0]
    return Petal(
        path=path,
        colour="#" + bytes(pixel).hex(),
        count=count,
        label=f"{count:,} clips flow {_compass(angle)}",
    )


def _compass(angle: float) -> str:
    names = ("to the right", "down right", "down", "down left", "to the left", "up left", "up", "up right")
    return names[round(angle / 45.0) % 8]
