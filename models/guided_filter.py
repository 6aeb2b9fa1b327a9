"""Fast guided filter: gives a coarse map the edges of a photo (He and Sun, "Fast Guided Filter", 2015).

Around every place the map is fitted as a linear function of the photo's colour; the fit is made at reduced
size and applied at full size: sharp edges at small cost. H and W: the photo's rows and columns.
"""

import cv2
import numpy as np
from numpy.typing import NDArray

from storage.errors import UsageError

__all__ = ["guided_filter"]


def guided_filter(
    guide_HW3: NDArray[np.uint8],
    coarse_hw: NDArray[np.float32],
    *,
    radius: int,
    epsilon: float,
    fit_side: int = 480,
) -> NDArray[np.float32]:
    """Enlarge a coarse map to the photo's size along the photo's edges: (H, W) float32.

    `radius` is in pixels of the photo reduced to `fit_side`; `epsilon` is the variance of the photo (0…1)
    below which it counts as flat. Raises UsageError for a guide that is no colour picture.
    """
    if guide_HW3.ndim != 3 or guide_HW3.shape[2] != 3:
        raise UsageError(f"the guide must be (H, W, 3) uint8, got {guide_HW3.shape} {guide_HW3.dtype}")
    height, width = guide_HW3.shape[:2]
    shrink = min(1.0, fit_side / max(height, width))
    small = (max(1, round(width * shrink)), max(1, round(height * shrink)))
    guide = np.asarray(cv2.resize(guide_HW3, small, interpolation=cv2.INTER_AREA), np.float32) / np.float32(
        255
    )
    coarse = np.asarray(cv2.resize(coarse_hw, small, interpolation=cv2.INTER_LINEAR), np.float32)
    slope_hw3, offset_hw = _fit(guide, coarse, radius, epsilon)
    full = (width, height)
    fitted = np.asarray(cv2.resize(offset_hw, full, interpolation=cv2.INTER_LINEAR), np.float32)
    # Channel by channel: at 24 megapixels all three at once would take most of a gigabyte.
    for channel in range(3):
        plane = np.ascontiguousarray(slope_hw3[..., channel]) / np.float32(255)
        slope = np.asarray(cv2.resize(plane, full, interpolation=cv2.INTER_LINEAR), np.float32)
        slope *= guide_HW3[..., channel]
        fitted += slope
    return fitted


def _fit(
    guide_hw3: NDArray[np.float32], map_hw: NDArray[np.float32], radius: int, epsilon: float
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Slopes (h, w, 3) and offsets (h, w) of the least-squares fits, averaged over windows."""
    mean_guide, mean_map = _box(guide_hw3, radius), _box(map_hw, radius)
    covariance = _box(guide_hw3 * map_hw[..., None], radius) - mean_guide * mean_map[..., None]
    products = (guide_hw3[..., :, None] * guide_hw3[..., None, :]).reshape(*map_hw.shape, 9)
    spread = np.concatenate([_box(products[..., i : i + 3], radius) for i in (0, 3, 6)], -1)
    variance = spread.reshape(*map_hw.shape, 3, 3) - mean_guide[..., :, None] * mean_guide[..., None, :]
    slope = np.linalg.solve(variance + epsilon * np.eye(3, dtype=np.float32), covariance[..., None])[..., 0]
    offset = mean_map - (slope * mean_guide).sum(-1)
    return _box(np.ascontiguousarray(slope), radius), _box(offset, radius)


def _box(values: NDArray[np.float32], radius: int) -> NDArray[np.float32]:
    side = 2 * radius + 1
    return np.asarray(cv2.blur(values, (side, side), borderType=cv2.BORDER_REFLECT), np.float32)
