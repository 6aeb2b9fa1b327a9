"""Samples: what one clip leaves behind for training, as arrays and as the members of a tar archive.

A sample is the files `<key>.00.jpg` … `<key>.NN.jpg`, `<key>.motion.npy`, `<key>.confidence.png`,
`<key>.moving.png` and `<key>.json`. The same sample always gives the same bytes.

Shapes: frame_HW3 uint8 RGB; motion_2HW float16 (dx, dy) in pixels per frame at 30 fps at the motion grid's
own size, which may be smaller than the frames; confidence_HW float32 in [0, 1]; moving_HW bool.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, overload

import cv2
import numpy as np
from numpy.typing import NDArray

from storage.digest import digest_bytes
from storage.errors import FormatError, UsageError

__all__ = [
    "JpegFrames",
    "Sample",
    "decode_sample",
    "encode_sample",
    "sample_key",
    "split_of",
]

JPEG_QUALITY = 92
MAX_FRAMES = 100
_KEY = re.compile(r"[A-Za-z0-9_\-]+")
# The digest of the other members sits in the JSON under this name and is no part of `info`.
_DIGEST = "members_sha256"

Frame = NDArray[np.uint8]


class JpegFrames(Sequence[Frame]):
    """Frames kept as JPEG bytes and decoded one at a time when asked for; re-encoding returns the bytes."""

    def __init__(self, encoded: Sequence[bytes], *, name: str = "frame") -> None:
        self.encoded = tuple(encoded)
        self._name = name

    def __len__(self) -> int:
        return len(self.encoded)

    @overload
    def __getitem__(self, index: int) -> Frame: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Frame]: ...
    def __getitem__(self, index: int | slice) -> Frame | Sequence[Frame]:
        if isinstance(index, slice):
            return JpegFrames(self.encoded[index], name=self._name)
        return _decode_jpeg(self.encoded[index], f"{self._name} {index}")


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Sample:
    """One clip for training: stabilised frames spread over it and its mean motion.

    `info` is JSON: source, licence, sha256, start_seconds, start_frame, fps, frame_indices,
    frame_size [H, W], motion_size [h, w], camera_drift, speeds {mean, p95}, moving_share, method, versions,
    split, category.
    """

    key: str
    frames: Sequence[Frame]
    motion_2HW: NDArray[np.floating[Any]]  # noqa: N815 (axes are part of the name)
    confidence_HW: NDArray[np.float32]
    moving_HW: NDArray[np.bool_]
    info: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not _KEY.fullmatch(self.key):
            raise UsageError(f"a sample's key is of letters, digits, '_' and '-', got {self.key!r}")
        if not 1 <= len(self.frames) <= MAX_FRAMES:
            raise UsageError(f"sample {self.key} needs 1 to {MAX_FRAMES} frames, got {len(self.frames)}")
        shape = self.motion_2HW.shape
        if len(shape) != 3 or shape[0] != 2:
            raise UsageError(f"motion of {self.key} must be (2, H, W), got {shape}; move the channels first")
        for name, mask in (("confidence", self.confidence_HW), ("moving", self.moving_HW)):
            if mask.shape != shape[1:]:
                raise UsageError(f"{name} of {self.key} must be {shape[1:]} as its motion, got {mask.shape}")


def sample_key(sha256: str, start_frame: int) -> str:
    """The key of a clip: from its source's digest and its first frame, so that a rerun overwrites."""
    return f"{sha256[:16]}_{start_frame:06d}"


def split_of(sha256: str) -> str:
    """One of train (80 %), val and test (10 % each), from the source's digest alone: it never moves."""
    share = int(digest_bytes(f"split of {sha256}".encode())[:8], 16) / 0x1_0000_0000
    return "train" if share < 0.8 else "val" if share < 0.9 else "test"


def encode_sample(sample: Sample) -> dict[str, bytes]:
    """The tar members of a sample by their full names (`<key>.00.jpg`, …), in their order."""
    members = {f"{index:02d}.jpg": data for index, data in enumerate(_encoded_frames(sample))}
    members["motion.npy"] = _encode_motion(sample)
    confidence = np.clip(np.nan_to_num(sample.confidence_HW), 0.0, 1.0)
    members["confidence.png"] = _encode_png(np.round(confidence * 255).astype(np.uint8))
    members["moving.png"] = _encode_png(sample.moving_HW.astype(np.uint8) * 255)
    text = {**sample.info, _DIGEST: _members_digest(members)}
    try:
        members["json"] = json.dumps(text, sort_keys=True, ensure_ascii=False, allow_nan=False).encode()
    except (TypeError, ValueError) as exc:
        raise UsageError(
            f"info of sample {sample.key} must be plain JSON with finite numbers: {exc}"
        ) from exc
    return {f"{sample.key}.{name}": data for name, data in members.items()}


def decode_sample(members: Mapping[str, bytes]) -> Sample:
    """The sample its members (by their full names) hold; frames stay encoded until asked for.

    Raises FormatError for what is missing, damaged or not of the format.
    """
    keys = {name.partition(".")[0] for name in members}
    if len(keys) != 1:
        raise FormatError(f"the members of one sample share one key, got {', '.join(sorted(keys)) or 'none'}")
    key = keys.pop()
    members = {name.partition(".")[2]: data for name, data in members.items()}
    info = _decode_info(key, members)
    expected = info.pop(_DIGEST, None)
    if expected is not None and expected != _members_digest(members):
        raise FormatError(f"sample {key} is damaged: its members do not match their digest")
    names = sorted(name for name in members if re.fullmatch(r"\d\d\.jpg", name))
    if names != [f"{index:02d}.jpg" for index in range(len(names))] or not names:
        raise FormatError(f"sample {key} needs frames 00.jpg, 01.jpg, …, got {', '.join(names) or 'none'}")
    confidence = _decode_png(key, members, "confidence.png").astype(np.float32) / np.float32(255)
    moving = _decode_png(key, members, "moving.png") > 127
    try:
        return Sample(
            key=key,
            frames=JpegFrames([members[name] for name in names], name=f"sample {key}, frame"),
            motion_2HW=_decode_motion(key, members),
            confidence_HW=confidence,
            moving_HW=moving,
            info=info,
        )
    except UsageError as exc:
        raise FormatError(str(exc)) from exc


def _members_digest(members: Mapping[str, bytes]) -> str:
    state = hashlib.sha256()
    for name in sorted(members.keys() - {"json"}):
        state.update(f"{name} {len(members[name])}\n".encode())
        state.update(members[name])
    return state.hexdigest()


def _encoded_frames(sample: Sample) -> Sequence[bytes]:
    if isinstance(sample.frames, JpegFrames):
        return sample.frames.encoded
    return [
        _encode_jpeg(frame, f"frame {index} of {sample.key}") for index, frame in enumerate(sample.frames)
    ]


def _encode_jpeg(frame_HW3: Frame, name: str) -> bytes:
    if frame_HW3.ndim != 3 or frame_HW3.shape[2] != 3 or frame_HW3.dtype != np.uint8:
        raise UsageError(f"{name} must be (H, W, 3) uint8, got {frame_HW3.shape} {frame_HW3.dtype}")
    good, data = cv2.imencode(
        ".jpg", cv2.cvtColor(frame_HW3, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY]
    )
    assert good, name
    return data.tobytes()


def _decode_jpeg(data: bytes, name: str) -> Frame:
    # OpenCV fills what a truncated JPEG lacks with grey and says nothing; the end marker tells.
    whole = data.startswith(b"\xff\xd8") and data.rstrip(b"\0").endswith(b"\xff\xd9")
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR) if whole else None
    if image is None:
        raise FormatError(f"{name} is not a whole JPEG; rebuild the dataset or remove the sample")
    return np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), dtype=np.uint8)


def _encode_png(image_HW: NDArray[np.uint8]) -> bytes:
    good, data = cv2.imencode(".png", image_HW)
    assert good
    return data.tobytes()


def _decode_png(key: str, members: Mapping[str, bytes], name: str) -> NDArray[np.uint8]:
    data = np.frombuffer(_member(key, members, name), np.uint8)
    image = cv2.imdecode(data, cv2.IMREAD_GRAYSCALE) if data.size else None
    if image is None:
        raise FormatError(f"{name} of sample {key} is not a PNG")
    return np.asarray(image, dtype=np.uint8)


def _encode_motion(sample: Sample) -> bytes:
    motion = np.ascontiguousarray(sample.motion_2HW, dtype=np.float16)
    if not np.isfinite(motion).all():
        raise UsageError(f"motion of {sample.key} must be finite and below 65504 px/frame; clean it first")
    stream = io.BytesIO()
    np.save(stream, motion, allow_pickle=False)
    return stream.getvalue()


def _decode_motion(key: str, members: Mapping[str, bytes]) -> NDArray[np.float16]:
    try:
        motion = np.load(io.BytesIO(_member(key, members, "motion.npy")), allow_pickle=False)
    except (ValueError, EOFError, OSError) as exc:
        raise FormatError(f"motion.npy of sample {key} is not a NumPy array: {exc}") from exc
    if motion.dtype not in (np.float16, np.float32) or not np.isfinite(motion).all():
        raise FormatError(f"motion.npy of sample {key} must hold finite float16, got {motion.dtype}")
    return np.asarray(motion, dtype=np.float16)


def _decode_info(key: str, members: Mapping[str, bytes]) -> dict[str, Any]:
    try:
        info = json.loads(_member(key, members, "json"))
    except ValueError as exc:
        raise FormatError(f"json of sample {key} is not JSON: {exc}") from exc
    if not isinstance(info, dict):
        raise FormatError(f"json of sample {key} must be an object, got {type(info).__name__}")
    return info


def _member(key: str, members: Mapping[str, bytes], name: str) -> bytes:
    if name not in members:
        raise FormatError(f"sample {key} lacks {name}; it has {', '.join(sorted(members))}")
    return members[name]
