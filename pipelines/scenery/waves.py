"""Waves: several bands of one moving texture, summed; what water, cloud and smoke are painted from.

Letters: P moving pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from pipelines.scenery.light import smoothstep
from pipelines.scenery.texture import Band, Coordinates, make_band, sample_band

__all__ = ["Waves", "make_waves", "sample_waves", "split_waves", "visible_motion"]

Floats = NDArray[np.float32]
Lengths = Sequence[tuple[Floats | float, Floats | float]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Waves:
    """Several bands of one moving texture and their strengths."""

    coordinates: Coordinates
    bands: tuple[Band, ...]
    strengths: tuple[float, ...]
    crests: tuple[float, ...]  # for each band 1: sharp crests, -1: round puffs, 0: soft lumps


def make_waves(
    coordinates: Coordinates, lengths: Lengths, *, seed: int, gain: float = 0.75, crests: float = 0.0
) -> Waves:
    """Bands with the given wavelengths in pixels along the pattern's a and b, each `gain` times the last.

    `crests` shapes all but the first band: 1 into sharp crests, -1 into round puffs.
    """
    bands = tuple(
        make_band(coordinates, along, across, seed=seed * 31 + 7 * n + 1)
        for n, (along, across) in enumerate(lengths)
    )
    strengths = np.array([gain**n for n in range(len(bands))])
    strengths /= np.sqrt((strengths**2).sum())
    return Waves(
        coordinates=coordinates,
        bands=bands,
        strengths=tuple(float(s) for s in strengths),
        crests=tuple(crests if n else 0.0 for n in range(len(bands))),
    )


def split_waves(waves: Waves, count: int) -> tuple[Waves, Waves]:
    """The first bands and the others: their samples add up to the whole's."""

    def part(some: slice) -> Waves:
        return replace(
            waves, bands=waves.bands[some], strengths=waves.strengths[some], crests=waves.crests[some]
        )

    return part(slice(0, count)), part(slice(count, None))


def sample_waves(waves: Waves, time: float, *, shift: tuple[float, float] = (0.0, 0.0)) -> Floats:
    """The summed bands (P,), mean 0 and deviation about 1, at a time in frames."""
    total = np.zeros(waves.coordinates.a_P.size, np.float32)
    for band, strength, crests in zip(waves.bands, waves.strengths, waves.crests, strict=True):
        value = sample_band(waves.coordinates, band, time, shift=shift)
        if crests:
            value = np.float32(1.7 * crests) * (np.float32(0.8) - np.abs(value))
        total += np.float32(strength) * value
    return total


def visible_motion(coordinates: Coordinates) -> Floats:
    """Share (P,) of a texture's contrast: motion too slow to see is drawn as still, and counts as still."""
    dx, dy = coordinates.motion_2HW[:, coordinates.pixels]
    return smoothstep(0.10, 0.22, np.hypot(dx, dy))
