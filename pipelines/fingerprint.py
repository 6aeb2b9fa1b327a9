"""A fingerprint of what a video shows, the same at any size and quality: perceptual hashes of four frames.

The hash is that of Zauner, Implementation and Benchmarking of Perceptual Image Hash Functions (2010), 3.2:
signs of the low frequencies of a discrete cosine transform against their median.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from storage.errors import MediaError
from storage.reasons import Reason
from storage.video import decode_frames, probe_video

__all__ = ["HASH_BITS", "Fingerprint", "fingerprint_video", "hash_distance", "hash_frame"]

MOMENTS = (0.1, 0.35, 0.6, 0.85)  # of the length
FRAME_BITS = 64
HASH_BITS = FRAME_BITS * len(MOMENTS)
# Below this standard deviation a picture is a plain colour and its hash is noise.
PLAIN = 4.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Fingerprint:
    """What a decoder says about a video; `phash` is None when it shows plain colours only."""

    phash: str | None
    width: int
    height: int
    fps: float
    seconds: float


def fingerprint_video(path: Path | str) -> Fingerprint:
    """Decode four frames of a local file. Raises MediaError when it is no video that can be decoded."""
    info = probe_video(path)
    frames = [_frame_at(path, moment * info.seconds) for moment in MOMENTS]
    good = [frame for frame in frames if frame is not None]
    if not good:
        raise MediaError(f"{path} gives no frame", reason=Reason.UNREADABLE)
    filled = [good[0] if frame is None else frame for frame in frames]
    plain = all(float(frame.std()) < PLAIN for frame in filled)
    return Fingerprint(
        phash=None if plain else "".join(f"{hash_frame(frame):016x}" for frame in filled),
        width=info.width,
        height=info.height,
        fps=float(info.fps),
        seconds=float(info.seconds),
    )


def hash_frame(frame_HW3: NDArray[np.uint8]) -> int:  # noqa: N803 (dimensions)
    """The 64-bit perceptual hash of one RGB picture."""
    grey = cv2.cvtColor(frame_HW3, cv2.COLOR_RGB2GRAY)
    small = cv2.resize(grey, (32, 32), interpolation=cv2.INTER_AREA).astype(np.float32)
    # The constant and the frequencies along one axis alone say little; the classic hash leaves them out.
    low = cv2.dct(small)[1:9, 1:9]
    bits = (low > np.median(low)).ravel()
    return int("".join("1" if bit else "0" for bit in bits), 2)


def hash_distance(one: str, other: str) -> int:
    """Bits in which two fingerprints differ."""
    return (int(one, 16) ^ int(other, 16)).bit_count()


def _frame_at(path: Path | str, seconds: float) -> NDArray[np.uint8] | None:
    found = next(decode_frames(path, start=max(seconds, 0.0), max_side=512), None)
    return None if found is None else found[1]
