"""Euler integration of a motion field into displacements (Holynski et al. 2021, section 3, equation 2).

F(0→0) = 0 and F(0→t)(x) = F(0→t−1)(x) + M(x + F(0→t−1)(x)), with bilinear lookup; backwards in time the
same with −M. Motion is pixels per frame, displacement pixels, both (dx, dy), x right, y down; lookups beyond
the border take the border's motion. Legend: B batch, H, W rows and columns, 2 is (dx, dy).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from models.compiled import compiled
from models.warp import bilinear_warp_torch
from storage.errors import UsageError

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["displacement_after", "euler_step", "integrate_motion", "integrate_motion_torch"]

Floats = NDArray[np.float32]


def euler_step(displacement_2HW: Floats, motion_2HW: Floats) -> Floats:
    """One frame further: displacement + motion where the displacement has led; (2, H, W) float32."""
    if displacement_2HW.shape != motion_2HW.shape or motion_2HW.ndim != 3 or motion_2HW.shape[0] != 2:
        raise UsageError(
            f"displacement and motion must both be (2, H, W), got {displacement_2HW.shape} "
            f"and {motion_2HW.shape}; resize one with resize_motion"
        )
    stepped = np.empty(motion_2HW.shape, np.float32)
    _step(
        np.ascontiguousarray(displacement_2HW, dtype=np.float32),
        np.ascontiguousarray(motion_2HW, dtype=np.float32),
        stepped,
    )
    return stepped


@compiled
def _step(field: Floats, motion: Floats, stepped: Floats) -> None:
    _, height, width = field.shape
    for y in range(height):
        for x in range(width):
            dx, dy = field[0, y, x], field[1, y, x]
            px = min(max(x + dx, np.float32(0)), np.float32(width - 1))
            py = min(max(y + dy, np.float32(0)), np.float32(height - 1))
            x0, y0 = int(px), int(py)
            x1, y1 = min(x0 + 1, width - 1), min(y0 + 1, height - 1)
            fx, fy = np.float32(px - x0), np.float32(py - y0)
            top = motion[0, y0, x0] + fx * (motion[0, y0, x1] - motion[0, y0, x0])
            low = motion[0, y1, x0] + fx * (motion[0, y1, x1] - motion[0, y1, x0])
            stepped[0, y, x] = dx + top + fy * (low - top)
            top = motion[1, y0, x0] + fx * (motion[1, y0, x1] - motion[1, y0, x0])
            low = motion[1, y1, x0] + fx * (motion[1, y1, x1] - motion[1, y1, x0])
            stepped[1, y, x] = dy + top + fy * (low - top)


def integrate_motion(motion_2HW: Floats, frames: int) -> Iterator[Floats]:
    """Yield F(0→0), F(0→1), … F(0→|frames|); a negative number of frames goes backwards in time."""
    motion = np.asarray(motion_2HW, dtype=np.float32)
    if frames < 0:
        motion = -motion
    displacement = np.zeros_like(motion)
    yield displacement
    for _ in range(abs(frames)):
        displacement = euler_step(displacement, motion)
        yield displacement


def displacement_after(motion_2HW: Floats, frames: int) -> Floats:
    """F(0→frames) alone: (2, H, W) float32; negative frames go backwards in time."""
    for displacement in integrate_motion(motion_2HW, frames):
        last = displacement
    return last


def integrate_motion_torch(motion_B2HW: Tensor, frames_B: Tensor) -> Tensor:
    """F(0→frames) for a batch, each sample with its own signed number of frames: (B, 2, H, W) float32.

    Differentiable in the motion; where nobody asks for its gradient, CPUs take the compiled loop.
    """
    motion = motion_B2HW.float()
    if motion.device.type == "cpu" and not motion.requires_grad:
        fields = zip(motion.numpy(), frames_B.tolist(), strict=True)
        return motion.new_tensor(np.stack([displacement_after(field, int(count)) for field, count in fields]))
    frames = frames_B.to(device=motion.device)
    signed = motion * frames.sign().view(-1, 1, 1, 1).to(motion.dtype)
    steps = frames.abs()
    displacement = motion.new_zeros(motion.shape)
    for step in range(int(steps.max()) if steps.numel() else 0):
        moved = displacement + bilinear_warp_torch(signed, displacement)
        displacement = moved.where((steps > step).view(-1, 1, 1, 1), displacement)
    return displacement
