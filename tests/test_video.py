"""Videos: every odd kind decodes upright and in true colours, every broken one is refused, none does harm."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import psutil
import pytest
from corpus_videos import FRAMES, CorpusVideo, Outcome, draw_frame, make_video, write_corpus
from numpy.typing import NDArray
from video_reader import read_whole

from storage.errors import ItemError, MediaError, RejectedError, UsageError
from storage.isolated import run_isolated
from storage.objects import join_url, local_copy
from storage.reasons import Reason
from storage.video import decode_frames, encode_video, probe_video, video_encoders

Picture = NDArray[np.uint8]


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> list[CorpusVideo]:
    return write_corpus(tmp_path_factory.mktemp("corpus"))


# The corpus ------------------------------------------------------------------------------------------------


def test_no_file_of_the_corpus_does_harm_or_passes_for_what_it_is_not(corpus: list[CorpusVideo]) -> None:
    """Each file through the killable worker, as the pipelines do it; a crash or a hang is wrong too."""
    assert len([video for video in corpus if video.outcome is not Outcome.DECODES]) >= 150
    wrong = []
    for video in corpus:
        try:
            frames: int | None = run_isolated(read_whole, str(video.path), timeout_s=30, memory_bytes=2 << 30)
            got = f"{frames} frames"
        except ItemError as exc:
            frames, got = None, f"{exc.reason}: {exc}"
            if exc.reason in (Reason.CRASHED, Reason.TIMEOUT):
                wrong.append(f"{video.path.name}: {got}")
        decoded = frames is not None
        if video.outcome is not Outcome.EITHER and decoded != (video.outcome is Outcome.DECODES):
            wrong.append(f"{video.path.name} must be {video.outcome}: {got}")
        if decoded and video.frames is not None and frames != video.frames:
            wrong.append(f"{video.path.name} has {video.frames} frames: {got}")
    assert wrong == []


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("empty.mp4", Reason.EMPTY),
        ("missing.mp4", Reason.NOT_FOUND),
        ("cut5.mp4", Reason.TRUNCATED),
        ("cut5.mov", Reason.TRUNCATED),
        ("cut9.mkv", Reason.TRUNCATED),
        ("cut-one-byte.webm", Reason.TRUNCATED),
        ("cut3.avi", Reason.TRUNCATED),
        ("html.mp4", Reason.UNREADABLE),
        ("noise3.mp4", Reason.UNREADABLE),
        ("hole.mp4", Reason.UNREADABLE),
        ("sound-only.mp4", Reason.NO_VIDEO),
        ("sound-with-cover.mp4", Reason.NO_VIDEO),
        ("fifo.mp4", Reason.UNREADABLE),
    ],
)
def test_a_refusal_says_why(corpus: list[CorpusVideo], name: str, reason: Reason) -> None:
    (path,) = (video.path for video in corpus if video.path.name == name)
    with pytest.raises(MediaError) as caught:
        read_whole(str(path))
    assert caught.value.reason is reason
    assert name in str(caught.value)


def test_refused_files_leave_no_file_open(corpus: list[CorpusVideo]) -> None:
    process = psutil.Process()
    before = process.num_fds()
    for video in corpus:
        if video.outcome is Outcome.REFUSED and video.path.suffix == ".mp4":
            with pytest.raises(ItemError):
                read_whole(str(video.path))
    assert process.num_fds() == before


# Decoding --------------------------------------------------------------------------------------------------


def corners(index: int, size: tuple[int, int]) -> Picture:
    """Four plain quarters: red and green above, blue and white below."""
    height, width = size
    picture = np.zeros((height, width, 3), np.uint8)
    picture[: height // 2, : width // 2] = (220, 20, 20)
    picture[: height // 2, width // 2 :] = (20, 200, 20)
    picture[height // 2 :, : width // 2] = (20, 20, 220)
    picture[height // 2 :, width // 2 :] = (230, 230, 230)
    return picture


def quarters(picture: Picture) -> list[str]:
    """The colour names of a picture's quarters, in reading order."""
    names = {(1, 0, 0): "red", (0, 1, 0): "green", (0, 0, 1): "blue", (1, 1, 1): "white"}
    height, width, _ = picture.shape
    points = [(y, x) for y in (height // 4, 3 * height // 4) for x in (width // 4, 3 * width // 4)]
    return [names[tuple(int(value > 127) for value in picture[point])] for point in points]


@pytest.mark.parametrize(
    ("matrix", "rotation", "expected"),
    [
        ((1, 0, 0, 1), 0, ["red", "green", "blue", "white"]),
        ((0, 1, -1, 0), 90, ["blue", "red", "white", "green"]),  # a phone held upright
        ((-1, 0, 0, -1), 180, ["white", "blue", "green", "red"]),
        ((0, -1, 1, 0), 270, ["green", "white", "red", "blue"]),
        ((-1, 0, 0, 1), 180, ["green", "red", "white", "blue"]),  # mirrored, as front cameras do
        ((1, 0, 0, -1), 0, ["blue", "white", "red", "green"]),
        ((0, 1, 1, 0), 90, ["red", "blue", "green", "white"]),
    ],
)
def test_pictures_are_upright(
    tmp_path: Path, matrix: tuple[int, ...], rotation: int, expected: list[str]
) -> None:
    path = tmp_path / "turned.mp4"
    a, b, c, d = (value << 16 for value in matrix)

    def turn(stream: Any) -> None:
        stream.set_display_matrix([a, b, 0, c, d, 0, 0, 0, 1 << 30])

    make_video(path, size=(48, 80), frames=3, prepare=turn, draw=corners)
    info = probe_video(path)
    _, picture = next(decode_frames(path))
    assert quarters(picture) == expected
    size = (80, 48) if rotation in (90, 270) else (48, 80)
    assert (info.rotation, (info.height, info.width)) == (rotation, size)
    assert picture.shape == (*size, 3)


def test_times_follow_the_files_own_timestamps(tmp_path: Path) -> None:
    times = [33 * index + (index % 3) * 9 for index in range(20)]
    make_video(tmp_path / "uneven.mp4", times=times, frames=20)
    make_video(tmp_path / "even.mp4", frames=20)
    assert probe_video(tmp_path / "uneven.mp4").variable_rate
    assert not probe_video(tmp_path / "even.mp4").variable_rate
    seconds = [when for when, _ in decode_frames(tmp_path / "uneven.mp4")]
    np.testing.assert_allclose(seconds, np.array(times) / 1000, atol=1e-3)
    seconds = [when for when, _ in decode_frames(tmp_path / "even.mp4")]
    np.testing.assert_allclose(seconds, np.arange(20) / 30, atol=1e-3)


def test_time_starts_at_zero_whatever_the_first_stamp(tmp_path: Path) -> None:
    make_video(
        tmp_path / "late.mkv", container="matroska", times=[5000 + 40 * i for i in range(10)], frames=10
    )
    make_video(tmp_path / "a.ts", container="mpegts", frames=10)
    for name in ("late.mkv", "a.ts"):
        seconds, _ = next(decode_frames(tmp_path / name))
        assert seconds == pytest.approx(0, abs=0.001)


def test_missing_timestamps_are_filled_in(tmp_path: Path) -> None:
    make_video(tmp_path / "raw.h264", container="h264", fps=25)
    info = probe_video(tmp_path / "raw.h264")
    assert info.fps == pytest.approx(25)
    assert info.seconds == pytest.approx(FRAMES / 25, abs=0.05)
    steps = np.diff([when for when, _ in decode_frames(tmp_path / "raw.h264")])
    np.testing.assert_allclose(steps, 1 / 25, atol=1e-6)


@pytest.mark.parametrize("container", ["mp4", "matroska", "mpegts", "avi", "mpeg", "flv", "asf", "h264"])
@pytest.mark.parametrize(("start", "end"), [(0.0, 1.0), (0.5, 0.75), (2.5, 3.5), (4.9, None), (9.0, None)])
def test_a_stretch_is_that_part_of_the_whole(
    tmp_path: Path, container: str, start: float, end: float | None
) -> None:
    path = tmp_path / "long.x"
    codec = {"avi": "mpeg4", "mpeg": "mpeg2video", "flv": "flv", "asf": "wmv2"}.get(container, "libx264")
    make_video(path, container=container, codec=codec, frames=150, size=(16, 16))
    whole = [(when, picture) for when, picture in decode_frames(path)]
    part = list(decode_frames(path, start=start, end=end))
    expected = [one for one in whole if start - 1e-6 <= one[0] < (end or 1e9) - 1e-6]
    assert [when for when, _ in part] == pytest.approx([when for when, _ in expected])
    assert all(np.array_equal(a[1], b[1]) for a, b in zip(part, expected, strict=True))


@pytest.mark.parametrize(
    "pix_fmt", ["yuv420p", "yuv422p", "yuv444p", "yuvj420p", "yuv420p10le", "yuv444p10le"]
)
@pytest.mark.parametrize(("matrix", "size"), [(1, (48, 64)), (6, (48, 64)), (2, (48, 64)), (2, (720, 128))])
def test_colours_are_true_for_every_format(
    tmp_path: Path, pix_fmt: str, matrix: int, size: tuple[int, int]
) -> None:
    """BT.709, BT.601, and untagged, which is BT.601 when small, BT.709 when HD; 8, 10 bits; both ranges."""
    names = {1: "ITU709", 6: "ITU601", 2: "ITU709" if size[0] >= 720 else "ITU601"}
    full = pix_fmt.startswith("yuvj")
    with av.open(str(tmp_path / "c.mkv"), "w", format="matroska") as output:
        stream = output.add_stream("libx264", rate=30, options={"crf": "1", "preset": "ultrafast"})
        stream.height, stream.width, stream.pix_fmt = *size, pix_fmt
        stream.codec_context.colorspace = matrix
        stream.codec_context.color_range = 2 if full else 1
        frame = av.VideoFrame.from_ndarray(corners(0, size), format="rgb24").reformat(
            format=pix_fmt, dst_colorspace=names[matrix], dst_color_range="JPEG" if full else "MPEG"
        )
        output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    _, picture = next(decode_frames(tmp_path / "c.mkv"))
    for y, x in ((10, 10), (10, -10), (-10, 10), (-10, -10)):
        np.testing.assert_allclose(picture[y, x].astype(int), corners(0, size)[y, x], atol=3)


def grey_steps(path: Path, transfer: int, values: list[float]) -> None:
    """10-bit HEVC of grey stripes with the given code values in 0 … 1."""
    with av.open(str(path), "w") as output:
        options = {"x265-params": "log-level=none:lossless=1:bframes=0"}
        stream = output.add_stream("libx265", rate=30, options=options)
        stream.width, stream.height, stream.pix_fmt = 32 * len(values), 64, "yuv420p10le"
        context = stream.codec_context
        context.color_trc, context.color_primaries = transfer, 9
        context.colorspace, context.color_range = 9, 1
        frame = av.VideoFrame(stream.width, 64, "yuv420p10le")
        stripes = np.repeat(np.round(64 + 876 * np.array(values)), 32).astype("<u2")
        for index, plane in enumerate(frame.planes):
            rows = np.full((plane.height, plane.line_size // 2), 512, "<u2")
            if index == 0:
                rows[:, : plane.width] = stripes
            plane.update(rows.tobytes())
        for index in range(3):
            frame.pts, frame.time_base = index, Fraction(1, 30)
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))


@pytest.mark.parametrize(("transfer", "name"), [(16, "pq"), (18, "hlg")])
def test_hdr_is_mapped_to_standard_range(tmp_path: Path, transfer: int, name: str) -> None:
    codes = [index / 11 for index in range(12)]
    grey_steps(tmp_path / "hdr.mp4", transfer, codes)
    assert probe_video(tmp_path / "hdr.mp4").transfer == name
    _, picture = next(decode_frames(tmp_path / "hdr.mp4"))
    stripes = picture[32, 16::32].astype(int)
    assert np.ptp(stripes, axis=1).max() <= 2, "grey stays grey"
    levels = stripes[:, 1]
    assert levels[0] == 0 and levels[-1] >= 250
    # Highlights far above white are compressed, not clipped: up to the usual peak every step stays visible.
    up_to_peak = 10 if name == "pq" else 11
    assert (np.diff(levels[:up_to_peak]) >= 3).all()
    # Graphics white (203 nits: code 0.58 in PQ, 0.75 in HLG) is bright, but leaves room for highlights.
    white = np.interp(0.58 if name == "pq" else 0.75, codes, levels)
    assert 190 <= white <= 240


def test_light_below_the_knee_is_kept(tmp_path: Path) -> None:
    """20 nits are code 0.357 in PQ, and 0.0985 of white, which BT.1886 shows at code 0.381."""
    grey_steps(tmp_path / "hdr.mp4", 16, [0.357] * 4)
    _, picture = next(decode_frames(tmp_path / "hdr.mp4"))
    assert picture[32, 32, 1] == pytest.approx(255 * (20 / 203) ** (1 / 2.4), abs=2)


def test_wide_gamut_colours_keep_their_hue(tmp_path: Path) -> None:
    """BT.709's red, written in BT.2020 without HDR, comes back as red and not as orange."""
    linear = np.array([0.6274, 0.0691, 0.0164])  # ITU-R BT.2087
    codes = np.round(255 * linear ** (1 / 2.4)).astype(np.uint8)

    def tag(stream: Any) -> None:
        stream.codec_context.color_primaries = 9

    how = {"codec": "libx264rgb", "pix_fmt": "rgb24", "codec_options": {"crf": "0"}, "frames": 1}
    red = np.broadcast_to(codes, (48, 64, 3)).copy()
    make_video(tmp_path / "w.mkv", container="matroska", prepare=tag, draw=lambda index, size: red, **how)
    _, picture = next(decode_frames(tmp_path / "w.mkv"))
    np.testing.assert_allclose(picture[20, 20].astype(int), (255, 0, 0), atol=20)  # 8-bit darks are coarse


def test_dolby_vision_colours_are_refused(tmp_path: Path) -> None:
    make_video(
        tmp_path / "d.mkv", container="matroska", prepare=lambda s: setattr(s.codec_context, "colorspace", 14)
    )
    with pytest.raises(RejectedError, match="ICtCp") as caught:
        next(decode_frames(tmp_path / "d.mkv"))
    assert caught.value.reason is Reason.UNSUPPORTED


def comb(picture: Picture) -> float:
    """How much neighbouring rows differ, in levels; the picture has upright edges only."""
    return float(np.abs(np.diff(picture.astype(float), axis=0)).mean())


def test_interlaced_video_is_deinterlaced(tmp_path: Path) -> None:
    def fields(index: int, size: tuple[int, int]) -> Picture:
        """A bar that moves four pixels between the two fields of a frame."""
        picture = np.full((*size, 3), 40, np.uint8)
        for field in (0, 1):
            x = 8 + 4 * (2 * index + field)
            picture[field::2, x : x + 24] = 220
        return picture

    options = {"flags": "+ildct+ilme", "x264-params": "tff=1"}
    how = {"size": (96, 192), "frames": 12, "codec_options": options, "draw": fields}
    make_video(tmp_path / "i.mkv", container="matroska", **how)
    info = probe_video(tmp_path / "i.mkv")
    assert info.interlaced
    pictures = [picture for _, picture in decode_frames(tmp_path / "i.mkv")]
    assert len(pictures) == 12
    assert comb(fields(5, (96, 192))) > 5
    assert max(comb(picture) for picture in pictures[1:-1]) < 1


def test_anamorphic_video_gets_square_pixels(tmp_path: Path) -> None:
    make_video(
        tmp_path / "a.mp4", size=(48, 64), codec_options={"x264-params": "sar=16/11"}, draw=corners, frames=2
    )
    info = probe_video(tmp_path / "a.mp4")
    _, picture = next(decode_frames(tmp_path / "a.mp4"))
    assert (info.height, info.width) == (48, 93) == picture.shape[:2]
    assert quarters(picture) == ["red", "green", "blue", "white"]


def test_max_side_shrinks_and_never_enlarges(tmp_path: Path) -> None:
    make_video(tmp_path / "a.mp4", size=(90, 160), frames=1, draw=corners)
    for max_side, size in ((80, (45, 80)), (160, (90, 160)), (1000, (90, 160)), (1, (1, 1))):
        _, picture = next(decode_frames(tmp_path / "a.mp4", max_side=max_side))
        assert picture.shape == (*size, 3)


@pytest.mark.parametrize(
    "how", [{"start": -1.0}, {"start": 2.0, "end": 1.0}, {"start": float("nan")}, {"max_side": 0}]
)
def test_impossible_stretches_are_refused(tmp_path: Path, how: dict[str, float]) -> None:
    with pytest.raises(UsageError):
        decode_frames(tmp_path / "a.mp4", **how)  # type: ignore[arg-type]


def test_an_abandoned_decode_closes_its_file(tmp_path: Path) -> None:
    make_video(tmp_path / "a.mp4")
    before = psutil.Process().num_fds()
    for _ in range(20):
        frames = decode_frames(tmp_path / "a.mp4")
        next(frames)
        frames.close()  # type: ignore[attr-defined]
    assert psutil.Process().num_fds() == before


def test_decoding_uses_one_thread(tmp_path: Path) -> None:
    make_video(tmp_path / "a.mp4", size=(256, 256))
    run_isolated(read_whole, str(tmp_path / "a.mp4"), timeout_s=30)
    before = threading.active_count(), len(os.listdir("/proc/self/task"))
    frames = decode_frames(tmp_path / "a.mp4")
    for _ in range(10):
        next(frames)
    assert (threading.active_count(), len(os.listdir("/proc/self/task"))) == before


# Encoding --------------------------------------------------------------------------------------------------


def moving(count: int, size: tuple[int, int] = (96, 128)) -> Iterator[Picture]:
    """The sliding pattern on the right, plain still noise on the left."""
    still = np.random.default_rng(0).integers(60, 190, (*size, 3)).astype(np.uint8)
    for index in range(count):
        picture = still.copy()
        picture[:, size[1] // 2 :] = draw_frame(index, size)[:, size[1] // 2 :]
        yield picture


@pytest.mark.parametrize("format", video_encoders())
@pytest.mark.parametrize("size", [(96, 128), (97, 131)])
def test_what_is_encoded_comes_back(tmp_path: Path, format: str, size: tuple[int, int]) -> None:
    url = str(tmp_path / "a.video")
    pictures = [draw_frame(index, size) for index in range(12)]
    assert encode_video(iter(pictures), url, fps=29.97, format=format) == 12
    info = probe_video(url)
    even = (size[0] + size[0] % 2, size[1] + size[1] % 2)
    assert ((info.height, info.width), info.fps, info.frames) == (even, pytest.approx(29.97, abs=0.01), 12)
    assert info.pixel_format == "yuv420p"
    decoded = [picture for _, picture in decode_frames(url)]
    for before, after in zip(pictures, decoded, strict=True):
        error = np.mean((before.astype(float) - after[: size[0], : size[1]]) ** 2)
        assert 10 * np.log10(255**2 / error) > 36
    if even != size:
        np.testing.assert_allclose(decoded[5][-1].astype(int), decoded[5][-2], atol=40)


@pytest.mark.parametrize("format", video_encoders())
def test_flat_colours_survive_within_two_levels(tmp_path: Path, format: str) -> None:
    colours = [
        (255, 0, 0),
        (0, 255, 0),
        (0, 0, 255),
        (255, 255, 255),
        (0, 0, 0),
        (200, 100, 50),
        (128, 128, 128),
    ]
    picture = np.repeat(np.array(colours, np.uint8)[None], 64, axis=0).repeat(32, axis=1)
    encode_video([picture] * 3, str(tmp_path / "c"), fps=30, format=format)
    _, decoded = next(decode_frames(tmp_path / "c"))
    np.testing.assert_allclose(decoded[32, 16::32].astype(int), colours, atol=2)


def test_the_file_is_tagged_and_streams_from_its_start(tmp_path: Path) -> None:
    encode_video(moving(5), str(tmp_path / "a.mp4"), fps=30)
    data = (tmp_path / "a.mp4").read_bytes()
    assert data.index(b"moov") < data.index(b"mdat")
    with av.open(str(tmp_path / "a.mp4")) as container:
        frame = next(container.decode(video=0))
    assert (frame.color_primaries, frame.color_trc, frame.colorspace, frame.color_range) == (1, 1, 1, 1)


def test_still_areas_do_not_shimmer_in_one_group_of_pictures(tmp_path: Path) -> None:
    encode_video(moving(40), str(tmp_path / "a.mp4"), fps=30, gop=40)
    decoded = np.stack([picture[:, :48] for _, picture in decode_frames(tmp_path / "a.mp4")]).astype(float)
    # The first key frame may settle; from then on the mean change of a still pixel stays below half a level.
    assert np.abs(np.diff(decoded[2:], axis=0)).mean() < 0.5
    with av.open(str(tmp_path / "a.mp4")) as container:
        keys = [packet.is_keyframe for packet in container.demux(video=0) if packet.size]
    assert keys == [True] + [False] * 39


def test_a_failed_encode_leaves_nothing(tmp_path: Path) -> None:
    def broken() -> Iterator[Picture]:
        yield from moving(3)
        raise KeyError("the renderer's own error")

    with pytest.raises(KeyError, match="renderer"):
        encode_video(broken(), str(tmp_path / "a.mp4"), fps=30)
    with pytest.raises(UsageError, match="first one's size"):
        encode_video([*moving(2), *moving(1, (50, 50))], str(tmp_path / "a.mp4"), fps=30)
    with pytest.raises(UsageError, match="no frame"):
        encode_video([], str(tmp_path / "a.mp4"), fps=30)
    with pytest.raises(UsageError, match="choose one of mp4"):
        encode_video(moving(2), str(tmp_path / "a.mp4"), fps=30, format="vhs")
    assert list(tmp_path.iterdir()) == []


def test_videos_go_to_any_store(any_url: str) -> None:
    url = join_url(any_url, "loops/wasser 水.mp4")
    encode_video(moving(5), url, fps=30)
    with local_copy(url) as path:
        assert read_whole(str(path)) == 5


# Long and real ---------------------------------------------------------------------------------------------


def peak_memory_of_reading(path: str) -> int:
    """Resident bytes at the end of reading a video, for a fresh worker process."""
    count = sum(1 for _ in decode_frames(path))
    assert count > 0
    return int(psutil.Process().memory_info().rss)


@pytest.mark.slow
def test_memory_does_not_grow_with_length(tmp_path: Path) -> None:
    from storage.isolated import stop_workers

    peaks = []
    pictures = [draw_frame(index, (180, 320)) for index in range(10)]
    for frames in (60, 1800):
        path = tmp_path / f"{frames}.avi"
        make_video(
            path,
            container="avi",
            codec="mjpeg",
            pix_fmt="yuvj420p",
            size=(180, 320),
            frames=frames,
            draw=lambda index, size: pictures[index % 10],
        )
        stop_workers()
        peaks.append(run_isolated(peak_memory_of_reading, str(path), timeout_s=200))
    assert peaks[1] < 1.1 * peaks[0]


@pytest.mark.slow
def test_real_clips_decode_whole(real_data: Path) -> None:
    for path in sorted((real_data / "clips" / "val").glob("*.mp4")):
        info = probe_video(path)
        assert read_whole(str(path)) == info.frames
