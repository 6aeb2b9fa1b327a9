"""Videos: probe, decode frame by frame, encode. The rooms behind are the storage/video_*.py files."""

from __future__ import annotations

from storage.video_decode import decode_frames
from storage.video_encode import VIDEO_FORMATS, encode_video, video_encoders
from storage.video_input import VIDEO_SUFFIXES
from storage.video_probe import VideoInfo, probe_video

__all__ = [
    "VIDEO_FORMATS",
    "VIDEO_SUFFIXES",
    "VideoInfo",
    "decode_frames",
    "encode_video",
    "probe_video",
    "video_encoders",
]
