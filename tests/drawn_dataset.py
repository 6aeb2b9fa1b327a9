"""Small datasets of drawn clips for the tests: streaks drift through the lower half of a still picture."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np

from storage.dataset_format import DatasetInfo, manifest_url, shard_url, write_dataset_json
from storage.manifest import MANIFEST_SCHEMA, write_rows
from storage.samples import Sample, sample_key
from storage.shards import write_shard

FRAME_INDICES = (0, 8, 15, 22, 30)
SMALL = (72, 128)


def draw_sample(
    number: int, *, source: int, split: str = "train", size_HW: tuple[int, int] = SMALL
) -> Sample:
    """A clip whose lower part drifts sideways; the direction shows in the colour, so it can be learnt."""
    rng = np.random.default_rng((number, source))
    height, width = size_HW
    to_right = bool(source % 2)
    velocity = (1.0 if to_right else -1.0) * float(rng.uniform(0.5, 1.5))
    horizon = height // 2
    rows = cv2.GaussianBlur(rng.random((height, width)).astype(np.float32), (0, 0), 2) * 160
    moving_HW = np.zeros((height, width), bool)
    moving_HW[horizon:] = True
    frames = []
    for index in FRAME_INDICES:
        frame = np.full((height, width, 3), (140, 150, 160), np.uint8)
        shift = np.float32([[1, 0, velocity * index], [0, 1, 0]])
        drifted = cv2.warpAffine(rows, shift, (width, height), borderMode=cv2.BORDER_WRAP)[horizon:]
        frame[horizon:, :, 0 if to_right else 2] = np.clip(drifted * 2, 0, 255)
        frame[horizon:, :, 1] = np.clip(drifted, 0, 255)
        frames.append(frame)
    motion_2HW = np.zeros((2, height, width), np.float32)
    motion_2HW[0][moving_HW] = velocity
    sha256 = hashlib.sha256(f"source {source}".encode()).hexdigest()
    return Sample(
        key=sample_key(sha256, number),
        frames=frames,
        motion_2HW=motion_2HW,
        confidence_HW=np.ones((height, width), np.float32),
        moving_HW=moving_HW,
        info={
            "source": f"drawn_{source}.mp4",
            "sha256": sha256,
            "split": split,
            "category": "river" if source % 2 else "sea",
            "fps": 30.0,
            "frame_indices": list(FRAME_INDICES),
            "frame_size": [height, width],
            "motion_size": [height, width],
        },
    )


def write_drawn_dataset(
    url: str,
    *,
    sources: int = 4,
    per_source: int = 2,
    per_shard: int = 4,
    splits: Sequence[str] = ("train",),
    size_HW: tuple[int, int] = SMALL,
) -> list[str]:
    """Write a dataset of `sources` × `per_source` clips, the splits in turn by source. Returns the keys."""
    samples = [
        draw_sample(number, source=source, split=splits[source % len(splits)], size_HW=size_HW)
        for source in range(sources)
        for number in range(per_source)
    ]
    samples.sort(key=lambda sample: sample.key)
    shards = []
    rows: list[dict[str, Any]] = []
    for start in range(0, len(samples), per_shard):
        name = f"{start // per_shard:05d}.tar"
        chosen = samples[start : start + per_shard]
        shards.append(write_shard(shard_url(url, name), chosen))
        rows += [
            {
                "key": sample.key,
                "status": "ok",
                "shard": name,
                **{field: sample.info[field] for field in ("source", "sha256", "split", "category")},
            }
            for sample in chosen
        ]
    rows.append({"key": "broken", "source": "broken.mp4", "status": "failed", "reason": "unreadable"})
    write_rows(manifest_url(url), rows, MANIFEST_SCHEMA)
    counts = {"attempted": len(rows), "ok": len(samples), "rejected": 0, "failed": 1}
    per_split = {name: sum(sample.info["split"] == name for sample in samples) for name in set(splits)}
    write_dataset_json(url, DatasetInfo(config={}, counts=counts, shards=shards, splits=per_split))
    return [sample.key for sample in samples]
