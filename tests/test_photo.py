"""Reading photos: orientation, colours, depth, transparency, sizes, and all that is wrong with files."""

import io
import tracemalloc
from pathlib import Path

import numpy as np
import pillow_heif
import pytest
from animation_world import draw_photo, jpeg_bytes
from corpus_photos import photo_corpus
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageCms

from storage.errors import ItemError, MediaError, RejectedError
from storage.photo import decode_photo, read_photo
from storage.reasons import Reason

PIXELS = draw_photo(3, (64, 96))


def encoded(image: Image.Image, format: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def difference(one: NDArray[np.uint8], other: NDArray[np.uint8]) -> float:
    return float(np.abs(one.astype(int) - other.astype(int)).mean())


def test_every_file_of_the_corpus_gets_its_expected_end() -> None:
    seen = 0
    for name, data, expected in photo_corpus():
        try:
            photo = decode_photo(data)
            assert photo.image_HW3.dtype == np.uint8 and photo.image_HW3.shape[2] == 3
            outcome = "ok"
        except ItemError as exc:
            outcome = exc.reason
            assert str(exc) and "\n" not in str(exc) and " at 0x" not in str(exc)
        assert outcome in expected, name
        seen += 1
    assert seen >= 150


def test_damage_inside_a_png_is_an_error_and_not_a_picture_with_holes() -> None:
    data = bytearray(encoded(Image.fromarray(PIXELS), "PNG"))
    data[len(data) // 2] ^= 0xFF
    with pytest.raises(MediaError) as caught:
        decode_photo(bytes(data))
    assert caught.value.reason == Reason.UNREADABLE


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF"])
def test_all_orientations_come_out_upright(orientation: int, format: str) -> None:
    undo = {
        2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_90, 7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }  # fmt: skip
    upright = Image.fromarray(np.kron(PIXELS[::8, ::8], np.ones((8, 8, 1), np.uint8)))
    stored = upright.transpose(undo[orientation]) if orientation > 1 else upright
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    options = {"TIFF": {}, "PNG": {}}.get(format, {"quality": 95})
    photo = decode_photo(encoded(stored, format, exif=exif, **options))
    assert photo.image_HW3.shape == (64, 96, 3)
    assert photo.original_size == (64, 96)
    assert difference(photo.image_HW3, np.asarray(upright)) < 6
    if photo.exif is not None:
        left = Image.Exif()
        left.load(photo.exif)
        assert ExifTags.Base.Orientation not in left


def test_turned_heic_is_not_turned_twice() -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    file = pillow_heif.from_pillow(Image.fromarray(PIXELS))
    buffer = io.BytesIO()
    file.save(buffer, quality=90, exif=exif.tobytes())
    photo = decode_photo(buffer.getvalue())
    assert photo.image_HW3.shape in ((64, 96, 3), (96, 64, 3))
    plain = Image.open(io.BytesIO(buffer.getvalue()))
    assert photo.image_HW3.shape[:2] == (plain.height, plain.width)


def test_embedded_profile_is_converted_to_srgb() -> None:
    # Swap red and green in a matrix profile: a decoder that ignores profiles cannot get this right.
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    profile = bytearray(srgb.replace(b"rXYZ", b"tmp!").replace(b"gXYZ", b"rXYZ").replace(b"tmp!", b"gXYZ"))
    name = profile.find("sRGB".encode("utf-16-be"))
    profile[name : name + 8] = "Swap".encode("utf-16-be")
    swapped = np.ascontiguousarray(PIXELS[..., [1, 0, 2]])
    photo = decode_photo(encoded(Image.fromarray(swapped), "PNG", icc_profile=bytes(profile)))
    assert difference(photo.image_HW3, PIXELS) < 2 < difference(swapped, PIXELS)
    assert not photo.warnings


def test_srgb_profile_keeps_every_bit() -> None:
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    photo = decode_photo(encoded(Image.fromarray(PIXELS), "PNG", icc_profile=srgb))
    assert (photo.image_HW3 == PIXELS).all()


def test_cmyk_jpeg_keeps_its_colours() -> None:
    photo = decode_photo(encoded(Image.fromarray(PIXELS).convert("CMYK"), "JPEG", quality=98, subsampling=0))
    assert difference(photo.image_HW3, PIXELS) < 4


def test_sixteen_bits_are_scaled_and_not_cut() -> None:
    wide = np.linspace(0, 65_535, 64 * 96).reshape(64, 96).astype(np.uint16)
    image = decode_photo(encoded(Image.fromarray(wide), "PNG")).image_HW3
    assert difference(image[..., 0], (wide / 257).round().astype(np.uint8)) <= 0.6
    assert image[0, 0, 0] == 0 and image[-1, -1, 0] == 255


def test_float_samples_between_zero_and_one_fill_the_range() -> None:
    ramp = np.linspace(0, 1, 64 * 96, dtype=np.float32).reshape(64, 96)
    image = decode_photo(encoded(Image.fromarray(ramp), "TIFF")).image_HW3
    assert image.min() == 0 and image.max() == 255 and abs(int(image[32, 0, 0]) - 128) <= 2


@pytest.mark.parametrize("format", ["PNG", "WEBP"])
def test_transparency_is_laid_over_white(format: str) -> None:
    image = Image.fromarray(PIXELS).convert("RGBA")
    alpha = np.full((64, 96), 255, np.uint8)
    alpha[:, :32], alpha[:, 32:64] = 0, 128
    image.putalpha(Image.fromarray(alpha))
    made = decode_photo(encoded(image, format, lossless=True)).image_HW3
    assert (made[:, :32] == 255).all()
    assert (made[:, 64:] == PIXELS[:, 64:]).all()
    half = (PIXELS[:, 32:64].astype(float) * 128 + 255.0 * 127) / 255
    assert np.abs(made[:, 32:64] - half).max() <= 1


def test_only_the_first_picture_of_an_animation_is_used_and_said_so() -> None:
    first, second = Image.fromarray(PIXELS), Image.fromarray(255 - PIXELS)
    data = encoded(first, "WEBP", save_all=True, append_images=[second], lossless=True, duration=40)
    photo = decode_photo(data)
    assert (photo.image_HW3 == PIXELS).all()
    assert any("only the first" in note for note in photo.warnings)


@pytest.mark.parametrize("format", ["JPEG", "PNG", "TIFF"])
def test_max_side_scales_down_without_shifting(format: str) -> None:
    large = np.kron(PIXELS, np.ones((8, 8, 1), np.uint8))
    photo = decode_photo(encoded(Image.fromarray(large), format), max_side=96)
    assert photo.image_HW3.shape == (64, 96, 3)
    assert photo.original_size == (512, 768)
    assert difference(photo.image_HW3, PIXELS) < 8


def test_max_side_never_scales_up() -> None:
    assert decode_photo(jpeg_bytes(PIXELS), max_side=5000).image_HW3.shape == (64, 96, 3)


def test_limit_is_checked_before_a_pixel_is_decoded() -> None:
    data = encoded(Image.new("1", (9_000, 9_000)), "PNG")
    tracemalloc.start()
    with pytest.raises(RejectedError) as caught:
        decode_photo(data, max_pixels=80_000_000)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert caught.value.reason == Reason.TOO_LARGE and "9000×9000" in str(caught.value)
    assert peak < 10_000_000


def test_a_hundred_megapixels_are_read() -> None:
    data = encoded(Image.new("L", (10_000, 10_000), 77), "JPEG", quality=30)
    photo = decode_photo(data, max_side=500)
    assert photo.original_size == (10_000, 10_000)
    assert photo.image_HW3.shape == (500, 500, 3) and abs(int(photo.image_HW3.mean()) - 77) <= 1


def test_exif_is_kept_without_the_orientation() -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 3
    exif[ExifTags.Base.Make] = "Maker"
    photo = decode_photo(jpeg_bytes(PIXELS, exif=exif))
    assert photo.exif is not None
    again = Image.Exif()
    again.load(photo.exif)
    assert again[ExifTags.Base.Make] == "Maker" and ExifTags.Base.Orientation not in again


def test_reads_from_any_url(tmp_path: Path) -> None:
    path = tmp_path / "Gebäude <1> 滝 'x' \"y\".jpg"
    path.write_bytes(jpeg_bytes(PIXELS))
    assert read_photo(str(path)).format == "JPEG"
