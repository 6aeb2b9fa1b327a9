"""Whole nights: from links to a gallery, with the gate in between; a second night has nothing to do."""

from __future__ import annotations

import gc
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from browser import file_server
from drawn_dataset import write_drawn_dataset
from scene_dataset import write_scene_dataset

from flows.nightly import NightlyConfig, new_clips, undecided
from pipelines.animation_ledger import read_ledger
from pipelines.sample_data import write_sample_photos, write_sample_videos
from storage.errors import UsageError
from storage.model_registry import EventKind, ModelRegistry
from storage.objects import join_url, write_bytes

# Prefect's client leaves its sockets to the garbage collector, which then warns.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")

SETTINGS = """
[crawl.fetch]
allow_hosts = ["{host}"]
delay = 0.0

[promotion]
data = "{root}/scenes"
least_sources = 4

[evaluate]
examples = 1

[animate]
seconds = 0.5
fps = 10
renderer = "splat"

[nightly]
sources = "{root}/links.txt"
videos = "{root}/crawled"
photos = "{root}/photos"
dataset = "{root}/dataset"
weights = "{root}/trainings"
registry = "{root}/models"
loops = "{root}/loops"
new_clips = 2
motion_config = "debug"
animator_config = "none"
"""
# What a person says moves, so that a loop comes of it whatever the weights think.
HINTS = {
    "arrows": [{"from": [0.5, 0.6], "to": [0.5, 0.8], "seconds": 0.5}],
    "moving": [[[0.2, 0.5], [0.8, 0.5], [0.8, 0.95], [0.2, 0.95]]],
}


@pytest.fixture(autouse=True)
def _collect_sockets() -> Iterator[None]:
    yield
    gc.collect()


def version_of(registry: str, text: str, clips: int | None, dataset: str) -> str:
    """A version that was trained on so many clips of a dataset (None: of which nothing is known)."""
    place = join_url(registry, "incoming", text)
    write_bytes(place, text.encode())
    told = {} if clips is None else {"datasets": [{"url": dataset, "clips": clips}]}
    return ModelRegistry(registry).add({"motion": place}, {"motion": "x"}, {"motion": told}).name


def test_clips_are_counted_since_the_last_training(tmp_path: Path) -> None:
    """Nights that each bring too few clips add up, whatever became of the weights in between."""
    dataset, registry = str(tmp_path / "dataset"), str(tmp_path / "models")
    write_drawn_dataset(dataset, sources=5, per_source=2)
    nightly = NightlyConfig(dataset=dataset, registry=registry)
    assert new_clips(nightly) == 10
    version_of(registry, "by hand", None, dataset)
    version_of(registry, "of others", 3, "elsewhere")
    assert new_clips(nightly) == 10
    refused = version_of(registry, "trained", 4, dataset)
    ModelRegistry(registry).record(EventKind.REFUSED, refused, why="worse")
    assert new_clips(nightly) == 6


def test_what_the_gate_has_seen_is_not_shown_to_it_again(tmp_path: Path) -> None:
    registry = str(tmp_path / "models")
    seen, new = (version_of(registry, text, 1, "d") for text in ("seen", "new"))
    ModelRegistry(registry).record(EventKind.REFUSED, seen, why="worse")
    assert undecided(registry) == [new]


@pytest.mark.parametrize("wrong", [{"new_clips": -1}, {"nproc": 0}])
def test_wrong_settings_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        NightlyConfig(**wrong)


def contents(root: Path) -> dict[str, tuple[int, int]]:
    """Every file that a night may write, with what changes when it is written again."""
    folders = ("crawled", "dataset", "trainings", "models", "loops")
    files = (path for folder in folders for path in (root / folder).rglob("*") if path.is_file())
    return {str(path.relative_to(root)): (path.stat().st_mtime_ns, path.stat().st_size) for path in files}


def runs_since(begin: Any) -> dict[str, str]:
    """Flow → the state its run ended in, of all runs since then."""
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterExpectedStartTime

    later = FlowRunFilter(expected_start_time=FlowRunFilterExpectedStartTime(after_=begin))
    with get_client(sync_client=True) as client:
        found = client.read_flow_runs(flow_run_filter=later)
        return {client.read_flow(run.flow_id).name: run.state.name for run in found}


@pytest.mark.slow
@pytest.mark.timeout(2400)
def test_two_nights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import datetime

    from prefect.artifacts import Artifact
    from prefect.testing.utilities import prefect_test_harness

    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    write_scene_dataset(str(tmp_path / "scenes"), seeds=2)
    site, photos = tmp_path / "site", tmp_path / "photos"
    made = write_sample_videos(str(site), kinds=["waterfall", "river"], seeds=[0], size=(144, 256), frames=66)
    write_sample_photos(str(photos), kinds=["river"], seeds=[1], size=(96, 160))
    (photos / "river_001.hints.json").write_text(json.dumps(HINTS))
    with file_server(site) as address, prefect_test_harness(server_startup_timeout=180):
        from flows.nightly import nightly_flow

        links = [f"{address}/{Path(video).name}" for video in made] + [f"{address}/gone.mp4"]
        (tmp_path / "links.txt").write_text("\n".join(links))
        settings = tmp_path / "stillstream.toml"
        settings.write_text(SETTINGS.format(root=tmp_path, host=address.removeprefix("http://")))

        nightly_flow(str(settings))
        registry = ModelRegistry(str(tmp_path / "models"))
        assert sorted(registry.states().values()) == ["current", "refused"]
        package = str(registry.current())
        (refusal,) = [event for event in registry.history() if event.kind == EventKind.REFUSED]
        assert "for sure: motion" in refusal.why and refusal.before == package
        candidate = registry.version(refusal.version)
        dataset = candidate.lineage["motion"]["datasets"][0]
        assert dataset["clips"] >= 2 and dataset["url"] == str(tmp_path / "dataset")
        decision = Artifact.get("promotion-decision")
        assert decision is not None and refusal.why in str(decision.data)
        (row,) = read_ledger(str(tmp_path / "loops"))
        assert row["status"] == "ok" and row["model_version"] == package
        assert (tmp_path / "loops" / "index.html").is_file()

        before, begin = contents(tmp_path), datetime.datetime.now(datetime.UTC)
        nightly_flow(str(settings))
        changed = {name for name, is_now in contents(tmp_path).items() if before.get(name) != is_now}
        # The link that is gone is asked for again, so the crawl's manifest is written again; nothing else is.
        assert changed <= {"crawled/crawl.parquet", "dataset/report/index.html"}, changed
        ran = runs_since(begin)
        assert ran.keys() == {"nightly", "crawl-videos", "build-dataset", "animate-photos", "publish-gallery"}
        assert ran["nightly"] == ran["crawl-videos"] == "CompletedWithFailedItems", "a link leads nowhere"
        assert ran["animate-photos"] == "Completed"
