"""Encoding frames to a video file: H.264, VP9, HEVC or AV1, tagged BT.709, published whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import chain
from typing import Any

import av
import av.error
import av.filter
import numpy as np
from av.video.reformatter import ColorRange
from numpy.typing import NDArray

from storage.errors import StoreError, UsageError
from storage.objects import Url, atomic_path

__all__ = ["VIDEO_FORMATS", "VideoFormat", "encode_video", "video_encoders"]

Frame = NDArray[np.uint8]
BT709 = 1
LARGE_PIXELS = 8_000_000


@dataclass(frozen=True, kw_only=True, slots=True)
class VideoFormat:
    """How one named format is made.

    `crf_offset` brings the quality of `crf` near H.264's; `chroma_place` is where decoders of the codec
    take the untagged chroma samples to lie: half a pixel off costs ten decibels on coloured edges.
    """

    container: str
    codec: str
    suffix: str
    crf_offset: int = 0
    chroma_place: str = "left"
    options: dict[str, str] = field(default_factory=dict)
    container_options: dict[str, str] = field(default_factory=dict)
    large_options: dict[str, str] = field(default_factory=dict)  # for frames of more than LARGE_PIXELS
    codec_tag: str | None = None


FASTSTART = {"movflags": "+faststart"}
VIDEO_FORMATS = {
    "mp4": VideoFormat(
        container="mp4",
        codec="libx264",
        suffix=".mp4",
        # Adaptive quantisation 3 spends bits on dark still areas, which otherwise shimmer.
        options={"preset": "medium", "profile": "high", "x264-params": "aq-mode=3:threads=1"},
        # Every frame it holds takes 60 to 130 MB at 24 megapixels. Looking one ahead and not three costs half
        # a decibel at slightly smaller files; not looking ahead at all doubles them.
        large_options={"x264-params": "aq-mode=3:threads=1:rc-lookahead=1:bframes=0:ref=1"},
        container_options=FASTSTART,
    ),
    "webm": VideoFormat(
        container="webm",
        codec="libvpx-vp9",
        suffix=".webm",
        chroma_place="center",
        crf_offset=10,
        options={"b": "0", "deadline": "good", "cpu-used": "3", "row-mt": "0"},
        large_options={"lag-in-frames": "8"},
    ),
    "hevc": VideoFormat(
        container="mp4",
        codec="libx265",
        suffix=".mp4",
        crf_offset=3,
        options={"preset": "medium", "x265-params": "log-level=none:pools=none:frame-threads=1"},
        large_options={"x265-params": "log-level=none:pools=none:frame-threads=1:rc-lookahead=8:bframes=3"},
        container_options=FASTSTART,
        codec_tag="hvc1",  # the one Apple's players know
    ),
    "av1": VideoFormat(
        container="mp4",
        codec="libsvtav1",
        suffix=".mp4",
        chroma_place="center",
        crf_offset=12,
        # Low delay: its hierarchy of frames of different quality would make still areas shimmer.
        options={"preset": "8", "svtav1-params": "lp=1:pred-struct=1"},
        container_options=FASTSTART,
    ),
}


def video_encoders() -> list[str]:
    """The formats whose encoder this installation has."""
    return [name for name, made in VIDEO_FORMATS.items() if made.codec in av.codecs_available]


def encode_video(  # noqa: PLR0913 (the keyword-only ones are the settings of one video)
    frames: Iterable[Frame],
    url: Url,
    *,
    fps: float,
    format: str = "mp4",
    crf: int = 18,
    gop: int | None = None,
) -> int:
    """Encode (H, W, 3) uint8 RGB frames to a video at any URL; returns how many there were.

    `gop` is the longest way between key frames (ten seconds when None); a loop that is one group of
    pictures does not pulse at key frames. Odd sizes are made even by repeating the last row or column.
    Raises UsageError for no frames, frames of several shapes, or an unknown format.
    """
    chosen = _format(format)
    if not 0 < fps <= 1000:
        raise UsageError(f"fps must be above 0 and at most 1000, got {fps}")
    iterator = iter(frames)
    first = next(iterator, None)
    if first is None:
        raise UsageError(f"cannot encode {url}: there is no frame; give at least one")
    rate = Fraction(fps).limit_denominator(1001)
    with atomic_path(url) as path, _translating(url):
        with av.open(str(path), "w", format=chosen.container, options=chosen.container_options) as container:
            stream = _add_stream(container, chosen, rate, first.shape)
            stream.codec_context.gop_size = gop or max(round(10 * fps), 1)
            # The encoders look tens of frames ahead, which at 24 megapixels is gigabytes.
            large = chosen.large_options if first.shape[0] * first.shape[1] > LARGE_PIXELS else {}
            options = {**chosen.options, **large, "crf": str(crf + chosen.crf_offset)}
            stream.codec_context.options = options
            return _mux(container, stream, chain([first], iterator), chosen.chroma_place)


def _format(name: str) -> VideoFormat:
    if name not in VIDEO_FORMATS:
        raise UsageError(f"unknown video format {name!r}; choose one of {', '.join(VIDEO_FORMATS)}")
    if name not in video_encoders():
        raise UsageError(
            f"this PyAV lacks {VIDEO_FORMATS[name].codec}; choose one of {', '.join(video_encoders())}"
        )
    return VIDEO_FORMATS[name]


def _add_stream(container: Any, chosen: VideoFormat, rate: Fraction, shape: tuple[int, ...]) -> Any:
    if chosen.codec == "libsvtav1":
        os.environ.setdefault("SVT_LOG", "1")  # its only switch: errors, not a page about itself per video
    stream = container.add_stream(chosen.codec, rate=rate)
    stream.height, stream.width = (size + size % 2 for size in shape[:2])
    stream.pix_fmt = "yuv420p"
    stream.time_base = 1 / rate
    context = stream.codec_context
    context.color_primaries = context.color_trc = context.colorspace = BT709
    context.color_range = ColorRange.MPEG
    context.thread_count = 1
    if chosen.codec_tag:
        context.codec_tag = chosen.codec_tag
    return stream


def _mux(container: Any, stream: Any, frames: Iterator[Frame], chroma_place: str) -> int:
    count = 0
    converter: _Converter | None = None
    for count, picture in enumerate(frames, start=1):
        converter = converter or _Converter(picture.shape, stream.codec_context.framerate, chroma_place)
        container.mux(stream.encode(converter.convert(picture, count - 1)))
    container.mux(stream.encode(None))
    return count


class _Converter:
    """Turns RGB pictures of one size into even-sized BT.709 frames of limited range."""

    def __init__(self, shape: tuple[int, ...], rate: Fraction, chroma_place: str) -> None:
        self._shape = shape
        self._rate = rate
        # bicubic with full chroma input averages all pixels of a chroma sample and rounds without bias
        scale = (
            "out_color_matrix=bt709:out_range=tv:flags=bicubic+accurate_rnd+full_chroma_inp:"
            f"out_chroma_loc={chroma_place}"
        )
        height, width = (size + size % 2 for size in shape[:2])
        self._graph = av.filter.Graph()
        self._graph.threads = 1
        source = self._graph.add(
            "buffer", video_size=f"{width}x{height}", pix_fmt="rgb24", time_base="1/1", pixel_aspect="1/1"
        )
        nodes = [source, self._graph.add("scale", scale), self._graph.add("format", "yuv420p")]
        self._graph.link_nodes(*nodes, self._graph.add("buffersink")).configure()

    def convert(self, picture: Frame, index: int) -> Any:
        """The frame for a picture, with its index as time stamp."""
        shape = self._shape
        if picture.shape != shape or len(shape) != 3 or shape[2] != 3 or picture.dtype != np.uint8:
            raise UsageError(
                f"frame {index} must be (H, W, 3) uint8 of the first one's size {shape}, "
                f"got {picture.shape} {picture.dtype}"
            )
        if shape[0] % 2 or shape[1] % 2:
            picture = np.pad(picture, ((0, shape[0] % 2), (0, shape[1] % 2), (0, 0)), mode="edge")
        rgb = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
        rgb.pts = index
        self._graph.vpush(rgb)
        frame = self._graph.vpull()
        frame.pts, frame.time_base = index, 1 / self._rate
        return frame


class _translating:  # noqa: N801 (reads as a function where it is used)
    """Translate FFmpeg's complaints about writing, but not errors of whoever draws the frames."""

    def __init__(self, url: Url) -> None:
        self._url = url

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, exc: BaseException | None, trace: object) -> None:
        # A full disk is an OSError to the object layer, which has the words for it.
        if isinstance(exc, av.error.FFmpegError) and not isinstance(exc, OSError):
            raise StoreError(f"cannot encode {self._url}: {exc.strerror}") from exc
