"""Loops and the weights that made them: versions of a registry, pinned; older loops left alone when asked."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from animation_world import draw_photo, jpeg_bytes, write_photos, write_weights

from pipelines.animation_ledger import read_ledger
from pipelines.photo_animation import AnimationConfig, AnimationSummary, animate_photos
from storage.model_registry import EventKind, ModelRegistry
from storage.progress import Progress

Animate = Callable[..., AnimationSummary]


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_weights(tmp_path_factory.mktemp("weights"))


@pytest.fixture(scope="module")
def blind_weights(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_weights(tmp_path_factory.mktemp("blind"), moving_logit=-5.0)


@pytest.fixture
def library(tmp_path: Path) -> Path:
    write_photos(tmp_path / "photos", 3)
    return tmp_path / "photos"


@pytest.fixture
def animate(tmp_path: Path, weights: str) -> Animate:
    def run(photos: Path | str, **settings: object) -> AnimationSummary:
        config = AnimationConfig(**{"checkpoint": weights, "seconds": 0.4, "fps": 10.0, **settings})  # type: ignore[arg-type]
        return animate_photos(str(photos), str(tmp_path / "out"), config)

    return run


def results(out: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(out.glob("photo_*")) if path.is_file()}


def test_loops_tell_the_version_of_a_registry_s_weights(
    library: Path, tmp_path: Path, animate: Animate, weights: str, blind_weights: str
) -> None:
    registry = ModelRegistry(str(tmp_path / "registry"))
    seeing, blind = (
        registry.add({"motion": place}, {"motion": "x"}, {}).name for place in (weights, blind_weights)
    )
    registry.record(EventKind.PROMOTED, seeing, why="first")
    registry.found()
    animate(library, checkpoint=registry.url)
    rows = list(read_ledger(str(tmp_path / "out")))
    assert {row["model_version"] for row in rows} == {seeing}
    assert json.loads((tmp_path / "out" / "photo_0001.json").read_text())["model_version"] == seeing
    registry.record(EventKind.PROMOTED, blind, why="second")
    again = animate(library, checkpoint=registry.url)
    assert again.counts["rejected"] == 3
    assert {row["model_version"] for row in read_ledger(str(tmp_path / "out"))} == {blind}
    assert json.loads((tmp_path / "out" / "photo_0001.json").read_text())["model_version"] == blind


def test_a_promotion_in_the_middle_of_a_run_changes_nothing(
    library: Path, tmp_path: Path, weights: str, blind_weights: str
) -> None:
    registry = ModelRegistry(str(tmp_path / "registry"))
    seeing, blind = (
        registry.add({"motion": place}, {"motion": "x"}, {}).name for place in (weights, blind_weights)
    )
    registry.record(EventKind.PROMOTED, seeing, why="first")
    registry.found()
    seen: list[Progress] = []

    def promote(progress: Progress) -> None:
        if not seen:
            registry.record(EventKind.PROMOTED, blind, why="in between")
        seen.append(progress)

    config = AnimationConfig(checkpoint=registry.url, seconds=0.4, fps=10.0)
    summary = animate_photos(str(library), str(tmp_path / "out"), config, on_progress=promote)
    assert registry.current() == blind and len(seen) > 0 and summary.counts["ok"] == 3
    assert {row["model_version"] for row in read_ledger(str(tmp_path / "out"))} == {seeing}


def test_older_loops_are_left_alone_when_asked(
    library: Path, tmp_path: Path, animate: Animate, blind_weights: str
) -> None:
    animate(library)
    before = results(tmp_path / "out")
    digests = {row["photo"]: row["weights_digest"] for row in read_ledger(str(tmp_path / "out"))}
    (library / "new.jpg").write_bytes(jpeg_bytes(draw_photo(9)))
    os.utime(library / "photo_0000.jpg")  # listed as another one, though its bytes are the same
    summary = animate(library, checkpoint=blind_weights, keep_older=True)
    assert summary.skipped == 2 and summary.counts == {"attempted": 4, "ok": 3, "rejected": 1, "failed": 0}
    after = results(tmp_path / "out")
    assert {name: after[name] for name in before} == before
    rows = {row["photo"]: row["weights_digest"] for row in read_ledger(str(tmp_path / "out"))}
    assert {photo: rows[photo] for photo in digests} == digests and rows["new.jpg"] != rows["photo_0000.jpg"]
    assert animate(library, checkpoint=blind_weights).counts["rejected"] == 4
