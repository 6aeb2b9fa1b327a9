"""From a measured clip to the sample that training reads: a few frames and the motion on its grid."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from pipelines.clip import Clip
from pipelines.optical_flow import MotionEstimate
from storage.errors import UsageError
from storage.samples import JpegFrames, Sample

__all__ = ["SampleConfig", "make_sample", "motion_grid"]


@dataclass(frozen=True, kw_only=True, slots=True)
class SampleConfig:
    """What a sample keeps.

    `frames`: how many, spread over the clip. `frame_side`: their longer side at most. `jpeg_quality`: theirs.
    `grid_side`: the longer side, at most, of the grid on which the motion is kept.
    """

    frames: int = 12
    frame_side: int = 512
    jpeg_quality: int = 86
    grid_side: int = 256

    def __post_init__(self) -> None:
        if not 3 <= self.frames <= 100:
            raise UsageError(f"frames must be 3 to 100, got {self.frames}")
        if not 50 <= self.jpeg_quality <= 100:
            raise UsageError(f"jpeg_quality must be 50 to 100, got {self.jpeg_quality}")
        if min(self.frame_side, self.grid_side) < 32:
            raise UsageError(
                f"frame_side and grid_side must be at least 32, got {self.frame_side} and {self.grid_side}"
            )


def make_sample(
    key: str, clip: Clip, estimate: MotionEstimate, info: dict[str, Any], config: SampleConfig
) -> Sample:
    """The sample of one clip; `info` is extended by what follows from the arrays."""
    count = min(config.frames, len(clip.frames))
    indices = [int(index) for index in np.linspace(0, len(clip.frames) - 1, count).round()]
    motion_2hw, confidence_hw, moving_hw = motion_grid(estimate, config.grid_side)
    frames = [_shrink_frame(clip.frames[index], config.frame_side) for index in indices]
    return Sample(
        key=key,
        frames=JpegFrames([_jpeg(frame, config.jpeg_quality) for frame in frames]),
        motion_2HW=motion_2hw,
        confidence_HW=confidence_hw,
        moving_HW=moving_hw,
        info={
            **info,
            "frame_indices": indices,
            "frame_seconds": [round(clip.seconds[index] - clip.seconds[0], 6) for index in indices],
            "frame_size": list(frames[0].shape[:2]),
            "motion_size": list(moving_hw.shape),
        },
    )


def motion_grid(
    estimate: MotionEstimate, grid_side: int
) -> tuple[NDArray[np.float16], NDArray[np.float32], NDArray[np.bool_]]:
    """Motion (2, h, w) float16 in pixels of the grid, confidence (h, w) and moving mask (h, w).

    The motion of a grid cell is the mean over its moving pixels, so that borders are not diluted.
    """
    height, width = estimate.moving_HW.shape
    scale = min(1.0, grid_side / max(height, width))
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    share_hw = _shrink(estimate.moving_HW.astype(np.float32), size)
    moving_hw = share_hw > 0.5
    ratio = (size[0] / width, size[1] / height)
    motion_2hw = np.stack(
        [_shrink(plane, size) * step for plane, step in zip(estimate.motion_2HW, ratio, strict=True)]
    )
    motion_2hw = np.where(moving_hw, motion_2hw / np.maximum(share_hw, 0.5), 0.0).astype(np.float16)
    return motion_2hw, np.clip(_shrink(estimate.confidence_HW, size), 0.0, 1.0), moving_hw


def _shrink(plane_HW: NDArray[np.float32], size: tuple[int, int]) -> NDArray[np.float32]:
    return np.asarray(cv2.resize(plane_HW, size, interpolation=cv2.INTER_AREA), dtype=np.float32)


def _shrink_frame(frame: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    height, width = frame.shape[:2]
    scale = side / max(height, width)
    if scale >= 1.0:
        return frame
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return np.asarray(cv2.resize(frame, size, interpolation=cv2.INTER_AREA), dtype=np.uint8)


def _jpeg(frame: NDArray[np.uint8], quality: int) -> bytes:
    good, data = cv2.imencode(
        ".jpg", cv2.cvtColor(frame, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, quality]
    )
    assert good, frame.shape
    return data.tobytes()
