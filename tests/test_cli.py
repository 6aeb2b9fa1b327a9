"""The command line as a person meets it: its surface, its one clear line, its exit codes, its JSON."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from animation_world import draw_photo, jpeg_bytes, write_weights
from drawn_dataset import write_drawn_dataset

from flows.cli import run
from flows.console import StageProgress
from storage.progress import Progress

COMMANDS = ("demo", "crawl", "dataset", "train", "evaluate", "animate", "gallery")
# The contract: what scripts of others rely on.
SURFACE = {
    "demo": "--out --videos --photos",
    "crawl": "SOURCES --out --allow-host --licences --depth --max-pages --workers --strict --json",
    "dataset": "VIDEOS --out --config --runner --workers --strict --json --verify --rescore",
    "train": "{motion,animator} --data --out --config --nproc --resume",
    "evaluate": "--data --checkpoint --out",
    "animate": (
        "PHOTOS --out --checkpoint --format mp4|webm|gif|webp|png --seconds --fps --speed --max-side "
        "--renderer auto|deep|splat --save-motion --workers --overwrite --strict --json --hints --mask "
        "--freeze --repeat --watch --metadata"
    ),
    "gallery": "URL",
}
PROGRAM = str(Path(sys.executable).with_name("stillstream"))


def call(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the installed command as a process of its own, on a wide terminal."""
    environment = {**os.environ, "COLUMNS": "200", "NO_COLOR": "1"}
    return subprocess.run([PROGRAM, *arguments], capture_output=True, text=True, env=environment, check=False)


def one_line(text: str) -> str:
    """The only line of an error message."""
    lines = text.strip().splitlines()
    assert len(lines) == 1, text
    assert lines[0].startswith("stillstream: ") and "Traceback" not in text
    return lines[0]


@pytest.fixture
def weights(tmp_path: Path) -> str:
    folder = tmp_path / "weights"
    folder.mkdir()
    return write_weights(folder)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Two good photos and a broken one."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for seed in (1, 2):
        (folder / f"good {seed}.jpg").write_bytes(jpeg_bytes(draw_photo(seed)))
    (folder / "broken.jpg").write_bytes(b"this is no picture")
    return folder


@pytest.mark.parametrize("command", COMMANDS)
def test_help_shows_the_surface_and_an_example(command: str) -> None:
    done = call(command, "--help")
    assert done.returncode == 0 and "Example:" in done.stdout and f"stillstream {command}" in done.stdout
    for word in SURFACE[command].split():
        assert word in done.stdout, word


def test_help_loads_nothing_heavy() -> None:
    code = (
        "import sys, flows.cli\n"
        "flows.cli.run(['animate', '--help'])\n"
        "heavy = {'torch', 'apache_beam', 'prefect', 'cv2', 'numba', 'pyarrow', 'av'} & set(sys.modules)\n"
        "sys.exit(f'loaded {heavy}' if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_without_a_command_the_help_comes() -> None:
    done = call()
    for command in COMMANDS:
        assert command in done.stdout + done.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["animate", "photos", "--out", "o", "--fast"], "No such option: --fast"),
        (["animate"], "Missing"),
        (["fly"], "fly"),
        (["train", "weather", "--data", "d", "--out", "o"], "weather"),
        (["animate", "nowhere", "--out", "o", "--fps", "many"], "--fps"),
        (["dataset", "nowhere.mp4", "--out", "o"], "nowhere.mp4"),
        (["dataset", "--out", "o"], "VIDEOS is missing"),
        (["dataset", "v", "--verify", "d"], "VIDEOS cannot go with --verify"),
        (["gallery", "nowhere"], "no ledger"),
        (["gallery", "nowhere", "--config", "none.toml"], "no settings file at none.toml"),
        (["dataset", "v", "--out", "o", "--runner", "dask"], "dask runner is refused"),
        (["animate", "p", "--out", "o", "--format", "avi"], "format must be one of mp4"),
        (["train", "motion", "--data", "nowhere", "--out", "o", "--config", "huge"], "huge"),
        (["demo", "--out", "s3://bucket/demo"], "folder of this machine"),
        (["demo", "--videos", "nowhere"], "nowhere"),
    ],
)
def test_bad_usage_gets_one_clear_line_and_exit_code_2(
    arguments: list[str],
    said: str,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(arguments) == 2
    seen = capsys.readouterr()
    assert said in one_line(seen.err)
    assert seen.out == ""


def test_a_missing_photo_folder_is_bad_usage(
    weights: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert (
        run(["animate", str(tmp_path / "none"), "--out", str(tmp_path / "o"), "--checkpoint", weights]) == 2
    )
    error = [line for line in capsys.readouterr().err.splitlines() if line.startswith("stillstream: ")]
    assert len(error) == 1 and "none" in error[0]


def test_a_job_that_fails_has_exit_code_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "dataset.json").write_text("{}")
    assert run(["dataset", "--verify", str(tmp_path)]) == 1
    assert "dataset.json" in one_line(capsys.readouterr().err)


def test_verify_lists_what_is_damaged(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_drawn_dataset(str(tmp_path))
    assert run(["dataset", "--verify", str(tmp_path)]) == 0
    shard = next((tmp_path / "shards").iterdir())
    shard.write_bytes(shard.read_bytes()[:-20_000])
    assert run(["dataset", "--verify", str(tmp_path), "--json"]) == 1
    seen = capsys.readouterr()
    assert json.loads(seen.out.splitlines()[-1])["problems"] and shard.name in seen.err


def test_failed_items_are_listed_and_counted_and_strict_makes_them_fail(
    photos: Path, weights: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    common = ["animate", str(photos), "--checkpoint", weights, "--renderer", "splat", "--seconds", "0.2"]
    common += ["--out", str(tmp_path / "loops")]
    assert run([*common, "--json"]) == 0
    seen = capsys.readouterr()
    summary = json.loads(seen.out)  # exactly one object and nothing else
    assert summary["counts"] == {"attempted": 3, "ok": 2, "rejected": 0, "failed": 1}
    assert [(item["name"], item["reason"]) for item in summary["items"]] == [("broken.jpg", "unreadable")]
    assert "broken.jpg" in seen.err
    assert {path.name for path in (tmp_path / "loops").glob("*.mp4")} == {"good 1.mp4", "good 2.mp4"}
    assert run([*common, "--strict"]) == 1
    seen = capsys.readouterr()
    assert "1 failed, and --strict was given" in seen.err and "attempted 3" in seen.out
    assert run(["gallery", str(tmp_path / "loops")]) == 0
    assert "index.html" in capsys.readouterr().out


def test_ctrl_c_ends_a_watch_cleanly(photos: Path, weights: str, tmp_path: Path) -> None:
    out = tmp_path / "loops"
    command = [PROGRAM, "animate", str(photos), "--out", str(out), "--checkpoint", weights]
    command += ["--renderer", "splat", "--seconds", "0.2", "--watch"]
    # A test run in the background ignores SIGINT, and its children would inherit that.
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as process:
        try:
            end = time.monotonic() + 200
            while not (out / "ledger.parquet").exists():
                assert process.poll() is None and time.monotonic() < end
                time.sleep(0.2)
            time.sleep(1.0)
            process.send_signal(signal.SIGINT)
            _, errors = process.communicate(timeout=60)
        finally:
            process.kill()
    assert process.returncode == 130, errors
    assert "Traceback" not in errors and errors.strip().splitlines()[-1].startswith("stillstream: ")
    assert (out / "good 1.mp4").exists()


def test_a_pipe_gets_one_line_per_stage(capsys: pytest.CaptureFixture[str]) -> None:
    with StageProgress(title="job") as progress:
        for done in range(4):
            progress(Progress(stage="read", done=done, total=3, counts={"ok": done}))
        progress(Progress(stage="read", done=3, total=3))
        progress(Progress(stage="write", done=7, counts={"failed": 0}))
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2
    assert re.fullmatch(r"job: read +3/3  ok 3  \d+\.\d s", lines[0])
    assert re.fullmatch(r"job: write +7  \d+\.\d s", lines[1])


def test_silence_when_asked(capsys: pytest.CaptureFixture[str]) -> None:
    with StageProgress(silent=True) as progress:
        progress(Progress(stage="read", done=1, total=1))
    assert capsys.readouterr().err == ""
