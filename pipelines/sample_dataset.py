"""A dataset of sample scenes with their exact motion: what a training mixes in beside real clips.

    python -m pipelines.sample_dataset OUT [SEEDS]

No optical flow is measured: the scenes know how they move. The same arguments give the same bytes.
"""

import argparse
from collections.abc import Iterator, Sequence
from typing import Any

import cv2
import numpy as np

from models.warp import resize_motion
from pipelines.sample_data import SCENES, Scene, draw_scene, scene_frames, scene_name
from storage.dataset_format import DatasetInfo, manifest_url, shard_url, write_dataset_json
from storage.digest import digest_bytes
from storage.manifest import MANIFEST_SCHEMA, write_rows
from storage.reasons import Status
from storage.shards import Sample, sample_key, write_shard

__all__ = ["FIRST_SEED", "main", "write_sample_dataset"]

FIRST_SEED = 100
"""Seeds below are those of the demo, the tests and the pictures in the documentation."""
SIZE_HW = (288, 512)
GRID_HW = (144, 256)
FRAMES_PER_SECOND = 2.0


def write_sample_dataset(out_url: str, *, seeds: Sequence[int], frames: int = 4) -> DatasetInfo:
    """Draw every kind of scene for each seed and write them as one dataset, split "train"."""
    rows: list[dict[str, Any]] = []

    def samples() -> Iterator[Sample]:
        for seed in seeds:
            # Speeds vary, for a photo does not say how fast its water is.
            speed = float(np.random.default_rng(seed).uniform(0.6, 1.5))
            for kind in SCENES:
                sample = _sample(draw_scene(kind, seed=seed, size=SIZE_HW, speed=speed), frames)
                rows.append(_row(sample))
                yield sample

    shard = write_shard(shard_url(out_url, "train-00000.tar"), samples())
    write_rows(manifest_url(out_url), rows, MANIFEST_SCHEMA)
    counts = {"attempted": len(rows), "ok": len(rows), "rejected": 0, "failed": 0}
    config = {"scenes": list(SCENES), "seeds": list(seeds), "frames": frames, "size": list(SIZE_HW)}
    info = DatasetInfo(config=config, counts=counts, shards=[shard], splits={"train": len(rows)})
    write_dataset_json(out_url, info)
    return info


def _sample(scene: Scene, frames: int) -> Sample:
    """A few frames of a scene, half a second apart, and its motion on the grid."""
    name = scene_name(scene.kind, scene.seed)
    digest = digest_bytes(name.encode())
    moving_hw = cv2.resize(
        scene.moving_HW.astype(np.float32), (GRID_HW[1], GRID_HW[0]), interpolation=cv2.INTER_AREA
    )
    return Sample(
        key=sample_key(digest, 0),
        frames=list(scene_frames(scene, frames, fps=FRAMES_PER_SECOND)),
        motion_2HW=resize_motion(scene.motion_2HW, GRID_HW).astype(np.float16),
        confidence_HW=np.ones(GRID_HW, np.float32),
        moving_HW=np.asarray(moving_hw) > 0.5,
        info={
            "source": name,
            "sha256": digest,
            "category": scene.kind,
            "split": "train",
            "method": "exact",
            "licence": "Apache-2.0",
            "frame_size": list(SIZE_HW),
            "motion_size": list(GRID_HW),
            "start_frame": 0,
            "fps": FRAMES_PER_SECOND,
        },
    )


def _row(sample: Sample) -> dict[str, Any]:
    """The sample's row of the manifest."""
    told = {name: sample.info[name] for name in ("source", "sha256", "category", "split", "licence")}
    share = float(np.mean(sample.moving_HW))
    return {**told, "key": sample.key, "status": Status.OK, "shard": "train-00000.tar", "moving_share": share}


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description="Write a dataset of sample scenes with their exact motion.")
    parser.add_argument("out", help="URL of the dataset's folder")
    parser.add_argument("seeds", nargs="?", type=int, default=8, help="how many seeds of each kind (8)")
    arguments = parser.parse_args()
    write_sample_dataset(arguments.out, seeds=range(FIRST_SEED, FIRST_SEED + arguments.seeds))


if __name__ == "__main__":
    main()
