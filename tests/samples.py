"""Small drawn samples and a small dataset for the tests of what is stored."""

from __future__ import annotations

import dataclasses

import numpy as np

from storage.dataset_format import DatasetInfo, manifest_url, shard_url, write_dataset_json
from storage.digest import digest_bytes
from storage.manifest import MANIFEST_SCHEMA, count_statuses, write_rows
from storage.shards import Sample, sample_key, write_shard

__all__ = ["draw_sample", "write_small_dataset"]


def draw_sample(
    seed: int, *, split: str = "train", size: tuple[int, int] = (48, 64), frames: int = 3
) -> Sample:
    """A smooth picture sliding sideways, with its motion on a grid of half the size."""
    rng = np.random.default_rng(seed)
    height, width = size
    y, x = np.mgrid[:height, :width]
    phase = rng.random(3) * 6
    pictures = [
        (127 + 100 * np.sin((x[..., None] - 2 * index) / 9 + y[..., None] / 7 + phase)).astype(np.uint8)
        for index in range(frames)
    ]
    grid = (height // 2, width // 2)
    sha256 = digest_bytes(f"source {seed}".encode())
    return Sample(
        key=sample_key(sha256, 30 * seed),
        frames=pictures,
        motion_2HW=rng.normal(size=(2, *grid)).astype(np.float32),
        confidence_HW=rng.random(grid).astype(np.float32),
        moving_HW=rng.random(grid) > 0.5,
        info={"source": f"https://example.org/{seed}.mp4", "sha256": sha256, "split": split, "fps": 30.0},
    )


def write_small_dataset(url: str) -> DatasetInfo:
    """Two shards (four train samples, two val), a manifest with one failed row too, and dataset.json."""
    shards, rows = [], []
    for split, seeds in (("train", range(4)), ("val", range(4, 6))):
        samples = [draw_sample(seed, split=split) for seed in seeds]
        shards.append(write_shard(shard_url(url, f"{split}-000000.tar"), samples))
        rows += [
            {
                "key": s.key,
                "source": s.info["source"],
                "status": "ok",
                "split": split,
                "shard": shards[-1].name,
            }
            for s in samples
        ]
    rows.append({"key": "bad", "source": "bad.mp4", "status": "failed", "reason": "truncated"})
    write_rows(manifest_url(url), rows, MANIFEST_SCHEMA)
    info = DatasetInfo(
        config={"method": "dis", "frames": 60},
        counts=dataclasses.asdict(count_statuses(rows)),
        shards=shards,
        splits={"train": 4, "val": 2},
    )
    write_dataset_json(url, info)
    return info
