"""A fingerprint of what a video shows, the same at any size and quality.

It holds perceptual hashes of four frames and of what changed between them.
The hash is that of Zauner, Implementation and Benchmarking of Perceptual Image Hash Functions (2010), 3.2:
signs of the low frequencies of a discrete cosine transform against their median. Two clips of one scene from
one tripod have nearly the same frames, yet other waves: their changes tell them apart.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from storage.errors import MediaError
from storage.reasons import Reason
from storage.video import decode_frames, probe_video

__all__ = ["FRAMES_BITS", "Fingerprint", "change_distance", "fingerprint_video", "frames_distance"]

MOMENTS = (0.1, 0.35, 0.6, 0.85)  # of the length
FRAME_BITS = 64
FRAMES_BITS = FRAME_BITS * len(MOMENTS)
CHANGE_BITS = FRAME_BITS * (len(MOMENTS) - 1)
SIDE = 32
# Below this standard deviation a picture is a plain colour and its hash is noise.
PLAIN = 4.0
# Frames that differ by fewer grey levels in the mean show a still picture, and their change is noise.
STILL = 0.5


@dataclass(frozen=True, kw_only=True, slots=True)
class Fingerprint:
    """What a decoder says about a video.

    `phash`: FRAMES_BITS for the frames and CHANGE_BITS for the changes, in hex; all changes are 0 for a still
    picture. None when it shows plain colours only.
    """

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
        phash=None if plain else _hash_frames(filled),
        width=info.width,
        height=info.height,
        fps=float(info.fps),
        seconds=float(info.seconds),
    )


def frames_distance(one: str, other: str) -> int:
    """Bits in which the frames of two fingerprints differ, of FRAMES_BITS."""
    digits = FRAMES_BITS // 4
    return _distance(one[:digits], other[:digits])


def change_distance(one: str, other: str) -> int:
    """Bits in which the changes of two fingerprints differ, of CHANGE_BITS."""
    digits = FRAMES_BITS // 4
    return _distance(one[digits:], other[digits:])


def _distance(one: str, other: str) -> int:
    return (int(one or "0", 16) ^ int(other or "0", 16)).bit_count()


def _hash_frames(frames: list[NDArray[np.uint8]]) -> str:
    small = [_shrink(frame) for frame in frames]
    changes = [after - before for before, after in pairwise(small)]
    still = float(np.mean([np.abs(change).mean() for change in changes])) < STILL
    hashes = [_hash(plane) for plane in small] + [0 if still else _hash(change) for change in changes]
    return "".join(f"{value:016x}" for value in hashes)


def _shrink(frame_HW3: NDArray[np.uint8]) -> NDArray[np.float32]:
    grey = cv2.cvtColor(frame_HW3, cv2.COLOR_RGB2GRAY)
    return np.asarray(cv2.resize(grey, (SIDE, SIDE), interpolation=cv2.INTER_AREA), dtype=np.float32)


def _hash(plane: NDArray[np.float32]) -> int:
    """The 64-bit perceptual hash of one small plane."""
    # The constant and the frequencies along one axis alone say little; the classic hash leaves them out.
    low = cv2.dct(plane)[1:9, 1:9]
    bits = (low > np.median(low)).ravel()
    return int("".join("1" if bit else "0" for bit in bits), 2)


def _frame_at(path: Path | str, seconds: float) -> NDArray[np.uint8] | None:
    found = next(decode_frames(path, start=max(seconds, 0.0), max_side=512), None)
    return None if found is None else found[1]
