"""Is it a video? Told from what the server says and from the first bytes, before the rest is fetched."""

from __future__ import annotations

from storage.errors import RejectedError
from storage.reasons import Reason

__all__ = ["MAGIC_BYTES", "check_content_type", "video_suffix"]

MAGIC_BYTES = 4096
# Servers that do not know say octet-stream; then the first bytes decide alone.
VIDEO_TYPES = {
    "",
    "application/octet-stream",
    "binary/octet-stream",
    "application/mp4",
    "application/ogg",
    "application/mxf",
    "application/x-matroska",
    "application/vnd.rn-realmedia",
    "application/x-download",
    "application/force-download",
}
PICTURE_BRANDS = {b"avif", b"avis", b"heic", b"heix", b"mif1", b"msf1", b"hevc", b"crx "}
SOUND_BRANDS = {b"M4A ", b"M4B ", b"M4P "}
BRAND_SUFFIXES = {b"qt  ": ".mov", b"M4V ": ".m4v", b"M4VH": ".m4v", b"M4VP": ".m4v"}
ASF = bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c")
PREFIXES = {
    b"OggS": ".ogv",
    b"FLV\x01": ".flv",
    b"\x00\x00\x01\xba": ".mpg",
    b"\x00\x00\x01\xb3": ".mpg",
    b"\x06\x0e\x2b\x34": ".mxf",
    ASF: ".wmv",
}


def check_content_type(content_type: str) -> None:
    """Raise RejectedError (wrong_type) when a server says that something else than a video comes."""
    kind = content_type.partition(";")[0].strip().lower()
    if kind not in VIDEO_TYPES and not kind.startswith("video/"):
        raise RejectedError(f"expected a video, the server sends {kind[:80]}", reason=Reason.WRONG_TYPE)


def video_suffix(head: bytes) -> str:
    """The usual suffix of the container that starts with `head` (MAGIC_BYTES or the whole file).

    Raises RejectedError (wrong_type) when it is no video container.
    """
    suffix = _suffix(head)
    if suffix is None:
        raise RejectedError(
            f"expected a video, the content starts with {head[:12]!r}", reason=Reason.WRONG_TYPE
        )
    return suffix


def _suffix(head: bytes) -> str | None:
    box, brand = head[4:8], head[8:12]
    if box == b"ftyp":
        if brand in PICTURE_BRANDS | SOUND_BRANDS:
            return None
        return ".3gp" if brand.startswith((b"3gp", b"3g2")) else BRAND_SUFFIXES.get(brand, ".mp4")
    if box in (b"moov", b"mdat", b"wide", b"pnot") or (box in (b"free", b"skip") and b"moov" in head):
        return ".mov"
    if head.startswith(b"\x1a\x45\xdf\xa3"):
        return ".webm" if b"webm" in head[:64] else ".mkv"
    if head.startswith(b"RIFF") and brand == b"AVI ":
        return ".avi"
    if len(head) > 376 and head[0] == head[188] == head[376] == 0x47:
        return ".ts"
    return next((suffix for magic, suffix in PREFIXES.items() if head.startswith(magic)), None)
