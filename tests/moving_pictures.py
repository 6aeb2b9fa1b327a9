"""Small drawn clips for the tests of the dataset pipeline: still ground and a patch of moving texture."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from storage.video import encode_video

Frame = NDArray[np.uint8]

SIZE = (144, 192)


def texture(seed: int, size: tuple[int, int], *, grain: float = 2.5) -> NDArray[np.float32]:
    """Smooth noise of mean 128 that optical flow can follow, (H, W) float32."""
    noise = np.random.default_rng(seed).standard_normal(size).astype(np.float32)
    margin = max(16, int(4 * grain))
    wrapped = np.pad(noise, margin, mode="wrap")
    smooth = cv2.GaussianBlur(wrapped, (0, 0), grain)[margin:-margin, margin:-margin]
    return 128 + 45 * smooth / smooth.std()


def shifted(image: NDArray[np.float32], dx: float, dy: float) -> NDArray[np.float32]:
    """The image moved by (dx, dy) pixels, wrapping around."""
    height, width = image.shape
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    x, y = (x - np.float32(dx)) % width, (y - np.float32(dy)) % height
    return cv2.remap(image, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_WRAP)


def patch_mask(size: tuple[int, int] = SIZE) -> NDArray[np.bool_]:
    """Where the clips of `flowing` move: the lower middle."""
    height, width = size
    mask = np.zeros(size, dtype=bool)
    mask[height // 3 : height - 8, width // 4 : 3 * width // 4] = True
    return mask


def flowing(
    frames: int = 60,
    *,
    velocity: tuple[float, float] = (0.3, 1.8),
    seed: int = 0,
    size: tuple[int, int] = SIZE,
    place: Callable[[int], tuple[float, float]] | None = None,
) -> list[Frame]:
    """Texture flowing at `velocity` px/frame through `patch_mask` over still ground.

    `place(frame)` is how far the whole picture is moved, as by a trembling hand.
    """
    ground, fluid = texture(seed + 1000, size), texture(seed, size)
    mask = patch_mask(size)
    made = []
    for index in range(frames):
        picture = np.where(mask, shifted(fluid, velocity[0] * index, velocity[1] * index), ground)
        if place is not None:
            picture = shifted(picture.astype(np.float32), *place(index))
        made.append(colour(picture))
    return made


def colour(grey: NDArray[np.float32]) -> Frame:
    """A grey picture as (H, W, 3) uint8."""
    return np.repeat(np.clip(grey, 0, 255).astype(np.uint8)[..., None], 3, axis=2)


def write_clip(path: Path, frames: list[Frame], fps: float = 30.0, crf: int = 16) -> Path:
    """Encode frames as an MP4."""
    encode_video(frames, str(path), fps=fps, crf=crf)
    return path
