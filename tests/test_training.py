"""Training under torchrun: its log and progress, its errors as ours, its end when cancelled."""

import contextlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from drawn_dataset import write_drawn_dataset

from flows.jobs import TrainingJob
from flows.training import TrainingError, _End, launch_training, torchrun_command
from models.checkpoint import load_motion_network
from models.training_log import read_metrics
from storage.errors import UsageError
from storage.progress import Progress


def job(tmp_path: Path, **values: object) -> TrainingJob:
    data = str(tmp_path / "data")
    config = {"config": "debug", **values}
    return TrainingJob(kind="motion", data=data, out=str(tmp_path / "out"), **config)  # type: ignore[arg-type]


def test_the_command_restarts_from_the_last_state(tmp_path: Path) -> None:
    command = torchrun_command(job(tmp_path, nproc=3))
    assert "--nproc-per-node=3" in command and "--max-restarts=3" in command and "--resume" in command
    assert command[command.index("--config") + 1] == "debug"


def end_of(lines: list[str]) -> _End:
    end = _End()
    for line in lines:
        end.look_at(line)
    return end


def test_what_the_trainer_refuses_is_bad_usage_here_too() -> None:
    report = [f"line {number} of the launcher's own words" for number in range(30)]
    log = ["starting", "error: there is no dataset at d; check the path", *report, "  exitcode  : 2 (pid: 7)"]
    with pytest.raises(UsageError, match="^there is no dataset at d; check the path$"):
        end_of(log).check(1)


def test_what_failed_on_the_way_is_no_bad_usage() -> None:
    with pytest.raises(TrainingError, match="^the losses are no longer finite$"):
        end_of(["error: the losses are no longer finite", "  exitcode  : 1 (pid: 7)"]).check(1)


def test_another_end_is_told_with_the_last_of_the_log() -> None:
    with pytest.raises(TrainingError, match=r"exit code 1.*one \| two \| three"):
        end_of(["zero", "one", "two", "three"]).check(1)
    end_of(["zero"]).check(0)


def write_config(tmp_path: Path, **values: object) -> str:
    path = tmp_path / "config.json"
    path.write_text(json.dumps({"run": "debug", **values}))
    return str(path)


def trainers(tmp_path: Path) -> list[psutil.Process]:
    """The processes of the training that writes below `tmp_path`: torchrun and its workers."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if f"{tmp_path}/out" in process.cmdline() and process.pid != os.getpid():
                found.append(process)
    return found


def rank_of(process: psutil.Process) -> str | None:
    with contextlib.suppress(psutil.Error):
        return process.environ().get("RANK")
    return None


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_a_worker_that_is_killed_costs_nothing_but_time(tmp_path: Path) -> None:
    """kill -9 for one of two: all go on from the last state; steps and curves are those of one run."""
    write_drawn_dataset(str(tmp_path / "data"), splits=("train", "val"))
    config = write_config(tmp_path, steps=60, save_every=15, validate_every=30)
    seen: list[int] = []

    def kill_once(progress: Progress) -> None:
        seen.append(progress.done)
        if progress.done == 25:
            if seen.count(25) == 1:
                (victim,) = [each for each in trainers(tmp_path) if rank_of(each) == "1"]
                victim.kill()

    summary = launch_training(job(tmp_path, nproc=2, config=config), on_progress=kill_once)
    assert seen.count(20) == 2, f"the training did not go on from step 15: {seen}"
    assert seen.count(15) == 1, f"the training began anew: {seen}"
    assert summary["steps"] == 60 and not summary["interrupted"]
    steps = [row["step"] for row in read_metrics(str(tmp_path / "out")) if row["part"] == "train"]
    assert steps == list(range(5, 61, 5))
    network = load_motion_network(str(tmp_path / "out" / "best.safetensors"))
    assert all(bool(values.isfinite().all()) for values in network.state_dict().values())
    assert trainers(tmp_path) == []


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_nothing_outlives_a_run_that_is_killed(tmp_path: Path) -> None:
    write_drawn_dataset(str(tmp_path / "data"), splits=("train", "val"))
    config = write_config(tmp_path, steps=100_000)
    code = (
        "import sys; from flows.jobs import TrainingJob; from flows.training import launch_training\n"
        "job = TrainingJob(kind='motion', data=sys.argv[1], out=sys.argv[2], config=sys.argv[3], nproc=2)\n"
        "launch_training(job, on_line=lambda line: print(line, flush=True))\n"
    )
    arguments = [str(tmp_path / "data"), str(tmp_path / "out"), config]
    command = [sys.executable, "-c", code, *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as watcher:
        assert watcher.stdout is not None
        assert any("step 5 of" in line for line in watcher.stdout)
        assert len(trainers(tmp_path)) >= 3  # torchrun and two workers, beside the watcher itself
        watcher.kill()
    end = time.monotonic() + 100
    while (left := trainers(tmp_path)) and time.monotonic() < end:
        time.sleep(0.5)
    assert left == []


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_two_processes_train_and_a_rerun_starts_anew_unless_told_to_resume(tmp_path: Path) -> None:
    write_drawn_dataset(str(tmp_path / "data"), splits=("train", "val"))
    lines: list[str] = []
    seen: list[Progress] = []
    for _ in range(2):
        summary = launch_training(job(tmp_path, nproc=2), on_line=lines.append, on_progress=seen.append)
        assert summary["steps"] == 30 and not summary["interrupted"]
    assert (tmp_path / "out" / "best.safetensors").is_file()
    assert [progress.done for progress in seen].count(30) == 2
    assert all(progress.total == 30 for progress in seen)
    assert any("step 30 of 30, train" in line for line in lines)


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_a_cancelled_training_stops_its_processes_and_keeps_its_state(tmp_path: Path) -> None:
    write_drawn_dataset(str(tmp_path / "data"), splits=("train", "val"))

    def cancel(line: str) -> None:
        if "step 5 of 30, train" in line:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        launch_training(job(tmp_path), on_line=cancel)
    assert trainers(tmp_path) == []
    assert (tmp_path / "out" / "state.safetensors").is_file()
    resumed = launch_training(job(tmp_path, resume=True))
    assert resumed["steps"] == 30
