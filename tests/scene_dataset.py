"""A small dataset of drawn landscapes that no weights were trained on, with their exact motion."""

from __future__ import annotations

import cv2
import numpy as np

from models.warp import resize_motion
from pipelines.sample_data import draw_scene, scene_frames, scene_name
from storage.dataset_format import DatasetInfo, manifest_url, shard_url, write_dataset_json
from storage.digest import digest_bytes
from storage.manifest import MANIFEST_SCHEMA, write_rows
from storage.samples import Sample, sample_key
from storage.shards import write_shard

__all__ = ["write_scene_dataset"]

KINDS = ("waterfall", "river", "smoke")
FIRST_SEED = 900
SIZE_HW = (112, 192)


def write_scene_dataset(url: str, *, seeds: int = 3, split: str = "val") -> None:
    """Write each kind of scene for `seeds` seeds: each a source of its own, of one clip with two frames."""
    samples = [_sample(kind, FIRST_SEED + seed, split) for seed in range(seeds) for kind in KINDS]
    samples.sort(key=lambda sample: sample.key)
    shard = write_shard(shard_url(url, f"{split}-00000.tar"), samples)
    facts = ("source", "sha256", "split", "category")
    rows = [
        {"key": each.key, "status": "ok", "shard": shard.name, **{name: each.info[name] for name in facts}}
        for each in samples
    ]
    write_rows(manifest_url(url), rows, MANIFEST_SCHEMA)
    counts = {"attempted": len(rows), "ok": len(rows), "rejected": 0, "failed": 0}
    info = DatasetInfo(config={"scenes": seeds}, counts=counts, shards=[shard], splits={split: len(rows)})
    write_dataset_json(url, info)


def _sample(kind: str, seed: int, split: str) -> Sample:
    scene = draw_scene(kind, seed=seed, size=SIZE_HW)
    name = scene_name(kind, seed)
    digest = digest_bytes(name.encode())
    grid_HW = (SIZE_HW[0] // 2, SIZE_HW[1] // 2)
    share = cv2.resize(scene.moving_HW.astype(np.float32), grid_HW[::-1], interpolation=cv2.INTER_AREA)
    return Sample(
        key=sample_key(digest, 0),
        frames=list(scene_frames(scene, 2, fps=2.0)),
        motion_2HW=resize_motion(scene.motion_2HW, grid_HW).astype(np.float16),
        confidence_HW=np.ones(grid_HW, np.float32),
        moving_HW=np.asarray(share) > 0.5,
        info={
            "source": name,
            "sha256": digest,
            "split": split,
            "category": kind,
            "fps": 30.0,
            "frame_indices": [0, 15],
            "frame_size": list(SIZE_HW),
            "motion_size": list(grid_HW),
        },
    )
