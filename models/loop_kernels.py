# ruff: noqa: PLR0913 - a kernel takes its buffers one by one
"""Compiled inner loops of the renderer: splat a window, average, composite. All serial, all deterministic.

A window holds the sources, a band the destinations. A window is no copy: its row y is the photo's row
`rows[y]`, its column x the photo's column `columns[x]`, so reflected surroundings cost no memory.
Colours travel as (weight·r, weight·g, weight·b, weight): four floats fill one vector register.
Displacement fields live on a coarse grid whose cell (j, i) covers `step` × `step` pixels; values are in
grid cells.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.compiled import compiled

__all__ = [
    "LITTLE_WEIGHT",
    "TILE",
    "average_way",
    "blend_ways",
    "difference_blocks",
    "fill_unsure",
    "lay_over",
    "splat_features",
    "splat_window",
    "write_moving",
]

Floats = NDArray[np.float32]
Bytes = NDArray[np.uint8]
Places = NDArray[np.int32]
Window = tuple[Bytes, Floats, Places, Places]

# Sources are visited in tiles of this many pixels a side; tiles that are still, or whose displacement leads
# out of the band, are skipped whole.
TILE = 32

# Neighbours that land further apart than this many pixels are cut into pieces, up to so many a side.
WIDEST_GAP = 1.6
MOST_PIECES = 4
# Less weight than this is rounding's own; dividing by it would show it.
LITTLE_WEIGHT = 0.02
# Stands for a colour where nothing landed.
NO_COLOUR = -1.0


@compiled
def splat_window(
    window: Window,
    active: Bytes,
    field: Floats,
    step: int,
    share: float,
    offset_y: int,
    offset_x: int,
    sums: Floats,
) -> None:
    """Add the window's sources, displaced and weighted by `share`, to `sums` (a band with a rim of one cell).

    window: the photo (H, W, 3), its moving share (H, W), and the rows (h,) and columns (w,) that the window
    shows; active: one flag per tile; field: (2, h / step, w / step) in cells; offset: the window's first
    pixel in the band's coordinates.
    """
    photo, moving, window_rows, window_columns = window
    height, width = window_rows.size, window_columns.size
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
            pieces = _pieces(field[:, j0 : j1 + 1, i0 : i1 + 1])
            if pieces > 1:
                tile = (tile_y, end_y, tile_x, end_x)
                _splat_pieces(window, field, step, share, tile, (offset_y, offset_x), pieces, sums)
                continue
            for y in range(tile_y, end_y):
                _positions(field, step, tile_x, end_x, y, offset_y, offset_x, places)
                row = window_rows[y]
                _splat_row(photo[row], moving[row], window_columns[tile_x:end_x], places, share, sums)


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
def _pieces(field: Floats) -> int:
    """Into how many pieces a side pixels are cut so that, stretched, they still lie close together."""
    widest = np.float32(0)
    for j in range(field.shape[1] - 1):
        for i in range(field.shape[2] - 1):
            xx = 1 + field[0, j, i + 1] - field[0, j, i]
            yx = field[1, j, i + 1] - field[1, j, i]
            xy = field[0, j + 1, i] - field[0, j, i]
            yy = 1 + field[1, j + 1, i] - field[1, j, i]
            widest = max(widest, xx * xx + yx * yx, xy * xy + yy * yy)
    return min(int(np.ceil(np.sqrt(widest) / WIDEST_GAP)), MOST_PIECES)


@compiled
def _splat_pieces(
    window: Window,
    field: Floats,
    step: int,
    share: float,
    tile: tuple[int, int, int, int],
    offset: tuple[int, int],
    pieces: int,
    sums: Floats,
) -> None:
    """Splat a tile that is stretched: pixels are cut, their pieces' colours interpolated between pixels."""
    height, width = window[2].size, window[3].size
    _, rows, columns = field.shape
    right, bottom = np.float32(sums.shape[1] - 1), np.float32(sums.shape[0] - 1)
    scale, gain = np.float32(step), np.float32(share / (pieces * pieces))
    colour = np.empty(4, np.float32)
    for fine_y in range(tile[0] * pieces, tile[1] * pieces):
        source_y = np.float32((fine_y + 0.5) / pieces - 0.5)
        y0, y1, part_y = _between(source_y, height)
        j0, j1, along_y = _between(np.float32((source_y + 0.5) / step - 0.5), rows)
        for fine_x in range(tile[2] * pieces, tile[3] * pieces):
            source_x = np.float32((fine_x + 0.5) / pieces - 0.5)
            x0, x1, part_x = _between(source_x, width)
            for c in range(4):
                first, second = _weighted(window, y0, x0, c), _weighted(window, y1, x0, c)
                high = first + part_x * (_weighted(window, y0, x1, c) - first)
                low = second + part_x * (_weighted(window, y1, x1, c) - second)
                colour[c] = gain * (high + part_y * (low - high))
            if colour[3] <= 0:
                continue
            i0, i1, along_x = _between(np.float32((source_x + 0.5) / step - 0.5), columns)
            high = field[0, j0, i0] + along_x * (field[0, j0, i1] - field[0, j0, i0])
            low = field[0, j1, i0] + along_x * (field[0, j1, i1] - field[0, j1, i0])
            px = source_x + np.float32(offset[1] + 1) + scale * (high + along_y * (low - high))
            high = field[1, j0, i0] + along_x * (field[1, j0, i1] - field[1, j0, i0])
            low = field[1, j1, i0] + along_x * (field[1, j1, i1] - field[1, j1, i0])
            py = source_y + np.float32(offset[0] + 1) + scale * (high + along_y * (low - high))
            if not (px >= 0 and py >= 0 and px < right and py < bottom):
                continue
            u, v = np.int32(px), np.int32(py)
            fx, fy = px - np.float32(u), py - np.float32(v)
            for c in range(4):
                sums[v, u, c] += (1 - fy) * (1 - fx) * colour[c]
                sums[v, u + 1, c] += (1 - fy) * fx * colour[c]
                sums[v + 1, u, c] += fy * (1 - fx) * colour[c]
                sums[v + 1, u + 1, c] += fy * fx * colour[c]


@compiled
def _weighted(window: Window, y: int, x: int, channel: int) -> Any:
    """Weight times colour of a window's pixel; channel 3 is the weight alone."""
    row, column = window[2][y], window[3][x]
    weight = window[1][row, column]
    return weight * np.float32(window[0][row, column, channel]) if channel < 3 else weight


@compiled
def _between(at: np.float32, size: int) -> tuple[int, int, np.float32]:
    """The two cells around a coordinate, clamped to 0 … size − 1, and the share of the second."""
    inside = min(max(float(at), 0.0), size - 1.0)
    first = int(inside)
    return first, min(first + 1, size - 1), np.float32(inside - first)


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
def _splat_row(
    photo: Bytes, moving: Floats, columns: Places, places: Floats, share: float, sums: Floats
) -> None:
    """Splat the pixels at `columns` of a photo row (W, 3), weighted by what moves, to their places."""
    flat, row = sums.reshape(-1), photo.reshape(-1)
    cells = np.int64(sums.shape[1])
    right, bottom, gain = np.float32(sums.shape[1] - 1), np.float32(sums.shape[0] - 1), np.float32(share)
    # Unsigned flat indices spare the tests for negative ones and let the four channels share a register.
    one, two, three, four = np.uint64(1), np.uint64(2), np.uint64(3), np.uint64(4)
    pitch = np.uint64(4 * cells - 8)
    for x in range(columns.size):
        column = columns[x]
        weight = moving[column]
        px, py = places[0, x], places[1, x]
        if not (weight > 0 and px >= 0 and py >= 0 and px < right and py < bottom):
            continue
        x0, y0 = np.int32(px), np.int32(py)
        fx, fy = px - np.float32(x0), py - np.float32(y0)
        high, low = gain * (np.float32(1) - fy), gain * fy
        s = np.uint64(3 * np.int64(column))
        r, g, b = (
            weight * np.float32(row[s]),
            weight * np.float32(row[s + one]),
            weight * np.float32(row[s + two]),
        )
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
def average_way(sums: Floats, moving: Floats, colour: Floats, cover: Floats) -> None:
    """Divide one way's sums by their weight into `colour` (h, w, 3); `cover` (h, w) is the weight, at most 1.

    Still pixels are black. A moving pixel that hardly anything reached takes the average of what reached
    its neighbours.
    """
    height, width, _ = colour.shape
    for y in range(height):
        for x in range(width):
            weight = sums[y + 1, x + 1, 3]
            cover[y, x] = min(weight, np.float32(1))
            if moving[y, x] <= 0:
                # A number all the same: filters multiply it by zero.
                colour[y, x, 0] = colour[y, x, 1] = colour[y, x, 2] = 0
                continue
            if weight > LITTLE_WEIGHT:
                inverse = np.float32(1) / weight
                colour[y, x, 0] = sums[y + 1, x + 1, 0] * inverse
                colour[y, x, 1] = sums[y + 1, x + 1, 1] * inverse
                colour[y, x, 2] = sums[y + 1, x + 1, 2] * inverse
                continue
            r = g = b = total = np.float32(0)
            for v in range(y, y + 3):
                for u in range(x, x + 3):
                    r += sums[v, u, 0]
                    g += sums[v, u, 1]
                    b += sums[v, u, 2]
                    total += sums[v, u, 3]
            if total > LITTLE_WEIGHT:
                colour[y, x, 0], colour[y, x, 1], colour[y, x, 2] = r / total, g / total, b / total
            else:
                colour[y, x, 0] = colour[y, x, 1] = colour[y, x, 2] = NO_COLOUR


@compiled
def blend_ways(
    forward: Floats,
    backward: Floats,
    covers: tuple[Floats, Floats],
    alpha: float,
    moving: Floats,
    sure: Floats,
) -> int:
    """Mix both ways' colours into `forward` by 1 − α and α, each as far as it covers the pixel.

    covers: each way's share of pixels reached around here; sure (h, w): how far the result can be trusted,
    0 … 1. Returns the number of moving pixels that neither way reaches.
    """
    height, width, _ = forward.shape
    holes = 0
    for y in range(height):
        for x in range(width):
            if moving[y, x] <= 0:
                sure[y, x] = 0
                continue
            # A quarter of the pixels around is cover enough: how dense a way's sources lie must not show.
            first = min(covers[0][y, x] * np.float32(4), np.float32(1))
            second = min(covers[1][y, x] * np.float32(4), np.float32(1))
            if forward[y, x, 0] == NO_COLOUR:
                first = np.float32(0)
            if backward[y, x, 0] == NO_COLOUR:
                second = np.float32(0)
            sure[y, x] = max(first, second)
            if sure[y, x] < 1:
                holes += 1
            second *= np.float32(alpha)
            share = second / (np.float32(1 - alpha) * first + second + np.float32(1e-9))
            for c in range(3):
                forward[y, x, c] += share * (backward[y, x, c] - forward[y, x, c])
    return holes


@compiled
def difference_blocks(
    colour: Floats, photo: Bytes, moving: Floats, sure: Floats, block: int
) -> tuple[Floats, Floats]:
    """Mean difference of colours and photo in blocks (h / block, w / block, 3), and the mean of `sure`."""
    height, width, _ = colour.shape
    rows, columns = -(-height // block), -(-width // block)
    mean = np.zeros((rows, columns, 3), np.float32)
    share = np.zeros((rows, columns), np.float32)
    for y in range(height):
        for x in range(width):
            weight = sure[y, x]
            if moving[y, x] > 0 and weight > 0:
                share[y // block, x // block] += weight
                for c in range(3):
                    mean[y // block, x // block, c] += weight * (colour[y, x, c] - np.float32(photo[y, x, c]))
    for j in range(rows):
        for i in range(columns):
            for c in range(3):
                mean[j, i, c] /= max(share[j, i], np.float32(1e-6))
            share[j, i] /= np.float32(block * block)
    return mean, share


@compiled
def fill_unsure(
    colour: Floats, photo: Bytes, moving: Floats, sure: Floats, filled: Floats, block: int
) -> None:
    """Where a moving pixel is unsure, let the photo plus the blocks' interpolated difference take over."""
    height, width, _ = colour.shape
    rows, columns, _ = filled.shape
    for y in range(height):
        for x in range(width):
            weight = sure[y, x]
            if moving[y, x] <= 0 or weight >= 1:
                continue
            j0, j1, part_y = _between(np.float32((y + 0.5) / block - 0.5), rows)
            i0, i1, part_x = _between(np.float32((x + 0.5) / block - 0.5), columns)
            for c in range(3):
                high = filled[j0, i0, c] + part_x * (filled[j0, i1, c] - filled[j0, i0, c])
                low = filled[j1, i0, c] + part_x * (filled[j1, i1, c] - filled[j1, i0, c])
                value = np.float32(photo[y, x, c]) + high + part_y * (low - high)
                own = colour[y, x, c] if weight > 0 else value
                colour[y, x, c] = value + weight * (own - value)


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
