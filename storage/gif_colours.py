"""Colours for an animated GIF: one palette for all frames, and dithering that stays where it is.

A palette per frame, or error diffusion, makes still areas crawl. Here every pixel gets a threshold that
depends on its place only, so an unchanged pixel has the same colour index in every frame.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["COLOURS", "GifColours", "choose_colours"]

COLOURS = 255  # the 256th index stays free: the encoder uses it for "as in the frame before"
BIN_BITS = 5
TABLE_BITS = 6
ROUNDS = 8
SAMPLE_STEP = 2


@dataclass(frozen=True, slots=True, eq=False)
class GifColours:
    """A palette (255, 3) uint8, the table that finds the nearest entry, and how far apart entries lie."""

    palette_K3: NDArray[np.uint8]
    table: NDArray[np.uint8]
    spacing: float

    def index_frame(self, frame_HW3: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Palette indices (H, W) of a frame, dithered by a pattern that depends on the place alone."""
        height, width = frame_HW3.shape[:2]
        index = np.zeros((height, width), np.int32)
        for channel in range(3):
            noise = _pattern(height, width, channel) * np.float32(self.spacing)
            value = np.clip(frame_HW3[..., channel] + noise, 0, 255).astype(np.int32)
            index = (index << TABLE_BITS) | (value >> (8 - TABLE_BITS))
        return self.table[index]


def choose_colours(frames: Iterable[NDArray[np.uint8]]) -> GifColours:
    """Choose 255 colours for all frames together by weighted k-means over their histogram."""
    centres, counts = _histogram(frames)
    # Square roots: a large sky must not take all entries from a small fire.
    palette = _cluster(centres, np.sqrt(counts))
    table = _nearest_table(palette)
    apart = np.sqrt(((palette[:, None] - palette[None]) ** 2).sum(axis=2))
    np.fill_diagonal(apart, np.inf)
    spacing = float(np.median(apart.min(axis=1))) / np.sqrt(3.0)
    return GifColours(np.round(palette).astype(np.uint8), table, min(spacing, 32.0))


def _pattern(height: int, width: int, channel: int) -> NDArray[np.float32]:
    """Interleaved gradient noise (Jimenez, SIGGRAPH 2014 course): evenly spread thresholds in −0.5…0.5."""
    x = np.arange(width, dtype=np.float64)[None] + 17 * channel
    y = np.arange(height, dtype=np.float64)[:, None] + 59 * channel
    return (np.mod(52.9829189 * np.mod(0.06711056 * x + 0.00583715 * y, 1.0), 1.0) - 0.5).astype(np.float32)


def _histogram(frames: Iterable[NDArray[np.uint8]]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean colours (B, 3) and counts (B,) of the occupied bins of a 32×32×32 cube, every second pixel."""
    bins = 1 << (3 * BIN_BITS)
    counts = np.zeros(bins)
    sums = np.zeros((3, bins))
    for frame in frames:
        sample = frame[::SAMPLE_STEP, ::SAMPLE_STEP].reshape(-1, 3)
        reduced = (sample >> (8 - BIN_BITS)).astype(np.int64)
        index = (reduced[:, 0] << (2 * BIN_BITS)) | (reduced[:, 1] << BIN_BITS) | reduced[:, 2]
        counts += np.bincount(index, minlength=bins)
        for channel in range(3):
            sums[channel] += np.bincount(index, weights=sample[:, channel], minlength=bins)
    used = counts > 0
    return (sums[:, used] / counts[used]).T, counts[used]


def _cluster(points: NDArray[np.float64], weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """Weighted k-means from the colours farthest apart; always (255, 3), the last one repeated."""
    chosen = [int(np.argmax(weights))]
    distance = ((points - points[chosen[0]]) ** 2).sum(axis=1)
    while len(chosen) < min(COLOURS, len(points)):
        chosen.append(int(np.argmax(distance * weights)))
        np.minimum(distance, ((points - points[chosen[-1]]) ** 2).sum(axis=1), out=distance)
    palette = points[chosen].copy()
    for _ in range(ROUNDS):
        nearest = _nearest(points, palette)
        mass = np.bincount(nearest, weights=weights, minlength=len(palette))
        for channel in range(3):
            total = np.bincount(nearest, weights=weights * points[:, channel], minlength=len(palette))
            palette[:, channel] = np.where(mass > 0, total / np.maximum(mass, 1e-9), palette[:, channel])
    return np.concatenate([palette, np.repeat(palette[-1:], COLOURS - len(palette), axis=0)])


def _nearest(points: NDArray[np.float64], palette: NDArray[np.float64]) -> NDArray[np.intp]:
    # |x − p|² without |x|², which is the same for every entry.
    score = points @ (-2.0 * palette.T) + (palette**2).sum(axis=1)
    return np.asarray(score.argmin(axis=1))


def _nearest_table(palette: NDArray[np.float64]) -> NDArray[np.uint8]:
    """The nearest entry for every cell of a 64×64×64 cube, red slowest; computed one red slice at a time."""
    side = 1 << TABLE_BITS
    values = (np.arange(side) + 0.5) * (256 / side)
    green, blue = (grid.ravel() for grid in np.meshgrid(values, values, indexing="ij"))
    slices = [
        _nearest(np.stack([np.full_like(green, red), green, blue], axis=1), palette).astype(np.uint8)
        for red in values
    ]
    return np.concatenate(slices)
