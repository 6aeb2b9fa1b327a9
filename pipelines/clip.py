"""Clips: short windows of a video, spread over it and read as frames at 30 a second or fewer."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from storage.errors import RejectedError, UsageError
from storage.reasons import Reason
from storage.video import VideoInfo, decode_frames

__all__ = ["Clip", "ClipConfig", "Window", "check_video", "plan_windows", "read_clip"]

TOP_FPS = 30.0
# Frames closer than this are left out: 60 fps becomes 30, 50 becomes 25, and 40 stays as it is.
CLOSEST_FRAMES = 0.75 / TOP_FPS
EARLY = 2e-3  # seconds
FARTHEST_FRAMES = 0.2  # seconds; optical flow cannot bridge more


@dataclass(frozen=True, kw_only=True, slots=True)
class ClipConfig:
    """Which windows of a video become clips, and how they are read.

    `seconds`: length of a clip. `shortest`: what will do where a video ends early. `per_source`: most clips
    of one video. `max_side`: larger frames are scaled down to it. `smallest_side`: what the shorter side must
    have.
    """

    seconds: float = 2.0
    shortest: float = 1.4
    per_source: int = 4
    max_side: int = 640
    smallest_side: int = 128

    def __post_init__(self) -> None:
        if not 0.5 <= self.shortest <= self.seconds <= 10:
            raise UsageError(
                f"expected 0.5 <= shortest <= seconds <= 10, got {self.shortest} and {self.seconds}"
            )
        if self.per_source < 1:
            raise UsageError(f"per_source must be at least 1, got {self.per_source}")
        if not 64 <= self.smallest_side <= self.max_side:
            raise UsageError(
                f"expected 64 <= smallest_side <= max_side, got {self.smallest_side} and {self.max_side}"
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class Window:
    """A stretch of a video: where it starts, in seconds and in frames of the video, and its seconds."""

    start_seconds: float
    start_frame: int
    seconds: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Clip:
    """The frames of one window, (H, W, 3) RGB uint8 each, their times in the video in seconds, their rate."""

    frames: list[NDArray[np.uint8]]
    seconds: list[float]
    fps: float
    window: Window

    @property
    def size(self) -> tuple[int, int]:
        """(H, W)."""
        height, width = self.frames[0].shape[:2]
        return height, width

    def with_frames(self, frames: list[NDArray[np.uint8]]) -> Clip:
        """The same window with other pixels."""
        assert len(frames) == len(self.seconds)
        return replace(self, frames=frames)


def check_video(info: VideoInfo, config: ClipConfig) -> None:
    """Raise RejectedError where a video cannot give a clip by what its header says."""
    if min(info.width, info.height) < config.smallest_side:
        raise RejectedError(
            f"the shorter side should have {config.smallest_side} px, got {info.width}x{info.height}",
            reason=Reason.TOO_SMALL,
        )
    if info.fps < 1.0 / FARTHEST_FRAMES:
        raise RejectedError(
            f"expected at least {1 / FARTHEST_FRAMES:.0f} frames a second, got {info.fps:.3g}",
            reason=Reason.UNSUPPORTED,
        )
    # Headers round: half a frame short is not short.
    if info.seconds + 0.5 / info.fps < config.shortest:
        raise RejectedError(
            f"expected at least {config.shortest:g} s, got {info.seconds:.2f} s", reason=Reason.TOO_SHORT
        )


def plan_windows(info: VideoInfo, config: ClipConfig) -> list[Window]:
    """Spread as many windows as fit, at most `per_source`, evenly over the video."""
    length = config.seconds
    count = max(1, min(config.per_source, math.floor(info.seconds / length + 1e-6)))
    gap = max(0.0, info.seconds - count * length) / (count + 1)
    frames = [math.floor((gap + index * (length + gap)) * info.fps + 1e-6) for index in range(count)]
    return [Window(start_seconds=frame / info.fps, start_frame=frame, seconds=length) for frame in frames]


def read_clip(path: Path, window: Window, config: ClipConfig) -> Clip:
    """Decode one window.

    Raises RejectedError when the video ends too early in it or its frames are too far apart, MediaError
    when it cannot be decoded.
    """
    frames: list[NDArray[np.uint8]] = []
    seconds: list[float] = []
    # Container times are rounded: a frame may seem to come a little early.
    start = max(0.0, window.start_seconds - EARLY)
    stream = decode_frames(path, start=start, end=start + window.seconds, max_side=config.max_side)
    for second, frame in stream:
        if not seconds or second - seconds[-1] >= CLOSEST_FRAMES:
            frames.append(frame)
            seconds.append(second)
    if (
        len(frames) < 3
        or (seconds[-1] - seconds[0]) * len(frames) / (len(frames) - 1) < config.shortest - EARLY
    ):
        raise RejectedError(
            f"expected at least {config.shortest:g} s from {window.start_seconds:.2f} s on, "
            f"got {len(frames)} frames",
            reason=Reason.TOO_SHORT,
        )
    widest = float(np.diff(seconds).max())
    if widest > FARTHEST_FRAMES:
        raise RejectedError(
            f"frames must be at most {FARTHEST_FRAMES} s apart, got a gap of {widest:.2f} s",
            reason=Reason.UNSUPPORTED,
        )
    fps = (len(seconds) - 1) / (seconds[-1] - seconds[0])
    return Clip(frames=frames, seconds=seconds, fps=fps, window=window)
