"""What the corpus test runs in a worker process: read a video as the pipelines do."""

from __future__ import annotations

from storage.video import decode_frames, probe_video

__all__ = ["read_whole"]


def read_whole(path: str) -> int:
    """Probe, then decode every frame; returns how many there were, all of the probed size."""
    info = probe_video(path)
    assert info.fps > 0 and info.seconds >= 0, info
    count, last = 0, -1.0
    for seconds, frame in decode_frames(path):
        assert frame.shape == (info.height, info.width, 3), (frame.shape, info)
        assert seconds > last, (seconds, last)
        last = seconds
        count += 1
    return count
