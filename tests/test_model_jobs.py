"""A registry as a user has it: candidates, the gate with real evaluations, rollback, what is written down."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from animation_world import write_weights
from drawn_dataset import write_drawn_dataset
from noise_dataset import write_noise_dataset
from scene_dataset import write_scene_dataset

from flows import model_jobs
from flows.cli import run
from flows.settings import Settings
from models.animate import networks_digest
from models.checkpoint import find_checkpoint
from storage.digest import digest_bytes
from storage.errors import FormatError, UsageError
from storage.model_registry import ModelRegistry
from storage.objects import join_url, list_objects, read_bytes, write_bytes

FEW = Settings(values={"promotion": {"least_sources": 3}, "evaluate": {"examples": 1}})


@pytest.fixture(scope="module")
def rightwards(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Four sources, in all of which the lower half drifts to the right."""
    url = str(tmp_path_factory.mktemp("drawn"))
    write_drawn_dataset(url, sources=8, per_source=1, splits=("train", "val"))
    return url


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Networks that see everything fall, or drift to the right."""
    folder = tmp_path_factory.mktemp("weights")
    return {
        name: write_weights(folder / name, turn=turn) for name, turn in (("falling", 0.25), ("right", 0.0))
    }


@pytest.fixture
def registry(tmp_path: Path, weights: dict[str, str]) -> tuple[str, dict[str, str]]:
    """A registry in which everything falls for now, and the names of all its versions."""
    url = str(tmp_path / "registry")
    names = {name: model_jobs.add_model(url, place).summary["version"] for name, place in weights.items()}
    names["package"] = str(ModelRegistry(url).current())
    model_jobs.promote_model(url, names["falling"], FEW, force=True)
    return url, names


def objects(url: str) -> dict[str, str]:
    return {info.key: info.etag for info in list_objects(url)}


def test_a_registry_begins_with_the_package_s_weights(any_url: str) -> None:
    url = join_url(any_url, "registry")
    outcome = model_jobs.add_model(url, None)
    assert outcome.summary["state"] == "current" and outcome.summary["lineage"]["checkpoint"] == "package"
    version = ModelRegistry(url).version_url(outcome.summary["version"])
    assert networks_digest(version, "auto") == networks_digest(None, "auto")
    before = objects(url)
    assert model_jobs.add_model(url, None).summary == outcome.summary and objects(url) == before


def test_a_killed_founding_is_taken_up(tmp_path: Path) -> None:
    url = str(tmp_path / "registry")
    name = model_jobs.add_model(url, None).summary["version"]
    (tmp_path / "registry" / "registry.json").unlink()
    assert model_jobs.add_model(url, None).summary["version"] == name
    assert len(list(ModelRegistry(url).history())) == 1


def test_a_candidate_keeps_the_animator_it_lacks(registry: tuple[str, dict[str, str]]) -> None:
    url, names = registry
    version = ModelRegistry(url).version(names["right"])
    assert version.weights["motion"]["from"] == "candidate"
    assert version.weights["animator"]["from"] == f"version {names['package']}"
    copied = read_bytes(join_url(ModelRegistry(url).version_url(names["right"]), "animator.safetensors"))
    assert copied == read_bytes(str(find_checkpoint(None, "animator")))
    assert version.weights["animator"]["sha256"] == digest_bytes(copied)


def test_the_better_one_passes_and_the_worse_one_is_refused(
    registry: tuple[str, dict[str, str]], rightwards: str, capsys: pytest.CaptureFixture[str]
) -> None:
    url, names = registry
    better = model_jobs.promote_model(url, names["right"][:6], FEW, data=rightwards)
    assert better.summary["decision"] == "promoted" and better.summary["current"] == names["right"]
    figure = better.summary["verdict"]["figures"]["motion"]
    assert figure["difference"]["high"] < 0 and figure["difference"]["sources"] == 4
    worse = model_jobs.promote_model(url, names["falling"], FEW, data=rightwards)
    assert worse.summary["decision"] == "refused" and worse.summary["current"] == names["right"]
    assert worse.summary["why"].startswith("worse for sure: motion")
    told = list(ModelRegistry(url).history())[-1]
    assert told.why == worse.summary["why"] and told.details["figures"]["motion"]["difference"]["low"] > 0
    before = objects(url)
    again = model_jobs.promote_model(url, names["falling"], FEW, data=rightwards)
    assert again.summary == worse.summary and objects(url) == before, "nothing is measured or written again"
    assert run(["models", "list", "--registry", url, "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)
    states = {version["name"]: version["state"] for version in listed["versions"]}
    assert states == {names["package"]: "former", names["falling"]: "refused", names["right"]: "current"}
    assert [event["kind"] for event in listed["history"]] == ["promoted"] * 3 + ["refused"]


def test_a_rollback_restores_and_says_why(registry: tuple[str, dict[str, str]]) -> None:
    url, names = registry
    outcome = model_jobs.roll_back_model(url, why="it rains upwards")
    assert outcome.summary["current"] == names["package"] == ModelRegistry(url).current()
    assert list(ModelRegistry(url).history())[-1].why == "it rains upwards"
    with pytest.raises(UsageError, match="one current version only"):
        model_jobs.roll_back_model(url)
    assert model_jobs.roll_back_model(url, names["falling"]).summary["current"] == names["falling"]
    with pytest.raises(UsageError, match="never was current"):
        model_jobs.roll_back_model(url, names["right"])
    assert model_jobs.roll_back_model(url, names["falling"]).summary["decision"] == "already current"


def test_too_few_sources_are_a_refusal_without_an_evaluation(
    registry: tuple[str, dict[str, str]], rightwards: str, capsys: pytest.CaptureFixture[str]
) -> None:
    url, names = registry
    assert run(["models", "promote", names["right"], "--registry", url, "--data", rightwards]) == 1
    assert "4 sources are too few" in " ".join(capsys.readouterr().out.split())
    assert not [key for key in objects(url) if "evaluations" in key]
    assert ModelRegistry(url).states()[names["right"]] == "refused"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["promote", "feedbeef", "--registry", "REGISTRY", "--data", "x"], "no version 'feedbeef'"),
        (["promote", "CANDIDATE", "--registry", "REGISTRY"], "what shall it be judged on"),
        (["list", "--registry", "REGISTRY/none"], "no model registry"),
        (["add", "REGISTRY/none", "--registry", "REGISTRY"], "no checkpoint at"),
    ],
)
def test_mistakes_are_one_clear_line(
    registry: tuple[str, dict[str, str]],
    arguments: list[str],
    said: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    url, names = registry
    words = [word.replace("REGISTRY", url).replace("CANDIDATE", names["right"]) for word in arguments]
    assert run(["models", *words]) == 2
    assert said in capsys.readouterr().err


def test_what_is_no_checkpoint_does_not_become_a_version(
    registry: tuple[str, dict[str, str]], tmp_path: Path
) -> None:
    url, _ = registry
    write_bytes(str(tmp_path / "best.safetensors"), b"PK\x03\x04 a pickle")
    before = objects(url)
    with pytest.raises(FormatError, match="pickle"):
        model_jobs.add_model(url, str(tmp_path))
    assert objects(url) == before


def train_on_noise(folder: Path) -> str:
    """Weights of the debug training, made from noise; returns their folder."""
    from models.train import train

    write_noise_dataset(str(folder / "noise"))
    train("motion", "debug", str(folder / "noise"), str(folder / "noisy" / "motion"))
    return str(folder / "noisy")


@pytest.mark.slow
def test_weights_trained_on_noise_are_refused_and_good_ones_replace_them(tmp_path: Path) -> None:
    url, scenes = str(tmp_path / "registry"), str(tmp_path / "scenes")
    write_scene_dataset(scenes)
    added = model_jobs.add_model(url, train_on_noise(tmp_path))
    noisy, package = added.summary["version"], str(ModelRegistry(url).current())
    lineage: dict[str, Any] = added.summary["lineage"]["motion"]
    assert lineage["datasets"][0]["url"].endswith("noise") and lineage["datasets"][0]["clips"] == 6
    assert lineage["training"]["steps"] == 30 and lineage["code"]["version"]
    refused = model_jobs.promote_model(url, noisy, Settings(), data=scenes)
    assert refused.summary["decision"] == "refused" and "worse for sure: motion" in refused.summary["why"]
    assert ModelRegistry(url).current() == package

    model_jobs.promote_model(url, noisy, Settings(), force=True)
    promoted = model_jobs.promote_model(url, package, Settings(), data=scenes)
    assert promoted.summary["decision"] == "promoted" and promoted.summary["current"] == package
    assert model_jobs.roll_back_model(url).summary["current"] == noisy
    assert model_jobs.roll_back_model(url).summary["current"] == package
