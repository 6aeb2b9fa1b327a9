"""Trainings on drawn datasets: they learn, they survive being killed, and two processes make one training."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from drawn_dataset import write_drawn_dataset
from train_in_ranks import train_plain

from models.checkpoint import load_animator, load_checkpoint, load_motion_network
from models.configs import TrainConfig, debug, load_config, override
from models.optimisation import learning_rate_factor, network_optimizer
from models.train import main, train
from models.training_log import read_metrics
from storage.errors import StillstreamError, UsageError
from storage.objects import exists, list_objects, read_bytes, write_bytes
from storage.progress import Progress

SPLITS = ("train", "train", "val")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> str:
    url = str(tmp_path_factory.mktemp("drawn"))
    write_drawn_dataset(url, sources=9, per_source=2, splits=SPLITS)
    return url


# The colour of the drawn clips tells where they drift, so neither it nor left and right are changed.
PLAIN = {"mirror": 0.0, "colour": 0.0, "grey": 0.0}


def config(**changes: Any) -> TrainConfig:
    return override(debug("motion"), {"tensorboard": False, "augment": PLAIN, **changes}, where="test")


def losses(out: str, part: str = "train") -> dict[int, float]:
    name = "loss" if part == "train" else "score"
    return {row["step"]: row[name] for row in read_metrics(out) if row["part"] == part}


def approx(values: dict[int, float], rel: float) -> Any:
    return pytest.approx(values, rel=rel)


@pytest.fixture(scope="module")
def undisturbed(data: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    out = str(tmp_path_factory.mktemp("undisturbed"))
    summary = train("motion", config(steps=60, learning_rate=0.01), data, out)
    assert summary.steps == 60 and not summary.interrupted
    return out


def test_training_learns_what_the_clips_show(undisturbed: str) -> None:
    curve = losses(undisturbed)
    assert curve[60] < 0.75 * curve[5]
    validation = [row for row in read_metrics(undisturbed) if row["part"] == "validation"]
    assert validation[-1]["score"] < 1.5, "no motion at all, or chance, gives 3"
    best = load_checkpoint(f"{undisturbed}/best.safetensors")
    assert best.metadata["metrics"]["score"] == min(row["score"] for row in validation)
    assert load_motion_network(undisturbed)(torch.rand(1, 3, 64, 96)).log_speed_B1HW.shape == (1, 1, 16, 24)
    training = json.loads(read_bytes(f"{undisturbed}/training.json"))
    assert training["summary"]["steps"] == 60 and training["config"]["learning_rate"] == 0.01


def wait_for(path: Path, process: subprocess.Popen[str], seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not path.exists():
        assert process.poll() is None and time.monotonic() < deadline, f"{path} did not appear"
        time.sleep(0.005)


def test_killed_training_follows_the_undisturbed_one(data: str, undisturbed: str, tmp_path: Path) -> None:
    """kill -9 some steps after the first state, wherever that is; then resume in another process."""
    overrides = {"run": "debug", "steps": 60, "learning_rate": 0.01, "tensorboard": False, "augment": PLAIN}
    file = tmp_path / "config.json"
    file.write_text(json.dumps(overrides))
    out = tmp_path / "out"
    command = ["-m", "models.train", "motion", "--config", str(file), "--data", data, "--out", str(out)]
    with subprocess.Popen([sys.executable, *command], text=True, stderr=subprocess.DEVNULL) as process:
        wait_for(out / "state.safetensors", process)
        time.sleep(0.1)
        process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    saved = load_checkpoint(str(out / "state.safetensors")).metadata["step"]
    assert 0 < saved < 60
    train("motion", str(file), data, str(out), resume=True)
    assert losses(str(out)) == approx(losses(undisturbed), 1e-4)
    assert losses(str(out), "validation") == approx(losses(undisturbed, "validation"), 1e-3)


def test_sigterm_saves_and_a_resumed_run_goes_on(data: str, undisturbed: str, tmp_path: Path) -> None:
    """Stopped twice, at steps that are neither logged nor saved otherwise."""
    out = str(tmp_path)
    chosen = config(steps=60, learning_rate=0.01)
    for step in (7, 32):
        summary = train("motion", chosen, data, out, resume=True, on_progress=stop_at(step))
        assert summary.interrupted and summary.steps == step
    assert train("motion", chosen, data, out, resume=True).steps == 60
    assert losses(out) == approx(losses(undisturbed), 1e-4)
    before = read_bytes(f"{out}/last.safetensors")
    assert train("motion", chosen, data, out, resume=True).steps == 60  # nothing is left to do
    assert read_bytes(f"{out}/last.safetensors") == before


@pytest.mark.parametrize("kind", ["motion", "animator"])
def test_adversary_learns_along_and_is_remembered(data: str, tmp_path: Path, kind: str) -> None:
    changes = (
        {"adversary": {"weight": 0.1, "width": 8}} if kind == "motion" else {"losses": {"adversarial": 0.1}}
    )
    common = {"steps": 10, "save_every": 5, "log_every": 1, "validate_every": 10, "tensorboard": False}
    chosen = override(debug("motion" if kind == "motion" else "animator"), changes | common, where="test")
    whole, resumed = str(tmp_path / "whole"), str(tmp_path / "resumed")
    train(kind, chosen, data, whole)
    rows = [row for row in read_metrics(whole) if row["part"] == "train"]
    # The animator starts as the colour splat, which these clips leave nothing to tell apart by.
    assert kind == "animator" or rows[-1]["adversary"] < rows[0]["adversary"]
    train(kind, chosen, data, resumed, on_progress=stop_at(4))
    train(kind, chosen, data, resumed, resume=True)
    for name in ("loss", "adversary", "adversarial"):
        found = [row[name] for row in read_metrics(resumed) if row["part"] == "train"]
        assert found == pytest.approx([row[name] for row in rows], rel=1e-3, abs=1e-5)


def stop_at(step: int) -> Any:
    """A progress callback that sends SIGTERM to this process after a step."""

    def on_progress(progress: Progress) -> None:
        if progress.done == step:
            os.kill(os.getpid(), signal.SIGTERM)

    return on_progress


def run_ranks(data: str, out: str, steps: int) -> None:
    with start_ranks(data, out, steps) as process:
        try:
            _, errors = process.communicate(timeout=200)
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)
            raise
    assert process.returncode == 0, errors[-2000:]


def start_ranks(data: str, out: str, steps: int) -> subprocess.Popen[str]:
    """Two processes under torchrun, in a process group of their own."""
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    script = str(Path(__file__).with_name("train_in_ranks.py"))
    return subprocess.Popen(
        [*torchrun, script, data, out, str(steps)],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        start_new_session=True,
        text=True,
        stderr=subprocess.PIPE,
    )


def test_two_processes_make_the_training_of_one(data: str, tmp_path: Path) -> None:
    alone, ranks = str(tmp_path / "alone"), str(tmp_path / "ranks")
    train_plain(data, alone, 8)
    run_ranks(data, ranks, 8)
    assert losses(ranks) == approx(losses(alone), 1e-3)
    one, other = (load_checkpoint(f"{out}/last.safetensors").tensors for out in (alone, ranks))
    assert all(torch.allclose(one[name], other[name], atol=2e-3) for name in one)
    moved = max(
        float((one[name] - start).abs().max()) for name, start in first_weights(data, tmp_path).items()
    )
    assert moved > 4e-3, "the comparison means nothing when training hardly moves the weights"


def first_weights(data: str, tmp_path: Path) -> dict[str, torch.Tensor]:
    """The weights after a single step of a rate that is still warming up."""
    out = str(tmp_path / "first")
    train_plain(data, out, 1)
    return load_checkpoint(f"{out}/last.safetensors").tensors


@pytest.mark.slow
def test_resume_with_another_number_of_processes(data: str, tmp_path: Path) -> None:
    """Six steps in two processes, then alone to step twelve, as if it had been alone all the time."""
    alone, mixed = str(tmp_path / "alone"), str(tmp_path / "mixed")
    train_plain(data, alone, 12)
    stopped = str(tmp_path / "stopped")
    run_ranks(data, stopped, 12)
    assert losses(stopped) == approx(losses(alone), 2e-3)
    # The schedule depends on the number of steps, so the first half is a whole run that is cut after step 4.
    write_bytes(f"{mixed}/metrics.jsonl", read_bytes(f"{stopped}/metrics.jsonl"))
    with_two = subprocess_until_state(data, mixed, step=4)
    assert with_two == 4
    train_plain(data, mixed, 12, resume=True)
    assert losses(mixed) == approx(losses(alone), 2e-3)


def subprocess_until_state(data: str, out: str, *, step: int) -> int:
    """Two processes, killed with -9 once they saved a state; the step of that state."""
    state = Path(out) / "state.safetensors"
    with start_ranks(data, out, 12) as process:
        try:
            wait_for(state, process)
        finally:
            os.killpg(process.pid, signal.SIGKILL)
    found = load_checkpoint(str(state)).metadata["step"]
    assert found >= step
    return int(found)


def test_animator_learns_from_target_and_from_predicted_motion(
    data: str, undisturbed: str, tmp_path: Path
) -> None:
    first, then = str(tmp_path / "first"), str(tmp_path / "then")
    chosen = override(
        debug("animator"), {"steps": 8, "validate_every": 4, "tensorboard": False}, where="test"
    )
    summary = train("animator", chosen, data, first)
    assert summary.steps == 8 and summary.metrics["psnr_moving"] > 20
    assert load_animator(first).config == chosen.network
    crop = {"predicted": 0.5, "motion_checkpoint": undisturbed}
    tuned = override(chosen, {"augment": crop, "start_from": f"{first}/last.safetensors"}, where="test")
    assert train("animator", tuned, data, then).metrics["score"] < 1.1 * summary.metrics["score"]


def test_damaged_shard_is_skipped_and_counted(tmp_path: Path) -> None:
    data = str(tmp_path / "data")
    write_drawn_dataset(data, sources=6, per_source=2)
    place = next(iter(list_objects(data, suffixes={".tar"}))).url
    write_bytes(place, read_bytes(place)[: 100_000 if len(read_bytes(place)) > 100_000 else 5_000])
    summary = train("motion", config(steps=8), data, str(tmp_path / "out"))
    assert summary.steps == 8 and 1 <= summary.skipped_samples <= 4


def test_early_stopping_keeps_the_best(data: str, tmp_path: Path) -> None:
    """A rate of next to nothing: after the first validation nothing gets better."""
    frozen = config(steps=500, learning_rate=1e-12, validate_every=2, patience=2, average_decay=0.0)
    summary = train("motion", frozen, data, str(tmp_path))
    assert summary.steps < 500
    scores = losses(str(tmp_path), "validation")
    assert summary.best_metric == min(scores.values())
    assert train("motion", frozen, data, str(tmp_path), resume=True).steps == summary.steps


@pytest.mark.parametrize("store", ["memory", "s3"])
def test_training_from_and_into_an_object_store(
    data: str, store: str, request: pytest.FixtureRequest
) -> None:
    place = "memory://trainings" if store == "memory" else request.getfixturevalue("s3_url")
    for found in list_objects(data):
        write_bytes(f"{place}/data/{found.key}", read_bytes(found.url))
    out = f"{place}/run"
    stopped = train("motion", config(steps=4, tensorboard=True), f"{place}/data", out, on_progress=stop_at(2))
    assert stopped.interrupted
    summary = train("motion", config(steps=4, tensorboard=True), f"{place}/data", out, resume=True)
    assert summary.steps == 4
    assert summary.checkpoint_url == f"{out}/best.safetensors" and exists(summary.checkpoint_url)
    names = {found.key for found in list_objects(out)}
    assert {"last.safetensors", "state.safetensors", "metrics.jsonl", "training.json"} <= names
    assert any(name.startswith("tensorboard/") for name in names)


@pytest.mark.gpu
@pytest.mark.parametrize("compiled", [False, True])
def test_training_on_a_gpu(data: str, undisturbed: str, tmp_path: Path, compiled: bool) -> None:
    """bfloat16 rounds, so the curve is only near that of the CPU."""
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    chosen = config(steps=60, learning_rate=0.01, device="cuda", compile=compiled)
    train("motion", chosen, data, str(tmp_path))
    curve, expected = losses(str(tmp_path)), losses(undisturbed)
    assert curve[5] == pytest.approx(expected[5], rel=0.05)
    assert curve[60] < 0.75 * curve[5]


def test_other_samples_are_refused_on_resume(data: str, tmp_path: Path) -> None:
    other = str(tmp_path / "other")
    write_drawn_dataset(other, sources=3)
    out = str(tmp_path / "out")
    train("motion", config(steps=2), data, out)
    with pytest.raises(UsageError, match="trained on other samples; name the same --data"):
        train("motion", config(steps=4), other, out, resume=True)


def test_loss_that_explodes_ends_the_training_with_a_cure(data: str, tmp_path: Path) -> None:
    with pytest.raises(StillstreamError, match="no longer finite near step .*lower learning_rate"):
        train("motion", config(learning_rate=1e30, clip_norm=1e30, warmup_steps=0), data, str(tmp_path))
    assert not exists(str(tmp_path / "last.safetensors"))


def test_starting_from_a_checkpoint_starts_with_its_weights(
    data: str, undisturbed: str, tmp_path: Path
) -> None:
    start = f"{undisturbed}/last.safetensors"
    train("motion", config(steps=1, learning_rate=1e-12, start_from=start), data, str(tmp_path))
    before, after = load_checkpoint(start).tensors, load_checkpoint(f"{tmp_path}/last.safetensors").tensors
    assert all(torch.allclose(before[name], after[name]) for name in before if name.endswith("weight"))


def test_rates_warm_up_and_fall_and_spare_the_encoder() -> None:
    chosen = dataclasses.replace(
        debug("motion"), steps=100, warmup_steps=10, final_rate=0.1, encoder_rate=0.25
    )
    factors = [learning_rate_factor(step, chosen) for step in range(101)]
    assert factors[0] == 0.1 and factors[9] == 1.0 == max(factors)
    assert factors[100] == pytest.approx(0.1) and factors[9:] == sorted(factors[9:], reverse=True)
    network = torch.nn.ModuleDict({"backbone": torch.nn.Conv2d(1, 1, 1), "head": torch.nn.Conv2d(1, 1, 1)})
    network["head"].bias.requires_grad_(False)
    groups = network_optimizer(network, chosen).param_groups
    found = [(group["base_rate"] / chosen.learning_rate, group["weight_decay"] > 0) for group in groups]
    assert sorted(found) == [(0.25, False), (0.25, True), (1.0, True)]


def test_configuration_files_say_what_is_wrong(tmp_path: Path) -> None:
    toml = tmp_path / "run.toml"
    toml.write_text('run = "small"\nsteps = 12\nlearning_rate = 1\n[augment]\nshapes_HW = [[32, 64]]\n')
    chosen = load_config("motion", str(toml))
    assert (chosen.steps, chosen.learning_rate, chosen.augment.shapes_HW) == (12, 1.0, ((32, 64),))
    for text, complaint in {
        '{"stepps": 3}': "stepps is not known; expected one of .*steps",
        '{"augment": {"mirrors": 0}}': "augment: mirrors is not known",
        '{"augment": 3}': "augment must be a table",
        '{"steps": "many"}': "steps must be of type int, got 'many'",
        '{"steps": 0}': "steps must be at least 1, got 0",
        '{"run": "huge"}': "run must be one of debug, small, default, paper, got 'huge'",
        "{": "not valid JSON",
        "[1]": "must hold a table",
    }.items():
        file = tmp_path / "run.json"
        file.write_text(text)
        with pytest.raises(UsageError, match=complaint):
            load_config("motion", str(file))
    with pytest.raises(UsageError, match="expected motion or animator, got 'flow'"):
        load_config("flow", "small")
    with pytest.raises(UsageError, match="--config must be one of debug, small, default, paper, or a .json"):
        load_config("motion", "smal")


def test_command_line_reports_one_line_and_exit_status(data: str, tmp_path: Path, capsys: Any) -> None:
    out = str(tmp_path / "out")
    assert main(["motion", "--config", "debug", "--data", str(tmp_path / "none"), "--out", out]) == 1
    assert "error: " in capsys.readouterr().err
    assert main(["motion", "--config", "nothing", "--data", data, "--out", out]) == 2
    file = tmp_path / "run.json"
    file.write_text('{"run": "debug", "steps": 2, "tensorboard": false}')
    assert main(["motion", "--config", str(file), "--data", data, "--out", out, "--validation", data]) == 0
    assert exists(f"{out}/best.safetensors")
