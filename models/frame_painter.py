"""Paint one frame of a loop: splat both ways, fill, lay over the photo, correct deeply, restore contrast.

A frame is painted in bands with a halo, so that its buffers stay small however large the photo is. Painting
reads shared arrays and writes its own, so frames can be painted by many threads at once.
"""

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from models.contrast import ContrastPlan, expected_energy, restore_contrast
from models.loop_kernels import (
    average_way,
    blend_ways,
    difference_blocks,
    fill_unsure,
    lay_over,
    splat_window,
    write_moving,
)
from models.loop_plan import Box, LoopSource
from models.push_pull import push_pull

__all__ = ["Correction", "FramePainter"]

Floats = NDArray[np.float32]
Bytes = NDArray[np.uint8]
Fields = tuple[Floats, Floats]

# Around a pixel, this window tells whether a way reaches it.
COVER_WINDOW = (5, 5)
COVER_HALO = 4
# Holes are filled from differences averaged over blocks of so many pixels a side.
FILL_BLOCK = 4
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
        """The moving box of the frame at α = t/N: (h, w, 3) uint8, still pixels the photo's; read only."""
        box = self.source.box
        if alpha == 0.0:
            return self.photo[box.slices]
        crop = self.photo[box.slices].copy()
        expected = (
            None if self.contrast is None else expected_energy(self.contrast, (forward, backward), alpha)
        )
        for inner, seen, colour in _overlapping(self._bands((forward, backward), alpha), self._halo, box):
            if self.contrast is not None and expected is not None:
                # Last, since the deep animator plays safe and softens what it is not sure of.
                window = self.source.offset
                offset = seen.top - box.top - window[0], seen.left - box.left - window[1]
                restore_contrast(colour, self.moving[seen.slices], self.contrast, expected, offset)
            write_moving(
                colour[inner.top - seen.top : inner.bottom - seen.top],
                self.moving[inner.slices],
                crop[inner.top - box.top : inner.bottom - box.top],
            )
            del colour
        return crop

    @property
    def _halo(self) -> int:
        """Rows above and below a band that its contrast depends on."""
        return 0 if self.contrast is None else self.contrast.halo

    def _bands(self, fields: Fields, alpha: float) -> Iterator[tuple[Box, Floats]]:
        """The box from top to bottom in bands, and their colours (h, w, 3) before contrast is restored."""
        box = self.source.box
        # Halos are multiples of 4, which keeps the deep animator's coarse grid in place whatever the band.
        halo = COVER_HALO + (0 if self.correction is None else self.correction.halo)
        # Much lower than its own halo, a band would be restored several times over.
        height = max(BAND_PIXELS // box.width, self._halo, BAND_ROWS) // BAND_ROWS * BAND_ROWS
        for top in range(box.top, box.bottom, height):
            inner = Box(top=top, left=box.left, bottom=min(top + height, box.bottom), right=box.right)
            band = inner.grown(halo, box)
            colour = self._band_colours(band, fields, alpha)
            if self.correction is not None:
                self.correction.correct(colour, self.moving[band.slices], band, fields, alpha, inner)
            yield inner, colour[inner.top - band.top : inner.bottom - band.top]

    def _band_colours(self, band: Box, fields: Fields, alpha: float) -> Floats:
        """A band's colours over the still photo: (h, w, 3), 0 … 255."""
        moving = self.moving[band.slices]
        ways = [self._splat_way(band, field) for field in fields]
        colour, sure = ways[0][0], np.empty((band.height, band.width), np.float32)
        if blend_ways(colour, ways[1][0], (ways[0][1], ways[1][1]), alpha, moving, sure):
            self._fill(colour, band, sure)
        lay_over(colour, moving, self.photo[band.slices])
        return colour

    def _fill(self, colour: Floats, band: Box, sure: Floats) -> None:
        """Push-pull fill what neither way reaches.

        The difference to the photo is filled, not the colour: a hole keeps the photo's texture and takes the
        light of what flows around it. That difference is smooth, so blocks of pixels are fine enough.
        """
        photo, moving = self.photo[band.slices], self.moving[band.slices]
        difference, share = difference_blocks(colour, photo, moving, sure, FILL_BLOCK)
        filled = push_pull(difference, share, enough=1.0 / FILL_BLOCK)
        fill_unsure(colour, photo, moving, sure, filled, FILL_BLOCK)

    def _splat_way(self, band: Box, field: Floats) -> tuple[Floats, Floats]:
        """One way's average colours (h, w, 3) in a band, and how much of what surrounds a pixel it reaches.

        The ways are averaged apart: over one common sum, a way whose sources lie denser would outweigh the
        other, and their spacing would show as stripes.
        """
        source, box = self.source, self.source.box
        sums = np.zeros((band.height + 2, band.width + 2, 4), np.float32)
        offset_y, offset_x = source.offset[0] + box.top - band.top, source.offset[1] + box.left - band.left
        splat_window(source.window, source.active, field, source.step, 1.0, offset_y, offset_x, sums)
        colour = np.empty((band.height, band.width, 3), np.float32)
        cover = np.empty((band.height, band.width), np.float32)
        average_way(sums, self.moving[band.slices], colour, cover)
        return colour, np.asarray(cv2.boxFilter(cover, -1, COVER_WINDOW), np.float32)


def _overlapping(
    bands: Iterable[tuple[Box, Floats]], halo: int, within: Box
) -> Iterator[tuple[Box, Box, Floats]]:
    """Every band with `halo` rows of its neighbours: the band, the box seen, and a copy of its colours."""
    kept: list[tuple[Box, Floats]] = []
    waiting: deque[Box] = deque()
    for band, colour in bands:
        kept.append((band, colour))
        waiting.append(band)
        while waiting and band.bottom >= min(waiting[0].bottom + halo, within.bottom):
            inner = waiting.popleft()
            seen = Box(
                top=max(inner.top - halo, within.top),
                left=inner.left,
                bottom=min(inner.bottom + halo, within.bottom),
                right=inner.right,
            )
            whole = _joined(kept, seen)
            kept = [(at, rows) for at, rows in kept if at.bottom > inner.bottom - halo]
            yield inner, seen, whole
            del whole  # its reader is done with it, and the next band needs room


def _joined(bands: list[tuple[Box, Floats]], seen: Box) -> Floats:
    return np.concatenate(
        [
            rows[max(seen.top - at.top, 0) : max(seen.bottom - at.top, 0)]
            for at, rows in bands
            if at.bottom > seen.top
        ]
    )
