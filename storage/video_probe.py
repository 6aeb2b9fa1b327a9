"""Probing a video: what it is, from its headers, its first frame and the times of its first packets."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

import av

from storage.video_frames import good_frames
from storage.video_input import open_video, translating_ffmpeg
from storage.video_picture import display_size, transfer_name

__all__ = ["VideoInfo", "frame_rate", "probe_video", "stated_seconds"]

# Packets whose times are looked at to tell a variable frame rate.
SCANNED_PACKETS = 300
# Some headers state the time base's rate instead of a frame rate.
HIGHEST_FPS = 500.0
FALLBACK_FPS = 25.0


@dataclass(frozen=True, kw_only=True, slots=True)
class VideoInfo:
    """What a video is.

    `width` and `height` are those of the decoded frames: square pixels, turned upright. `rotation` is the
    clockwise turn in degrees that was needed. `frames` is None when the container does not say. `transfer`
    is "sdr", "pq" or "hlg".
    """

    width: int
    height: int
    fps: float
    frames: int | None
    seconds: float
    rotation: int
    codec: str
    pixel_format: str
    transfer: str
    interlaced: bool
    variable_rate: bool


def probe_video(path: Path | str) -> VideoInfo:
    """Say what a video is; decodes its first frame. Raises MediaError, or RejectedError for absurd sizes."""
    with open_video(path) as (container, stream), translating_ffmpeg(path):
        frame = next(good_frames(container, stream, path))
        turn, (height, width) = display_size(frame, stream)
    with open_video(path) as (container, stream), translating_ffmpeg(path):
        times, complete = _packet_times(container, stream)
        fps = frame_rate(stream, times)
        return VideoInfo(
            width=width,
            height=height,
            fps=fps,
            frames=len(times) if complete else int(stream.frames) or None,
            seconds=_seconds(container, stream, times, complete, fps),
            rotation=turn,
            codec=str(stream.codec_context.codec.canonical_name),
            pixel_format=str(frame.format.name),
            transfer=transfer_name(frame),
            interlaced=bool(frame.interlaced_frame),
            variable_rate=_is_variable(times),
        )


def frame_rate(stream: Any, times: list[float] | None = None) -> float:
    """Frames per second: the container's average, else by the packets' times, else the codec's guess."""
    for rate in (stream.average_rate, None if times else stream.guessed_rate):
        if rate and 0 < rate <= HIGHEST_FPS:
            return float(rate)
    steps = _steps(times or [])
    if steps and median(steps) > 1 / HIGHEST_FPS:
        return 1 / median(steps)
    rate = stream.guessed_rate
    return float(rate) if rate and 0 < rate <= HIGHEST_FPS else FALLBACK_FPS


def stated_seconds(container: Any, stream: Any) -> float | None:
    """How long the container says the stream lasts; None when it does not."""
    if stream.duration is not None and stream.time_base:
        return max(float(stream.duration * stream.time_base), 0.0)
    if container.duration is not None:
        return max(float(container.duration) / float(av.time_base), 0.0)
    return None


def _packet_times(container: Any, stream: Any) -> tuple[list[float], bool]:
    """Presentation times in seconds of the first packets, sorted, and whether these are all."""
    times: list[float] = []
    for packet in container.demux(stream):
        if packet.size == 0:
            continue
        when = packet.pts if packet.pts is not None else packet.dts
        times.append(float(when * (stream.time_base or Fraction(1))) if when is not None else float("nan"))
        if len(times) >= SCANNED_PACKETS:
            return sorted(time for time in times if time == time), False
    known = sorted(time for time in times if time == time)
    return (known if len(known) == len(times) else [0.0] * len(times)), True


def _seconds(container: Any, stream: Any, times: list[float], complete: bool, fps: float) -> float:
    stated = stated_seconds(container, stream)
    if stated:
        return stated
    if complete and times:
        return max(times[-1] - times[0], (len(times) - 1) / fps if times[-1] == times[0] else 0.0) + 1 / fps
    # No header says it: count the rest of the packets, which costs reading the file but no decoding.
    count = len(times) + sum(1 for packet in container.demux(stream) if packet.size)
    return count / fps


def _steps(times: list[float]) -> list[float]:
    return [after - before for before, after in pairwise(times) if after > before]


def _is_variable(times: list[float]) -> bool:
    """Whether frames come unevenly: steps that differ by more than rounding to the time base explains."""
    steps = sorted(_steps(times))
    if len(steps) < 3:
        return False
    # The outermost steps are left out: many files hold one odd frame at their start or end.
    low, high = steps[len(steps) // 20], steps[-1 - len(steps) // 20]
    return high > 1.5 * low + 0.002
