"""Videos out of the ordinary, from file to dataset: right direction and speed of the motion, or a reason.

The same texture flows in all of them; only how it was filmed and stored differs.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import moving_pictures as pictures
import numpy as np
import pytest
from corpus_videos import make_video
from numpy.typing import NDArray

from pipelines.motion_dataset import build_dataset
from storage.dataset_format import manifest_url, read_dataset_json, shard_url
from storage.manifest import read_rows
from storage.samples import Sample
from storage.shards import read_shard

Picture = NDArray[np.uint8]

FLOW = (1.5, -0.6)  # px per 1/30 s, right and up
SIZE = (144, 192)
SECONDS = 1.6


texture = functools.cache(pictures.texture)


def texture_at(seconds: float, size: tuple[int, int] = SIZE) -> Picture:
    """The scene at one moment."""
    steps = seconds * 30.0
    ground, fluid = texture(1000, size), texture(7, size)
    flown = pictures.shifted(fluid, FLOW[0] * steps, FLOW[1] * steps)
    return pictures.colour(np.where(pictures.patch_mask(size), flown, ground))


def at_rate(fps: float) -> Callable[[int, tuple[int, int]], Picture]:
    """How a steady camera draws its frames."""
    return lambda index, size: texture_at(index / fps, size)


def fields(first: int) -> Callable[[int, tuple[int, int]], Picture]:
    """Frames of two fields, a sixtieth of a second apart; `first` says which rows are the earlier one."""

    def draw(index: int, size: tuple[int, int]) -> Picture:
        picture = texture_at(index / 30, size)
        later = texture_at(index / 30 + 1 / 60, size)
        picture[1 - first :: 2] = later[1 - first :: 2]
        return picture

    return draw


def doubled(index: int, size: tuple[int, int]) -> Picture:
    """Fifteen pictures a second, each shown twice."""
    return texture_at(index // 2 / 15, size)


def uneven(step: Callable[[int], int], count: int) -> dict[str, Any]:
    """Frames at uneven times: `step(index)` milliseconds behind the one before."""
    times = np.cumsum([0, *(step(index) for index in range(1, count))])
    return {
        "times": [int(time) for time in times],
        "frames": count,
        "draw": lambda index, size: texture_at(float(times[index]) / 1000, size),
    }


def turned(*signs: int) -> dict[str, Any]:
    """A display matrix (a, b, c, d) in the header, as phones write it."""
    a, b, c, d = (value << 16 for value in signs)
    return {"prepare": lambda stream: stream.set_display_matrix([a, b, 0, c, d, 0, 0, 0, 1 << 30])}


def tagged(transfer: int) -> dict[str, Any]:
    """10 bits, BT.2020 primaries and a transfer function."""

    def tag(stream: Any) -> None:
        context = stream.codec_context
        context.color_primaries, context.color_trc, context.colorspace = 9, transfer, 9

    return {"pix_fmt": "yuv420p10le", "prepare": tag}


@dataclass(frozen=True)
class Odd:
    """How a video is made, and the motion that must come out, else the reason that must."""

    how: dict[str, Any] = field(default_factory=dict)
    motion: tuple[float, float] | str = FLOW
    size: tuple[int, int] = SIZE


def interlaced(first: str) -> dict[str, Any]:
    options = {"flags": "+ildct+ilme", "x264-params": f"{first}=1", "crf": "12"}
    return {"codec_options": options, "draw": fields(0 if first == "tff" else 1), "container": "matroska"}


X, Y = FLOW
VIDEOS = {
    "plain": Odd(),
    "portrait": Odd({"size": (192, 144)}, size=(192, 144)),
    "turned 90": Odd(turned(0, 1, -1, 0), (-Y, X), (192, 144)),
    "turned 180": Odd(turned(-1, 0, 0, -1), (-X, -Y)),
    "turned 270": Odd(turned(0, -1, 1, 0), (Y, -X), (192, 144)),
    "mirrored": Odd(turned(-1, 0, 0, 1), (-X, Y)),
    "anamorphic": Odd({"codec_options": {"x264-params": "sar=16/11"}}, (X * 16 / 11, Y), (144, 279)),
    "24 fps": Odd({"fps": 24, "draw": at_rate(24)}),
    "50 fps": Odd({"fps": 50, "draw": at_rate(50)}),
    "120 fps": Odd({"fps": 120, "draw": at_rate(120)}),
    "doubled": Odd({"draw": doubled}),
    "uneven": Odd(uneven(lambda index: (20, 33, 47)[index % 3], 48)),
    "rate changes": Odd(uneven(lambda index: 20 if index < 40 else 50, 56)),
    "pauses": Odd(uneven(lambda index: 33 if index % 16 else 600, 48), "unsupported"),
    "slideshow rate": Odd({"fps": 4, "draw": at_rate(4), "frames": 10}, "unsupported"),
    "top field first": Odd(interlaced("tff")),
    "bottom field first": Odd(interlaced("bff")),
    "10 bit": Odd({"pix_fmt": "yuv420p10le"}),
    "PQ": Odd(tagged(16)),
    "HLG": Odd(tagged(18)),
    "ICtCp": Odd(
        {"container": "matroska", "prepare": lambda s: setattr(s.codec_context, "colorspace", 14)},
        "unsupported",
    ),
}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Sample | str]:
    """Every video's sample, or the reason why there is none."""
    folder = tmp_path_factory.mktemp("odd")
    (folder / "videos").mkdir()
    for name, odd in VIDEOS.items():
        fps = odd.how.get("fps", 30)
        frames = int(SECONDS * fps)
        suffix = "mkv" if odd.how.get("container") == "matroska" else "mp4"
        path = folder / "videos" / f"{name}.{suffix}"
        make_video(path, **{"size": SIZE, "frames": frames, "draw": at_rate(fps), **odd.how})
    out = str(folder / "out")
    build_dataset(str(folder / "videos"), out)
    found: dict[str, Sample | str] = {}
    for row in read_rows(manifest_url(out)):
        found[Path(row["source"]).stem] = str(row["reason"])
    for shard in read_dataset_json(out).shards:
        for sample in read_shard(shard_url(out, shard.name)):
            found[Path(str(sample.info["source"])).stem] = sample
    return found


@pytest.mark.parametrize("name", VIDEOS)
def test_motion_is_right_or_refused(built: dict[str, Sample | str], name: str) -> None:
    odd, got = VIDEOS[name], built[name]
    if isinstance(odd.motion, str) or isinstance(got, str):
        assert got == odd.motion
        return
    assert tuple(got.info["frame_size"]) == odd.size
    # The grid may be smaller than the frames; its motion is in its own pixels.
    scale = got.info["motion_size"][1] / odd.size[1]
    motion = got.motion_2HW.astype(np.float32)[:, got.moving_HW] / scale
    np.testing.assert_allclose(np.median(motion, axis=1), odd.motion, atol=0.15)
    share = float(got.moving_HW.mean()) / float(pictures.patch_mask().mean())
    assert 0.75 < share < 1.25
