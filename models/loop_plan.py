"""What a loop needs before its first frame: its configuration, its periods, and the sources to splat.

Legend: H, W the photo; h, w a window of it; 2 is (dx, dy) in pixels per output frame, x right, y down.
"""

import math
from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from models.loop_kernels import TILE, Places, Window
from models.push_pull import push_pull
from storage.errors import UsageError

__all__ = ["Box", "LoopConfig", "LoopSource", "loop_periods", "moving_box", "prepare_source"]

Floats = NDArray[np.float32]
Bytes = NDArray[np.uint8]

# A period shorter than this reads as a twitch, not as water.
SHORTEST_PERIOD_SECONDS = 0.6
# Displacements are integrated on a grid of at most about this many cells; motion fields are smooth.
GRID_CELLS = 60_000
# Still pixels kept around what moves, for the deep animator to see where the water ends.
SURROUNDINGS = 32
COARSEST_GRID = 8
# Rows of the grid that are prepared at a time, and pixels that are enough to tell how fast things move.
STRIP_CELLS = 32
SPEED_PIXELS = 4_000_000


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


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class LoopSource:
    """The sources of every frame: the moving box and, where it touches the photo's edge, its reflection.

    photo_HW3, moving_HW: the whole photo and what moves in it; rows (h,) and columns (w,): which of its rows
    and columns the window shows. Pads are even, and so are the box's first row and column: half-size
    features fall on whole pixels. active: one flag per tile that holds anything moving; motion_grid:
    (2, h / step, w / step) in grid cells per frame; offset: the window's first pixel (y, x) seen from the
    box; periods: lengths of the sub-loops, adding up to the loop.
    """

    box: Box
    photo_HW3: Bytes
    moving_HW: Floats
    rows: Places
    columns: Places
    active: Bytes
    motion_grid: Floats
    step: int
    offset: tuple[int, int]
    periods: tuple[int, ...]

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of the window."""
        return self.rows.size, self.columns.size

    @property
    def window(self) -> Window:
        """What the splatting loop reads."""
        return self.photo_HW3, self.moving_HW, self.rows, self.columns

    def strip(self, first: int, last: int) -> tuple[Bytes, Floats]:
        """Colours (rows, w, 3) and moving share (rows, w) of the window's rows first … last − 1."""
        rows = self.rows[first:last]
        return self.photo_HW3[rows][:, self.columns], self.moving_HW[rows][:, self.columns]


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
    """Find what moves, pad it by reflection, extend its motion past its edge; nothing large is copied."""
    box = moving_box(moving_HW)
    if box is None:
        raise UsageError("nothing moves in this picture; check the moving mask before preparing a loop")
    height, width = moving_HW.shape
    box = _with_surroundings(box, height, width)
    limit = config.max_displacement * max(height, width)
    speeds = _speeds(motion_2HW, moving_HW, box) * np.float32(config.speed)
    periods = loop_periods(config, float(np.percentile(speeds, 95)), limit)
    fastest = min(float(speeds.max()) * max(periods), limit)
    pads = _pads(box, height, width, math.ceil(min(fastest, config.padding * max(height, width))))
    rows = _reflected(box.top, box.bottom, pads[0], pads[1])
    columns = _reflected(box.left, box.right, pads[2], pads[3])
    step = _grid_step(rows.size, columns.size)
    motion = _Motion(motion_2HW, config.speed, limit / max(periods))
    return LoopSource(
        box=box,
        photo_HW3=np.ascontiguousarray(photo_HW3),
        moving_HW=np.ascontiguousarray(moving_HW, np.float32),
        rows=rows,
        columns=columns,
        active=_active_tiles(moving_HW, rows, columns),
        motion_grid=_motion_grid(motion, moving_HW, (rows, columns), step),
        step=step,
        offset=(-pads[0], -pads[2]),
        periods=periods,
    )


def _with_surroundings(box: Box, height: int, width: int) -> Box:
    """The box with some of the still picture around it, from an even row and column on."""
    grown = box.grown(SURROUNDINGS, Box(top=0, left=0, bottom=height, right=width))
    return replace(grown, top=grown.top - grown.top % 2, left=grown.left - grown.left % 2)


def _speeds(motion: Floats, moving: Floats, box: Box) -> Floats:
    """Speeds of what moves; every n-th row and column of a huge photo will do."""
    every = max(1, math.isqrt(box.height * box.width // SPEED_PIXELS))
    rows, columns = slice(box.top, box.bottom, every), slice(box.left, box.right, every)
    inside = moving[rows, columns] > 0
    if not inside.any():
        inside, rows, columns = moving[box.slices] > 0, *box.slices
    return np.hypot(motion[0, rows, columns][inside], motion[1, rows, columns][inside])


@dataclass(frozen=True, slots=True, eq=False)
class _Motion:
    """A motion field, sped up, and then held to `fastest` everywhere."""

    field_2HW: Floats
    speed: float
    fastest: float

    def strip(self, rows: Places, columns: Places) -> Floats:
        """(2, rows, columns) of the field, each pixel's direction kept."""
        motion = self.field_2HW[:, rows][:, :, columns] * np.float32(self.speed)
        factor = np.hypot(motion[0], motion[1])
        np.maximum(factor, np.float32(1e-6), out=factor)
        np.divide(np.float32(self.fastest), factor, out=factor)
        motion *= np.minimum(factor, np.float32(1), out=factor)
        return motion


def _pads(box: Box, height: int, width: int, reach: int) -> tuple[int, int, int, int]:
    """Rows above and below, columns left and right: only where the box touches the photo's edge."""
    vertical, horizontal = (min(reach, side - 1) // 2 * 2 for side in (box.height, box.width))
    return (
        vertical if box.top == 0 else 0,
        vertical if box.bottom == height else 0,
        horizontal if box.left == 0 else 0,
        horizontal if box.right == width else 0,
    )


def _reflected(start: int, end: int, before: int, after: int) -> Places:
    """Indices start … end − 1 with their mirror images on both sides, the outermost not repeated."""
    return np.pad(np.arange(start, end, dtype=np.int32), (before, after), mode="reflect")


def _active_tiles(moving: Floats, rows: Places, columns: Places) -> Bytes:
    lefts = np.arange(0, columns.size, TILE)
    strips = (moving[rows[top : top + TILE]].max(axis=0)[columns] for top in range(0, rows.size, TILE))
    return np.stack([np.maximum.reduceat(most, lefts) > 0 for most in strips]).astype(np.uint8)


def _grid_step(height: int, width: int) -> int:
    return min(COARSEST_GRID, max(1, round(math.sqrt(height * width / GRID_CELLS))))


def _motion_grid(motion: _Motion, moving: Floats, window: tuple[Places, Places], step: int) -> Floats:
    """Motion on the coarse grid in cells per frame, carried past the moving edge.

    Without that, lookups beside a shore would average with the shore's zero and water would pile up there;
    what flows past the edge is simply not drawn.
    """
    rows, columns = window
    means, shares = [], []
    for top in range(0, rows.size, STRIP_CELLS * step):
        some = rows[top : top + STRIP_CELLS * step]
        weights = moving[some][:, columns]
        shares.append(_shrunk(weights, step))
        means.append(
            np.stack([_shrunk(each * weights, step) for each in motion.strip(some, columns)], axis=-1)
        )
    share, mean = np.concatenate(shares), np.concatenate(means)
    mean /= np.maximum(share, np.float32(1e-6))[..., None]
    filled = push_pull(mean, share, enough=1e-3)
    return np.ascontiguousarray(filled.transpose(2, 0, 1)) / np.float32(step)


def _shrunk(plane: Floats, step: int) -> Floats:
    """Means of cells of `step` pixels a side; where cells overhang, the plane's edge is repeated."""
    height, width = plane.shape
    whole = cv2.copyMakeBorder(plane, 0, -height % step, 0, -width % step, cv2.BORDER_REPLICATE)
    cells = (whole.shape[1] // step, whole.shape[0] // step)
    return np.asarray(cv2.resize(whole, cells, interpolation=cv2.INTER_AREA), np.float32)
