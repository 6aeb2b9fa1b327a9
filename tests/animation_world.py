"""Photos and weights for the tests of animation: small, drawn here, with an answer known beforehand."""

import io
import math
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from models.checkpoint import save_checkpoint
from models.motion_network import MotionNetwork, MotionNetworkConfig

__all__ = ["draw_photo", "jpeg_bytes", "write_photos", "write_weights"]

SPEED = 2.0  # pixels per frame at the network's size
SIDE = 96


def write_weights(folder: Path, *, moving_logit: float = 5.0, name: str = "best", turn: float = 0.25) -> str:
    """A motion network that sees everything move at the same speed, as surely as `moving_logit` says.

    `turn`: where to, as a part of the full circle from the right clockwise; by default everything falls.
    """
    config = MotionNetworkConfig(
        backbone="plain", pretrained=False, frozen_blocks=0, plain_width=8,
        decoder_widths=(8, 8, 8, 8), input_side=SIDE,
    )  # fmt: skip
    torch.manual_seed(0)
    network = MotionNetwork(config)
    with torch.no_grad():
        network.heads.weight.zero_()
        bias = network.heads.bias
        bias.zero_()
        bias[0] = moving_logit
        bias[1] = math.log(SPEED)
        bias[2:4] = 5.0  # trust a person's arrows
        bias[4 + round(turn * config.bins)] = 8.0
    url = str(folder / f"{name}.safetensors")
    save_checkpoint(url, network.state_dict(), config, "motion")
    return url


def draw_photo(seed: int = 0, size_HW: tuple[int, int] = (96, 128)) -> NDArray[np.uint8]:
    """Smooth coloured noise: every place differs from its neighbours, so that motion shows."""
    rng = np.random.default_rng(seed)
    height, width = size_HW
    coarse = rng.integers(0, 256, (max(2, height // 8), max(2, width // 8), 3), dtype=np.uint8)
    smooth = Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)
    fine = rng.integers(-12, 13, (height, width, 3))
    return np.clip(np.asarray(smooth).astype(int) + fine, 0, 255).astype(np.uint8)


def jpeg_bytes(image_HW3: NDArray[np.uint8], **options: object) -> bytes:
    """A JPEG of it."""
    buffer = io.BytesIO()
    Image.fromarray(image_HW3).save(buffer, "JPEG", **{"quality": 92, **options})
    return buffer.getvalue()


def write_photos(folder: Path, count: int, *, size_HW: tuple[int, int] = (96, 128)) -> list[str]:
    """`count` different small JPEGs called photo_0000.jpg …; returns their names."""
    folder.mkdir(parents=True, exist_ok=True)
    names = [f"photo_{index:04d}.jpg" for index in range(count)]
    for index, name in enumerate(names):
        (folder / name).write_bytes(jpeg_bytes(draw_photo(index, size_HW)))
    return names
