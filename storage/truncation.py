"""Telling that a file was cut off, from the sizes its container states, before anything is decoded."""

from __future__ import annotations

import os
from pathlib import Path
from typing import BinaryIO

__all__ = ["is_cut_off"]

_EBML = b"\x1a\x45\xdf\xa3"
_SEGMENT = b"\x18\x53\x80\x67"
# The first box of an ISO media file; old QuickTime files begin with the others.
_FIRST_BOXES = {b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip"}


def is_cut_off(path: Path) -> bool:
    """Whether an MP4/MOV, Matroska/WebM or AVI file is shorter than it says; False where none can tell."""
    with path.open("rb") as stream:
        size = os.fstat(stream.fileno()).st_size
        head = stream.read(16)
        if head[4:8] in _FIRST_BOXES:
            return _boxes_end_early(stream, size)
        if head.startswith(_EBML):
            return _segment_ends_early(stream, size)
        if head.startswith(b"RIFF") and head[8:12] == b"AVI ":
            stated = int.from_bytes(head[4:8], "little")
            return stated not in (0, 0xFFFFFFFF) and 8 + stated > size
        return False


def _boxes_end_early(stream: BinaryIO, size: int) -> bool:
    """Walk the top-level boxes: one reaches beyond the end, or no moov (or fragment) is among them."""
    position, kinds = 0, set()
    while position + 8 <= size:
        stream.seek(position)
        header = stream.read(16)
        length, kind = int.from_bytes(header[:4], "big"), header[4:8]
        kinds.add(kind)
        if length == 1 and len(header) == 16:
            length = int.from_bytes(header[8:16], "big")
        if length == 0:
            break  # by definition: up to the end of the file
        if length < 8:
            return False  # no box; not for us to judge
        position += length
        if position > size:
            return True
    return b"moov" not in kinds


def _segment_ends_early(stream: BinaryIO, size: int) -> bool:
    stream.seek(len(_EBML))
    header = _read_vint(stream)
    if header is None:
        return True
    stream.seek(header, os.SEEK_CUR)
    if stream.read(4) != _SEGMENT:
        return stream.tell() >= size
    length = _read_vint(stream)
    return length is not None and stream.tell() + length > size


def _read_vint(stream: BinaryIO) -> int | None:
    """An EBML variable-length integer; None at the end of the file or for "unknown" (a live recording)."""
    first = stream.read(1)
    if not first or first[0] == 0:
        return None
    extra = 8 - first[0].bit_length()
    rest = stream.read(extra)
    value = int.from_bytes(bytes([first[0] & ((1 << (7 - extra)) - 1)]) + rest, "big")
    return None if len(rest) < extra or value == (1 << 7 * (extra + 1)) - 1 else value
