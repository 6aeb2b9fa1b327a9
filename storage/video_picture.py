"""From a decoded frame to an upright picture: deinterlaced, square pixels, 8-bit sRGB-like BT.709 values.

Wide-gamut and HDR frames are mapped to BT.709 (storage.video_hdr); a picture is turned and mirrored as the
container's display matrix says.
"""

from __future__ import annotations

import re
import struct
import tempfile
from collections import deque
from collections.abc import Iterator
from fractions import Fraction
from typing import Any

import av
import av.error
import av.filter
import cv2
import numpy as np
from av.video.reformatter import Colorspace, Interpolation, VideoReformatter
from numpy.typing import NDArray

from storage.errors import RejectedError
from storage.reasons import Reason
from storage.video_hdr import cube_text, frame_peak

__all__ = ["Deinterlacer", "PictureMaker", "display_size", "transfer_name"]

Picture = NDArray[np.uint8]
Matrix = tuple[int, int, int, int]

UPRIGHT: Matrix = (1, 0, 0, 1)
# ITU-T H.273 code points.
BT2020_PRIMARIES = 9
BT709_PRIMARIES = 1
WIDE_PRIMARIES = {BT2020_PRIMARIES, 11, 12}
HDR_TRANSFERS = {16: "pq", 18: "hlg"}
UNSUPPORTED_MATRICES = {14: "ICtCp", 15: "IPT-C2 (Dolby Vision)"}
RGB_MATRIX = 0
MATRIX_BT2020 = ":in_color_matrix=bt2020"
MATRICES = {
    1: Colorspace.ITU709,
    4: Colorspace.FCC,
    5: Colorspace.ITU601,
    6: Colorspace.ITU601,
    7: Colorspace.SMPTE240M,
    9: Colorspace.BT2020,
    10: Colorspace.BT2020,
}
# The default conversion is one to two levels too dark; this one has no bias, and is fast to planes only.
EXACT = Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INT


def transfer_name(frame: Any) -> str:
    """The transfer function of a frame: "pq", "hlg", or "sdr" for all the others."""
    return HDR_TRANSFERS.get(int(frame.color_trc), "sdr")


def display_size(frame: Any, stream: Any, max_side: int | None = None) -> tuple[int, tuple[int, int]]:
    """The clockwise turn in degrees that a frame needs, and the upright picture's (height, width)."""
    matrix = _display_matrix(frame)
    width, height = _square_size(frame.width, frame.height, _pixel_aspect(stream), max_side)
    turn = {(1, 0): 0, (0, 1): 90, (-1, 0): 180, (0, -1): 270}[_x_axis(matrix)]
    return turn, ((width, height) if matrix[0] == 0 else (height, width))


class PictureMaker:
    """Makes pictures of one size from the frames of one stream; the first frame sets the size."""

    def __init__(self, stream: Any, max_side: int | None = None) -> None:
        self._stream = stream
        self._max_side = max_side
        self._size: tuple[int, int] | None = None
        self._matrix = UPRIGHT
        self._reformatter = VideoReformatter()
        self._mapper: tuple[object, Any] | None = None

    def make(self, frame: Any) -> Picture:
        """The upright (H, W, 3) uint8 RGB picture of a decoded frame."""
        if self._size is None:
            self._matrix = _display_matrix(frame)
            aspect = _pixel_aspect(self._stream)
            self._size = _square_size(frame.width, frame.height, aspect, self._max_side)
        return _turn(_interleave(self._to_planes(frame, *self._size)), self._matrix)

    def _to_planes(self, frame: Any, width: int, height: int) -> Any:
        if int(frame.colorspace) in UNSUPPORTED_MATRICES:
            name = UNSUPPORTED_MATRICES[int(frame.colorspace)]
            raise RejectedError(f"colours in {name} are not supported", reason=Reason.UNSUPPORTED)
        if int(frame.color_trc) in HDR_TRANSFERS or int(frame.color_primaries) in WIDE_PRIMARIES:
            return self._map_colours(frame, width, height)
        shrinking = width < frame.width or height < frame.height
        return self._reformatter.reformat(
            frame,
            width=width,
            height=height,
            format="gbrp",
            src_colorspace=_matrix(frame),
            interpolation=EXACT | (Interpolation.AREA if shrinking else Interpolation.BICUBIC),
            threads=1,
        )

    def _map_colours(self, frame: Any, width: int, height: int) -> Any:
        key = (frame.width, frame.height, frame.format.name, _tags(frame))
        if self._mapper is None or self._mapper[0] != key:
            self._mapper = (key, _colour_graph(frame, width, height))
        graph = self._mapper[1]
        try:
            graph.vpush(frame)
            return graph.vpull()
        except av.error.FFmpegError as exc:
            message = f"its colours cannot be mapped to standard range: {exc.strerror}"
            raise RejectedError(message, reason=Reason.UNSUPPORTED) from exc


class Deinterlacer:
    """Passes frames through, and once an interlaced one has come, through FFmpeg's bwdif.

    Gives one frame for one frame, in order; each comes with the item that was pushed along with it.
    """

    def __init__(self) -> None:
        self._graph: Any = None
        self._key: object = None
        self._waiting: deque[float] = deque()

    def push(self, seconds: float, frame: Any) -> Iterator[tuple[float, Any]]:
        """Give a frame in; frames that are ready come out."""
        key = (frame.width, frame.height, frame.format.name)
        if self._graph is not None and key != self._key:
            yield from self.flush()
        if self._graph is None and not frame.interlaced_frame:
            yield seconds, frame
            return
        if self._graph is None:
            self._graph, self._key = _graph(frame, [("bwdif", "mode=send_frame:deint=interlaced")]), key
        self._waiting.append(seconds)
        self._graph.vpush(frame)
        yield from self._pull()

    def flush(self) -> Iterator[tuple[float, Any]]:
        """The frames still held back."""
        if self._graph is not None:
            self._graph.vpush(None)
            yield from self._pull()
            self._graph = None
            self._waiting.clear()

    def _pull(self) -> Iterator[tuple[float, Any]]:
        while self._waiting:
            try:
                frame = self._graph.vpull()
            except (av.error.BlockingIOError, av.error.EOFError):
                return
            yield self._waiting.popleft(), frame


def _colour_graph(frame: Any, width: int, height: int) -> Any:
    """To RGB of 10 bits at the wanted size, then through the table to 8 bits."""
    transfer, primaries = int(frame.color_trc), int(frame.color_primaries)
    # HDR that does not name its primaries is BT.2020: the standards of both transfers are made for it.
    if transfer in HDR_TRANSFERS and primaries not in WIDE_PRIMARIES and primaries != BT709_PRIMARIES:
        primaries = BT2020_PRIMARIES
    matrix = "" if int(frame.colorspace) in MATRICES or int(frame.colorspace) == RGB_MATRIX else MATRIX_BT2020
    scale = f"w={width}:h={height}:flags=bicubic+accurate_rnd+full_chroma_int{matrix}"
    with tempfile.NamedTemporaryFile("w", suffix=".cube") as table:
        table.write(cube_text(transfer, primaries, frame_peak(frame, transfer)))
        table.flush()
        name = re.sub(r"([\\:',;\[\]])", r"\\\1", table.name)
        filters = [("scale", scale), ("format", "gbrp10le"), ("lut3d", f"file={name}"), ("format", "gbrp")]
        return _graph(frame, filters)  # reads the table once


def _graph(frame: Any, filters: list[tuple[str, str]]) -> Any:
    graph = av.filter.Graph()
    graph.threads = 1
    matrix, spread = int(frame.colorspace), int(frame.color_range)
    source = graph.add(
        "buffer",
        video_size=f"{frame.width}x{frame.height}",
        pix_fmt=frame.format.name,
        time_base=str(frame.time_base or Fraction(1, 1000)),
        pixel_aspect="1/1",
        colorspace=str(matrix),
        range=str(spread),
    )
    nodes = [source, *(graph.add(name, options) for name, options in filters), graph.add("buffersink")]
    graph.link_nodes(*nodes).configure()
    return graph


def _tags(frame: Any) -> tuple[int, ...]:
    return (
        int(frame.color_trc),
        int(frame.color_primaries),
        int(frame.colorspace),
        int(frame.color_range),
    )


def _matrix(frame: Any) -> Colorspace | None:
    """The YUV matrix of a frame; untagged ones follow the custom that HD is BT.709 and the rest BT.601."""
    if int(frame.colorspace) == RGB_MATRIX:
        return None
    untagged = Colorspace.ITU709 if frame.height >= 720 or frame.width >= 1280 else Colorspace.ITU601
    return MATRICES.get(int(frame.colorspace), untagged)


def _pixel_aspect(stream: Any) -> Fraction:
    aspect = stream.sample_aspect_ratio or stream.codec_context.sample_aspect_ratio
    if not aspect or not Fraction(1, 8) <= aspect <= 8:
        return Fraction(1)
    return Fraction(aspect)


def _square_size(width: int, height: int, aspect: Fraction, max_side: int | None) -> tuple[int, int]:
    """The (width, height) with square pixels, at most `max_side` on the longer side."""
    wide = width * aspect
    longest = max(wide, Fraction(height))
    scale = Fraction(1) if max_side is None else min(Fraction(1), max_side / longest)
    return max(round(wide * scale), 1), max(round(height * scale), 1)


def _display_matrix(frame: Any) -> Matrix:
    """The signs of the display matrix: x' = a x + c y, y' = b x + d y, to the nearest quarter turn."""
    try:
        data = bytes(frame.side_data["DISPLAYMATRIX"])
    except KeyError:
        return UPRIGHT
    a, b, _, c, d, *_ = struct.unpack("=9i", data[:36])
    if abs(a) + abs(d) >= abs(b) + abs(c):
        return (-1 if a < 0 else 1, 0, 0, -1 if d < 0 else 1)
    return (0, -1 if b < 0 else 1, -1 if c < 0 else 1, 0)


def _interleave(frame: Any) -> Picture:
    """The (H, W, 3) RGB array of a planar GBR frame."""
    green, blue, red = (
        np.frombuffer(plane, np.uint8).reshape(-1, plane.line_size)[: frame.height, : frame.width]
        for plane in frame.planes
    )
    return np.asarray(cv2.merge([red, green, blue]), dtype=np.uint8)


def _x_axis(matrix: Matrix) -> tuple[int, int]:
    return matrix[0], matrix[1]


def _turn(picture: Picture, matrix: Matrix) -> Picture:
    if matrix == UPRIGHT:
        return picture
    a, b, c, d = matrix
    if a == 0:
        picture = picture.transpose(1, 0, 2)
        a, d = c, b
    return np.ascontiguousarray(picture[:: d or 1, :: a or 1])
