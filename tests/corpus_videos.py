"""A corpus of good, odd and broken video files, each with what must become of it.

`write_corpus(folder)` makes all of them in a few seconds; nothing is downloaded and nothing is stored.
"""

from __future__ import annotations

import gzip
import io
import os
import random
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

__all__ = ["CorpusVideo", "Outcome", "draw_frame", "make_video", "write_corpus"]

SIZE = (48, 64)
FRAMES = 45


class Outcome(StrEnum):
    """What must become of a file."""

    DECODES = "decodes"  # every frame comes out
    REFUSED = "refused"  # an ItemError with a reason, never ok
    EITHER = "either"  # a streaming format has no length: what is there may decode, or the file be refused


@dataclass(frozen=True)
class CorpusVideo:
    """One file; `frames` is how many must come out when it decodes (None: at least one)."""

    path: Path
    outcome: Outcome
    frames: int | None = None


def draw_frame(index: int, size: tuple[int, int] = SIZE) -> NDArray[np.uint8]:
    """A smooth coloured pattern that slides two pixels per frame."""
    y, x = np.mgrid[: size[0], : size[1]]
    waves = np.sin((x[..., None] - 2 * index) / 9 + y[..., None] / 7 + np.array([0, 2, 4]))
    return (127 + 100 * waves).astype(np.uint8)


def make_video(  # noqa: PLR0913 (a test file has many faces)
    path: Path | str | io.BytesIO,
    *,
    container: str = "mp4",
    codec: str = "libx264",
    size: tuple[int, int] = SIZE,
    frames: int = FRAMES,
    pix_fmt: str = "yuv420p",
    fps: int = 30,
    options: dict[str, str] | None = None,
    codec_options: dict[str, str] | None = None,
    times: list[int] | None = None,
    with_video: bool = True,
    with_audio: bool = False,
    prepare: Callable[[Any], None] | None = None,
    edit: Callable[[Any], None] | None = None,
    draw: Callable[[int, tuple[int, int]], NDArray[np.uint8]] = draw_frame,
) -> None:
    """Write a video with PyAV; `times` are in milliseconds, `prepare` sees the stream, `edit` each frame."""
    target = str(path) if isinstance(path, Path) else path
    with av.open(target, "w", format=container, options=options or {}) as output:
        streams = []
        if with_video:
            stream = output.add_stream(codec, rate=fps, options=codec_options or {})
            stream.height, stream.width = size
            stream.pix_fmt = pix_fmt
            stream.codec_context.gop_size = 12
            stream.codec_context.thread_count = 1
            if times is not None:
                stream.codec_context.time_base = Fraction(1, 1000)
            if prepare is not None:
                prepare(stream)
            streams.append(stream)
        sound = _add_sound(output, container) if with_audio else None
        for index in range(frames if with_video else 0):
            frame = av.VideoFrame.from_ndarray(draw(index, size), format="rgb24").reformat(format=pix_fmt)
            frame.pts = index if times is None else times[index]
            frame.time_base = Fraction(1, fps) if times is None else Fraction(1, 1000)
            if edit is not None:
                edit(frame)
            output.mux(streams[0].encode(frame))
        for one in streams:
            output.mux(one.encode(None))
        if sound is not None:
            _write_sound(output, sound, frames / fps)


def _add_sound(output: Any, container: str) -> Any:
    codec = {"webm": "libopus", "ogg": "libopus", "avi": "pcm_s16le", "wav": "pcm_s16le", "mp3": "libmp3lame"}
    return output.add_stream(codec.get(container, "aac"), rate=48000)


def _write_sound(output: Any, stream: Any, seconds: float) -> None:
    resampler = av.AudioResampler(
        format=stream.codec_context.format, layout="stereo", rate=48000, frame_size=960
    )
    samples = (np.sin(np.arange(int(48000 * seconds)) / 20) * 8000).astype(np.int16)
    frame = av.AudioFrame.from_ndarray(np.stack([samples, samples]).T.reshape(1, -1).copy(), layout="stereo")
    frame.sample_rate = 48000
    frame.pts = 0
    for part in [*resampler.resample(frame), *resampler.resample(None)]:
        output.mux(stream.encode(part))
    output.mux(stream.encode(None))


def write_corpus(folder: Path) -> list[CorpusVideo]:
    """Write every file under a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    makers = (
        _truncated,
        _not_videos,
        _random_bytes,
        _absurd_headers,
        _damaged_content,
        _odd_but_good,
        _codecs,
    )
    return [video for make in makers for video in make(folder)]


def _bytes_of(**how: Any) -> bytes:
    stream = io.BytesIO()
    make_video(stream, **how)
    return stream.getvalue()


def _put(folder: Path, name: str, data: bytes, outcome: Outcome, frames: int | None = None) -> CorpusVideo:
    path = folder / name
    path.write_bytes(data)
    return CorpusVideo(path, outcome, frames)


def _truncated(folder: Path) -> Iterator[CorpusVideo]:
    """Every tenth of the length of eight kinds of container."""
    whole = {
        "mp4": _faststart(folder),
        "mov": _bytes_of(container="mov"),
        "frag.mp4": _bytes_of(options={"movflags": "frag_keyframe+empty_moov"}),
        "mkv": _bytes_of(container="matroska"),
        "webm": _bytes_of(container="webm", codec="libvpx", codec_options={"deadline": "realtime"}),
        "avi": _bytes_of(container="avi", codec="mpeg4"),
        "ts": _bytes_of(container="mpegts"),
        "flv": _bytes_of(container="flv", codec="flv"),
    }
    for suffix, data in whole.items():
        yield _put(folder, f"whole.{suffix}", data, Outcome.DECODES, FRAMES)
        known = suffix in ("mp4", "frag.mp4", "mov", "mkv", "webm", "avi")
        for tenth in range(1, 10):
            outcome = Outcome.REFUSED if known else Outcome.EITHER
            yield _put(folder, f"cut{tenth}.{suffix}", data[: len(data) * tenth // 10], outcome)
        if known and suffix != "frag.mp4":
            yield _put(folder, f"cut-one-byte.{suffix}", data[:-1], Outcome.REFUSED)


def _faststart(folder: Path) -> bytes:
    path = folder / "faststart.mp4"
    make_video(path, options={"movflags": "+faststart"})
    data = path.read_bytes()
    path.unlink()
    assert data.index(b"moov") < data.index(b"mdat")
    return data


def _not_videos(folder: Path) -> Iterator[CorpusVideo]:
    html = b"<!DOCTYPE html><html><head><title>404</title></head><body>Not found</body></html>\n" * 20
    picture = io.BytesIO()
    make_video(picture, container="image2pipe", codec="mjpeg", pix_fmt="yuvj420p", frames=1)
    sound = {name: _sound_only(name) for name in ("mp4", "wav", "mp3", "ogg")}
    texts = {
        "empty.mp4": b"",
        "one-byte.mp4": b"\0",
        "html.mp4": html,
        "html.webm": html,
        "html.avi": html,
        "html.mov": html,
        "html.ts": html,
        "json.mp4": b'{"error": {"code": 403, "message": "expired"}}',
        "store-error.mp4": b'<?xml version="1.0"?><Error><Code>NoSuchKey</Code></Error>',
        "text.mp4": b"just some words, line after line\n" * 50,
        "playlist.mp4": b"#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\nhttp://127.0.0.1:9/a.ts\n#EXT-X-ENDLIST\n",
        "playlist-of-files.mp4": f"#EXTM3U\n#EXTINF:10,\n{folder}/whole.ts\n#EXT-X-ENDLIST\n".encode(),
        "concat.mp4": f"ffconcat version 1.0\nfile '{folder}/whole.mp4'\n".encode(),
        "manifest.mp4": b'<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011"></MPD>',
        "subtitles.mp4": b"1\n00:00:01,000 --> 00:00:02,000\nHello\n\n" * 20,
        "script.mp4": b"#!/bin/sh\nexit 0\n",
        "pdf.mp4": b"%PDF-1.7\n" + bytes(range(256)) * 8,
        "zip.mp4": b"PK\x03\x04" + bytes(2000),
        "gzip.mp4": gzip.compress(html, mtime=0),
        "picture.mp4": picture.getvalue(),
        "sound-only.mp4": sound["mp4"],
        "sound.mp4": sound["wav"],
        "sound.webm": sound["mp3"],
        "sound-only.ogv": sound["ogg"],
        "sound-with-cover.mp4": _cover_art(folder, picture.getvalue()),
        "only-ftyp.mp4": struct.pack(">I4s4sI", 16, b"ftyp", b"isom", 512),
        "only-moov.mp4": struct.pack(">I4s4sI", 16, b"ftyp", b"isom", 512) + struct.pack(">I4s", 8, b"moov"),
        "zeros.mp4": bytes(5000),
        "ones.mp4": b"\xff" * 5000,
        "riff-header.avi": b"RIFF" + struct.pack("<I", 4) + b"AVI ",
        "ebml-header.mkv": b"\x1a\x45\xdf\xa3\x80",
    }
    for name, data in texts.items():
        yield _put(folder, name, data, Outcome.REFUSED)
    fifo, link, directory = folder / "fifo.mp4", folder / "dangling.mp4", folder / "folder.mp4"
    os.mkfifo(fifo)
    link.symlink_to(folder / "not there")
    directory.mkdir()
    yield from (
        CorpusVideo(path, Outcome.REFUSED) for path in (fifo, link, directory, folder / "missing.mp4")
    )


def _sound_only(container: str) -> bytes:
    return _bytes_of(container=container, with_video=False, with_audio=True)


def _cover_art(folder: Path, picture: bytes) -> bytes:
    """An audio file whose only "video" is an attached picture."""
    path = folder / "cover.m4a"
    with (
        av.open(io.BytesIO(picture), format="jpeg_pipe") as source,
        av.open(str(path), "w", format="mp4") as output,
    ):
        sound = output.add_stream("aac", rate=48000)
        cover = output.add_stream_from_template(source.streams.video[0])
        cover.disposition = av.stream.Disposition.attached_pic
        packet = next(source.demux(video=0))
        packet.stream, packet.pts, packet.dts = cover, 0, 0
        output.mux(packet)
        _write_sound(output, sound, 1.0)
    data = path.read_bytes()
    path.unlink()
    return data


def _random_bytes(folder: Path) -> Iterator[CorpusVideo]:
    """Noise, bare and behind the first bytes of real formats."""
    heads = {
        "mp4": struct.pack(">I4s4sI", 16, b"ftyp", b"isom", 512),
        "moov.mp4": struct.pack(">I4s4sI", 16, b"ftyp", b"isom", 512) + struct.pack(">I4s", 3000, b"moov"),
        "mkv": b"\x1a\x45\xdf\xa3\xa3\x42\x86\x81\x01\x42\xf7\x81\x01\x42\xf2\x81\x04\x42\xf3\x81\x08",
        "avi": b"RIFF\xff\xff\xff\xffAVI LIST",
        "flv": b"FLV\x01\x05\0\0\0\x09\0\0\0\0",
        "ogv": b"OggS\0\x02" + bytes(8),
        "asf": bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c"),
        "gif": b"GIF89a@\x000\x00\xf7\0\0",
        "mpg": b"\0\0\1\xba\x44\0\4\0\4\1\0\0\3\xf8",
        "ivf": b"DKIF\0\0\x20\0VP80@\x000\x00",
    }
    for seed in range(8):
        yield _put(
            folder, f"noise{seed}.mp4", random.Random(seed).randbytes(10 ** (seed % 4 + 2)), Outcome.REFUSED
        )
    for number, (suffix, head) in enumerate(heads.items()):
        noise = random.Random(100 + number).randbytes(4000)
        yield _put(folder, f"head.{suffix}", head + noise, Outcome.REFUSED)


def _absurd_headers(folder: Path) -> Iterator[CorpusVideo]:
    """A good MP4 with one field of its header changed to something that cannot be."""
    good = _faststart(folder)
    huge, zero, negative = b"\xff\xff\xff\xff", b"\0\0\0\0", b"\x80\0\0\0"
    # Box, offset of the field behind the box's name, new value, outcome.
    changes: list[tuple[str, int, bytes, Outcome]] = [
        ("moov", -4, huge, Outcome.REFUSED),
        ("moov", -4, b"\0\0\0\1", Outcome.REFUSED),
        ("moov", 0, b"mooo", Outcome.REFUSED),
        ("mdat", -4, huge, Outcome.REFUSED),
        ("trak", -4, huge, Outcome.EITHER),
        ("trak", 0, b"skip", Outcome.REFUSED),
        ("mdia", 0, b"skip", Outcome.REFUSED),
        ("stbl", 0, b"skip", Outcome.REFUSED),
        ("mdhd", 12, zero, Outcome.EITHER),
        ("mdhd", 16, huge, Outcome.EITHER),
        ("mvhd", 12, zero, Outcome.EITHER),
        ("stsd", 4, huge, Outcome.EITHER),
        ("stsd", 4, zero, Outcome.REFUSED),
        ("avc1", 0, b"xxxx", Outcome.EITHER),
        ("avc1", 24, b"\xff\xff\xff\xff", Outcome.EITHER),  # the stream's own header says better
        ("avcC", 0, b"xxxx", Outcome.REFUSED),
        ("avcC", 4, huge, Outcome.REFUSED),
        ("stts", 4, huge, Outcome.EITHER),
        ("stts", 8, huge, Outcome.EITHER),
        ("stts", 12, zero, Outcome.EITHER),
        ("stts", 12, negative, Outcome.EITHER),
        ("stsz", 4, huge, Outcome.REFUSED),
        ("stsz", 8, huge, Outcome.REFUSED),
        ("stsz", 8, zero, Outcome.REFUSED),
        ("stsz", 12, huge, Outcome.REFUSED),
        ("stsc", 4, zero, Outcome.REFUSED),
        ("stsc", 12, huge, Outcome.EITHER),
        ("stco", 4, zero, Outcome.REFUSED),
        ("stco", 4, huge, Outcome.EITHER),
        ("stco", 8, huge, Outcome.REFUSED),
        ("stco", 8, zero, Outcome.REFUSED),
        ("hdlr", 8, b"soun", Outcome.REFUSED),
        ("ctts", 4, huge, Outcome.EITHER),
    ]
    for number, (box, offset, value, outcome) in enumerate(changes):
        data = bytearray(good)
        place = data.index(box.encode()) + (4 + offset if offset > 0 else offset)
        data[place : place + len(value)] = value
        yield _put(folder, f"absurd{number:02d}-{box}.mp4", bytes(data), outcome)
    yield _put(folder, "nested-boxes.mp4", _nested_boxes(20_000), Outcome.REFUSED)
    yield _put(folder, "huge-size.gif", b"GIF89a\xff\xff\xff\xff\xf7\0\0" + bytes(2000), Outcome.REFUSED)
    yield _put(
        folder, "huge-size.y4m", b"YUV4MPEG2 W60000 H60000 F30:1 C420\nFRAME\n" + bytes(999), Outcome.REFUSED
    )
    yield _put(
        folder, "negative-size.y4m", b"YUV4MPEG2 W-64 H-48 F30:1 C420\nFRAME\n" + bytes(999), Outcome.REFUSED
    )
    yield _put(
        folder, "no-rate.y4m", b"YUV4MPEG2 W64 H48 F0:0 C420\nFRAME\n" + bytes(64 * 72), Outcome.EITHER
    )


def _nested_boxes(depth: int) -> bytes:
    inner = b"".join(struct.pack(">I4s", 8 * (depth - level), b"moov") for level in range(depth))
    return struct.pack(">I4s4sI", 16, b"ftyp", b"isom", 512) + inner


def _damaged_content(folder: Path) -> Iterator[CorpusVideo]:
    """Sound headers, broken pictures."""
    good = _faststart(folder)
    start = good.index(b"mdat") + 4
    size = len(good) - start
    for seed in range(6):
        data = bytearray(good)
        for _ in range(40):
            data[start + random.Random(f"{seed}{_}").randrange(size)] ^= 0x55
        yield _put(folder, f"flipped{seed}.mp4", bytes(data), Outcome.REFUSED)
    third = size // 3
    yield _put(folder, "all-zero.mp4", good[:start] + bytes(size), Outcome.REFUSED)
    hole = good[: start + third] + bytes(third) + good[start + 2 * third :]
    yield _put(folder, "hole.mp4", hole, Outcome.REFUSED)
    swapped = good[:start] + good[start + third :] + good[start : start + third]
    yield _put(folder, "swapped.mp4", swapped, Outcome.REFUSED)
    yield _put(folder, "noise.mp4", good[:start] + random.Random(5).randbytes(size), Outcome.REFUSED)


def _odd_but_good(folder: Path) -> Iterator[CorpusVideo]:
    def made(
        name: str, frames: int | None = FRAMES, outcome: Outcome = Outcome.DECODES, **how: Any
    ) -> CorpusVideo:
        path = folder / name
        make_video(path, **({"frames": frames} | how if frames else how))
        return CorpusVideo(path, outcome, frames)

    good = _faststart(folder)
    yield made("one-frame.mp4", 1)
    yield made("two-frames.mp4", 2)
    yield made("odd-size.mp4", pix_fmt="yuv444p", size=(49, 65))
    yield made("odd-size.avi", container="avi", codec="mjpeg", pix_fmt="yuvj420p", size=(51, 67))
    yield made("tiny.mp4", size=(2, 2))
    yield made("one-pixel.avi", container="avi", codec="ffv1", pix_fmt="bgr0", size=(1, 1))
    yield made("wide.mp4", size=(16, 2048), frames=3)
    yield made("tall.mp4", size=(2048, 16), frames=3)
    yield made("with-sound.mp4", with_audio=True)
    yield made("with-sound.webm", container="webm", codec="libvpx", with_audio=True)
    yield made("mp4-inside.avi")
    yield made("mkv-inside.mp4", container="matroska")
    yield made("webm-inside.mov", container="webm", codec="libvpx")
    yield made("avi-inside.webm", container="avi", codec="mpeg4")
    yield made("no suffix")
    yield made("wasser фильм 水 'q' \"d\" #1 50% a:b [x] & <y>.mp4")
    yield made("-dash.mp4")
    yield made("%03d.mp4")
    yield made("http:looks like a protocol.mp4")
    yield made("raw.h264", container="h264")
    yield made("raw.hevc", container="hevc", codec="libx265", codec_options={"x265-params": "log-level=none"})
    yield made("raw.m4v", container="m4v", codec="mpeg4")
    yield made("raw.m2v", container="mpeg2video", codec="mpeg2video")
    yield made("raw.y4m", container="yuv4mpegpipe", codec="wrapped_avframe", frames=5)
    yield made("uneven-times.mp4", times=[33 * i + (i % 3) * 9 for i in range(FRAMES)])
    yield made(
        "long-pause.mkv", container="matroska", times=[33 * i + 5000 * (i > 20) for i in range(FRAMES)]
    )
    yield made("late-start.mp4", times=[2000 + 33 * i for i in range(FRAMES)])
    yield made("fragmented.mp4", options={"movflags": "frag_keyframe+empty_moov+default_base_moof"})
    yield made("live.mkv", container="matroska", options={"live": "1"})
    yield made("high-rate.mp4", fps=240)
    yield made("low-rate.mp4", fps=1, frames=5)
    yield _put(folder, "trailing-garbage.ts", _bytes_of(container="mpegts") + b"\0" * 1000, Outcome.EITHER)
    yield _put(folder, "leading-garbage.ts", b"\0" * 500 + _bytes_of(container="mpegts"), Outcome.EITHER)
    stream = _bytes_of(container="mpegts", codec_options={"g": "12"})
    yield _put(folder, "mid-group-start.ts", stream[188 * 60 :], Outcome.EITHER)
    other = _bytes_of(container="mpegts", size=(96, 128))
    yield _put(folder, "size-changes.ts", stream + other, Outcome.EITHER)
    yield _put(
        folder, "trailing-free-box.mp4", good + struct.pack(">I4s", 16, b"free") + bytes(8), Outcome.DECODES
    )
    yield _put(folder, "twice.mp4", good + good, Outcome.EITHER)


def _codecs(folder: Path) -> Iterator[CorpusVideo]:
    """Codecs and pixel formats that turn up in collections."""
    kinds: dict[str, dict[str, Any]] = {
        "mpeg1.mpg": {"container": "mpeg", "codec": "mpeg1video"},
        "mpeg2.mpg": {"container": "mpeg", "codec": "mpeg2video"},
        "mpeg4.avi": {"container": "avi", "codec": "mpeg4", "codec_options": {"bf": "2"}},
        "h263.3gp": {"container": "3gp", "codec": "h263", "size": (96, 128)},
        "wmv2.wmv": {"container": "asf", "codec": "wmv2"},
        "msmpeg4.avi": {"container": "avi", "codec": "msmpeg4"},
        "huffyuv.avi": {"container": "avi", "codec": "huffyuv", "pix_fmt": "yuv422p"},
        "raw.avi": {"container": "avi", "codec": "rawvideo", "pix_fmt": "bgr24"},
        "ffv1.mkv": {"container": "matroska", "codec": "ffv1", "pix_fmt": "bgr0"},
        "prores.mov": {"container": "mov", "codec": "prores_ks", "pix_fmt": "yuv422p10le"},
        "prores4444.mov": {"container": "mov", "codec": "prores_ks", "pix_fmt": "yuva444p10le"},
        "png.mov": {"container": "mov", "codec": "png", "pix_fmt": "rgba"},
        "vp8.webm": {"container": "webm", "codec": "libvpx"},
        "vp9.webm": {"container": "webm", "codec": "libvpx-vp9", "codec_options": {"cpu-used": "8"}},
        "alpha.webm": {"container": "webm", "codec": "libvpx-vp9", "pix_fmt": "yuva420p"},
        "av1.mp4": {"codec": "libsvtav1", "size": (64, 64), "codec_options": {"preset": "13"}, "frames": 8},
        "hevc.mp4": {"codec": "libx265", "codec_options": {"x265-params": "log-level=none"}},
        "grey.mp4": {"pix_fmt": "gray"},
        "422.mp4": {"pix_fmt": "yuv422p"},
        "444.mp4": {"pix_fmt": "yuv444p"},
        "ten-bit.mp4": {"pix_fmt": "yuv420p10le"},
        "full-range.mp4": {"pix_fmt": "yuvj420p"},
        "rgb.mp4": {"codec": "libx264rgb", "pix_fmt": "rgb24"},
        "mjpeg.mov": {"container": "mov", "codec": "mjpeg", "pix_fmt": "yuvj420p"},
        "moving.gif": {"container": "gif", "codec": "gif", "pix_fmt": "rgb8", "fps": 25, "frames": 10},
        "dv.avi": {"container": "avi", "codec": "dvvideo", "size": (576, 720), "fps": 25, "frames": 3},
    }
    for name, how in kinds.items():
        if how.get("codec", "libx264") not in av.codecs_available:
            continue
        make_video(folder / name, **how)
        yield CorpusVideo(folder / name, Outcome.DECODES, how.get("frames", FRAMES))
