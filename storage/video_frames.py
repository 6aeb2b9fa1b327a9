"""The undamaged frames of an open video in order, each with its time."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av.error

from storage.errors import MediaError
from storage.reasons import Reason

__all__ = ["FrameClock", "good_frames"]

# A recording may begin in the middle of a group of pictures, whose first frames cannot be decoded.
MAX_BAD_STARTS = 250


def good_frames(container: Any, stream: Any, path: Path | str) -> Iterator[Any]:
    """Decode frame by frame. Raises MediaError when there is no frame, or a damaged one among good ones."""
    seen, bad = 0, 0
    for packet in container.demux(stream):
        try:
            frames = packet.decode()
        except av.error.FFmpegError as exc:
            bad += 1
            if seen or bad > MAX_BAD_STARTS:
                raise _damaged(path, seen) from exc
            continue
        for frame in frames:
            # What was predicted from a bad start is bad too, though nothing says so: up to a key frame.
            if frame.is_corrupt or (bad and not seen and not frame.key_frame):
                bad += 1
                if seen or bad > MAX_BAD_STARTS:
                    raise _damaged(path, seen)
                continue
            seen += 1
            yield frame
    if not seen:
        raise MediaError(f"{path} holds no frame that can be decoded", reason=Reason.UNREADABLE)


class FrameClock:
    """Seconds since the start of the video for each frame: its own time, or one step after the last.

    Times always grow; where a file gives none, or goes backwards, the nominal frame rate fills in.
    """

    def __init__(self, stream: Any, fps: float) -> None:
        self._base = Fraction(stream.time_base or 1)
        self._origin: int | None = stream.start_time
        self._step = 1.0 / fps
        self._last: float | None = None

    def seconds(self, frame: Any) -> float:
        """The time of the next frame."""
        stamp = frame.pts if frame.pts is not None else frame.dts
        if stamp is None:
            seconds = 0.0 if self._last is None else self._last + self._step
        else:
            if self._origin is None:
                self._origin = stamp
            base = Fraction(frame.time_base) if frame.time_base else self._base
            seconds = float(stamp * base - self._origin * self._base)
        if self._last is not None and seconds <= self._last:
            seconds = self._last + self._step
        self._last = seconds
        return seconds


def _damaged(path: Path | str, seen: int) -> MediaError:
    return MediaError(f"{path} is damaged behind frame {seen}", reason=Reason.UNREADABLE)
