"""Decoding a video as a stream of upright RGB pictures with their times; memory does not grow with length."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av.error
import numpy as np
from numpy.typing import NDArray

from storage.errors import MediaError, UsageError
from storage.reasons import Reason
from storage.video_frames import FrameClock, good_frames
from storage.video_input import open_video, translating_ffmpeg
from storage.video_picture import Deinterlacer, PictureMaker
from storage.video_probe import frame_rate, stated_seconds

__all__ = ["decode_frames"]

# Below this, decoding from the beginning costs less than a seek is worth.
SEEK_FROM_SECONDS = 2.0
# Containers whose packets all carry times (MPEG programme streams leave some out); a seek is checked.
SEEKABLE = {"mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm", "avi", "mpegts", "flv", "asf"}


def decode_frames(
    path: Path | str, *, start: float = 0.0, end: float | None = None, max_side: int | None = None
) -> Iterator[tuple[float, NDArray[np.uint8]]]:
    """Yield (seconds, frame_HW3 uint8 RGB) for the frames with start <= seconds < end.

    Seconds count from the video's first frame and follow its own timestamps. Frames are upright, with
    square pixels, deinterlaced, 8 bit, HDR mapped to standard range, and no longer than `max_side`.
    Raises MediaError for what is no video, damaged, or ends long before its header says; RejectedError
    for what cannot be handled.
    """
    if start < 0 or (end is not None and end <= start) or not math.isfinite(start):
        raise UsageError(f"a stretch of video needs 0 <= start < end, got {start} to {end} seconds")
    if max_side is not None and max_side < 1:
        raise UsageError(f"max_side must be at least 1 pixel, got {max_side}")
    return _decode(path, start, math.inf if end is None else end, max_side)


def _decode(
    path: Path | str, start: float, end: float, max_side: int | None
) -> Iterator[tuple[float, NDArray[np.uint8]]]:
    stretch = _stretch(path, start, end, max_side, seek=True)
    try:
        first = next(stretch, None)
    except (_MissedError, MediaError):
        if start < SEEK_FROM_SECONDS:
            raise
        # The seek led too far or to frames that cannot be decoded; from the beginning it may go well.
        stretch = _stretch(path, start, end, max_side, seek=False)
        first = next(stretch, None)
    if first is not None:
        yield first
        yield from stretch


class _MissedError(Exception):
    """A seek led behind the wanted start."""


def _stretch(
    path: Path | str, start: float, end: float, max_side: int | None, *, seek: bool
) -> Iterator[tuple[float, NDArray[np.uint8]]]:
    with open_video(path) as (container, stream), translating_ffmpeg(path):
        maker = PictureMaker(stream, max_side)
        seeked = seek and _seek(container, stream, start)
        last, count = 0.0, 0
        for seconds, frame in _timed_frames(container, stream, path):
            last, count = seconds, count + 1
            if seeked and count == 1 and seconds > start:
                raise _MissedError
            if seconds >= end - 1e-6:
                return
            if seconds >= start - 1e-6:
                yield seconds, maker.make(frame)
        _check_end(container, stream, path, last)
        if not seeked:
            _check_count(container, stream, path, count)


def _timed_frames(container: Any, stream: Any, path: Path | str) -> Iterator[tuple[float, Any]]:
    clock, deinterlacer = FrameClock(stream, frame_rate(stream)), Deinterlacer()
    for frame in good_frames(container, stream, path):
        yield from deinterlacer.push(clock.seconds(frame), frame)
    yield from deinterlacer.flush()


def _seek(container: Any, stream: Any, start: float) -> bool:
    if start < SEEK_FROM_SECONDS or container.format.name not in SEEKABLE or not stream.time_base:
        return False
    # Half a second early: edit lists and reordered frames make the nearest key frame land a little late.
    target = int((start - 0.5) / stream.time_base) + (stream.start_time or 0)
    try:
        container.seek(target, stream=stream, backward=True)
    except av.error.FFmpegError as exc:
        raise _MissedError from exc
    return True


def _check_end(container: Any, stream: Any, path: Path | str, last: float) -> None:
    """Containers without a size in their header (FLV, MPEG) still say how long they should last."""
    stated = stated_seconds(container, stream)
    if (
        stated is None
        or any(other.type == "audio" for other in container.streams)
        and stream.duration is None
    ):
        return  # unknown, or the sound's
    if last < 0.9 * stated - 1.0:
        message = (
            f"{path} ends at {last:.1f} s, its header says {stated:.1f} s: it was cut off; fetch it again"
        )
        raise MediaError(message, reason=Reason.TRUNCATED)


def _check_count(container: Any, stream: Any, path: Path | str, count: int) -> None:
    """An MP4's index says how many frames there are to show; decoders drop some without a word."""
    if "mp4" not in container.format.name:
        return
    expected = sum(not entry.is_discard for entry in stream.index_entries)
    if count < 0.95 * expected - 1:
        message = f"{path} lists {expected} frames and gives {count}: it is damaged"
        raise MediaError(message, reason=Reason.UNREADABLE)
