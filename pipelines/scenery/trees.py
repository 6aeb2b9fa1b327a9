"""Trees: small sprites planted on the relief, near ones over far ones, mirrored in still water.

Letters: N trees, H and W of the picture.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numba import njit
from numpy.typing import NDArray

from pipelines.scenery.noise import _hash
from pipelines.scenery.terrain import Camera

__all__ = ["Trees", "draw_trees"]

Floats = NDArray[np.float32]


@dataclass(frozen=True, kw_only=True, slots=True)
class Trees:
    """N trees, sorted from far to near."""

    right_N: Floats  # world X
    depth_N: Floats  # world Z
    foot_N: Floats  # height of the ground there
    tall_N: Floats  # metres
    round_N: Floats  # 0 conifer .. 1 broad crown
    bright_N3: Floats  # colour of the sunny side, haze included
    dark_N3: Floats  # colour of the shady side, haze included


@njit(cache=True, inline="always")
def _lump(x: float, y: float, salt: int) -> float:
    """Value noise in [0, 1], bilinear: cheap leaf clumps."""
    i = int(np.floor(x))
    j = int(np.floor(y))
    u = x - i
    v = y - j
    a = (_hash(i, j, salt) & 0xFFFF) / 65535.0
    b = (_hash(i + 1, j, salt) & 0xFFFF) / 65535.0
    c = (_hash(i, j + 1, salt) & 0xFFFF) / 65535.0
    d = (_hash(i + 1, j + 1, salt) & 0xFFFF) / 65535.0
    u = u * u * (3.0 - 2.0 * u)
    v = v * v * (3.0 - 2.0 * v)
    return a + u * (b - a) + v * (c - a) + u * v * (a - b - c + d)


@njit(cache=True, inline="always")
def _outline(v: float, lump: float, broad: float) -> float:
    """Half width of a tree at v (0 top, 1 foot), as a share of its greatest."""
    if broad < 0.5:
        layers = v * 8.5 + 0.5 * lump
        tooth = layers - np.floor(layers)
        return 0.08 if v > 0.94 else v * (0.55 + 0.45 * tooth) * (0.72 + 0.4 * lump) + 0.03
    mid = (v - 0.45) / 0.42
    return 0.09 if v > 0.85 else np.sqrt(max(0.0, 1.0 - mid * mid)) * (0.60 + 0.42 * lump)


@njit(cache=True)
def _draw(
    boxes: tuple[Floats, Floats, Floats, Floats],
    looks: tuple[Floats, Floats, Floats, Floats],
    depth: Floats,
    lit_side: float,
    mirrored: bool,
    image: Floats,
) -> None:
    column, foot_row, tall_px, tree_depth = boxes
    crown, bright, dark, _ = looks
    height, width, _c = image.shape
    for n in range(column.size):
        tall = tall_px[n]
        if tall < 1.2 or tall > 0.42 * height:
            continue
        broad = crown[n]
        half = tall * (0.145 + 0.31 * broad)
        x0 = max(0, int(column[n] - half))
        x1 = min(width - 1, int(column[n] + half + 1))
        y0 = max(0, int(foot_row[n] - tall))
        y1 = min(height - 1, int(foot_row[n]))
        if mirrored:
            y0 = max(0, int(foot_row[n]))
            y1 = min(height - 1, int(foot_row[n] + tall))
        salt = n * 7 + 13
        grainy = max(2.0, min(36.0, tall / 4.5))
        for y in range(y0, y1 + 1):
            v = 1.0 - abs(foot_row[n] - y) / tall  # 0 at the top, 1 at the foot
            if v < 0.0:
                continue
            for x in range(x0, x1 + 1):
                if depth[y, x] > 0.0 and depth[y, x] < tree_depth[n] * 0.985:
                    continue
                u = (x - column[n]) / half
                lump = _lump(u * 3.1 + 9.0, v * 9.0, salt)
                fine = _lump(u * grainy * 0.5, v * grainy, salt + 3)
                leaf = _lump(u * grainy * 1.1, v * grainy * 2.2, salt + 5)
                edge = _outline(v, lump, broad)
                if abs(u) + 0.22 * (fine - 0.5) + 0.16 * (leaf - 0.5) > edge:
                    continue
                light = 0.36 + 0.42 * (u * lit_side) + 0.55 * (lump - 0.5)
                light += 0.60 * (fine - 0.5) + 0.70 * (leaf - 0.5) - 0.75 * (v - 0.5)
                light = min(1.0, max(0.0, light))
                if not mirrored:
                    depth[y, x] = tree_depth[n]
                for c in range(3):
                    image[y, x, c] = dark[n, c] + (bright[n, c] - dark[n, c]) * light


def draw_trees(
    trees: Trees, camera: Camera, image_HW3: Floats, depth_HW: Floats, *, lit_side: float, mirrored: bool
) -> None:
    """Paint the trees into a linear picture in place, hidden behind nearer land (depth 0: open sky).

    Their own depth is written into depth_HW, except when mirrored."""
    column = camera.column_of(trees.right_N, trees.depth_N)
    foot = camera.row_of(trees.foot_N, trees.depth_N)
    if mirrored:
        foot = np.asarray(
            camera.horizon_px - 0.5 + camera.focal_px * (trees.foot_N + camera.height) / trees.depth_N,
            np.float32,
        )
    tall = (camera.focal_px * trees.tall_N / trees.depth_N).astype(np.float32)
    boxes = (column, foot, tall, trees.depth_N)
    looks = (trees.round_N, trees.bright_N3, trees.dark_N3, trees.round_N)
    _draw(boxes, looks, depth_HW, lit_side, mirrored, image_HW3)
