"""Animated PNG, written as the frames come: lossless, and each frame stores only the box that changed.

Pillow's writer holds all frames until the end; the format does not need that. Chunks as in the PNG
specification, third edition, section 11.3.6 (acTL, fcTL, fdAT).
"""

import io
import struct
import zlib
from collections.abc import Iterable, Iterator
from fractions import Fraction
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image

__all__ = ["write_apng"]

SIGNATURE = b"\x89PNG\r\n\x1a\n"
COMPRESSION = 6


def write_apng(
    stream: BinaryIO, frames: Iterable[NDArray[np.uint8]], *, fps: float, exif: bytes | None = None
) -> int:
    """Write frames (H, W, 3) to a seekable stream as an endless animated PNG; returns their number."""
    rate = Fraction(fps).limit_denominator(1000)
    sequence = count = control_at = 0
    before: NDArray[np.uint8] | None = None
    for frame in frames:
        top, left, box = (0, 0, frame) if before is None else _changed_box(before, frame)
        if before is None:
            control_at = _write_head(stream, frame.shape, exif)
        fields = (sequence, box.shape[1], box.shape[0], left, top, rate.denominator, rate.numerator, 0, 0)
        _write_chunk(stream, b"fcTL", struct.pack(">IIIIIHHBB", *fields))
        sequence += 1
        for data in _image_data(box):
            if before is None:
                _write_chunk(stream, b"IDAT", data)
            else:
                _write_chunk(stream, b"fdAT", struct.pack(">I", sequence) + data)
                sequence += 1
        before = np.array(frame)
        count += 1
    if count:
        _write_chunk(stream, b"IEND", b"")
        stream.seek(control_at)
        _write_chunk(stream, b"acTL", struct.pack(">II", count, 0))  # only now is the number known
    return count


def _write_head(stream: BinaryIO, shape: tuple[int, ...], exif: bytes | None) -> int:
    """Signature, size and metadata; returns where the animation control chunk lies."""
    stream.write(SIGNATURE)
    _write_chunk(stream, b"IHDR", struct.pack(">IIBBBBB", shape[1], shape[0], 8, 2, 0, 0, 0))
    control_at = stream.tell()
    _write_chunk(stream, b"acTL", struct.pack(">II", 0, 0))
    _write_chunk(stream, b"sRGB", b"\x00")
    if exif:
        _write_chunk(stream, b"eXIf", exif.removeprefix(b"Exif\x00\x00"))
    return control_at


def _changed_box(before: NDArray[np.uint8], frame: NDArray[np.uint8]) -> tuple[int, int, NDArray[np.uint8]]:
    """Top, left and content of the smallest box around all changed pixels; one pixel when none changed."""
    changed = (before != frame).any(axis=2)
    rows, columns = np.flatnonzero(changed.any(axis=1)), np.flatnonzero(changed.any(axis=0))
    if len(rows) == 0:
        return 0, 0, frame[:1, :1]
    top, left = int(rows[0]), int(columns[0])
    return top, left, frame[top : rows[-1] + 1, left : columns[-1] + 1]


def _image_data(pixels: NDArray[np.uint8]) -> Iterator[bytes]:
    """The compressed IDAT contents that Pillow's encoder makes of the pixels."""
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(buffer, "PNG", compress_level=COMPRESSION)
    data = buffer.getvalue()
    position = len(SIGNATURE)
    while position < len(data):
        (length,) = struct.unpack_from(">I", data, position)
        if data[position + 4 : position + 8] == b"IDAT":
            yield data[position + 8 : position + 8 + length]
        position += length + 12


def _write_chunk(stream: BinaryIO, kind: bytes, data: bytes) -> None:
    stream.write(struct.pack(">I", len(data)) + kind + data)
    stream.write(struct.pack(">I", zlib.crc32(data, zlib.crc32(kind))))
