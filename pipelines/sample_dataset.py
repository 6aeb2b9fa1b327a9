"""A dataset of sample scenes with their exact motion: what a training mixes in beside real clips.

    python -m pipelines.sample_dataset OUT [SEEDS]

No optical flow is measured: the scenes know how they move, and the still lifes among them do not move at all.
The same arguments give the same bytes.
"""

import argparse
from collections.abc import Iterator, Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from models.warp import resize_motion
from pipelines.sample_data import SCENES, Scene, draw_scene, scene_frames, scene_name
from pipelines.scenery.still_life import STILL_LIFES, draw_still_life
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
    """Draw every kind of scene and still life for each seed; write them as one dataset, split "train"."""
    rows: list[dict[str, Any]] = []

    def recorded(sample: Sample) -> Sample:
        rows.append(_row(sample))
        return sample

    def samples() -> Iterator[Sample]:
        for seed in seeds:
            # Speeds vary, for a photo does not say how fast its water is.
            speed = float(np.random.default_rng(seed).uniform(0.6, 1.5))
            for kind in SCENES:
                yield recorded(_scene_sample(draw_scene(kind, seed=seed, size=SIZE_HW, speed=speed), frames))
            for kind in STILL_LIFES:
                yield recorded(_still_sample(kind, seed))

    shard = write_shard(shard_url(out_url, "train-00000.tar"), samples())
    write_rows(manifest_url(out_url), rows, MANIFEST_SCHEMA)
    counts = {"attempted": len(rows), "ok": len(rows), "rejected": 0, "failed": 0}
    config = {
        "scenes": [*SCENES, *STILL_LIFES],
        "seeds": list(seeds),
        "frames": frames,
        "size": list(SIZE_HW),
    }
    info = DatasetInfo(config=config, counts=counts, shards=[shard], splits={"train": len(rows)})
    write_dataset_json(out_url, info)
    return info


def _scene_sample(scene: Scene, frames: int) -> Sample:
    """A few frames of a scene, half a second apart, and its motion on the grid."""
    moving_hw = cv2.resize(
        scene.moving_HW.astype(np.float32), (GRID_HW[1], GRID_HW[0]), interpolation=cv2.INTER_AREA
    )
    return _sample(
        scene_name(scene.kind, scene.seed),
        scene.kind,
        list(scene_frames(scene, frames, fps=FRAMES_PER_SECOND)),
        resize_motion(scene.motion_2HW, GRID_HW),
        np.asarray(moving_hw) > 0.5,
    )


def _still_sample(kind: str, seed: int) -> Sample:
    """One picture in which nothing moves."""
    return _sample(
        scene_name(kind, seed),
        "still",
        [draw_still_life(kind, SIZE_HW, seed)],
        np.zeros((2, *GRID_HW), np.float32),
        np.zeros(GRID_HW, bool),
    )


def _sample(
    name: str,
    category: str,
    frames: list[NDArray[np.uint8]],
    motion_2HW: NDArray[np.float32],
    moving_HW: NDArray[np.bool_],
) -> Sample:
    digest = digest_bytes(name.encode())
    return Sample(
        key=sample_key(digest, 0),
        frames=frames,
        motion_2HW=motion_2HW.astype(np.float16),
        confidence_HW=np.ones(GRID_HW, np.float32),
        moving_HW=moving_HW,
        info={
            "source": name,
            "sha256": digest,
            "category": category,
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
