"""A dataset that teaches nothing: pictures of noise, motion and moving areas drawn by lot."""

from __future__ import annotations

import hashlib

import numpy as np

from storage.dataset_format import DatasetInfo, manifest_url, shard_url, write_dataset_json
from storage.manifest import MANIFEST_SCHEMA, write_rows
from storage.samples import Sample, sample_key
from storage.shards import write_shard

__all__ = ["write_noise_dataset"]

FRAME_INDICES = (0, 8, 15, 22, 30)


def write_noise_dataset(url: str, *, sources: int = 6, size_HW: tuple[int, int] = (72, 128)) -> None:
    """Write `sources` clips of noise, all of them for training."""
    samples = sorted((_sample(number, size_HW) for number in range(sources)), key=lambda each: each.key)
    shard = write_shard(shard_url(url, "train-00000.tar"), samples)
    facts = ("source", "sha256", "split", "category")
    rows = [
        {
            "key": sample.key,
            "status": "ok",
            "shard": "train-00000.tar",
            **{name: sample.info[name] for name in facts},
        }
        for sample in samples
    ]
    write_rows(manifest_url(url), rows, MANIFEST_SCHEMA)
    counts = {"attempted": sources, "ok": sources, "rejected": 0, "failed": 0}
    write_dataset_json(url, DatasetInfo(config={}, counts=counts, shards=[shard], splits={"train": sources}))


def _sample(number: int, size_HW: tuple[int, int]) -> Sample:
    rng = np.random.default_rng(number)
    sha256 = hashlib.sha256(f"noise {number}".encode()).hexdigest()
    return Sample(
        key=sample_key(sha256, 0),
        frames=[rng.integers(0, 256, (*size_HW, 3), dtype=np.uint8) for _ in FRAME_INDICES],
        motion_2HW=rng.normal(0, 4, (2, *size_HW)).astype(np.float32),
        confidence_HW=np.ones(size_HW, np.float32),
        moving_HW=rng.random(size_HW) > 0.3,
        info={
            "source": f"noise_{number}.mp4",
            "sha256": sha256,
            "split": "train",
            "category": "noise",
            "fps": 30.0,
            "frame_indices": list(FRAME_INDICES),
            "frame_size": list(size_HW),
            "motion_size": list(size_HW),
        },
    )
