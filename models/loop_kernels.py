# ruff: noqa: N803, PLR0913 - names carry their dimensions; a kernel takes its buffers one by one
"""Compiled inner loops of the renderer: splat a window, average, composite. All serial, all deterministic.

A window holds the sources, a band the destinations. Colours travel as (weight·r, weight·g, weight·b, weight)
so that four floats fill one vector register. Displacement fields live on a coarse grid whose cell (j, i)
covers `step` × `step` pixels; values are in grid cells.
"""

import numpy as np
from numpy.typing import NDArray

from models.compiled import compiled

__all__ = ["TILE", "average_band", "lay_over", "splat_features", "splat_window", "write_moving"]

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
    places = np.empty((2, TILE), np.float32)
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
                _positions(field, step, tile_x, end_x, y, offset_y, offset_x, places)
                _splat_row(weighted[y], places, share, tile_x, end_x, sums)


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
def _positions(
    field: Floats, step: int, start: int, end: int, y: int, offset_y: int, offset_x: int, places: Floats
) -> None:
    """Where pixels start … end − 1 of row y land, in cells of the band's sums: places[0] is x, [1] is y."""
    _, rows, columns = field.shape
    at = min(max((y + 0.5) / step - 0.5, 0.0), rows - 1.0)
    j = int(at)
    below, part_y = min(j + 1, rows - 1), np.float32(at - j)
    scale, inverse = np.float32(step), np.float32(1.0 / step)
    for x in range(start, end):
        across = (np.float32(x) + np.float32(0.5)) * inverse - np.float32(0.5)
        across = min(max(across, np.float32(0)), np.float32(columns - 1))
        i = np.int32(across)
        right, part_x = min(i + 1, columns - 1), across - np.float32(i)
        high = field[0, j, i] + part_x * (field[0, j, right] - field[0, j, i])
        low = field[0, below, i] + part_x * (field[0, below, right] - field[0, below, i])
        places[0, x - start] = np.float32(x + offset_x + 1) + scale * (high + part_y * (low - high))
        high = field[1, j, i] + part_x * (field[1, j, right] - field[1, j, i])
        low = field[1, below, i] + part_x * (field[1, below, right] - field[1, below, i])
        places[1, x - start] = np.float32(y + offset_y + 1) + scale * (high + part_y * (low - high))


@compiled
def _splat_row(source: Floats, places: Floats, share: float, start: int, end: int, sums: Floats) -> None:
    """Splat pixels start … end − 1 of one source row to their places."""
    flat, row = sums.reshape(-1), source.reshape(-1)
    cells = np.int64(sums.shape[1])
    right, bottom, gain = np.float32(sums.shape[1] - 1), np.float32(sums.shape[0] - 1), np.float32(share)
    # Unsigned flat indices spare the tests for negative ones and let the four channels share a register.
    one, two, three, four = np.uint64(1), np.uint64(2), np.uint64(3), np.uint64(4)
    pitch = np.uint64(4 * cells - 8)
    for x in range(start, end):
        s = np.uint64(4 * x)
        weight = row[s + three]
        px, py = places[0, x - start], places[1, x - start]
        if not (weight > 0 and px >= 0 and py >= 0 and px < right and py < bottom):
            continue
        x0, y0 = np.int32(px), np.int32(py)
        fx, fy = px - np.float32(x0), py - np.float32(y0)
        high, low = gain * (np.float32(1) - fy), gain * fy
        r, g, b = row[s], row[s + one], row[s + two]
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
def splat_features(
    weighted: Floats,
    field: Floats,
    ratio: float,
    scale: float,
    share: float,
    offset: tuple[int, int],
    sums: Floats,
) -> None:
    """Add (h, w, C) sources, already weighted, to `sums`, which has a rim of one cell, with any C.

    ratio: grid cells per source cell; scale: source cells per grid cell; offset (y, x): the first source in
    the band's coordinates.
    """
    height, width, channels = weighted.shape
    _, rows, columns = field.shape
    band_height, band_width = sums.shape[0] - 2, sums.shape[1] - 2
    size, gain = np.float32(scale), np.float32(share)
    for y in range(height):
        at_y = min(max((y + 0.5) * ratio - 0.5, 0.0), rows - 1.0)
        j = int(at_y)
        below, part_y = min(j + 1, rows - 1), np.float32(at_y - j)
        for x in range(width):
            if weighted[y, x, channels - 1] <= 0:
                continue
            at_x = min(max((x + 0.5) * ratio - 0.5, 0.0), columns - 1.0)
            i = int(at_x)
            right, part_x = min(i + 1, columns - 1), np.float32(at_x - i)
            high = field[0, j, i] + part_x * (field[0, j, right] - field[0, j, i])
            low = field[0, below, i] + part_x * (field[0, below, right] - field[0, below, i])
            px = np.float32(x + offset[1] + 1) + size * (high + part_y * (low - high))
            high = field[1, j, i] + part_x * (field[1, j, right] - field[1, j, i])
            low = field[1, below, i] + part_x * (field[1, below, right] - field[1, below, i])
            py = np.float32(y + offset[0] + 1) + size * (high + part_y * (low - high))
            if not (px >= 0 and py >= 0 and px < band_width + 1 and py < band_height + 1):
                continue
            x0, y0 = int(px), int(py)
            fx, fy = px - np.float32(x0), py - np.float32(y0)
            high, low = gain * (np.float32(1) - fy), gain * fy
            left, other = np.float32(1) - fx, fx
            for c in range(channels):
                value = weighted[y, x, c]
                sums[y0, x0, c] += high * left * value
                sums[y0, x0 + 1, c] += high * other * value
                sums[y0 + 1, x0, c] += low * left * value
                sums[y0 + 1, x0 + 1, c] += low * other * value


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
def lay_over(colour: Floats, moving: Floats, photo: Bytes) -> None:
    """Mix the band's colours with the photo by the moving share, in place: 0 leaves the photo's colour."""
    height, width, _ = colour.shape
    for y in range(height):
        for x in range(width):
            share = moving[y, x]
            for c in range(3):
                still = np.float32(photo[y, x, c])
                colour[y, x, c] = still + share * (colour[y, x, c] - still) if share > 0 else still


@compiled
def write_moving(colour: Floats, moving: Floats, frame: Bytes) -> None:
    """Round the colours into the frame where anything moves; elsewhere its bytes are not touched."""
    height, width, _ = colour.shape
    for y in range(height):
        for x in range(width):
            if moving[y, x] > 0:
                for c in range(3):
                    value = colour[y, x, c] + np.float32(0.5)
                    frame[y, x, c] = np.uint8(min(max(value, np.float32(0)), np.float32(255)))
