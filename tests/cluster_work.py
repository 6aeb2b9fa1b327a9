"""The work that every engine must do alike, all on S3: a dataset of good and bad videos, loops of photos."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import animation_world
import moving_pictures as pictures
import numpy as np

from pipelines.motion_dataset import DatasetSummary, build_dataset
from pipelines.photo_animation import AnimationConfig, AnimationSummary, animate_photos
from pipelines.runner import RunnerConfig
from storage.dataset_format import manifest_url, read_dataset_json
from storage.errors import UsageError
from storage.manifest import read_rows
from storage.objects import join_url, list_objects, read_bytes, write_bytes
from storage.verify import verify_dataset

__all__ = ["PHOTOS", "Work", "when"]

PHOTOS = 5
WAIT_SECONDS = 400.0
TIMES = {"seconds_spent", "stage_seconds"}


class Work:
    """Videos, photos and weights in a folder of the bucket, and what becomes of them."""

    def __init__(self, url: str, folder: Path) -> None:
        self.url = url
        self.videos, self.photos = join_url(url, "videos"), join_url(url, "photos")
        self.weights = join_url(url, "weights", "best.safetensors")
        _draw_videos(folder / "videos")
        for path in (folder / "videos").iterdir():
            write_bytes(join_url(self.videos, path.name), path.read_bytes())
        animation_world.write_photos(folder / "photos", PHOTOS)
        for path in (folder / "photos").iterdir():
            write_bytes(join_url(self.photos, path.name), path.read_bytes())
        write_bytes(join_url(self.photos, "broken.jpg"), b"no photo")
        write_bytes(self.weights, Path(animation_world.write_weights(folder)).read_bytes())

    def out(self, name: str) -> str:
        return join_url(self.url, "out", name)

    def dataset(self, name: str, runner: RunnerConfig) -> DatasetSummary:
        """Build a dataset."""
        return build_dataset(self.videos, self.out(name), runner=runner)

    def loops(self, name: str, runner: RunnerConfig) -> AnimationSummary:
        """Animate the photos."""
        config = AnimationConfig(checkpoint=self.weights, seconds=0.4, fps=10.0)
        return animate_photos(self.photos, self.out(name), config, runner)

    def dataset_facts(self, name: str) -> dict[str, Any]:
        """All of a dataset that must not depend on who built it."""
        out = self.out(name)
        assert verify_dataset(out) == []
        info = read_dataset_json(out)
        return {
            "files": self.keys(name),
            "shards": {shard.name: shard.sha256 for shard in info.shards},
            "counts": info.counts,
            "rows": [_timeless(row) for row in read_rows(manifest_url(out))],
        }

    def loop_facts(self, name: str) -> dict[str, Any]:
        """All of a folder of loops that must not depend on who rendered them."""
        out = self.out(name)
        ledger = [_timeless(row) for row in read_rows(join_url(out, "ledger.parquet"))]
        names = [row["photo"] for row in ledger]
        assert len(set(names)) == len(names) == PHOTOS + 1
        facts: dict[str, Any] = {"ledger": ledger}
        for key in self.keys(name):
            data = read_bytes(join_url(out, key))
            if key.endswith(".json"):
                facts[key] = _timeless(json.loads(data))
            elif not key.endswith(".parquet"):
                facts[key] = data
        return facts

    def keys(self, name: str) -> list[str]:
        with contextlib.suppress(UsageError):  # nothing there yet
            return sorted(info.key for info in list_objects(self.out(name)))
        return []


@contextlib.contextmanager
def when(holds: Callable[[], bool], act: Callable[[], None]) -> Any:
    """While the body runs, wait for something to hold and then act, once."""
    over = threading.Event()

    def watch() -> None:
        deadline = time.monotonic() + WAIT_SECONDS
        while not over.wait(0.02) and time.monotonic() < deadline:
            if holds():
                act()
                return

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield
    finally:
        over.set()
        watcher.join()


def _draw_videos(folder: Path) -> None:
    """Two that become samples, one that stands still and three that are no videos."""
    folder.mkdir()
    pictures.write_clip(folder / "good_a.mp4", pictures.flowing(60, seed=1))
    pictures.write_clip(folder / "good_b.mp4", pictures.flowing(60, seed=2, velocity=(-1.4, 0.6)))
    pictures.write_clip(folder / "still.mp4", pictures.flowing(1, seed=9) * 60)
    (folder / "empty.mp4").write_bytes(b"")
    (folder / "page.mp4").write_bytes(b"<!doctype html><title>404</title>" * 40)
    (folder / "random.mp4").write_bytes(np.random.default_rng(6).bytes(50_000))


def _timeless(value: Any) -> Any:
    """Rows and sidecars without when and how long; the rest is the same whoever did the work."""
    if isinstance(value, dict):
        kept = (name for name in value if name not in TIMES and not str(name).endswith("_at"))
        return {name: _timeless(value[name]) for name in kept}
    return value
