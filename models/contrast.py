"""Give averaged water its contrast back, so that a loop does not pulse.

Half-way through a loop every pixel is the mean of two textures that know nothing of each other, which costs
up to 29 % of their contrast, and splatting between pixels blurs a little more. The local contrast that
belongs there is known: it travels with the water from the photo. Detail around the local mean is enlarged
until it has it. Everything is measured over moving pixels only: a bright shore is no texture of the sea.

Legend: h, w a band or window; luma and contrast in grey levels.
"""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from models.compiled import compiled
from models.loop_kernels import splat_features
from models.loop_plan import LoopSource

__all__ = ["ContrastPlan", "expected_energy", "local_energy", "plan_contrast", "restore_contrast"]

Floats = NDArray[np.float32]

# Variance below which there is no texture to restore, only noise, in grey levels squared.
NOISE = 2.0
LARGEST_GAIN = 2.0
# The longer side over this is how far "local" reaches; texture coarser than that may still pulse.
RADIUS_SHARE = 64
# Rows of the energy grid that are measured at a time.
PLAN_CELLS = 8
LUMA: Floats = np.array([[0.299, 0.587, 0.114]], np.float32)


@dataclass(frozen=True, kw_only=True, slots=True)
class ContrastPlan:
    """What the photo's contrast is, and where it goes.

    energy_grid: (h / cell, w / cell, 2), (weight · energy, weight) of the window's sources; cell and radius
    in pixels; step: pixels per cell of the displacement fields.
    """

    energy_grid: Floats
    cell: int
    step: int
    radius: int

    @property
    def halo(self) -> int:
        """How many pixels around a region count: the mean's radius, and the energy's."""
        return 2 * self.radius


def plan_contrast(source: LoopSource, longer_side: int) -> ContrastPlan:
    """Measure the photo's local energy where it moves, on a grid as coarse as its window is wide."""
    radius = max(3, round(longer_side / RADIUS_SHARE))
    height, width = source.shape
    energy_grid = np.empty((-(-height // radius), -(-width // radius), 2), np.float32)
    # In bands, since the planes between would be the largest of a huge photo's loop.
    for first in range(0, energy_grid.shape[0], PLAN_CELLS):
        last = min(first + PLAN_CELLS, energy_grid.shape[0])
        energy_grid[first:last] = _energy_cells(source, radius, first, last)
    return ContrastPlan(energy_grid=energy_grid, cell=radius, step=source.step, radius=radius)


def _energy_cells(source: LoopSource, radius: int, first: int, last: int) -> Floats:
    """Rows first … last − 1 of the energy grid."""
    height, width = source.shape
    top, bottom = first * radius, min(last * radius, height)
    start, end = max(top - 2 * radius, 0), min(bottom + 2 * radius, height)
    colours, weights = source.strip(start, end)
    luma = _luma(colours.astype(np.float32))
    luma[weights <= 0] = 0
    _, energy = local_energy(luma, weights, radius)
    rows = slice(top - start, bottom - start)
    size = -(-width // radius), last - first
    padding = 0, -(bottom - top) % radius, 0, -width % radius
    planes = [
        cv2.resize(
            cv2.copyMakeBorder(plane[rows], *padding, cv2.BORDER_REPLICATE),
            size,
            interpolation=cv2.INTER_AREA,
        )
        for plane in (energy * weights, weights)
    ]
    return np.stack(planes, axis=-1).astype(np.float32)


def local_energy(luma_hw: Floats, moving_hw: Floats, radius: int) -> tuple[Floats, Floats]:
    """Detail around the local mean, and the local mean of its square, both over moving pixels only."""
    weight = _box(moving_hw, radius)
    detail = _box(luma_hw * moving_hw, radius)
    _into_detail(detail, luma_hw, weight)
    del luma_hw  # planes of a huge photo are megabytes
    energy = _box(_weighted_square(detail, moving_hw), radius)
    _into_ratio(energy, weight)
    return detail, energy


def expected_energy(plan: ContrastPlan, fields: tuple[Floats, Floats], alpha: float) -> Floats:
    """What the sources' energy averages to where they land: on the plan's grid, 0 where nothing does."""
    rows, columns, _ = plan.energy_grid.shape
    sums = np.zeros((rows + 2, columns + 2, 2), np.float32)
    for field, share in zip(fields, (1.0 - alpha, alpha), strict=True):
        splat_features(
            plan.energy_grid, field, plan.cell / plan.step, plan.step / plan.cell, share, (0, 0), sums
        )
    energy = sums[1:-1, 1:-1, 0].copy()
    _into_ratio(energy, sums[1:-1, 1:-1, 1])
    return energy


def restore_contrast(
    colour_hw3: Floats, moving_hw: Floats, plan: ContrastPlan, expected_grid: Floats, offset: tuple[int, int]
) -> None:
    """Enlarge the detail of a band's colours, in place, until its energy is the expected one.

    offset: the band's first pixel (y, x) seen from the window that the grid covers.
    """
    detail, energy = local_energy(_luma(colour_hw3), moving_hw, plan.radius)
    _enlarge(colour_hw3, detail, energy, moving_hw, _expected(plan, expected_grid, offset, moving_hw.shape))


def _luma(colours_hw3: Floats) -> Floats:
    return np.asarray(cv2.transform(colours_hw3, LUMA), np.float32)


def _expected(plan: ContrastPlan, grid: Floats, offset: tuple[int, int], size: tuple[int, ...]) -> Floats:
    """The part of the grid under a band, at the band's resolution."""
    shrink = 1.0 / plan.cell
    # Pixel p of the band has its centre at (p + offset + ½) / cell − ½ of the grid.
    matrix = np.array(
        [
            [shrink, 0.0, (offset[1] + 0.5) * shrink - 0.5],
            [0.0, shrink, (offset[0] + 0.5) * shrink - 0.5],
        ]
    )
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    enlarged = cv2.warpAffine(grid, matrix, size[::-1], flags=flags, borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(enlarged, np.float32)


def _box(plane: Floats, radius: int) -> Floats:
    size = (2 * radius + 1, 2 * radius + 1)
    return np.asarray(cv2.boxFilter(plane, -1, size, borderType=cv2.BORDER_CONSTANT), np.float32)


@compiled
def _into_ratio(above: Floats, below: Floats) -> None:
    for y in range(above.shape[0]):
        for x in range(above.shape[1]):
            # Running sums leave dust of either sign where nothing moves.
            if below[y, x] > np.float32(1e-4):
                above[y, x] = max(above[y, x] / below[y, x], np.float32(0))
            else:
                above[y, x] = 0


@compiled
def _into_detail(sums: Floats, luma: Floats, weight: Floats) -> None:
    """Turn local sums of luma into what luma differs by from their mean."""
    for y in range(luma.shape[0]):
        for x in range(luma.shape[1]):
            enough = weight[y, x] > np.float32(1e-4)
            sums[y, x] = luma[y, x] - sums[y, x] / weight[y, x] if enough else np.float32(0)


@compiled
def _weighted_square(detail: Floats, moving: Floats) -> Floats:
    squares = np.empty_like(detail)
    for y in range(detail.shape[0]):
        for x in range(detail.shape[1]):
            squares[y, x] = detail[y, x] * detail[y, x] * moving[y, x]
    return squares


@compiled
def _enlarge(colour: Floats, detail: Floats, energy: Floats, moving: Floats, expected: Floats) -> None:
    noise, least, most = np.float32(NOISE), np.float32(1), np.float32(LARGEST_GAIN)
    for y in range(colour.shape[0]):
        for x in range(colour.shape[1]):
            if moving[y, x] <= 0:
                continue
            gain = np.sqrt((expected[y, x] + noise) / (energy[y, x] + noise))
            more = (min(max(gain, least), most) - least) * detail[y, x] * moving[y, x]
            colour[y, x, 0] += more
            colour[y, x, 1] += more
            colour[y, x, 2] += more
