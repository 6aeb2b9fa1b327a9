"""Hundreds of broken files through dataset building: none stops it, none is kept unless it truly decodes."""

from __future__ import annotations

import io
import random
import struct
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import av.error
import moving_pictures as pictures
import numpy as np
import pytest
from corpus_videos import make_video, write_corpus

from pipelines.motion_dataset import DatasetSummary, build_dataset
from storage.dataset_format import manifest_url, read_dataset_json, shard_url
from storage.manifest import read_rows
from storage.reasons import Reason, Status
from storage.shards import read_shard
from storage.verify import verify_dataset

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

FRAMES = 48
VELOCITY = (1.2, 0.7)
CONTAINERS: dict[str, dict[str, Any]] = {
    "mp4": {},
    "mov": {"container": "mov"},
    "frag.mp4": {"options": {"movflags": "frag_keyframe+empty_moov"}},
    "mkv": {"container": "matroska"},
    "webm": {"container": "webm", "codec": "libvpx", "codec_options": {"deadline": "realtime", "b": "2M"}},
    "avi": {"container": "avi", "codec": "mpeg4", "codec_options": {"q": "3"}},
    "ts": {"container": "mpegts"},
    "flv": {"container": "flv"},
}
FLIPS = 40
HEADER_FLIPS = {f"flipped{seed}.mp4" for seed in range(0, FLIPS, 2)}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A good clip in eight containers, each cut off at every tenth, and damaged; and the decoder's corpus."""
    folder = tmp_path_factory.mktemp("bad") / "videos"
    write_corpus(folder / "corpus")
    frames = pictures.flowing(FRAMES, velocity=VELOCITY, seed=3)
    for suffix, how in CONTAINERS.items():
        stream = io.BytesIO()
        draw = {"size": pictures.SIZE, "frames": FRAMES, "draw": lambda index, size: frames[index]}
        make_video(stream, **{**draw, **how})
        data = stream.getvalue()
        (folder / f"whole.{suffix}").write_bytes(data)
        for tenth in range(1, 10):
            (folder / f"cut{tenth}.{suffix}").write_bytes(data[: len(data) * tenth // 10])
    for name, data in _damaged((folder / "whole.mp4").read_bytes()):
        (folder / name).write_bytes(data)
    return folder


def _damaged(good: bytes) -> Iterator[tuple[str, bytes]]:
    """Bits turned over in the pictures and in the index, and sizes that cannot be."""
    start, end = good.index(b"mdat") + 4, good.index(b"moov") - 4
    if end < start:
        start, end = good.index(b"mdat") + 4, len(good)
    for seed in range(FLIPS):
        chance, data = random.Random(seed), bytearray(good)
        low, high = (start, end) if seed % 2 else (good.index(b"moov") + 4, good.index(b"moov") + 700)
        for _ in range(1 + seed % 5):
            data[chance.randrange(low, high)] ^= 1 << chance.randrange(8)
        yield f"flipped{seed}.mp4", bytes(data)
    for width, height in ((0, 0), (65535, 65535), (1, 1)):
        data, place = bytearray(good), good.index(b"avc1") + 4 + 24
        data[place : place + 4] = struct.pack(">HH", width, height)
        yield f"size{width}x{height}.mp4", bytes(data)


@pytest.fixture(scope="module")
def built(folder: Path) -> tuple[DatasetSummary, str]:
    out = str(folder.parent / "out")
    return build_dataset(str(folder), out), out


def test_the_accounts_are_exact_over_all_of_them(folder: Path, built: tuple[DatasetSummary, str]) -> None:
    summary, out = built
    rows = list(read_rows(manifest_url(out)))
    statuses = Counter(row["status"] for row in rows)
    files = [path for path in folder.rglob("*") if path.is_file() or path.is_symlink()]
    videos = {path.suffix for path in files if path.name.startswith(("whole", "cut"))}
    assert len(rows) >= 150 and summary.counts["attempted"] == len(rows)
    assert summary.counts == {
        "attempted": len(rows),
        **{name: statuses[name] for name in ("ok", "rejected", "failed")},
    }
    assert read_dataset_json(out).counts == summary.counts
    assert {row["reason"] for row in rows if row["status"] != Status.OK} <= {str(reason) for reason in Reason}
    assert sum(summary.reasons.values()) == statuses["rejected"] + statuses["failed"]
    listed = {path for path in files if path.suffix in videos}
    assert listed - {Path(row["source"]) for row in rows} == set(), "some files have no row"
    assert not {"crashed", "timeout", "internal"} & set(summary.reasons), summary.reasons
    assert verify_dataset(out) == []


def test_what_is_whole_is_kept_and_what_is_kept_decodes(
    folder: Path, built: tuple[DatasetSummary, str]
) -> None:
    _, out = built
    rows = list(read_rows(manifest_url(out)))
    kept = {Path(row["source"]).name for row in rows if row["status"] == Status.OK}
    assert {f"whole.{suffix}" for suffix in CONTAINERS} <= kept
    assert not {name for name in kept if name.startswith("cut")}
    for name in kept:
        assert _count_frames(folder / name) >= 43, name
    for shard in read_dataset_json(out).shards:
        for sample in read_shard(shard_url(out, shard.name)):
            if Path(sample.info["source"]).name in HEADER_FLIPS:
                continue  # another shape of the pixels or another time base is what the file then says
            motion = sample.motion_2HW.astype(np.float32)[:, sample.moving_HW]
            np.testing.assert_allclose(np.median(motion, axis=1), VELOCITY, atol=0.2)


def _count_frames(path: Path) -> int:
    """By a decoder of its own, which stops at the first error."""
    with av.open(str(path)) as container:
        container.streams.video[0].codec_context.options = {"err_detect": "explode"}
        try:
            return sum(not frame.is_corrupt for frame in container.decode(video=0))
        except av.error.FFmpegError:
            return -1
