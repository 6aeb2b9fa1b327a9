"""Opening a video: the container, its video stream, and FFmpeg's errors translated into ours.

Only real video containers are let in. FFmpeg would also read playlists that name other files, pictures and
plain text, and what strangers call `.mp4` may be any of these.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import av
import av.error
import av.logging

from storage.errors import MediaError, RejectedError
from storage.reasons import Reason
from storage.truncation import is_cut_off

__all__ = ["MAX_PIXELS", "VIDEO_SUFFIXES", "open_video", "translating_ffmpeg"]

VIDEO_SUFFIXES = frozenset(
    (
        ".3gp .asf .avi .f4v .flv .m2ts .m2v .m4v .mkv .mov .mp4 .mpeg .mpg .mts .mxf .ogg .ogv .ts .vob "
        ".webm .wmv"
    ).split()
)

DEMUXERS = (
    "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpegts,mpeg,mpegvideo,flv,live_flv,asf,ogg,mxf,gxf,rm,dv,nut,"
    "ivf,h264,hevc,av1,obu,m4v,h263,yuv4mpegpipe,gif,wtv,nsv,vc1,film_cpk,roq,smk,bink,4xm,dirac"
)
# 16K by 8K. More is an absurd header or no job for this project.
MAX_PIXELS = 16384 * 8192
MAX_SIDE = 32768
OPTIONS = {"format_whitelist": DEMUXERS, "protocol_whitelist": "file", "max_pixels": str(MAX_PIXELS)}

# FFmpeg writes about every odd bit of a bad file; what matters arrives as an error or a frame's flag.
av.logging.set_level(None)


@contextmanager
def open_video(path: Path | str) -> Iterator[tuple[Any, Any]]:
    """The open container and its best video stream, decoding in one thread; closed at the end.

    Raises MediaError: not_found, empty, unreadable, truncated or no_video; RejectedError for absurd sizes.
    """
    path = Path(path)
    _check_file(path)
    with translating_ffmpeg(path):
        # With "file:", else a colon in the name would be taken for a protocol.
        container = av.open(f"file:{os.path.abspath(path)}", options=OPTIONS, metadata_errors="replace")
    try:
        stream = _video_stream(container, path)
        yield container, stream
    finally:
        container.close()


@contextmanager
def translating_ffmpeg(path: Path | str) -> Iterator[None]:
    """Turn FFmpeg's errors about the content of a file into MediaError."""
    try:
        yield
    except (av.error.FFmpegError, EOFError) as exc:
        text = getattr(exc, "strerror", None) or str(exc)
        raise MediaError(f"{path} cannot be decoded: {text}", reason=Reason.UNREADABLE) from exc
    except (ValueError, ZeroDivisionError, OverflowError, UnicodeDecodeError) as exc:
        # What PyAV itself raises on headers that make no sense.
        raise MediaError(f"{path} has a header that makes no sense: {exc}", reason=Reason.UNREADABLE) from exc
    except MemoryError as exc:
        raise MediaError(f"{path} asks for more memory than there is", reason=Reason.UNREADABLE) from exc


def _check_file(path: Path) -> None:
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):  # opening a named pipe would wait for ever
            raise MediaError(f"{path} is no ordinary file", reason=Reason.UNREADABLE)
        with path.open("rb"):
            size = status.st_size
    except (FileNotFoundError, NotADirectoryError) as exc:
        raise MediaError(f"there is no video at {path}", reason=Reason.NOT_FOUND) from exc
    except OSError as exc:
        raise MediaError(f"{path} cannot be opened: {exc}", reason=Reason.UNREADABLE) from exc
    if size == 0:
        raise MediaError(f"{path} is empty", reason=Reason.EMPTY)
    if is_cut_off(path):
        raise MediaError(
            f"{path} is shorter than it says: it was cut off; fetch it again", reason=Reason.TRUNCATED
        )


def _video_stream(container: Any, path: Path) -> Any:
    attached = av.stream.Disposition.attached_pic
    streams = [stream for stream in container.streams.video if not stream.disposition & attached]
    if not streams:
        raise MediaError(f"{path} holds no video, only {_kinds(container)}", reason=Reason.NO_VIDEO)
    stream = max(streams, key=lambda one: (one.codec_context is not None, _pixels(one), -one.index))
    if stream.codec_context is None:
        raise RejectedError(f"{path} has a codec that FFmpeg cannot decode", reason=Reason.UNSUPPORTED)
    if _pixels(stream) > MAX_PIXELS or max(stream.width, stream.height) > MAX_SIDE:
        raise RejectedError(f"{path} claims {stream.width}x{stream.height} pixels", reason=Reason.TOO_LARGE)
    # Workers run one per core: more threads in each would only fight.
    stream.codec_context.thread_count = 1
    stream.codec_context.thread_type = "NONE"
    return stream


def _pixels(stream: Any) -> int:
    return 0 if stream.codec_context is None else int(stream.width or 0) * int(stream.height or 0)


def _kinds(container: Any) -> str:
    return ", ".join(sorted({stream.type for stream in container.streams})) or "no streams"
