"""Writing loops: what comes out of each format is decoded again and compared with what went in."""

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from animation_world import draw_photo
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageSequence

from storage.errors import RejectedError, UsageError
from storage.gif_colours import choose_colours
from storage.loops import FORMATS, LoopOptions, usable_formats, write_loop, write_poster
from storage.objects import exists, join_url, list_objects, read_bytes, remove_temporaries

Frame = NDArray[np.uint8]
HEIGHT, WIDTH, FRAMES, FPS = 120, 180, 12, 25.0
MOVING = (slice(32, 80), slice(48, 128))
# Encoders may smear a few pixels around what moves; farther away nothing may stir.
FAR = np.ones((HEIGHT, WIDTH), bool)
FAR[16:96, 32:144] = False
VIDEOS = ["mp4", "webm", "hevc", "av1"]
EXACT = ["png", "apng"]
# GIF has 255 colours and WebP is lossy by default, but what is still repeats itself bit for bit.
FROZEN = ["gif", "webp"]


def scene(count: int = FRAMES, size_HW: tuple[int, int] = (HEIGHT, WIDTH)) -> list[Frame]:
    photo = draw_photo(1, size_HW)
    frames = []
    for t in range(count):
        frame = photo.copy()
        frame[MOVING] = np.roll(photo[MOVING], 4 * t, axis=0)
        frames.append(frame)
    return frames


def decoded(url: str, format: str) -> list[Frame]:
    if format == "png":
        return [np.asarray(Image.open(info.url)) for info in list_objects(url)]
    if format in VIDEOS:
        with av.open(url) as container:
            return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    with Image.open(url) as image:
        return [np.asarray(frame.convert("RGB")) for frame in ImageSequence.Iterator(image)]


def place(folder: Path, format: str) -> str:
    return str(folder / f"loop{FORMATS[format].suffix}")


def test_all_formats_are_usable_here() -> None:
    assert set(usable_formats()) == set(FORMATS)


@pytest.mark.parametrize("format", list(FORMATS))
def test_every_format_holds_all_frames_and_keeps_still_what_is_still(tmp_path: Path, format: str) -> None:
    frames, url = scene(), place(tmp_path, format)
    written = write_loop(iter(frames), url, format=format, fps=FPS)
    back = decoded(url, format)
    assert written.frames == len(back) == FRAMES
    assert written.size == sum(info.size for info in list_objects(url))
    still = np.stack([frame[FAR] for frame in back]).astype(np.float32)
    if format in EXACT:
        assert all((one == other).all() for one, other in zip(frames, back, strict=True))
    elif format in FROZEN:
        assert (still == still[0]).all()
    assert still.std(axis=0).mean() < 0.5
    # The encoded motion is that of the frames: each is closest to its own original.
    errors = np.array([[np.abs(a.astype(int) - b.astype(int)).mean() for b in frames] for a in back])
    assert (errors.argmin(axis=1) == np.arange(FRAMES)).all()
    assert errors.diagonal().max() < 14


def test_lossless_webp_is_bit_exact(tmp_path: Path) -> None:
    frames, url = scene(5), str(tmp_path / "loop.webp")
    write_loop(frames, url, format="webp", fps=FPS, options=LoopOptions(lossless=True))
    assert all((one == other).all() for one, other in zip(frames, decoded(url, "webp"), strict=True))


@pytest.mark.parametrize("format", ["gif", "webp", "apng"])
@pytest.mark.parametrize("fps", [30.0, 12.5])
def test_animated_pictures_loop_for_ever_at_the_right_speed(tmp_path: Path, format: str, fps: float) -> None:
    url = place(tmp_path, format)
    write_loop(scene(), url, format=format, fps=fps)
    with Image.open(url) as image:
        assert image.info["loop"] == 0
        shown = 0
        for frame in ImageSequence.Iterator(image):
            frame.load()
            shown += frame.info["duration"]
    tolerance = 10 if format == "gif" else FRAMES  # hundredths of a second, whole milliseconds
    assert abs(shown - FRAMES / fps * 1000) <= tolerance


@pytest.mark.parametrize("format", [*VIDEOS, "avif"])
def test_videos_say_what_they_are(tmp_path: Path, format: str) -> None:
    url = place(tmp_path, format)
    write_loop(scene(), url, format=format, fps=FPS)
    with av.open(url) as container:
        video = container.streams.video[-1]  # an AVIF holds its first picture as a stream, too
        assert video.average_rate == Fraction(25)
        assert video.codec_context.pix_fmt == "yuv420p"
        if format != "avif":
            assert video.codec_context.colorspace == 1  # BT.709
    if format == "mp4":
        data = Path(url).read_bytes()
        assert data.index(b"moov") < data.index(b"mdat")


@pytest.mark.parametrize("format", ["mp4", "webm"])
def test_repeat_bakes_equal_periods(tmp_path: Path, format: str) -> None:
    once, thrice = str(tmp_path / f"once.{format}"), str(tmp_path / f"thrice.{format}")
    write_loop(scene(), once, format=format, fps=FPS)
    written = write_loop(scene(), thrice, format=format, fps=FPS, repeat=3)
    single, triple = decoded(once, format), decoded(thrice, format)
    assert written.frames == len(triple) == 3 * FRAMES
    for index, frame in enumerate(triple):
        assert (frame == single[index % FRAMES]).all()
    with av.open(thrice) as container:
        times = [frame.pts * frame.time_base for frame in container.decode(video=0)]
    steps = {round(float(after - before) * 1000) for before, after in zip(times, times[1:], strict=False)}
    assert steps == {40}


@pytest.mark.parametrize("format", ["mp4", "gif", "webp", "apng", "avif"])
def test_odd_sizes_are_not_rescaled(tmp_path: Path, format: str) -> None:
    frames, url = scene(4, (121, 181)), place(tmp_path, format)
    write_loop(frames, url, format=format, fps=FPS)
    back = decoded(url, format)
    expected = (122, 182) if format == "mp4" else (121, 181)
    assert back[0].shape[:2] == expected
    assert np.abs(back[2][:121, :181].astype(int) - frames[2]).mean() < 14


def test_gif_uses_one_palette_and_its_dither_does_not_crawl(tmp_path: Path) -> None:
    frames, url = scene(), str(tmp_path / "loop.gif")
    write_loop(frames, url, format="gif", fps=20)
    data = Path(url).read_bytes()
    assert data[10] & 0x80, "a global palette"
    colours = choose_colours(frames)
    first, second = colours.index_frame(frames[0]), colours.index_frame(frames[1])
    assert (first[FAR] == second[FAR]).all()


def test_gif_dithering_keeps_the_mean_colour() -> None:
    ramp = np.zeros((256, 256, 3), np.uint8)
    ramp[..., 0], ramp[..., 1] = np.arange(256)[None], np.arange(256)[:, None]
    colours = choose_colours([ramp])
    shown = colours.palette_K3[colours.index_frame(ramp)].astype(float)
    blocks = (shown - ramp).reshape(16, 16, 16, 16, 3).mean(axis=(1, 3))
    assert np.abs(blocks[1:-1, 1:-1]).max() < 12


def test_gif_of_few_colours_is_exact(tmp_path: Path) -> None:
    frames = [np.full((40, 40, 3), value, np.uint8) for value in (10, 120, 240)]
    write_loop(frames, str(tmp_path / "f.gif"), format="gif", fps=10)
    back = decoded(str(tmp_path / "f.gif"), "gif")
    assert all((one == other).all() for one, other in zip(frames, back, strict=True))


def test_png_folder_has_numbered_frames_and_loses_stale_ones(tmp_path: Path) -> None:
    url = str(tmp_path / "loop")
    write_loop(scene(8), url, format="png", fps=FPS)
    (tmp_path / "loop" / "notes.png").write_bytes(b"mine")
    write_loop(scene(5), url, format="png", fps=FPS)
    assert [info.key for info in list_objects(url)] == [*(f"{t:04d}.png" for t in range(5)), "notes.png"]


@pytest.mark.parametrize("format", ["mp4", "gif", "webp", "apng", "png"])
def test_loops_go_to_object_storage(s3_url: str, format: str) -> None:
    url = join_url(s3_url, f"loop{FORMATS[format].suffix}")
    written = write_loop(scene(4), url, format=format, fps=FPS)
    assert written.size == sum(info.size for info in list_objects(url))
    assert exists(join_url(url, "0003.png") if format == "png" else url)


@pytest.mark.parametrize("format", [name for name in FORMATS if name != "png"])
def test_nothing_appears_when_rendering_fails(tmp_path: Path, format: str) -> None:
    def failing() -> Iterator[Frame]:
        yield from scene(3)
        raise RuntimeError("no more frames")

    with pytest.raises(RuntimeError, match="no more frames"):
        write_loop(failing(), place(tmp_path, format), format=format, fps=FPS)
    assert [path.name for path in tmp_path.iterdir()] == []
    assert remove_temporaries(str(tmp_path)) == 0


def test_a_picture_too_large_for_the_format_is_rejected(tmp_path: Path) -> None:
    wide = np.zeros((16, 16_400, 3), np.uint8)
    with pytest.raises(RejectedError, match="at most 16383"):
        write_loop([wide], str(tmp_path / "wide.webp"), format="webp", fps=FPS)


def test_unknown_formats_and_qualities_are_usage_errors(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="known are mp4"):
        write_loop(scene(2), str(tmp_path / "x"), format="mov", fps=FPS)
    with pytest.raises(UsageError, match="quality must be 1 to 100"):
        LoopOptions(quality=0)


def exif_with_place() -> bytes:
    exif = Image.Exif()
    exif[ExifTags.Base.Make] = "Maker"
    exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.DateTimeOriginal] = "2024:05:06 07:08:09"
    gps = exif.get_ifd(ExifTags.IFD.GPSInfo)
    gps[ExifTags.GPS.GPSLatitudeRef], gps[ExifTags.GPS.GPSLatitude] = "N", (47.0, 30.0, 36.0)
    gps[ExifTags.GPS.GPSLongitudeRef], gps[ExifTags.GPS.GPSLongitude] = "W", (8.0, 15.0, 0.0)
    return exif.tobytes()


def test_metadata_is_kept_only_when_asked_for(tmp_path: Path) -> None:
    exif = exif_with_place()
    for kept in (exif, None):
        folder = tmp_path / ("kept" if kept else "stripped")
        folder.mkdir()
        for format in ("mp4", "apng"):
            options = LoopOptions(exif=kept)
            write_loop(scene(3), place(folder, format), format=format, fps=FPS, options=options)
        write_poster(scene(1)[0], str(folder / "p.jpg"), exif=kept)
        with av.open(str(folder / "loop.mp4")) as container:
            assert ("+47.5100-008.2500/" in container.metadata.get("location", "")) == bool(kept)
        for name in ("loop.apng", "p.jpg"):
            with Image.open(folder / name) as image:
                assert image.getexif().get(ExifTags.Base.Make) == ("Maker" if kept else None)


def test_poster_is_a_small_progressive_jpeg(tmp_path: Path) -> None:
    url = str(tmp_path / "p.jpg")
    large = draw_photo(2, (1500, 3000))
    written = write_poster(large, url)
    with Image.open(url) as image:
        assert image.format == "JPEG" and image.size == (1280, 640)
        assert image.info["progressive"]
    assert written.size == len(read_bytes(url))
