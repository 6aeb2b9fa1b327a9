# ruff: noqa: E501 - tables of names read better unbroken
"""A folder of odd and bad photos: every way a file called .jpg may disappoint, and every form a good one may have.

`photo_corpus()` yields (name, bytes, expectation): "ok" when it must decode, else the reasons that may be given.
"""

import io
import struct
import zlib
from collections.abc import Iterator

import numpy as np
import pillow_heif
from animation_world import draw_photo, jpeg_bytes
from PIL import ExifTags, Image, ImageCms, PngImagePlugin

__all__ = ["OK", "photo_corpus"]

OK = frozenset({"ok"})
BROKEN = frozenset({"unreadable", "truncated"})
UNREADABLE = frozenset({"unreadable"})
TOO_LARGE = frozenset({"too_large"})
TOO_SMALL = frozenset({"too_small"})
EMPTY = frozenset({"empty"})

Case = tuple[str, bytes, frozenset[str]]
SIZE = (64, 96)


def photo_corpus() -> Iterator[Case]:
    """All cases, deterministic; the names are distinct stems, some of them hard to write down."""
    good = _good_files()
    yield from ((name, data, OK) for name, data in good.items())
    yield from _names(good["plain.jpg"])
    yield from _truncations(good)
    yield from _damaged(good)
    yield from _wrong_extensions(good)
    yield from _not_pictures()
    yield from _bombs()
    yield from _shapes()


def _image(mode: str = "RGB") -> Image.Image:
    return Image.fromarray(draw_photo(5, SIZE)).convert(mode)


def _saved(image: Image.Image, format: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def _good_files() -> dict[str, bytes]:
    files = _good_jpegs() | _good_pngs()
    rgb, rgba = _image(), _image("RGBA")
    rgba.putalpha(Image.linear_gradient("L").resize(rgba.size))
    files |= {
        "webp.webp": _saved(rgb, "WEBP"),
        "webp lossless.webp": _saved(rgb, "WEBP", lossless=True),
        "webp alpha.webp": _saved(rgba, "WEBP"),
        "webp animated.webp": _saved(rgb, "WEBP", save_all=True, append_images=[rgb.rotate(90)], duration=50),
        "avif.avif": _saved(rgb, "AVIF"),
        "avif alpha.avif": _saved(rgba, "AVIF"),
        "heic.heic": _heif(rgb),
        "heif alpha.heif": _heif(rgba),
        "gif.gif": _saved(rgb.quantize(), "GIF"),
        "gif animated.gif": _saved(
            rgb.quantize(), "GIF", save_all=True, append_images=[rgb.rotate(180).quantize()], duration=100
        ),
        "bmp.bmp": _saved(rgb, "BMP"),
        "bmp palette.bmp": _saved(rgb.quantize(64), "BMP"),
        "bmp grey.bmp": _saved(_image("L"), "BMP"),
        "bmp bits.bmp": _saved(_image("1"), "BMP"),
    }
    for compression in ("raw", "tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg"):
        files[f"tiff {compression}.tif"] = _saved(rgb, "TIFF", compression=compression)
    files |= {
        "tiff cmyk.tiff": _saved(_image("CMYK"), "TIFF"),
        "tiff lab.tiff": _saved(_lab(), "TIFF"),
        "tiff float.tif": _saved(Image.fromarray(np.linspace(0, 1, 64 * 96, dtype=np.float32).reshape(SIZE)), "TIFF"),
        "tiff 16 bit.tif": _saved(Image.fromarray(draw_photo(6, SIZE)[..., 0].astype(np.uint16) * 257), "TIFF"),
        "tiff bits.tif": _saved(_image("1"), "TIFF", compression="group4"),
        "tiff pages.tif": _saved(rgb, "TIFF", save_all=True, append_images=[rgb]),
        "tiff alpha.tif": _saved(rgba, "TIFF"),
    }  # fmt: skip
    return files


def _good_jpegs() -> dict[str, bytes]:
    pixels, rgb = draw_photo(5, SIZE), _image()
    files = {"plain.jpg": jpeg_bytes(pixels), "progressive.jpeg": jpeg_bytes(pixels, progressive=True)}
    for orientation in range(1, 9):
        exif = Image.Exif()
        exif[ExifTags.Base.Orientation] = orientation
        files[f"orientation {orientation}.jpg"] = jpeg_bytes(pixels, exif=exif)
    for value in (0, 9, 200):
        exif = Image.Exif()
        exif[ExifTags.Base.Orientation] = value
        files[f"orientation odd {value}.jpg"] = jpeg_bytes(pixels, exif=exif)
    for subsampling in ("4:4:4", "4:2:2", "4:2:0"):
        files[f"subsampling {subsampling.replace(':', '')}.jpg"] = jpeg_bytes(pixels, subsampling=subsampling)
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    lab = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    files |= {
        "grey.jpg": _saved(_image("L"), "JPEG"),
        "cmyk.jpg": _saved(_image("CMYK"), "JPEG"),
        "quality 1.jpg": jpeg_bytes(pixels, quality=1),
        "restart markers.jpg": _saved(rgb, "JPEG", restart_marker_rows=1),
        "comment.jpg": _saved(rgb, "JPEG", comment=b"x" * 60_000),
        "profile srgb.jpg": jpeg_bytes(pixels, icc_profile=srgb),
        "profile of another kind.jpg": jpeg_bytes(pixels, icc_profile=lab),
        "profile broken.jpg": jpeg_bytes(pixels, icc_profile=b"this is no profile" * 20),
        "profile cut.jpg": jpeg_bytes(pixels, icc_profile=srgb[:200]),
        "profile for rgb in cmyk.jpg": _saved(_image("CMYK"), "JPEG", icc_profile=srgb),
        "exif broken.jpg": jpeg_bytes(pixels, exif=b"Exif\x00\x00MM\x00*\x00\x00\x00\x08\xff\xff" + b"\x01\x12" * 40),
        "exif noise.jpg": jpeg_bytes(pixels, exif=b"Exif\x00\x00" + bytes(range(256)) * 4),
        "exif loop.jpg": jpeg_bytes(pixels, exif=_looping_exif()),
        "trailing rubbish.jpg": jpeg_bytes(pixels) + b"\x00" * 5000 + b"<script>",
        "two pictures.jpg": _saved(rgb, "MPO", save_all=True, append_images=[rgb.rotate(90, expand=True)]),
    }  # fmt: skip
    return files


def _looping_exif() -> bytes:
    """A directory whose "next directory" is itself."""
    entry = struct.pack(">HHII", 0x8769, 4, 1, 8)
    return b"Exif\x00\x00MM\x00*\x00\x00\x00\x08" + struct.pack(">H", 1) + entry + struct.pack(">I", 8)


def _good_pngs() -> dict[str, bytes]:
    rgb, grey = _image(), _image("L")
    rgba = _image("RGBA")
    rgba.putalpha(Image.linear_gradient("L").resize(rgba.size))
    palette = rgb.quantize(32)
    palette.info["transparency"] = 0
    sixteen = Image.fromarray(draw_photo(6, SIZE)[..., 0].astype(np.uint16) * 257)
    long_text = PngImagePlugin.PngInfo()
    long_text.add_text("comment", "very " * 10_000, zip=True)
    broken_profile = {"icc_profile": b"no profile at all"}
    return {
        "rgb.png": _saved(rgb, "PNG"),
        "alpha.png": _saved(rgba, "PNG"),
        "palette.png": _saved(rgb.quantize(16), "PNG"),
        "palette with a hole.png": _saved(palette, "PNG", transparency=0),
        "grey png.png": _saved(grey, "PNG"),
        "grey alpha.png": _saved(rgba.convert("LA"), "PNG"),
        "grey 16 bit.png": _saved(sixteen, "PNG"),
        "rgb 16 bit.png": _png(_sixteen_bit_rows(), depth=16, colour=2),
        "one bit.png": _saved(_image("1"), "PNG"),
        "transparent colour.png": _saved(rgb, "PNG", transparency=(255, 255, 255)),
        "interlaced.png": _interlaced_png(),
        "long text.png": _saved(rgb, "PNG", pnginfo=long_text),
        "broken profile.png": _saved(rgb, "PNG", **broken_profile),
        "animated.png": _saved(rgb, "PNG", save_all=True, append_images=[rgb.rotate(180)], duration=50),
    }


def _lab() -> Image.Image:
    to_lab = ImageCms.buildTransform(
        ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), "RGB", "LAB"
    )
    made = ImageCms.applyTransform(_image(), to_lab)
    assert made is not None
    return made


def _heif(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    pillow_heif.from_pillow(image).save(buffer, quality=80)
    return buffer.getvalue()


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _png(
    rows: bytes, *, depth: int = 8, colour: int = 2, size: tuple[int, int] = SIZE, interlace: int = 0
) -> bytes:
    head = struct.pack(">IIBBBBB", size[1], size[0], depth, colour, 0, 0, interlace)
    return (
        b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", head) + _chunk(b"IDAT", zlib.compress(rows)) + _chunk(b"IEND", b"")
    )  # fmt: skip


def _sixteen_bit_rows() -> bytes:
    wide = draw_photo(6, SIZE).astype(">u2") * 257
    return b"".join(b"\x00" + row.tobytes() for row in wide.astype(">u2"))


def _interlaced_png() -> bytes:
    """Adam7 by hand: Pillow reads interlaced files but does not write them."""
    pixels = draw_photo(5, SIZE)
    passes = (
        (0, 0, 8, 8),
        (0, 4, 8, 8),
        (4, 0, 8, 4),
        (0, 2, 4, 4),
        (2, 0, 4, 2),
        (0, 1, 2, 2),
        (1, 0, 2, 1),
    )
    rows = b"".join(
        b"\x00" + row.tobytes()
        for top, left, down, across in passes
        for row in pixels[top::down, left::across]
    )
    return _png(rows, interlace=1)


def _names(plain: bytes) -> Iterator[Case]:
    for name in (
        "with space.jpg", "two  spaces .jpg", "Gebäude ß.jpg", "водопад.jpg", "滝の写真.jpg", "شلال.jpg", "🌊.jpg",
        "it's.jpg", 'a "quoted" one.jpg', "<b>bold</b>.jpg", "<script>alert(1)<／script>.jpg", "&amp;.jpg",
        "100%.jpg", "50%25.jpg", "#hash.jpg", "what?.jpg", "star*.jpg", "[brackets].jpg", "{braces}.jpg", "a+b=c.jpg",
        "dots..in..name.jpg", "trailing dot..jpg", "-dash.jpg", "--option.jpg", "~tilde.jpg", "$HOME.jpg", "`id`.jpg",
        "semi;colon.jpg", "comma,name.jpg", "UPPER.JPG", "mixed.JpEg", "e\u0301 decomposed.jpg", "é composed.jpg",
        "\u202egpj.rtl.jpg", "n" * 230 + ".jpg", ".hidden.jpg", "folder with space/in it.jpg", "a/b/c/d/deep.jpg",
    ):  # fmt: skip
        yield name, plain, OK


def _truncations(good: dict[str, bytes]) -> Iterator[Case]:
    for source, names in (
        ("plain.jpg", "jpeg"), ("progressive.jpeg", "progressive"), ("rgb.png", "png"), ("webp.webp", "webp"),
        ("avif.avif", "avif"), ("heic.heic", "heic"), ("gif.gif", "gif"), ("bmp.bmp", "bmp"),
        ("tiff raw.tif", "tiff"), ("tiff tiff_lzw.tif", "tiff lzw"),
    ):  # fmt: skip
        data, suffix = good[source], source.rpartition(".")[2]
        for share in (0.02, 0.3, 0.6):
            yield f"cut {names} at {share:.0%}.{suffix}", data[: max(4, int(len(data) * share))], BROKEN
    yield "cut plain jpeg before its last byte.jpg", good["plain.jpg"][:-40], BROKEN


def _damaged(good: dict[str, bytes]) -> Iterator[Case]:
    rng = np.random.default_rng(1)
    either = OK | BROKEN | TOO_LARGE | TOO_SMALL | {"unsupported"}
    for source in (
        "plain.jpg",
        "rgb.png",
        "webp.webp",
        "avif.avif",
        "heic.heic",
        "gif.gif",
        "tiff tiff_lzw.tif",
    ):
        for trial in range(3):
            data = bytearray(good[source])
            for position in rng.integers(0, len(data), 1 + trial * 12):
                data[position] = int(rng.integers(0, 256))
            yield f"damaged {trial} {source}", bytes(data), frozenset(either)
    yield "wrong checksum.png", good["rgb.png"].replace(b"IDAT", b"IDAX"), BROKEN
    yield "head of zeros.jpg", b"\x00" * 64 + good["plain.jpg"][64:], UNREADABLE


def _wrong_extensions(good: dict[str, bytes]) -> Iterator[Case]:
    for name, source in (
        ("png called jpg.jpg", "rgb.png"), ("jpeg called png.png", "plain.jpg"), ("heic called jpg.jpg", "heic.heic"),
        ("webp called tif.tif", "webp.webp"), ("avif called heic.heic", "avif.avif"), ("gif called bmp.bmp", "gif.gif"),
        ("bmp called gif.gif", "bmp.bmp"), ("tiff called webp.webp", "tiff raw.tif"),
    ):  # fmt: skip
        yield name, good[source], OK


def _not_pictures() -> Iterator[Case]:
    rng = np.random.default_rng(2)
    for suffix in ("jpg", "png", "webp", "heic", "tif"):
        yield f"empty {suffix}.{suffix}", b"", EMPTY
        yield f"noise {suffix}.{suffix}", rng.integers(0, 256, 3000, np.uint8).tobytes(), UNREADABLE
    for name, data in (
        ("a web page.jpg", b"<!doctype html><html><body>404 Not Found</body></html>"),
        ("a vector picture.png", b'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>'),
        ("a document.jpg", b"%PDF-1.7\n1 0 obj<</Type/Catalog>>endobj\ntrailer<</Root 1 0 R>>"),
        ("postscript.jpg", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 99 99\n(rm) run\nshowpage"),
        ("an archive.jpg", b"PK\x03\x04" + b"\x00" * 200),
        ("a program.jpg", b"\x7fELF" + b"\x02" * 400),
        ("a film.heic", b"\x00\x00\x00\x18ftypisom\x00\x00\x02\x00isomiso2" + b"\x00" * 500),
        ("one byte.jpg", b"\xff"), ("two bytes.jpg", b"\xff\xd8"), ("newline.png", b"\n"),
        ("text.jpg", "Не фотография".encode()), ("zeros.jpg", b"\x00" * 10_000),
        ("photoshop.tif", b"8BPS\x00\x01" + b"\x00" * 300), ("targa.bmp", b"\x00\x00\x02" + b"\x00" * 300),
        ("pixmap.png", b"P6\n64 64\n255\n" + b"\x80" * 64 * 64 * 3),
    ):  # fmt: skip
        yield name, data, BROKEN


def _bombs() -> Iterator[Case]:
    huge = (60_000, 60_000)
    yield "bomb.png", _png(b"", size=huge), TOO_LARGE
    yield "bomb in one bit.png", _png(b"", size=(200_000, 200_000), depth=1, colour=0), TOO_LARGE
    yield "just above the limit.png", _png(b"", size=(10_001, 10_000)), TOO_LARGE
    jpeg = bytearray(jpeg_bytes(draw_photo(5, SIZE)))
    start = jpeg.index(b"\xff\xc0")
    jpeg[start + 5 : start + 9] = struct.pack(">HH", 65_500, 65_500)
    yield "bomb.jpg.jpg", bytes(jpeg), TOO_LARGE
    gif = (
        b"GIF89a"
        + struct.pack("<HH", 65_535, 65_535)
        + b"\x80\x00\x00"
        + b"\x00" * 6
        + b"\x2c"
        + b"\x00" * 20
    )
    yield "bomb.gif.gif", gif, TOO_LARGE | BROKEN
    bmp = bytearray(_saved(_image(), "BMP"))
    bmp[18:26] = struct.pack("<ii", 100_000, 100_000)
    yield "bomb.bmp.bmp", bytes(bmp), TOO_LARGE
    yield "text bomb.png", _text_bomb(), OK | BROKEN


def _text_bomb() -> bytes:
    """A compressed comment of half a gigabyte."""
    packed = zlib.compressobj(9)
    data = b"".join(packed.compress(b"\x00" * 1_000_000) for _ in range(500)) + packed.flush()
    plain = _saved(_image(), "PNG")
    return plain[:33] + _chunk(b"zTXt", b"Comment\x00\x00" + data) + plain[33:]


def _shapes() -> Iterator[Case]:
    for width, height in ((1, 1), (1, 20_000), (20_000, 1), (3, 3), (15, 400), (400, 15), (2, 2)):
        yield (
            f"shape {width}x{height}.png",
            _saved(Image.new("RGB", (width, height), "teal"), "PNG"),
            TOO_SMALL,
        )
    for width, height in ((16, 16), (17, 33), (97, 61), (300, 16), (101, 103)):
        data = jpeg_bytes(draw_photo(7, (height, width)))
        yield f"shape {width}x{height}.jpg", data, OK
