"""Means with bootstrap intervals over sources: clips of one video are no independent witnesses.

The mean is that of the sources' means, so that a video cut into many clips does not count many times. The
interval holds the middle 95 % of the means of resampled sources (Efron 1979, percentiles); the same numbers
always give the same interval.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["Estimate", "estimate_mean", "estimate_ratio"]

RESAMPLES = 2000
LEVEL = 0.95


@dataclass(frozen=True, kw_only=True, slots=True)
class Estimate:
    """A mean over sources, its 95 % interval, the largest single value, and how many of both there were."""

    mean: float
    low: float
    high: float
    largest: float
    samples: int
    sources: int

    def __str__(self) -> str:
        return f"{self.mean:.3g} [{self.low:.3g}, {self.high:.3g}]"

    def as_json(self) -> dict[str, float | int | None]:
        """Plain values; None where there is no number."""
        return {
            name: value if isinstance(value, int) or np.isfinite(value) else None
            for name, value in asdict(self).items()
        }


def estimate_mean(values: Sequence[float], sources: Sequence[str]) -> Estimate:
    """The mean of the sources' means; values that are not a number are left out."""
    numbers, names = _finite(values, sources)
    if numbers.size == 0:
        nan = float("nan")
        return Estimate(mean=nan, low=nan, high=nan, largest=nan, samples=0, sources=0)
    means = _source_means(numbers, names)
    low, high = _interval(means[_resampled(len(means))].mean(1))
    return Estimate(
        mean=float(means.mean()),
        low=low,
        high=high,
        largest=float(numbers.max()),
        samples=len(numbers),
        sources=len(means),
    )


def estimate_ratio(values: Sequence[float], bases: Sequence[float], sources: Sequence[str]) -> Estimate:
    """The ratio of two means over the same sources, such as an error over that of a baseline."""
    known = [np.isfinite(value) and np.isfinite(base) for value, base in zip(values, bases, strict=True)]
    numbers, names = _finite([v if k else np.nan for v, k in zip(values, known, strict=True)], sources)
    below, _ = _finite([b if k else np.nan for b, k in zip(bases, known, strict=True)], sources)
    tops, bottoms = _source_means(numbers, names), _source_means(below, names)
    if bottoms.sum() <= 0:
        return estimate_mean([], [])
    drawn = _resampled(len(tops))
    low, high = _interval(tops[drawn].mean(1) / np.maximum(bottoms[drawn].mean(1), 1e-12))
    return Estimate(
        mean=float(tops.mean() / bottoms.mean()),
        low=low,
        high=high,
        largest=float((numbers / np.maximum(below, 1e-12)).max()),
        samples=len(numbers),
        sources=len(tops),
    )


def _finite(values: Sequence[float], sources: Sequence[str]) -> tuple[NDArray[np.float64], NDArray[np.str_]]:
    numbers = np.asarray(values, np.float64)
    known = np.isfinite(numbers)
    return numbers[known], np.asarray(sources, np.str_)[known]


def _source_means(numbers: NDArray[np.float64], names: NDArray[np.str_]) -> NDArray[np.float64]:
    _, place = np.unique(names, return_inverse=True)
    return np.asarray(np.bincount(place, weights=numbers) / np.bincount(place), np.float64)


def _resampled(count: int) -> NDArray[np.int64]:
    return np.random.default_rng(0).integers(0, count, (RESAMPLES, count))


def _interval(means: NDArray[np.float64]) -> tuple[float, float]:
    low, high = np.quantile(means, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)
