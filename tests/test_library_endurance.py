"""What a library must survive: kills at any moment, signals, a store that goes away, several workers."""

import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from animation_world import draw_photo, jpeg_bytes, write_photos, write_weights
from flaky_proxy import FlakyProxy
from seaweed import SeaweedServer

from pipelines.animation_ledger import ledger_parts, read_ledger
from pipelines.photo_animation import AnimationConfig, AnimationSummary, animate_photos
from pipelines.runner import RunnerConfig
from storage import retries
from storage.errors import UsageError
from storage.objects import join_url, list_objects, read_bytes, write_bytes

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

RUN = """
import sys
from pipelines.photo_animation import AnimationConfig, animate_photos
config = AnimationConfig(checkpoint=sys.argv[3], seconds=0.8, fps=10, format=("mp4", "png"), renderer="splat")
summary = animate_photos(sys.argv[1], sys.argv[2], config)
print(summary.counts["attempted"], summary.stopped, flush=True)
"""
ROOT = Path(__file__).parents[1]


@contextmanager
def running(photos: Path, out: Path, weights: str) -> Iterator[subprocess.Popen[str]]:
    """A run in a process group of its own, which is gone at the end of the block."""
    process = subprocess.Popen(
        [sys.executable, "-c", RUN, str(photos), str(out), weights],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def wait_for(count: int, pattern: str, folder: Path, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 300
    while len(list(folder.glob(pattern))) < count:
        if process.poll() is not None:
            assert process.returncode == 0, process.communicate()
            return
        assert time.monotonic() < deadline
        time.sleep(0.02)


def animate(photos: str | Path, out: str | Path, weights: str, workers: int = 1) -> AnimationSummary:
    config = AnimationConfig(checkpoint=weights, seconds=0.8, fps=10, format=("mp4", "png"), renderer="splat")
    return animate_photos(str(photos), str(out), config, RunnerConfig(workers=workers))


def contents(out: Path) -> dict[str, bytes]:
    """Every result but those that tell the time."""
    return {
        str(path.relative_to(out)): path.read_bytes()
        for path in sorted(out.rglob("*"))
        if path.is_file() and path.suffix not in (".json", ".parquet")
    }


def test_killed_at_ten_random_moments_and_rerun_gives_the_same_set(tmp_path: Path) -> None:
    weights = write_weights(tmp_path)
    write_photos(tmp_path / "photos", 30)
    animate(tmp_path / "photos", tmp_path / "once", weights)
    out = tmp_path / "out"
    out.mkdir()
    rng = random.Random(5)
    for _ in range(10):
        before = len(list(out.glob("*.json")))
        with running(tmp_path / "photos", out, weights) as process:
            wait_for(before + 1, "*.json", out, process)
            time.sleep(rng.uniform(0, 0.4))
    summary = animate(tmp_path / "photos", out, weights)
    assert summary.counts == {"attempted": 30, "ok": 30, "rejected": 0, "failed": 0}
    assert contents(out) == contents(tmp_path / "once")
    assert {path.name for path in out.iterdir()} == {path.name for path in (tmp_path / "once").iterdir()}
    rows = [row["photo"] for row in read_ledger(str(out))]
    assert len(rows) == len(set(rows)) == 30 and not ledger_parts(str(out))
    assert animate(tmp_path / "photos", out, weights).skipped == 30


def test_sigterm_ends_with_what_is_finished_recorded(tmp_path: Path) -> None:
    weights, out = write_weights(tmp_path), tmp_path / "out"
    write_photos(tmp_path / "photos", 200)
    out.mkdir()
    with running(tmp_path / "photos", out, weights) as process:
        wait_for(5, "*.json", out, process)
        process.send_signal(signal.SIGTERM)
        said, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors
    assert said.split()[1] == "True"
    finished = {path.stem for path in out.glob("*.json")}
    rows = list(read_ledger(str(out)))
    assert 5 <= len(rows) < 200 and {row["name"] for row in rows} == finished
    assert not ledger_parts(str(out)) and not list(out.rglob(".stillstream-*"))


def test_rows_appear_while_the_run_goes_on(tmp_path: Path) -> None:
    weights, out = write_weights(tmp_path), tmp_path / "out"
    write_photos(tmp_path / "photos", 200)
    out.mkdir()
    with running(tmp_path / "photos", out, weights) as process:
        wait_for(2, "ledger/part-*.jsonl", out, process)
        rows = list(read_ledger(str(out)))
    assert rows and all(row["status"] == "ok" and (out / row["outputs"][0]).exists() for row in rows)


def test_a_second_run_is_refused_and_harms_nothing(tmp_path: Path) -> None:
    weights, out = write_weights(tmp_path), tmp_path / "out"
    write_photos(tmp_path / "photos", 60)
    out.mkdir()
    with running(tmp_path / "photos", out, weights) as process:
        wait_for(2, "*.json", out, process)
        with pytest.raises(UsageError, match="another run"):
            animate(tmp_path / "photos", out, weights)
        said, errors = process.communicate(timeout=400)
        assert process.returncode == 0, errors
    assert said.split() == ["60", "False"]
    rows = [row["photo"] for row in read_ledger(str(out))]
    assert len(rows) == len(set(rows)) == 60 and not ledger_parts(str(out))
    assert animate(tmp_path / "photos", out, weights).skipped == 60


def test_two_workers_give_what_one_gives(tmp_path: Path) -> None:
    weights = write_weights(tmp_path)
    write_photos(tmp_path / "photos", 20)
    animate(tmp_path / "photos", tmp_path / "one", weights)
    summary = animate(tmp_path / "photos", tmp_path / "two", weights, workers=2)
    assert summary.counts["ok"] == 20
    assert contents(tmp_path / "one") == contents(tmp_path / "two")


def test_faults_of_the_store_in_the_middle_of_a_run_lose_nothing(
    tmp_path: Path, s3_server: SeaweedServer, s3_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every third request is answered with an error, dropped, or cut off in its body, in turn."""
    monkeypatch.setattr(retries, "FIRST_PAUSE_SECONDS", 0.01)
    faults = (503, "drop", 500, "cut")

    def fate(number: int) -> int | str | None:
        return faults[number // 3 % len(faults)] if number % 3 == 0 else None

    weights = write_weights(tmp_path)
    for index in range(12):
        write_bytes(join_url(s3_url, f"in/photo_{index:04d}.jpg"), jpeg_bytes(draw_photo(index)))
    config = AnimationConfig(checkpoint=weights, seconds=0.4, fps=10, format=("mp4", "png"))
    animate_photos(join_url(s3_url, "in"), join_url(s3_url, "calm"), config)
    with FlakyProxy(s3_server.endpoint, fate) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
        monkeypatch.setattr("storage.locations._filesystems", {})
        summary = animate_photos(join_url(s3_url, "in"), join_url(s3_url, "out"), config)
        assert proxy.requests > 200
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3_server.endpoint)
    monkeypatch.setattr("storage.locations._filesystems", {})
    assert summary.counts == {"attempted": 12, "ok": 12, "rejected": 0, "failed": 0}
    calm, flaky = (
        {info.key: info.size for info in list_objects(join_url(s3_url, name))} for name in ("calm", "out")
    )
    assert calm.keys() == flaky.keys() and len(calm) == 12 * (1 + 4 + 3) + 1
    for key in calm:
        if not key.endswith((".json", ".parquet")):
            assert read_bytes(join_url(s3_url, "calm", key)) == read_bytes(join_url(s3_url, "out", key)), key
    assert len(list(read_ledger(join_url(s3_url, "out")))) == 12


def test_two_hundred_photos_on_object_storage_with_the_store_away_for_ten_seconds(
    tmp_path: Path, s3_server: SeaweedServer, s3_url: str
) -> None:
    weights = write_weights(tmp_path)
    photos, out = join_url(s3_url, "in"), join_url(s3_url, "out")
    for index in range(200):
        write_bytes(join_url(photos, f"sub {index % 7}/photo_{index:04d}.jpg"), jpeg_bytes(draw_photo(index)))

    def outage() -> None:
        while sum(1 for _ in list_objects(s3_url, suffixes={".mp4"})) < 20:
            time.sleep(0.2)
        s3_server.stop()
        time.sleep(10)
        s3_server.restart()

    breaker = threading.Thread(target=outage)
    config = AnimationConfig(checkpoint=weights, seconds=0.4, fps=10)
    write_bytes(join_url(s3_url, "start.mp4"), b"so that the listing is not empty")
    breaker.start()
    summary = animate_photos(photos, out, config)
    breaker.join()
    assert summary.counts == {"attempted": 200, "ok": 200, "rejected": 0, "failed": 0}
    found = {info.key: info.size for info in list_objects(out)}
    assert len(found) == 200 * 4 + 1 and all(found.values())
    assert animate_photos(photos, out, config).skipped == 200
