"""Writing a loop: frames → one file of the wanted format (or a folder of frames), and its poster.

Frames are streamed into the encoder; only a GIF parks them on disk, since its palette needs to see them all.
A loop appears under its name when it is complete. What is still in the frames stays still in the file:
exactly in PNG, APNG, GIF and WebP; in videos as far as the encoder can be told to leave it alone.
"""

import io
import os
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, BinaryIO

import av
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from storage.apng import write_apng
from storage.errors import RejectedError, UsageError
from storage.frame_spool import FrameSpool
from storage.gif_colours import choose_colours
from storage.listing import list_objects
from storage.objects import atomic_writer, delete_object, join_url, publish_file, stat_object, write_bytes
from storage.reasons import Reason
from storage.remux import exif_tags, repeat_video
from storage.video import encode_video

__all__ = ["FORMATS", "LoopFile", "LoopFormat", "LoopOptions", "usable_formats", "write_loop", "write_poster"]

Frame = NDArray[np.uint8]
POSTER_SIDE = 1280
POSTER_QUALITY = 88


@dataclass(frozen=True, kw_only=True, slots=True)
class LoopFormat:
    """What a format is called on disk, its encoder, and the longest side it can hold."""

    suffix: str
    codec: str = ""
    max_side: int = 65_535


FORMATS: dict[str, LoopFormat] = {
    "mp4": LoopFormat(suffix=".mp4", codec="libx264", max_side=16_384),
    "webm": LoopFormat(suffix=".webm", codec="libvpx-vp9", max_side=16_384),
    "hevc": LoopFormat(suffix=".hevc.mp4", codec="libx265", max_side=16_384),
    "av1": LoopFormat(suffix=".av1.mp4", codec="libsvtav1", max_side=16_384),
    "gif": LoopFormat(suffix=".gif", codec="gif"),
    "webp": LoopFormat(suffix=".webp", codec="libwebp_anim", max_side=16_383),
    "avif": LoopFormat(suffix=".avif", codec="libsvtav1", max_side=16_384),
    "apng": LoopFormat(suffix=".apng"),
    "png": LoopFormat(suffix=""),
}
# A loop is one group of pictures: a key frame in its midst would pulse. Longer than any loop.
ONE_GROUP = 10_000
VIDEOS = ("mp4", "webm", "hevc", "av1")


@dataclass(frozen=True, kw_only=True, slots=True)
class LoopOptions:
    """How a loop is encoded: quality 1…100 (90 is hard to tell from the frames), EXIF to keep."""

    quality: int = 90
    lossless: bool = False
    exif: bytes | None = None

    def __post_init__(self) -> None:
        if not 1 <= self.quality <= 100:
            raise UsageError(f"quality must be 1 to 100, got {self.quality}")

    @property
    def crf(self) -> int:
        """The quality on the scale of H.264: 90 is 18, which is visually lossless."""
        return round(36 - 0.2 * self.quality)


@dataclass(frozen=True, kw_only=True, slots=True)
class LoopFile:
    """What was written: the URL of the file (or folder), its frames and its size in bytes."""

    url: str
    frames: int
    size: int


def usable_formats() -> list[str]:
    """The formats whose encoder is there, in the order of FORMATS."""
    return [name for name, form in FORMATS.items() if not form.codec or _has_encoder(form.codec)]


def _has_encoder(codec: str) -> bool:
    try:
        av.codec.Codec(codec, "w")
    except (av.codec.codec.UnknownCodecError, ValueError):
        return False
    return True


def write_loop(
    frames: Iterable[Frame],
    url: str,
    *,
    format: str,
    fps: float,
    repeat: int = 1,
    options: LoopOptions | None = None,
) -> LoopFile:
    """Encode frames (H, W, 3) uint8 RGB as a loop at `url`; for "png" the URL is a folder.

    `repeat` bakes that many periods into a video; the other formats repeat for ever by themselves.
    Raises UsageError for an unknown format, RejectedError (too_large) for a picture it cannot hold.
    """
    if format not in FORMATS:
        raise UsageError(f"unknown format {format!r}; known are {', '.join(FORMATS)}")
    options = options or LoopOptions()
    checked = _checked(frames, format)
    if format == "png":
        return _write_folder(checked, url)
    if format in VIDEOS:
        return _write_video(checked, url, format=format, fps=fps, repeat=repeat, options=options)
    if format == "gif":
        with FrameSpool(checked) as spool, atomic_writer(url) as stream:
            count = _encode_gif(spool, stream, fps)
    elif format == "apng":
        with atomic_writer(url) as stream:
            count = write_apng(stream, checked, fps=fps, exif=options.exif)
    else:
        with tempfile.TemporaryDirectory(prefix="stillstream-") as folder:
            path = Path(folder) / "loop"
            count = _encode_picture(checked, path, format=format, fps=fps, options=options)
            publish_file(path, url)
    return LoopFile(url=url, frames=count, size=stat_object(url).size)


def write_poster(image_HW3: Frame, url: str, *, exif: bytes | None = None) -> LoopFile:
    """Write the still picture shown before a loop plays: a JPEG of at most 1280 pixels a side."""
    image = Image.fromarray(image_HW3)
    image.thumbnail((POSTER_SIDE, POSTER_SIDE), Image.Resampling.LANCZOS, reducing_gap=3.0)
    buffer = io.BytesIO()
    extra = {"exif": exif} if exif else {}
    image.save(buffer, "JPEG", quality=POSTER_QUALITY, progressive=True, optimize=True, **extra)
    info = write_bytes(url, buffer.getvalue())
    return LoopFile(url=url, frames=1, size=info.size)


def _checked(frames: Iterable[Frame], format: str) -> Iterator[Frame]:
    """The frames, checked on their way for a size that the format can hold."""
    limit = FORMATS[format].max_side
    for frame in frames:
        if max(frame.shape[:2]) > limit:
            raise RejectedError(
                f"{format} holds at most {limit} pixels a side, got {frame.shape[1]}×{frame.shape[0]}; "
                "give a smaller --max-side or another format",
                reason=Reason.TOO_LARGE,
            )
        yield frame


def _write_folder(frames: Iterator[Frame], url: str) -> LoopFile:
    count = size = 0
    for frame in frames:
        buffer = io.BytesIO()
        Image.fromarray(frame).save(buffer, "PNG", compress_level=3)
        size += write_bytes(join_url(url, f"{count:04d}.png"), buffer.getvalue()).size
        count += 1
    _remove_frames_from(url, count)
    return LoopFile(url=url, frames=count, size=size)


def _remove_frames_from(url: str, count: int) -> None:
    """Delete what a longer loop left in the folder."""
    for info in list(list_objects(url, suffixes={".png"})):
        stem = info.key.removesuffix(".png")
        if stem.isdecimal() and len(stem) >= 4 and int(stem) >= count:
            delete_object(info.url)


def _write_video(
    frames: Iterator[Frame], url: str, *, format: str, fps: float, repeat: int, options: LoopOptions
) -> LoopFile:
    tags = exif_tags(options.exif)
    if repeat == 1 and not tags:
        count = encode_video(frames, url, fps=fps, format=format, crf=options.crf, gop=ONE_GROUP)
        return LoopFile(url=url, frames=count, size=stat_object(url).size)
    with tempfile.TemporaryDirectory(prefix="stillstream-") as folder:
        once = os.path.join(folder, f"once{FORMATS[format].suffix}")
        final = Path(folder) / f"final{FORMATS[format].suffix}"
        count = encode_video(frames, once, fps=fps, format=format, crf=options.crf, gop=ONE_GROUP)
        repeat_video(Path(once), final, periods=repeat, frames=count, fps=fps, tags=tags)
        published = publish_file(final, url)
    return LoopFile(url=url, frames=count * repeat, size=published.size)


def _encode_gif(spool: FrameSpool, stream: BinaryIO, fps: float) -> int:
    """GIF with one palette for all; its clock ticks in hundredths, and the rounding is spread evenly."""
    colours = choose_colours(spool)
    palette: Frame = np.zeros((256, 4), np.uint8)  # alpha, red, green, blue
    palette[:255, 0] = 255
    palette[:255, 1:] = colours.palette_K3
    ticks = [round(index * 100 / fps) for index in range(len(spool) + 1)]
    count = 0
    # Without a word about it the last frame would be gone at once.
    timing = {"loop": "0", "final_delay": str(ticks[-1] - ticks[-2])}
    with av.open(stream, "w", format="gif", options=timing) as container:
        encoder: Any = container.add_stream("gif", rate=100)
        encoder.codec_context.time_base = Fraction(1, 100)
        encoder.options = {"gifflags": "offsetting+transdiff", "global_palette": "1"}
        encoder.pix_fmt = "pal8"
        for frame in spool:
            if count == 0:
                encoder.width, encoder.height = frame.shape[1], frame.shape[0]
            indexed: Any = (colours.index_frame(frame), palette)
            picture = av.VideoFrame.from_ndarray(indexed, format="pal8")
            picture.pts, picture.time_base = ticks[count], Fraction(1, 100)
            container.mux(encoder.encode(picture))
            count += 1
        container.mux(encoder.encode(None))
    return count


def _encode_picture(
    frames: Iterator[Frame], path: Path, *, format: str, fps: float, options: LoopOptions
) -> int:
    """Animated WebP or AVIF; the containers patch their heads at the end, so they need a local file."""
    rate = Fraction(fps).limit_denominator(1001)
    count = 0
    with av.open(str(path), "w", format=format, options={"loop": "0"}) as container:
        encoder: Any = container.add_stream(FORMATS[format].codec, rate=rate)
        encoder.pix_fmt, encoder.options = _picture_options(format, options)
        for frame in frames:
            if count == 0:
                encoder.width, encoder.height = frame.shape[1], frame.shape[0]
            picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")
            picture.pts, picture.time_base = count, 1 / rate
            container.mux(encoder.encode(picture))
            count += 1
        container.mux(encoder.encode(None))
    return count


def _picture_options(format: str, options: LoopOptions) -> tuple[str, dict[str, str]]:
    if format == "avif":
        os.environ.setdefault("SVT_LOG", "1")  # its only switch: errors, not a page about itself per picture
        return "yuv420p", {"crf": str(options.crf + 7), "preset": "8", "svtav1-params": "lp=1:pred-struct=1"}
    if options.lossless:
        return "bgra", {"lossless": "1", "compression_level": "4", "quality": "60"}
    return "yuv420p", {"lossless": "0", "compression_level": "4", "quality": str(options.quality)}
