"""Training under torchrun: its log and progress, its errors as ours, its end when cancelled."""

from pathlib import Path

import pytest
from drawn_dataset import write_drawn_dataset

from flows.jobs import TrainingJob
from flows.training import TrainingError, _check, launch_training, torchrun_command
from storage.errors import UsageError
from storage.progress import Progress


def job(tmp_path: Path, **values: object) -> TrainingJob:
    data = str(tmp_path / "data")
    return TrainingJob(kind="motion", data=data, out=str(tmp_path / "out"), config="debug", **values)  # type: ignore[arg-type]


def test_the_command_restarts_from_the_last_state(tmp_path: Path) -> None:
    command = torchrun_command(job(tmp_path, nproc=3))
    assert "--nproc-per-node=3" in command and "--max-restarts=3" in command and "--resume" in command
    assert command[command.index("--config") + 1] == "debug"


def test_what_the_trainer_refuses_is_bad_usage_here_too() -> None:
    log = ["starting", "error: there is no dataset at d; check the path", "the launcher's own words"]
    with pytest.raises(UsageError, match="^there is no dataset at d; check the path$"):
        _check(2, log)


def test_another_end_is_told_with_the_last_of_the_log() -> None:
    with pytest.raises(TrainingError, match=r"exit code 1.*one \| two \| three"):
        _check(1, ["zero", "one", "two", "three"])
    _check(0, [])


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_two_processes_train_and_a_rerun_starts_anew_unless_told_to_resume(tmp_path: Path) -> None:
    write_drawn_dataset(str(tmp_path / "data"), splits=("train", "val"))
    lines: list[str] = []
    seen: list[Progress] = []
    for _ in range(2):
        summary = launch_training(job(tmp_path, nproc=2), 30, on_line=lines.append, on_progress=seen.append)
        assert summary["steps"] == 30 and not summary["interrupted"]
    assert (tmp_path / "out" / "best.safetensors").is_file()
    assert [progress.done for progress in seen].count(30) == 2
    assert all(progress.total == 30 for progress in seen)
    assert any("step 30, train" in line for line in lines)


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_a_cancelled_training_stops_its_processes_and_keeps_its_state(tmp_path: Path) -> None:
    write_drawn_dataset(str(tmp_path / "data"), splits=("train", "val"))

    def cancel(line: str) -> None:
        if "step 5, train" in line:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        launch_training(job(tmp_path), 30, on_line=cancel)
    assert (tmp_path / "out" / "state.safetensors").is_file()
    resumed = launch_training(job(tmp_path, resume=True), 30)
    assert resumed["steps"] == 30
