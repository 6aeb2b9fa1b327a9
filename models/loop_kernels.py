# ruff: noqa: N803, PLR0913 - names carry their dimensions; a kernel takes its buffers one by one
"""Compiled inner loops of the renderer: splat a window, average, composite. All serial, all deterministic.

A window holds the sources, a band the destinations. Colours travel as (weight·r, weight·g, weight·b, weight)
so that four floats fill one vector register. Displacement fields live on a coarse grid whose cell (j, i)
covers `step` × `step` pixels; values are in grid cells.
"""

import numpy as np
from numpy.typing import NDArray

from models.compiled import compiled

__all__ = ["TILE", "average_band", "composite_band", "splat_window"]

Floats = NDArray[np.float32]
Bytes = NDArray[np.uint8]

# Sources are visited in tiles of this many pixels a side; tiles that are still, or whose displacement leads
# out of the band, are skipped whole.
TILE = 32


@compiled
def splat_window(
    weighted: Floats,
    active: Bytes,
    field: Floats,
    step: int,
    share: float,
    offset_y: int,
    offset_x: int,
    sums: Floats,
) -> None:
    """Add the window's sources, displaced and weighted by `share`, to `sums` (a band with a rim of one cell).

    weighted: (h, w, 4); active: one flag per tile; field: (2, h / step, w / step) in cells;
    offset: the window's first pixel in the band's coordinates.
    """
    height, width, _ = weighted.shape
    _, rows, columns = field.shape
    row = np.empty((2, columns + 1), np.float32)
    for tile_y in range(0, height, TILE):
        for tile_x in range(0, width, TILE):
            if active[tile_y // TILE, tile_x // TILE] == 0:
                continue
            end_y, end_x = min(tile_y + TILE, height), min(tile_x + TILE, width)
            i0, i1 = max(tile_x // step - 1, 0), min(end_x // step + 1, columns - 1)
            j0, j1 = max(tile_y // step - 1, 0), min(end_y // step + 1, rows - 1)
            low_x, high_x, low_y, high_y = _reach(field[:, j0 : j1 + 1, i0 : i1 + 1], step)
            if (
                end_x + offset_x + high_x < -1
                or tile_x + offset_x + low_x > sums.shape[1] - 2
                or end_y + offset_y + high_y < -1
                or tile_y + offset_y + low_y > sums.shape[0] - 2
            ):
                continue
            for y in range(tile_y, end_y):
                _field_row(field, y, step, i0, i1, row)
                _splat_row(weighted[y], row, step, share, tile_x, end_x, y + offset_y, offset_x, sums)


@compiled
def _reach(field: Floats, step: int) -> tuple[float, float, float, float]:
    """Smallest and largest dx, smallest and largest dy in pixels."""
    low_x, high_x, low_y, high_y = field[0, 0, 0], field[0, 0, 0], field[1, 0, 0], field[1, 0, 0]
    for j in range(field.shape[1]):
        for i in range(field.shape[2]):
            low_x, high_x = min(low_x, field[0, j, i]), max(high_x, field[0, j, i])
            low_y, high_y = min(low_y, field[1, j, i]), max(high_y, field[1, j, i])
    return low_x * step, high_x * step, low_y * step, high_y * step


@compiled
def _field_row(field: Floats, y: int, step: int, i0: int, i1: int, row: Floats) -> None:
    """Displacement in pixels at the height of pixel row y, for grid columns i0 … i1, and i1 once more."""
    rows = field.shape[1]
    at = min(max((y + 0.5) / step - 0.5, 0.0), rows - 1.0)
    j = min(int(at), max(rows - 2, 0))
    below = min(j + 1, rows - 1)
    share = np.float32(at - j)
    scale = np.float32(step)
    for axis in range(2):
        for i in range(i0, i1 + 1):
            row[axis, i] = scale * (field[axis, j, i] + share * (field[axis, below, i] - field[axis, j, i]))
        row[axis, i1 + 1] = row[axis, i1]


@compiled
def _splat_row(
    source: Floats,
    row: Floats,
    step: int,
    share: float,
    start: int,
    end: int,
    y: int,
    offset_x: int,
    sums: Floats,
) -> None:
    """Splat pixels start … end − 1 of one source row that lies at row y of the band."""
    flat = sums.reshape(-1)
    cells = np.int64(sums.shape[1])
    right, bottom = np.float32(sums.shape[1] - 1), np.float32(sums.shape[0] - 1)
    inverse, gain, last = np.float32(1.0 / step), np.float32(share), row.shape[1] - 2
    # Unsigned flat indices spare the tests for negative ones and let the four channels share a register.
    one, two, three, four = np.uint64(1), np.uint64(2), np.uint64(3), np.uint64(4)
    pitch = np.uint64(4 * cells - 8)
    for x in range(start, end):
        weight = source[x, 3]
        if weight <= 0:
            continue
        at = max((np.float32(x) + np.float32(0.5)) * inverse - np.float32(0.5), np.float32(0))
        i = min(int(at), last)
        part = at - np.float32(i)
        px = np.float32(x + offset_x + 1) + row[0, i] + part * (row[0, i + 1] - row[0, i])
        py = np.float32(y + 1) + row[1, i] + part * (row[1, i + 1] - row[1, i])
        if not (px >= 0 and py >= 0 and px < right and py < bottom):
            continue
        x0, y0 = int(px), int(py)
        fx, fy = px - np.float32(x0), py - np.float32(y0)
        high, low = gain * (np.float32(1) - fy), gain * fy
        r, g, b = source[x, 0], source[x, 1], source[x, 2]
        k = np.uint64(4 * (y0 * cells + x0))
        for corner in (high * (np.float32(1) - fx), high * fx):
            flat[k] += corner * r
            flat[k + one] += corner * g
            flat[k + two] += corner * b
            flat[k + three] += corner * weight
            k += four
        k += pitch
        for corner in (low * (np.float32(1) - fx), low * fx):
            flat[k] += corner * r
            flat[k + one] += corner * g
            flat[k + two] += corner * b
            flat[k + three] += corner * weight
            k += four


@compiled
def average_band(sums: Floats, moving: Floats, enough: float, colour: Floats) -> int:
    """Divide the sums by their weight into `colour` (h, w, 3); count moving pixels with too little weight."""
    height, width, _ = colour.shape
    holes = 0
    for y in range(height):
        for x in range(width):
            weight = sums[y + 1, x + 1, 3]
            inverse = np.float32(1) / max(weight, np.float32(1e-12))
            colour[y, x, 0] = sums[y + 1, x + 1, 0] * inverse
            colour[y, x, 1] = sums[y + 1, x + 1, 1] * inverse
            colour[y, x, 2] = sums[y + 1, x + 1, 2] * inverse
            if weight < enough and moving[y, x] > 0:
                holes += 1
    return holes


@compiled
def composite_band(colour: Floats, moving: Floats, photo: Bytes, frame: Bytes) -> None:
    """Lay the moving part over the photo; where nothing moves the frame keeps the photo's bytes."""
    height, width, _ = colour.shape
    for y in range(height):
        for x in range(width):
            share = moving[y, x]
            if share <= 0:
                continue
            for c in range(3):
                still = np.float32(photo[y, x, c])
                value = still + share * (colour[y, x, c] - still)
                frame[y, x, c] = np.uint8(min(max(value + np.float32(0.5), np.float32(0)), np.float32(255)))
