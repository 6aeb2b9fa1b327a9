"""A picture with a moving part: what every scene hands to the sample data."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from pipelines.scenery import noise
from pipelines.scenery.light import Light, develop

__all__ = ["Paint", "Picture", "develop_picture", "make_picture"]

Floats = NDArray[np.float32]
Paint = Callable[[Floats, float], None]  # (linear image HW3, time in frames): paints the moving part in place


@dataclass(frozen=True, kw_only=True, slots=True)
class Picture:
    """The still part, linear, and a painter for the moving part at any time."""

    still_HW3: Floats
    light: Light
    grain_HW: Floats
    motion_2HW: Floats
    moving_HW: NDArray[np.bool_]
    paint: Paint


def make_picture(
    still_HW3: Floats,
    light: Light,
    motion_2HW: Floats,
    moving_HW: NDArray[np.bool_],
    paint: Paint,
    *,
    seed: int,
) -> Picture:
    """Put a picture together: motion only where it moves, film grain only where nothing does."""
    # Grain over moving water would be a second, still texture there, and no longer one known motion.
    still_share = 1.0 - cv2.GaussianBlur(moving_HW.astype(np.float32), (0, 0), 1.5)
    return Picture(
        still_HW3=still_HW3.astype(np.float32),
        light=light,
        grain_HW=_grain(moving_HW.shape, seed, np.where(moving_HW, 0.0, still_share).astype(np.float32)),
        motion_2HW=np.where(moving_HW, motion_2HW, 0.0).astype(np.float32),
        moving_HW=moving_HW,
        paint=paint,
    )


def _grain(size: tuple[int, ...], seed: int, share_HW: Floats) -> Floats:
    """Film grain about 1.3 pixels wide, and a light vignette; the same in every frame."""
    height, width = size
    soft = cv2.GaussianBlur(noise.hash_floats((height, width), seed=seed) - 0.5, (0, 0), 0.6) * 0.10
    y = (np.arange(height) / height - 0.5)[:, None]
    x = (np.arange(width) / width - 0.5)[None, :]
    return np.asarray(soft * share_HW - 0.30 * (x * x + y * y), np.float32)


def develop_picture(picture: Picture, time: float) -> NDArray[np.uint8]:
    """The picture at a time in frames, 8-bit RGB."""
    image = picture.still_HW3.copy()
    picture.paint(image, time)
    return develop(image, picture.light, picture.grain_HW)
