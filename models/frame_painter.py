# ruff: noqa: N803 - names carry their dimensions
"""Paint one frame of a loop: splat both ways, fill, restore contrast or correct deeply, lay over the photo.

A frame is painted in bands with a halo, so that its buffers stay small however large the photo is. Painting
reads shared arrays and writes its own, so frames can be painted by many threads at once.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from models.contrast import ContrastPlan, expected_energy, restore_contrast
from models.loop_kernels import average_band, lay_over, splat_window, write_moving
from models.loop_plan import Box, LoopSource
from models.push_pull import push_pull

__all__ = ["Correction", "FramePainter"]

Floats = NDArray[np.float32]
Bytes = NDArray[np.uint8]
Fields = tuple[Floats, Floats]

# Below this sum of weights a pixel is filled from its surroundings, gradually.
ENOUGH_WEIGHT = 0.05
# A band has about this many pixels; its height is a multiple of the deep animator's grid.
BAND_PIXELS = 1_000_000
BAND_ROWS = 64


class Correction(Protocol):
    """What the deep animator adds to a band."""

    @property
    def halo(self) -> int:
        """How many pixels around a region it looks at; a multiple of 4."""

    def correct(
        self, colour: Floats, moving: Floats, band: Box, fields: Fields, alpha: float, inner: Box
    ) -> None:
        """Add the correction to the inner part of a band's colours (h, w, 3), 0 … 255, in place."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FramePainter:
    """Everything a frame needs; `contrast` and `correction` are left out when None."""

    photo: Bytes
    moving: Floats
    source: LoopSource
    contrast: ContrastPlan | None = None
    correction: Correction | None = None

    def paint(self, forward: Floats, backward: Floats, alpha: float) -> Bytes:
        """The moving box of the frame at α = t/N: (h, w, 3) uint8, still pixels the photo's."""
        box = self.source.box
        crop = self.photo[box.slices].copy()
        if alpha == 0.0:
            return crop
        expected = (
            None if self.contrast is None else expected_energy(self.contrast, (forward, backward), alpha)
        )
        for inner in _bands(box):
            band = inner.grown(self._halo, box)
            colour = self._band_colours(band, (forward, backward), alpha, expected)
            if self.correction is not None:
                self.correction.correct(
                    colour, self.moving[band.slices], band, (forward, backward), alpha, inner
                )
            write_moving(
                colour[inner.top - band.top : inner.bottom - band.top],
                self.moving[inner.slices],
                crop[inner.top - box.top : inner.bottom - box.top],
            )
        return crop

    @property
    def _halo(self) -> int:
        contrast = 0 if self.contrast is None else self.contrast.halo
        correction = 0 if self.correction is None else self.correction.halo
        # A multiple of 4 keeps the deep animator's coarse grid in place whatever the band.
        return -(-(contrast + correction) // 4) * 4

    def _band_colours(self, band: Box, fields: Fields, alpha: float, expected: Floats | None) -> Floats:
        """A band's colours over the still photo: (h, w, 3), 0 … 255."""
        moving = self.moving[band.slices]
        source, box = self.source, self.source.box
        below, right = band.top - box.top, band.left - box.left
        sums = np.zeros((band.height + 2, band.width + 2, 4), np.float32)
        for field, share in zip(fields, (1.0 - alpha, alpha), strict=True):
            splat_window(
                source.weighted_hw4,
                source.active,
                field,
                source.step,
                share,
                source.offset[0] - below,
                source.offset[1] - right,
                sums,
            )
        colour = np.empty((band.height, band.width, 3), np.float32)
        if average_band(sums, moving, ENOUGH_WEIGHT, colour):
            colour = push_pull(colour, sums[1:-1, 1:-1, 3], enough=ENOUGH_WEIGHT)
        if self.contrast is not None and expected is not None:
            seen_from_window = below - source.offset[0], right - source.offset[1]
            restore_contrast(colour, moving, self.contrast, expected, seen_from_window)
        lay_over(colour, moving, self.photo[band.slices])
        return colour


def _bands(box: Box) -> Iterator[Box]:
    height = max(BAND_ROWS, BAND_PIXELS // box.width // BAND_ROWS * BAND_ROWS)
    for top in range(box.top, box.bottom, height):
        yield Box(top=top, left=box.left, bottom=min(top + height, box.bottom), right=box.right)
