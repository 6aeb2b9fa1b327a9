"""The report's wall of clips: samples of a dataset, each a strip of small frames and its motion in colour."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from flows.page import picture_uri
from models.colour_wheel import motion_to_colour
from storage.dataset_format import shard_url
from storage.digest import digest_bytes
from storage.errors import FormatError
from storage.reasons import Status
from storage.samples import Sample
from storage.shards import read_shard

__all__ = ["ChosenClip", "choose_clips", "draw_clips", "read_clips"]

THUMBNAIL_WIDTH = 232
STRIP_FRAMES = 6
MOST_SHARDS = 8


@dataclass(frozen=True, kw_only=True, slots=True)
class ChosenClip:
    """A sample to show: its key, its shard's file name, and what its manifest row says about it."""

    key: str
    shard: str
    row: Mapping[str, Any]


def choose_clips(rows: Iterable[Mapping[str, Any]], *, limit: int) -> list[ChosenClip]:
    """At most `limit` clips from at most 8 shards, spread over them by chance that is the same every time.

    Few shards are opened, since on object storage each costs a download.
    """
    by_shard: dict[str, list[ChosenClip]] = {}
    for row in rows:
        if row["status"] == Status.OK and row["shard"]:
            clip = ChosenClip(key=row["key"], shard=row["shard"], row=row)
            by_shard.setdefault(row["shard"], []).append(clip)
    shards = sorted(by_shard)
    step = max(len(shards) / MOST_SHARDS, 1.0)
    opened = [shards[int(index * step)] for index in range(min(MOST_SHARDS, len(shards)))]
    candidates = [clip for shard in opened for clip in by_shard[shard]]
    shuffled = sorted(candidates, key=lambda clip: digest_bytes(clip.key.encode()))
    return shuffled[:limit]


def draw_clips(dataset_url: str, clips: Sequence[ChosenClip]) -> Iterator[dict[str, Any]]:
    """What the page needs of each clip: strip and motion as data: URIs, and its facts; no damaged ones."""
    for sample, clip in read_clips(dataset_url, clips):
        with suppress(FormatError):
            yield _draw(sample, clip.row)


def read_clips(dataset_url: str, clips: Sequence[ChosenClip]) -> Iterator[tuple[Sample, ChosenClip]]:
    """The samples of clips that can be read, shard by shard."""
    wanted = {clip.key: clip for clip in clips}
    for shard in sorted({clip.shard for clip in clips}):
        missing = {clip.key for clip in clips if clip.shard == shard}
        # The wall is a glance: what is damaged is told by `stillstream dataset --verify`.
        with read_shard(shard_url(dataset_url, shard), on_error=lambda _: None) as samples:
            for sample in samples:
                if sample.key in missing:
                    missing.discard(sample.key)
                    yield sample, wanted[sample.key]
                if not missing:
                    break


def _draw(sample: Sample, row: Mapping[str, Any]) -> dict[str, Any]:
    indices = (
        np.linspace(0, len(sample.frames) - 1, min(STRIP_FRAMES, len(sample.frames))).round().astype(int)
    )
    frames = [_shrink(sample.frames[int(index)]) for index in indices]
    motion = _shrink(motion_to_colour(np.asarray(sample.motion_2HW, dtype=np.float32)))
    return {
        "strip": picture_uri(np.hstack(frames), format="WEBP", quality=70),
        "frames": len(frames),
        "width": frames[0].shape[1],
        "height": frames[0].shape[0],
        "motion": picture_uri(motion, format="WEBP", quality=80),
        "name": row.get("title") or str(row["source"]).rpartition("/")[2],
        "category": row.get("category") or "",
        "speed": _rounded(row.get("mean_speed")),
        "moving": _rounded(row.get("moving_share")),
        "coherence": _rounded(row.get("coherence")),
    }


def _shrink(picture_HW3: NDArray[np.uint8]) -> NDArray[np.uint8]:
    height, width = picture_HW3.shape[:2]
    size = (THUMBNAIL_WIDTH, max(1, round(height * THUMBNAIL_WIDTH / width)))
    interpolation = cv2.INTER_AREA if width > THUMBNAIL_WIDTH else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(picture_HW3, size, interpolation=interpolation), dtype=np.uint8)


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(float(value), 4)
