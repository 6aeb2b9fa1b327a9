"""Bilinear lookup along a displacement field, and resizing of motion fields.

Legend: H, W rows and columns; C channels; B batch; 2 is (dx, dy) in pixels, x right, y down.
Lookups beyond the border take the border's value. The torch functions import torch when called, so that
array-only workers never load it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import cv2
import numpy as np
from numpy.typing import NDArray

from models.compiled import compiled
from storage.errors import UsageError

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["bilinear_warp", "bilinear_warp_torch", "resize_motion", "resize_motion_torch"]

Floats = NDArray[np.float32]


def bilinear_warp(image: Floats, displacement_2HW: Floats) -> Floats:
    """Look up `image` at x + displacement(x): float32 of the displacement's size.

    `image` is (H, W) or (H, W, C); the displacement is (2, H, W) in pixels.
    """
    if displacement_2HW.ndim != 3 or displacement_2HW.shape[0] != 2:
        raise UsageError(f"displacement must be (2, H, W), got {displacement_2HW.shape}; put (dx, dy) first")
    if image.ndim not in (2, 3) or image.shape[:2] != displacement_2HW.shape[1:]:
        raise UsageError(
            f"image must be {displacement_2HW.shape[1:]} with channels last, got {image.shape}; resize one"
        )
    planes = np.ascontiguousarray(image.reshape(*image.shape[:2], -1), dtype=np.float32)
    field = np.ascontiguousarray(displacement_2HW, dtype=np.float32)
    warped = np.empty_like(planes)
    _gather(planes, field, warped)
    return warped.reshape(image.shape)


@compiled
def _gather(planes: Floats, field: Floats, warped: Floats) -> None:
    height, width, channels = planes.shape
    for y in range(height):
        for x in range(width):
            px = min(max(x + field[0, y, x], np.float32(0)), np.float32(width - 1))
            py = min(max(y + field[1, y, x], np.float32(0)), np.float32(height - 1))
            x0, y0 = int(px), int(py)
            x1, y1 = min(x0 + 1, width - 1), min(y0 + 1, height - 1)
            fx, fy = np.float32(px - x0), np.float32(py - y0)
            for c in range(channels):
                top = planes[y0, x0, c] + fx * (planes[y0, x1, c] - planes[y0, x0, c])
                low = planes[y1, x0, c] + fx * (planes[y1, x1, c] - planes[y1, x0, c])
                warped[y, x, c] = top + fy * (low - top)


def bilinear_warp_torch(image_BCHW: Tensor, displacement_B2HW: Tensor) -> Tensor:
    """Differentiable `bilinear_warp` on (B, C, H, W) and (B, 2, H, W); coordinates stay in float32."""
    import torch
    from torch.nn.functional import grid_sample

    height, width = image_BCHW.shape[-2:]
    field = displacement_B2HW.float()
    rows = torch.arange(height, device=field.device, dtype=torch.float32)
    columns = torch.arange(width, device=field.device, dtype=torch.float32)
    x = (field[:, 0] + columns) * (2.0 / max(width - 1, 1)) - 1.0
    y = (field[:, 1] + rows[:, None]) * (2.0 / max(height - 1, 1)) - 1.0
    grid = torch.stack([x, y], dim=-1)
    warped = grid_sample(image_BCHW.float(), grid, padding_mode="border", align_corners=True)
    return warped.to(image_BCHW.dtype)


def resize_motion(motion_2HW: Floats, size_HW: tuple[int, int]) -> Floats:
    """Resize a motion (or displacement) field and rescale its values to the new pixels.

    Shrinking averages, enlarging interpolates; dx scales with the width and dy with the height.
    """
    if motion_2HW.ndim != 3 or motion_2HW.shape[0] != 2:
        raise UsageError(f"motion must be (2, H, W), got {motion_2HW.shape}; put (dx, dy) first")
    height, width = size_HW
    if height < 1 or width < 1:
        raise UsageError(f"a motion field needs at least one pixel, got size {size_HW}")
    old_height, old_width = motion_2HW.shape[1:]
    if (height, width) == (old_height, old_width):
        return motion_2HW.astype(np.float32)
    shrinks = height * width < old_height * old_width
    method = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    resized = np.empty((2, height, width), np.float32)
    for axis, scale in enumerate((width / old_width, height / old_height)):
        plane = np.ascontiguousarray(motion_2HW[axis], dtype=np.float32)
        resized[axis] = cv2.resize(plane, (width, height), interpolation=method) * np.float32(scale)
    return resized


def resize_motion_torch(motion_B2HW: Tensor, size_HW: tuple[int, int]) -> Tensor:
    """`resize_motion` for a batch (B, 2, H, W); antialiased when it shrinks, differentiable."""
    import torch
    from torch.nn.functional import interpolate

    height, width = motion_B2HW.shape[-2:]
    scale = torch.tensor([size_HW[1] / width, size_HW[0] / height], device=motion_B2HW.device)
    resized = interpolate(
        motion_B2HW.float(), size=size_HW, mode="bilinear", align_corners=False, antialias=True
    )
    return (resized * scale.view(1, 2, 1, 1)).to(motion_B2HW.dtype)
