"""Reading a photo: bytes of any common format → upright 8-bit sRGB pixels.

Sizes are checked from the header, before a pixel is decoded. The picture is turned as its EXIF says, its
embedded profile is converted to sRGB, transparency is laid over white, and more than 8 bits are scaled down.
"""

import io
import logging
import struct
import warnings
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import pillow_heif
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageCms, UnidentifiedImageError

from storage.errors import MediaError, RejectedError
from storage.isolated import run_isolated, stop_workers
from storage.objects import read_bytes, stat_object
from storage.reasons import Reason

__all__ = [
    "MAX_BYTES",
    "MAX_PIXELS",
    "MIN_SIDE",
    "PHOTO_SUFFIXES",
    "Photo",
    "decode_photo",
    "decode_photo_apart",
    "read_photo",
]

logger = logging.getLogger(__name__)

PHOTO_SUFFIXES = (
    ".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".avif", ".heic", ".heif", ".hif", ".tif", ".tiff",
    ".bmp", ".gif",
)  # fmt: skip
# Only decoders for photos: Pillow's list holds some that start other programs or read from other files.
FORMATS = ("JPEG", "PNG", "WEBP", "AVIF", "HEIF", "TIFF", "BMP", "GIF")
MAX_PIXELS = 100_000_000
MAX_BYTES = 1_000_000_000
MIN_SIDE = 16
DECODE_SECONDS = 120.0
LARGE_PIXELS = 12_000_000
DNG_VERSION_TAG = 50706

# What Pillow and its plugins are seen to raise on hostile bytes, besides OSError.
DECODER_ERRORS = (
    OSError, SyntaxError, ValueError, TypeError, LookupError, ArithmeticError, AttributeError, RuntimeError,
    EOFError, struct.error, zlib.error, Image.DecompressionBombError,
)  # fmt: skip
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

Image.init()  # all of FORMATS, not only those that Pillow loads at first need
pillow_heif.register_heif_opener()
# Pillow's own limit (89 million) lies below ours and only warns; decode_photo checks the header itself.
Image.MAX_IMAGE_PIXELS = None


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Photo:
    """An upright photo in sRGB.

    `original_size` is (height, width) as upright but before any downscaling; `exif` is the EXIF block without
    its orientation, or None; `warnings` are sentences about what was not taken over as it is.
    """

    image_HW3: NDArray[np.uint8]
    original_size: tuple[int, int]
    format: str
    exif: bytes | None = None
    warnings: tuple[str, ...] = ()


def read_photo(url: str, *, max_side: int = 0, max_pixels: int = MAX_PIXELS) -> Photo:
    """Read a photo from any URL; see `decode_photo`. Raises StoreError when the object cannot be read."""
    size = stat_object(url).size
    if size > MAX_BYTES:
        raise RejectedError(
            f"expected at most {MAX_BYTES} bytes in a photo, got {size}", reason=Reason.TOO_LARGE
        )
    return decode_photo(read_bytes(url), max_side=max_side, max_pixels=max_pixels)


def decode_photo(
    data: bytes, *, max_side: int = 0, max_pixels: int = MAX_PIXELS, background: str = "white"
) -> Photo:
    """Decode a photo; a `max_side` above 0 scales a larger one down (Lanczos) until its longer side fits.

    What is transparent is laid over `background`. Raises MediaError (empty, truncated, unreadable) and
    RejectedError (too_small, too_large, unsupported).
    """
    if not data:
        raise MediaError("the file is empty", reason=Reason.EMPTY)
    notes: list[str] = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            with Image.open(io.BytesIO(data), formats=FORMATS) as image:
                _check_header(image, max_pixels)
                photo = _decode(image, notes, max_side=max_side, background=background)
        except DECODER_ERRORS as exc:
            raise _translate(exc, data) from exc
    for warning in caught:
        logger.debug("decoder: %s", warning.message)
    return photo


def decode_photo_apart(data: bytes, *, max_side: int = 0, max_pixels: int = MAX_PIXELS) -> Photo:
    """Decode a photo in a process of its own: strangers' files may crash a decoder or keep it busy for ever.

    Raises as `decode_photo`, and MediaError (crashed, timeout). Costs a message to a waiting process.
    """
    photo = run_isolated(_decode_for_another, data, max_side, max_pixels, timeout_s=DECODE_SECONDS)
    if photo.original_size[0] * photo.original_size[1] > LARGE_PIXELS:
        stop_workers()  # what it took to decode this one stays with its process
    return photo


def _decode_for_another(data: bytes, max_side: int, max_pixels: int) -> Photo:
    return decode_photo(data, max_side=max_side, max_pixels=max_pixels)


def _decode(image: Image.Image, notes: list[str], *, max_side: int, background: str) -> Photo:
    if image.format not in ("MPO", "JPEG") and getattr(image, "is_animated", False):
        notes.append("the file holds several pictures; only the first is used")
    profile = image.info.get("icc_profile")
    original = image.size
    target = _fit(original, max_side)
    if image.format in ("JPEG", "MPO"):
        image.draft(image.mode, target)  # lets the decoder skip detail that would be thrown away
    image.load()
    # Only now: asking a PNG for EXIF decodes it and hides its errors, and a TIFF turns itself on loading.
    orientation, exif = _read_exif(image, notes)
    plain = _eight_bit(image)
    if plain.size != target:
        plain = plain.resize(target, Image.Resampling.LANCZOS, reducing_gap=3.0)
    plain = _composited(plain, background, lambda colours: _to_srgb(colours, profile, notes))
    if orientation in TURNS:
        plain = plain.transpose(TURNS[orientation])
    pixels = np.asarray(plain)
    if min(pixels.shape[:2]) < MIN_SIDE:
        raise _too_small(plain.size)
    turned = orientation >= 5
    return Photo(
        image_HW3=pixels,
        original_size=original if turned else (original[1], original[0]),
        format=str(image.format),
        exif=exif,
        warnings=tuple(notes),
    )


def _check_header(image: Image.Image, max_pixels: int) -> None:
    width, height = image.size
    if width * height > max_pixels:
        raise RejectedError(
            f"expected at most {max_pixels / 1e6:g} megapixels, got {width}×{height}; "
            "scale the photo down or raise the limit",
            reason=Reason.TOO_LARGE,
        )
    if min(width, height) < MIN_SIDE:
        raise _too_small(image.size)
    if image.format == "TIFF" and DNG_VERSION_TAG in getattr(image, "tag_v2", {}):
        raise RejectedError(
            "raw camera files are not supported; develop them first", reason=Reason.UNSUPPORTED
        )


def _too_small(size: tuple[int, int]) -> RejectedError:
    return RejectedError(
        f"expected at least {MIN_SIDE} pixels on each side, got {size[0]}×{size[1]}", reason=Reason.TOO_SMALL
    )


def _fit(size: tuple[int, int], max_side: int) -> tuple[int, int]:
    longer = max(size)
    if max_side <= 0 or longer <= max_side:
        return size
    return (max(1, round(size[0] * max_side / longer)), max(1, round(size[1] * max_side / longer)))


def _read_exif(image: Image.Image, notes: list[str]) -> tuple[int, bytes | None]:
    """Orientation 1…8 and the EXIF block without it; a broken block is left out with a note."""
    try:
        exif = image.getexif()
        if not exif:
            return 1, None
        orientation = exif.pop(ExifTags.Base.Orientation, 1)
        block = exif.tobytes() if len(exif) else None
    except DECODER_ERRORS as exc:
        notes.append(f"the EXIF block is broken and was left out ({type(exc).__name__})")
        return 1, None
    if orientation not in range(1, 9):
        notes.append(f"the EXIF orientation {orientation!r} is unknown and was ignored"[:120])
        return 1, block
    return int(orientation), block


def _eight_bit(image: Image.Image) -> Image.Image:
    """Bring every mode to one of L, RGB, RGBA, CMYK or LAB with 8 bits a channel."""
    if image.mode in ("L", "RGB", "RGBA", "CMYK", "LAB"):
        if "transparency" in image.info and image.mode in ("L", "RGB"):
            return image.convert("RGBA")
        return image
    if image.mode.startswith("I;16"):
        return Image.fromarray((np.asarray(image).astype(np.uint32) // 257).astype(np.uint8))
    if image.mode in ("I", "F"):
        return Image.fromarray(_scale_wide(np.asarray(image)))
    if image.mode in ("1", "P", "LA", "La", "PA", "RGBa"):
        has_alpha = image.mode not in ("1", "P") or "transparency" in image.info
        return image.convert("RGBA" if has_alpha else "RGB")
    return image.convert("RGB")


def _scale_wide(values: NDArray[Any]) -> NDArray[np.uint8]:
    """32-bit samples carry no range: take the smallest usual one (1, 255, 65535, all) that holds them."""
    finite = np.nan_to_num(values.astype(np.float32), nan=0.0, posinf=0.0, neginf=0.0)
    peak = float(finite.max(initial=0.0))
    usual = (1.0,) if values.dtype.kind == "f" else ()
    full = next((limit for limit in (*usual, 255.0, 65535.0) if peak <= limit), max(peak, 1.0))
    return (np.clip(finite / full, 0.0, 1.0) * 255.0 + 0.5).astype(np.uint8)


def _composited(
    image: Image.Image, background: str, convert: Callable[[Image.Image], Image.Image]
) -> Image.Image:
    """Convert the colours, then lay what is transparent over the background."""
    if image.mode != "RGBA":
        return convert(image)
    alpha = image.getchannel("A")
    colours = convert(image.convert("RGB"))
    if alpha.getextrema()[0] == 255:
        return colours
    return Image.composite(colours, Image.new("RGB", image.size, background), alpha)


def _to_srgb(image: Image.Image, profile: bytes | None, notes: list[str]) -> Image.Image:
    """Convert to sRGB through the embedded profile; without a usable one the pixels are taken as sRGB."""
    if image.mode == "LAB":
        return ImageCms.applyTransform(image, _lab_transform()) or image.convert("RGB")
    if profile:
        try:
            transform = _transform(bytes(profile), image.mode)
            return image.convert("RGB") if transform is None else _applied(image, transform)
        except (ImageCms.PyCMSError, *DECODER_ERRORS):
            notes.append("the colour profile is broken or of another kind of picture; sRGB was assumed")
    return image.convert("RGB")


def _applied(image: Image.Image, transform: ImageCms.ImageCmsTransform) -> Image.Image:
    converted = ImageCms.applyTransform(image, transform)
    assert converted is not None  # only in-place calls return None
    return converted


@lru_cache(maxsize=16)
def _transform(profile: bytes, mode: str) -> ImageCms.ImageCmsTransform | None:
    """Transform from an embedded profile to sRGB; None when it is sRGB already, which must stay bit-exact."""
    source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
    description = ImageCms.getProfileDescription(source).strip()
    if mode == "RGB" and description.startswith("sRGB"):
        return None
    return ImageCms.buildTransform(
        source,
        ImageCms.createProfile("sRGB"),
        mode,
        "RGB",
        renderingIntent=ImageCms.Intent.RELATIVE_COLORIMETRIC,
        flags=ImageCms.Flags.BLACKPOINTCOMPENSATION,
    )


@lru_cache(maxsize=1)
def _lab_transform() -> ImageCms.ImageCmsTransform:
    return ImageCms.buildTransform(
        ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB"), "LAB", "RGB"
    )


def _translate(exc: Exception, data: bytes) -> MediaError:
    """Name what is wrong with bytes that a decoder refused."""
    text = str(exc).replace("\n", " ")[:200] or type(exc).__name__
    if isinstance(exc, UnidentifiedImageError):
        # Pillow's own message shows the address of the buffer, which differs from run to run.
        if _cut_short(data):
            return MediaError("the file ends within its header", reason=Reason.TRUNCATED)
        return MediaError("not a picture of a known format", reason=Reason.UNREADABLE)
    if _cut_short(data) or any(
        word in text.lower() for word in ("truncated", "end of file", "unexpected eof")
    ):
        return MediaError(f"the file is truncated ({text})", reason=Reason.TRUNCATED)
    return MediaError(f"the picture cannot be decoded ({text})", reason=Reason.UNREADABLE)


def _cut_short(data: bytes) -> bool:
    """True when the container says that it is longer than the file."""
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return int.from_bytes(data[4:8], "little") + 8 > len(data)
    if data[:8] == b"\x89PNG\r\n\x1a\n":
        return b"IEND" not in data[-64:]
    if data[:3] == b"\xff\xd8\xff":
        return b"\xff\xd9" not in data
    if data[4:8] == b"ftyp":
        return _boxes_cut_short(data)
    return False


def _boxes_cut_short(data: bytes) -> bool:
    position = 0
    while position + 8 <= len(data):
        size = int.from_bytes(data[position : position + 4], "big")
        if size == 1:
            size = int.from_bytes(data[position + 8 : position + 16], "big")
        if size == 0:
            return False  # the last box reaches to the end
        if size < 8:
            return False  # not a box: broken, not cut short
        position += size
    return position != len(data)
