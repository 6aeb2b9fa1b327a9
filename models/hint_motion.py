"""Lay a person's hints over what the network predicted.

In this order, the later wins: the network's motion and moving area; areas that a person calls moving (they
replace the network's); arrows (they bend the motion near them, and fill the area they lie in where the
network is unsure); speed; areas that a person freezes.

Legend: H, W the photo's size; h, w a small working grid; K samples along the arrows; 2 is (dx, dy) in pixels
per frame, x right, y down.
"""

from collections.abc import Iterable

import cv2
import numpy as np
from numpy.typing import NDArray

from models.hints import Hints, Polygon, arrow_samples
from models.warp import resize_motion
from storage.errors import ItemError
from storage.reasons import Reason

__all__ = ["apply_hints", "draw_area"]

Floats = NDArray[np.float32]

GRID_SIDE = 256  # arrows and filled-in motion are smooth: this grid is fine enough for photos of any size
REACH = 0.15  # how far an arrow bends the network's motion, as a share of the longer side
FEATHER = 0.004  # width of a drawn area's soft edge, as a share of the longer side
ARROW_WIDTH = 0.05  # half-width of the area an arrow opens where nothing moves, as a share of the longer side
SAMPLES_PER_ARROW = 9
STILL = 1e-3  # pixels per frame on the grid
MAX_ASPECT_ERROR = 0.05


def apply_hints(
    motion_2HW: Floats, moving_HW: Floats, hints: Hints, *, confidence: float = 1.0
) -> tuple[Floats, Floats]:
    """Motion and moving area after a person's word; new arrays, or the given ones where nothing changes.

    `confidence` is the network's, 0…1: the lower it is, the more the arrows decide alone. Raises ItemError
    (bad_hints) for a mask whose shape is not the photo's.
    """
    area = _moving_area(moving_HW, hints)
    motion = _complete_motion(motion_2HW, moving_HW, area, hints, confidence)
    if hints.speed != 1.0:
        motion = motion * np.float32(hints.speed)
    if motion is not motion_2HW or area is not moving_HW:
        motion = np.where(area > 0, motion, np.float32(0))
    return motion, area


def draw_area(
    polygons: Iterable[Polygon], mask_HW: NDArray[np.uint8] | None, size_HW: tuple[int, int]
) -> NDArray[np.uint8]:
    """Polygons (relative coordinates) and a mask picture together as one (H, W) uint8 picture, 255 inside."""
    height, width = size_HW
    area = np.zeros(size_HW, np.uint8) if mask_HW is None else _fitted(mask_HW, size_HW)
    for polygon in polygons:
        # Whole sixteenths of a pixel: OpenCV takes fixed-point corners.
        corners = np.round(np.array(polygon) * (width, height) * 16 - 8).astype(np.int32)
        cv2.fillPoly(area, [corners], 255, shift=4)
    return area


def _fitted(mask_HW: NDArray[np.uint8], size_HW: tuple[int, int]) -> NDArray[np.uint8]:
    (rows, columns), (height, width) = mask_HW.shape[:2], size_HW
    if abs(np.log((columns / rows) / (width / height))) > MAX_ASPECT_ERROR:
        raise ItemError(
            f"expected a mask shaped like the photo ({width}×{height}), got {columns}×{rows}; "
            "draw it over the upright photo",
            reason=Reason.BAD_HINTS,
        )
    if (rows, columns) == (height, width):
        return mask_HW.copy()
    smaller = rows * columns > height * width
    kind = cv2.INTER_AREA if smaller else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(mask_HW, (width, height), interpolation=kind), np.uint8)


def _moving_area(moving_HW: Floats, hints: Hints) -> Floats:
    """Where things move: the person's areas or else the network's, opened by arrows, cut by frozen areas."""
    size = moving_HW.shape[0], moving_HW.shape[1]
    area = moving_HW
    if hints.says_where:
        area = _feathered(draw_area(hints.moving, hints.moving_mask_HW, size))
    elif hints.arrows:
        area = _opened_by_arrows(area, hints, size)
    if hints.frozen or hints.frozen_mask_HW is not None:
        free = 255 - draw_area(hints.frozen, hints.frozen_mask_HW, size)
        area = np.minimum(area, _feathered(free))
    return area


def _feathered(area_HW: NDArray[np.uint8]) -> Floats:
    """Soften an area's edge towards its inside, so that what lies outside stays exactly still."""
    feather = max(FEATHER * max(area_HW.shape), 1.5)
    inside = (area_HW > 127).astype(np.uint8)
    distance = np.asarray(cv2.distanceTransform(inside, cv2.DIST_L2, cv2.DIST_MASK_5), np.float32)
    soft = np.minimum(distance / np.float32(feather), area_HW.astype(np.float32) / np.float32(255))
    return np.where(inside > 0, soft, np.float32(0))


def _opened_by_arrows(moving_HW: Floats, hints: Hints, size: tuple[int, int]) -> Floats:
    """An arrow drawn where nothing moves opens an area around itself: it is never ignored in silence."""
    height, width = size
    strokes = np.zeros(size, np.uint8)
    thickness = max(3, round(2 * ARROW_WIDTH * max(size)))
    for arrow in hints.arrows:
        positions, _ = arrow_samples([arrow], size, per_arrow=SAMPLES_PER_ARROW)
        pixels = np.round(positions * (width - 1, height - 1)).astype(int)
        if (moving_HW[pixels[:, 1], pixels[:, 0]] > 0).any():
            continue
        cv2.line(strokes, tuple(map(int, pixels[0])), tuple(map(int, pixels[-1])), 255, thickness)
    return np.maximum(moving_HW, _feathered(strokes)) if strokes.any() else moving_HW


def _complete_motion(
    motion_2HW: Floats, moving_HW: Floats, area_HW: Floats, hints: Hints, confidence: float
) -> Floats:
    """Motion that follows the arrows and reaches into areas the network did not see moving."""
    grows = area_HW is not moving_HW and bool(((area_HW > 0) & (moving_HW <= 0)).any())
    if not hints.arrows and not grows:
        return motion_2HW
    size = area_HW.shape[0], area_HW.shape[1]
    scale = min(1.0, GRID_SIDE / max(size))
    grid = max(2, round(size[0] * scale)), max(2, round(size[1] * scale))
    motion_2hw = resize_motion(motion_2HW, grid)
    known = np.hypot(motion_2hw[0], motion_2hw[1]) > STILL
    area_hw = cv2.resize(area_HW, grid[::-1], interpolation=cv2.INTER_AREA) > 0
    filled = _spread(motion_2hw, known)
    if hints.arrows:
        positions, velocities = arrow_samples(hints.arrows, grid, per_arrow=SAMPLES_PER_ARROW)
        wish, near = _arrow_field(positions, velocities, grid)
        touched = _touched(area_hw, positions)
        # Where the network knows nothing at all the arrows decide alone.
        alone = np.where(known, np.float32(1.0 - confidence), np.float32(1.0))
        weight = np.where(touched, np.maximum(near, alone), np.float32(0))
        filled = filled + weight * (wish - filled)
    # Details of the network's own motion stay: only what the hints changed is added, smoothly.
    change = (filled - motion_2hw).astype(np.float32)
    return motion_2HW + resize_motion(np.ascontiguousarray(change), size)


def _spread(motion_2hw: Floats, known_hw: NDArray[np.bool_]) -> Floats:
    """Continue motion into places where it is not known: the nearest known value, smoothed."""
    if known_hw.all() or not known_hw.any():
        return motion_2hw
    unknown = (~known_hw).astype(np.uint8)
    _, labels = cv2.distanceTransformWithLabels(
        unknown, cv2.DIST_L2, cv2.DIST_MASK_5, labelType=cv2.DIST_LABEL_PIXEL
    )
    rows, columns = np.nonzero(known_hw)
    values = np.zeros((int(labels.max()) + 1, 2), np.float32)
    values[labels[rows, columns]] = motion_2hw[:, rows, columns].T
    spread = np.moveaxis(values[labels], 2, 0)
    sigma = 0.03 * max(known_hw.shape)
    smooth = np.stack([cv2.GaussianBlur(np.ascontiguousarray(plane), (0, 0), sigma) for plane in spread])
    return np.where(known_hw, motion_2hw, smooth).astype(np.float32)


def _arrow_field(
    positions_K2: Floats, velocities_K2: Floats, grid_hw: tuple[int, int]
) -> tuple[Floats, Floats]:
    """The arrows' velocities interpolated everywhere (Shepard), and how near the next arrow is (1 … 0)."""
    height, width = grid_hw
    longer = float(max(grid_hw))
    y, x = np.mgrid[0:height, 0:width].astype(np.float32) / longer
    total = np.zeros((3, height, width), np.float32)
    nearest = np.full((height, width), np.inf, np.float32)
    for (px, py), (dx, dy) in zip(positions_K2, velocities_K2, strict=True):
        squared = (x - px * (width - 1) / longer) ** 2 + (y - py * (height - 1) / longer) ** 2
        weight = 1.0 / (squared + 1e-4) ** 2
        total += weight * np.array([dx, dy, 1.0], np.float32)[:, None, None]
        np.minimum(nearest, squared, out=nearest)
    wish = total[:2] / total[2]
    return wish.astype(np.float32), np.exp(-nearest / np.float32(REACH**2))


def _touched(area_hw: NDArray[np.bool_], positions_K2: Floats) -> NDArray[np.bool_]:
    """The connected parts of an area that an arrow runs through; the nearest part for one that meets none."""
    labels = np.asarray(cv2.connectedComponents(area_hw.astype(np.uint8))[1], np.int32)
    height, width = area_hw.shape
    pixels = np.round(positions_K2 * (width - 1, height - 1)).astype(int)
    hit: set[int] = set()
    for samples in pixels.reshape(-1, SAMPLES_PER_ARROW, 2):
        met = set(labels[samples[:, 1], samples[:, 0]].tolist()) - {0}
        hit |= met or _nearest_part(labels, samples.mean(axis=0))
    return np.isin(labels, sorted(hit))


def _nearest_part(labels_hw: NDArray[np.int32], pixel_2: NDArray[np.float64]) -> set[int]:
    rows, columns = np.nonzero(labels_hw)
    if len(rows) == 0:
        return set()
    nearest = int(np.argmin((columns - pixel_2[0]) ** 2 + (rows - pixel_2[1]) ** 2))
    return {int(labels_hw[rows[nearest], columns[nearest]])}
