"""A picture with a moving part: what every scene hands to the sample data."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from pipelines.scenery import noise
from pipelines.scenery.light import Light, develop

__all__ = ["Paint", "Picture", "develop_picture", "grain"]

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


def grain(size: tuple[int, int], seed: int, *, strength: float = 0.035) -> Floats:
    """Film grain about 1.3 pixels wide, with a light vignette; fixed, so still pixels stay still."""
    noise_HW = noise.hash_floats(size, seed=seed) - 0.5
    soft = cv2.GaussianBlur(noise_HW, (0, 0), 0.6) * (2.2 * strength * 2.0)
    y = (np.arange(size[0]) / size[0] - 0.5)[:, None]
    x = (np.arange(size[1]) / size[1] - 0.5)[None, :]
    return np.asarray(soft - 0.30 * (x * x + y * y), np.float32)


def develop_picture(picture: Picture, time: float) -> NDArray[np.uint8]:
    """The picture at a time in frames, 8-bit RGB."""
    image = picture.still_HW3.copy()
    picture.paint(image, time)
    return develop(image, picture.light, picture.grain_HW)
