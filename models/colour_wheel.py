"""Motion as colour: the hue tells the direction, the depth of the colour tells the speed, still is white.

The wheel runs through OKLCh (Björn Ottosson, "A perceptual color space for image processing", 2020), so that
no direction looks brighter or faster than another, as it would on a plain HSV wheel.
"""

import numpy as np
from numpy.typing import NDArray

__all__ = ["colour_wheel", "motion_to_colour", "reference_speed"]

STILL_LIGHTNESS = 0.985
FAST_LIGHTNESS = 0.66
FAST_CHROMA = 0.17
SMALLEST_REFERENCE = 0.25  # px/frame; a nearly still field must not be blown up into noise

_OKLAB_TO_LMS = np.array(
    [
        [1.0, 0.3963377774, 0.2158037573],
        [1.0, -0.1055613458, -0.0638541728],
        [1.0, -0.0894841775, -1.2914855480],
    ],
    dtype=np.float32,
)
_LMS_TO_LINEAR = np.array(
    [
        [4.0767416621, -3.3077115913, 0.2309699292],
        [-1.2684380046, 2.6097574011, -0.3413193965],
        [-0.0041960863, -0.7034186147, 1.7076147010],
    ],
    dtype=np.float32,
)


def motion_to_colour(
    motion_2HW: NDArray[np.floating], *, max_speed: float | None = None
) -> NDArray[np.uint8]:
    """Colour a motion field (2, H, W), (dx, dy) with y down, as an RGB picture (H, W, 3) uint8.

    `max_speed` (the field's own unit) gets the deepest colour; None takes `reference_speed`. Faster pixels
    and pixels that are not finite are drawn at the deepest colour and as still, respectively.
    """
    if motion_2HW.ndim != 3 or motion_2HW.shape[0] != 2:
        raise ValueError(f"motion must be (2, H, W), got {motion_2HW.shape}; move the components first")
    motion = np.nan_to_num(motion_2HW.astype(np.float32), nan=0.0, posinf=0.0, neginf=0.0)
    top = reference_speed(motion) if max_speed is None else max(float(max_speed), 1e-6)
    speed_HW = np.minimum(np.hypot(motion[0], motion[1]) / top, 1.0)
    return _colour(np.arctan2(motion[1], motion[0]), speed_HW)


def reference_speed(motion_2HW: NDArray[np.floating]) -> float:
    """The speed that a picture of this field draws deepest: the 98th percentile of its moving pixels."""
    speed_HW = np.hypot(motion_2HW[0], motion_2HW[1])
    moving = speed_HW[np.isfinite(speed_HW) & (speed_HW > 0.05 * SMALLEST_REFERENCE)]
    return max(float(np.percentile(moving, 98)), SMALLEST_REFERENCE) if moving.size else SMALLEST_REFERENCE


def colour_wheel(size: int = 128) -> NDArray[np.uint8]:
    """The legend, (size, size, 4) uint8 RGBA: a disc whose pixels show the colour of pointing there."""
    axis = (np.arange(size, dtype=np.float32) + 0.5) / size * 2 - 1
    x_HW, y_HW = np.meshgrid(axis, axis)
    radius_HW = np.hypot(x_HW, y_HW)
    alpha_HW = np.clip((1.0 - radius_HW) * size / 2, 0.0, 1.0)
    colour_HW3 = _colour(np.arctan2(y_HW, x_HW), np.minimum(radius_HW, 1.0))
    return np.dstack([colour_HW3, (alpha_HW * 255).astype(np.uint8)])


def _colour(angle_HW: NDArray[np.float32], depth_HW: NDArray[np.float32]) -> NDArray[np.uint8]:
    """RGB uint8 for angles (radians) and depths in [0, 1]."""
    # A root makes slow water visible beside a fast fall.
    depth_HW = np.sqrt(depth_HW)
    lightness_HW = STILL_LIGHTNESS + (FAST_LIGHTNESS - STILL_LIGHTNESS) * depth_HW
    chroma_HW = FAST_CHROMA * depth_HW
    oklab_HW3 = np.stack([lightness_HW, chroma_HW * np.cos(angle_HW), chroma_HW * np.sin(angle_HW)], axis=-1)
    linear_HW3 = ((oklab_HW3 @ _OKLAB_TO_LMS.T) ** 3) @ _LMS_TO_LINEAR.T
    linear_HW3 = np.clip(linear_HW3, 0.0, 1.0)
    encoded_HW3 = np.where(
        linear_HW3 <= 0.0031308, 12.92 * linear_HW3, 1.055 * np.maximum(linear_HW3, 1e-9) ** (1 / 2.4) - 0.055
    )
    colour_HW3: NDArray[np.uint8] = np.rint(encoded_HW3 * 255).astype(np.uint8)
    return colour_HW3
