"""What a loop needs before its first frame: its configuration, its periods, and the sources to splat.

Legend: H, W the photo; h, w a window of it; 2 is (dx, dy) in pixels per output frame, x right, y down.
"""

import math
from dataclasses import dataclass, replace
from typing import TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

from models.loop_kernels import TILE
from models.push_pull import push_pull
from storage.errors import UsageError

__all__ = ["Box", "LoopConfig", "LoopSource", "loop_periods", "moving_box", "prepare_source"]

Floats = NDArray[np.float32]
Bytes = NDArray[np.uint8]
T = TypeVar("T", np.float32, np.uint8)

# A period shorter than this reads as a twitch, not as water.
SHORTEST_PERIOD_SECONDS = 0.6
# Displacements are integrated on a grid of at most about this many cells; motion fields are smooth.
GRID_CELLS = 60_000
# Still pixels kept around what moves, for the deep animator to see where the water ends.
SURROUNDINGS = 32
COARSEST_GRID = 8


@dataclass(frozen=True, kw_only=True, slots=True)
class LoopConfig:
    """How a loop is rendered.

    frames: length of the loop; fps: frames per second it is shown at; speed: factor on the motion;
    max_displacement: furthest a source may travel, as a share of the photo's longer side;
    padding: reflected surroundings, as a share of the longer side, from which water enters the picture;
    contrast: restore the local contrast that averaging takes; threads: frames rendered at a time, which
    never changes the result.
    """

    frames: int = 60
    fps: float = 30.0
    speed: float = 1.0
    max_displacement: float = 0.2
    padding: float = 0.1
    contrast: bool = True
    threads: int = 1

    def __post_init__(self) -> None:
        if self.frames < 2:
            raise UsageError(f"a loop needs at least 2 frames, got {self.frames}")
        if not (math.isfinite(self.fps) and self.fps > 0):
            raise UsageError(f"fps must be positive, got {self.fps}")
        if not (math.isfinite(self.speed) and self.speed >= 0):
            raise UsageError(f"speed must be zero or more, got {self.speed}")
        if not 0 < self.max_displacement <= 2:
            raise UsageError(f"max_displacement must lie in (0, 2], got {self.max_displacement}; try 0.2")
        if not 0 <= self.padding <= 1:
            raise UsageError(f"padding must lie in [0, 1], got {self.padding}; try 0.1")
        if self.threads < 1:
            raise UsageError(f"threads must be at least 1, got {self.threads}")


@dataclass(frozen=True, kw_only=True, slots=True)
class Box:
    """Rows top … bottom − 1 and columns left … right − 1."""

    top: int
    left: int
    bottom: int
    right: int

    @property
    def height(self) -> int:
        return self.bottom - self.top

    @property
    def width(self) -> int:
        return self.right - self.left

    def grown(self, margin: int, within: "Box") -> "Box":
        """Larger by `margin` on every side, but not beyond `within`."""
        return Box(
            top=max(self.top - margin, within.top),
            left=max(self.left - margin, within.left),
            bottom=min(self.bottom + margin, within.bottom),
            right=min(self.right + margin, within.right),
        )

    @property
    def slices(self) -> tuple[slice, slice]:
        return slice(self.top, self.bottom), slice(self.left, self.right)


@dataclass(frozen=True, kw_only=True, slots=True)
class LoopSource:
    """The sources of every frame: the moving box and, where it touches the photo's edge, its reflection.

    Pads are even, and so are the box's first row and column: half-size features fall on whole pixels.
    photo_hw3: the window's colours; weighted_hw4: (weight·r, weight·g, weight·b, weight); active: one flag
    per tile that holds any weight; motion_grid: (2, h / step, w / step) in grid cells per frame; offset: the
    window's first pixel (y, x) seen from the box; periods: lengths of the sub-loops, adding up to the loop.
    """

    box: Box
    photo_hw3: Bytes
    weighted_hw4: Floats
    active: Bytes
    motion_grid: Floats
    step: int
    offset: tuple[int, int]
    periods: tuple[int, ...]


def moving_box(moving_HW: Floats) -> Box | None:
    """The smallest box that holds everything that moves, or None."""
    rows = np.flatnonzero(moving_HW.max(axis=1) > 0)
    columns = np.flatnonzero(moving_HW.max(axis=0) > 0)
    if rows.size == 0:
        return None
    return Box(top=int(rows[0]), left=int(columns[0]), bottom=int(rows[-1]) + 1, right=int(columns[-1]) + 1)


def loop_periods(config: LoopConfig, speed: float, limit: float) -> tuple[int, ...]:
    """Cut the loop into equal sub-loops so short that water at `speed` (pixels per frame) stays in `limit`.

    Every sub-loop starts and ends at the photo. Lengths differ by at most one frame when the loop's length
    does not divide; they are never shorter than about 0.6 s, so that very fast water is slowed instead.
    """
    shortest = min(config.frames, max(2, round(SHORTEST_PERIOD_SECONDS * config.fps)))
    most = config.frames // shortest
    wanted = math.ceil(config.frames * speed / max(limit, 1e-6))
    count = max(1, min(wanted, most))
    base, longer = divmod(config.frames, count)
    return tuple(base + (index < longer) for index in range(count))


def prepare_source(photo_HW3: Bytes, motion_2HW: Floats, moving_HW: Floats, config: LoopConfig) -> LoopSource:
    """Cut out what moves, pad it by reflection, extend its motion past its edge and weigh its pixels."""
    box = moving_box(moving_HW)
    if box is None:
        raise UsageError("nothing moves in this picture; check the moving mask before preparing a loop")
    box = _with_surroundings(box, photo_HW3.shape[0], photo_HW3.shape[1])
    longer_side = max(photo_HW3.shape[:2])
    limit = config.max_displacement * longer_side
    rows, columns = box.slices
    moving = moving_HW[rows, columns]
    motion = np.multiply(motion_2HW[:, rows, columns], np.float32(config.speed), dtype=np.float32)
    speeds = np.hypot(motion[0], motion[1])[moving > 0]
    periods = loop_periods(config, float(np.percentile(speeds, 95)), limit)
    _slow_down(motion, limit / max(periods))
    reach = math.ceil(min(float(speeds.max()) * max(periods), config.padding * longer_side, limit))
    pads = _pads(box, photo_HW3.shape[0], photo_HW3.shape[1], reach)
    moving = _reflected(moving, pads)
    weights = moving.astype(np.float32)
    window = _reflected(photo_HW3[rows, columns], pads)
    planes = [_reflected(plane, pads) for plane in motion]
    step = _grid_step(*weights.shape)
    return LoopSource(
        box=box,
        photo_hw3=window,
        weighted_hw4=_weighted(window, weights),
        active=_active_tiles(weights),
        motion_grid=_motion_grid(planes, weights, step),
        step=step,
        offset=(-pads[0], -pads[2]),
        periods=periods,
    )


def _with_surroundings(box: Box, height: int, width: int) -> Box:
    """The box with some of the still picture around it, from an even row and column on."""
    grown = box.grown(SURROUNDINGS, Box(top=0, left=0, bottom=height, right=width))
    return replace(grown, top=grown.top - grown.top % 2, left=grown.left - grown.left % 2)


def _slow_down(motion: Floats, fastest: float) -> None:
    """Hold every pixel's speed to `fastest`, keeping its direction, in place."""
    factor = np.hypot(motion[0], motion[1])
    np.maximum(factor, np.float32(1e-6), out=factor)
    np.divide(np.float32(fastest), factor, out=factor)
    motion *= np.minimum(factor, np.float32(1), out=factor)


def _pads(box: Box, height: int, width: int, reach: int) -> tuple[int, int, int, int]:
    """Rows above and below, columns left and right: only where the box touches the photo's edge."""
    vertical, horizontal = (min(reach, side - 1) // 2 * 2 for side in (box.height, box.width))
    return (
        vertical if box.top == 0 else 0,
        vertical if box.bottom == height else 0,
        horizontal if box.left == 0 else 0,
        horizontal if box.right == width else 0,
    )


def _reflected(plane: NDArray[T], pads: tuple[int, int, int, int]) -> NDArray[T]:
    top, bottom, left, right = pads
    return np.pad(plane, ((top, bottom), (left, right), (0, 0))[: plane.ndim], mode="reflect")


def _weighted(colour: Bytes, weights: Floats) -> Floats:
    weighted = np.empty((*weights.shape, 4), np.float32)
    weighted[..., 3] = weights
    for channel in range(3):
        np.multiply(colour[..., channel], weights, out=weighted[..., channel])
    return weighted


def _active_tiles(weights: Floats) -> Bytes:
    height, width = weights.shape
    tops, lefts = np.arange(0, height, TILE), np.arange(0, width, TILE)
    most = np.maximum.reduceat(np.maximum.reduceat(weights, tops, axis=0), lefts, axis=1)
    return (most > 0).astype(np.uint8)


def _grid_step(height: int, width: int) -> int:
    return min(COARSEST_GRID, max(1, round(math.sqrt(height * width / GRID_CELLS))))


def _motion_grid(planes: list[Floats], weights: Floats, step: int) -> Floats:
    """Motion on the coarse grid in cells per frame, carried past the moving edge.

    Without that, lookups beside a shore would average with the shore's zero and water would pile up there;
    what flows past the edge is simply not drawn.
    """
    height, width = weights.shape
    # The grid may overhang the window by part of a cell; repeating the edge keeps its cells square.
    below, right = -height % step, -width % step
    cells = (math.ceil(width / step), math.ceil(height / step))

    def shrink(plane: Floats) -> Floats:
        whole = cv2.copyMakeBorder(plane, 0, below, 0, right, cv2.BORDER_REPLICATE)
        return np.asarray(cv2.resize(whole, cells, interpolation=cv2.INTER_AREA), np.float32)

    share = shrink(weights)
    mean = np.stack([shrink(plane * weights) for plane in planes], axis=-1)
    mean /= np.maximum(share, np.float32(1e-6))[..., None]
    filled = push_pull(mean, share, enough=1e-3)
    return np.ascontiguousarray(filled.transpose(2, 0, 1)) / np.float32(step)
