"""Dataset building when its surroundings fail: full disks, broken stores, decoders that crash or hang."""

from __future__ import annotations

import ctypes
import os
import random
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import moving_pictures as pictures
import pytest
from flaky_proxy import FlakyProxy
from seaweed import SeaweedServer

from pipelines import distil
from pipelines.motion_dataset import DatasetConfig, build_dataset
from storage import retries
from storage.dataset_format import manifest_url, read_dataset_json
from storage.errors import StoreError, UsageError
from storage.locations import is_temporary
from storage.manifest import read_rows
from storage.objects import exists, join_url, list_objects, publish_file
from storage.verify import verify_dataset

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

ROOT = Path(__file__).parents[1]
TIMES = ("seconds_spent", "stage_seconds")
COUNT = 4


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four small clips that are kept and one file that is no video."""
    folder = tmp_path_factory.mktemp("videos")
    for index in range(COUNT):
        velocity = (1.0 + 0.3 * index, 0.5)
        frames = pictures.flowing(45, seed=30 + index, velocity=velocity)
        pictures.write_clip(folder / f"clip_{index}.mp4", frames)
    (folder / "page.mp4").write_bytes(b"<html>not found</html>" * 50)
    return folder


@pytest.fixture(scope="module")
def undisturbed(videos: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    out = str(tmp_path_factory.mktemp("undisturbed") / "dataset")
    assert build_dataset(str(videos), out).counts == {
        "attempted": COUNT + 1,
        "ok": COUNT,
        "rejected": 0,
        "failed": 1,
    }
    return out


def rows_of(dataset: str, *without: str) -> list[dict[str, Any]]:
    rows = list(read_rows(manifest_url(dataset)))
    return [
        {name: value for name, value in row.items() if name not in (*TIMES, *without)}
        | {"source": row["source"].rpartition("/")[2]}
        for row in rows
    ]


def shards_of(dataset: str) -> dict[str, str]:
    return {shard.name: shard.sha256 for shard in read_dataset_json(dataset).shards}


def leftovers(dataset: str) -> list[str]:
    """Parts and unfinished objects, which must all be gone after a run."""
    return [item.key for item in list_objects(dataset) if is_temporary(item.key) or "parts/" in item.key]


def check_same(dataset: str, undisturbed: str, *without: str) -> None:
    assert rows_of(dataset, *without) == rows_of(undisturbed, *without)
    assert verify_dataset(dataset) == []
    assert leftovers(dataset) == []


# ---------------------------------------------------------------------------------------- decoders


def crash_or_hang(path: Path, *rest: Any) -> Any:
    """What a decoder does to some files: end the process, or never come back from native code."""
    if "clip_1" in str(path):
        ctypes.string_at(0)
    if "clip_2" in str(path):
        libc = ctypes.PyDLL(None)  # holds the interpreter lock, so that no signal handler of Python runs
        while True:
            libc.sleep(60)
    return distil.distil_video(path, *rest)


def test_a_decoder_that_crashes_or_hangs_costs_one_video(
    videos: Path, undisturbed: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = str(tmp_path / "out")
    with monkeypatch.context() as patch:
        patch.setattr("pipelines.transforms.distil_video", crash_or_hang)
        summary = build_dataset(str(videos), out, DatasetConfig(time_limit=6.0))
    assert summary.counts == {"attempted": COUNT + 1, "ok": COUNT - 2, "rejected": 0, "failed": 3}
    assert summary.reasons == {"crashed": 1, "timeout": 1, "unreadable": 1}
    reasons = {row["source"]: row["reason"] for row in rows_of(out)}
    assert (reasons["clip_1.mp4"], reasons["clip_2.mp4"]) == ("crashed", "timeout")
    assert verify_dataset(out) == []
    # Both may have been bad luck: the next run tries them again.
    assert build_dataset(str(videos), out).counts["ok"] == COUNT
    assert {row["key"] for row in rows_of(out)} == {row["key"] for row in rows_of(undisturbed)}


# ---------------------------------------------------------------------------------------- full disks

COMMAND = [sys.executable, "-m", "flows.cli", "dataset"]


@contextmanager
def small_file_system(folder: Path, size: str) -> Iterator[Path]:
    """A file system of its own with little space; skips where nobody may mount one."""
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True).returncode != 0:
        pytest.skip("mounting a small file system needs root")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def limit_files() -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000))


def build_by_command(videos: Path, out: Path, **how: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, str(videos), "--out", str(out)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=250,
        **how,
    )


@pytest.mark.parametrize("kind", ["no space on the device", "files may not grow"])
def test_a_full_disk_is_one_clear_line_and_the_next_run_ends_the_same(
    videos: Path, undisturbed: str, tmp_path: Path, kind: str
) -> None:
    if kind == "no space on the device":
        with small_file_system(tmp_path / "small", "700k") as folder:
            done = build_by_command(videos, folder / "out")
            check_refused(done, folder / "out")
            subprocess.run(["mount", "-o", "remount,size=64m", str(folder)], check=True)
            assert build_by_command(videos, folder / "out").returncode == 0
            check_same(str(folder / "out"), undisturbed)
            assert shards_of(str(folder / "out")) == shards_of(undisturbed)
        return
    out = tmp_path / "out"
    check_refused(build_by_command(videos, out, preexec_fn=limit_files), out)
    assert build_by_command(videos, out).returncode == 0
    check_same(str(out), undisturbed)
    assert shards_of(str(out)) == shards_of(undisturbed)


def check_refused(done: subprocess.CompletedProcess[str], out: Path) -> None:
    assert done.returncode not in (0, -signal.SIGXFSZ), done.stderr
    assert "disk is full" in done.stderr and "Traceback" not in done.stderr
    assert not (out / "dataset.json").exists()
    assert not [path for path in out.rglob("*") if is_temporary(path.name)]


# ------------------------------------------------------------------------------------ object stores


def upload(videos: Path, url: str) -> str:
    for path in videos.iterdir():
        publish_file(path, join_url(url, path.name))
    return url


def test_object_storage_in_and_out(videos: Path, undisturbed: str, s3_url: str) -> None:
    source, out = upload(videos, join_url(s3_url, "in")), join_url(s3_url, "out")
    assert build_dataset(source, out).counts["ok"] == COUNT
    # Keys and content follow from the videos; names of sources without content, and tags, from the store.
    known = [row for row in rows_of(undisturbed, "source_tag") if row["status"] == "ok"]
    assert [row for row in rows_of(out, "source_tag") if row["status"] == "ok"] == known
    assert verify_dataset(out) == [] and leftovers(out) == []
    before = {item.key: item.etag for item in list_objects(out)}
    assert build_dataset(source, out).counts["ok"] == COUNT
    assert {item.key: item.etag for item in list_objects(out)} == before


@pytest.mark.parametrize("fault", [500, "drop", "cut"])
def test_a_store_that_breaks_half_of_all_requests_loses_nothing(
    videos: Path, s3_server: SeaweedServer, s3_url: str, monkeypatch: pytest.MonkeyPatch, fault: int | str
) -> None:
    source, out = upload(videos, join_url(s3_url, "in")), join_url(s3_url, "out")
    monkeypatch.setattr(retries, "FIRST_PAUSE_SECONDS", 0.001)
    monkeypatch.setattr(retries, "LONGEST_PAUSE_SECONDS", 0.01)
    chance = random.Random(1)  # not every other request: some accesses are of two, and the second must get by
    with FlakyProxy(s3_server.endpoint, lambda _: fault if chance.random() < 0.5 else None) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
        monkeypatch.setattr("storage.locations._filesystems", {})
        summary = build_dataset(source, out)
        assert summary.counts == {"attempted": COUNT + 1, "ok": COUNT, "rejected": 0, "failed": 1}
        assert proxy.requests > 50
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3_server.endpoint)
    monkeypatch.setattr("storage.locations._filesystems", {})
    assert verify_dataset(out) == [] and leftovers(out) == []


def test_a_store_that_times_out_ends_the_run_and_the_next_one_takes_up(
    videos: Path, s3_server: SeaweedServer, s3_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From some request on nothing is answered any more: the job ends with the store's name, uncommitted."""
    source, out = upload(videos, join_url(s3_url, "in")), join_url(s3_url, "out")
    monkeypatch.setattr(retries, "RETRY_SECONDS", 0.3)
    with FlakyProxy(s3_server.endpoint, lambda number: 503 if number > 60 else None) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
        monkeypatch.setattr("storage.locations._filesystems", {})
        with pytest.raises(StoreError, match="gave up"):
            build_dataset(source, out)
    monkeypatch.setattr("storage.retries.RETRY_SECONDS", 60.0)
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3_server.endpoint)
    monkeypatch.setattr("storage.locations._filesystems", {})
    assert not exists(join_url(out, "dataset.json"))
    summary = build_dataset(source, out)
    assert summary.counts["ok"] == COUNT and summary.sources["sources_reused"] >= 1
    assert verify_dataset(out) == [] and leftovers(out) == []


BUILD = (
    "import sys; from pipelines.motion_dataset import build_dataset; "
    "print(build_dataset(sys.argv[1], sys.argv[2]).counts)"
)


def test_a_store_that_is_away_for_ten_seconds_loses_nothing(
    videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A real store is killed in the middle of a build, in a process of its own, and comes back."""
    server = SeaweedServer(tmp_path / "server")
    server.start()
    try:
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr("storage.locations._filesystems", {})
        source, out = upload(videos, f"{server.url}/in"), f"{server.url}/out"
        command = [sys.executable, "-c", BUILD, source, out]
        with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
            deadline = time.monotonic() + 120
            while not _some_part(out) and process.poll() is None and time.monotonic() < deadline:
                time.sleep(0.05)
            assert process.poll() is None, "the build ended before the store could go away"
            server.stop()
            returning = threading.Timer(10, server.restart)
            returning.start()
            said, _ = process.communicate(timeout=240)
            returning.join()
        assert process.returncode == 0
        assert said.strip().endswith(f"'ok': {COUNT}, 'rejected': 0, 'failed': 1}}")
        assert verify_dataset(out) == [] and leftovers(out) == []
    finally:
        server.stop()


def _some_part(out: str) -> bool:
    try:
        return any("/sources/" not in item.key for item in list_objects(join_url(out, "parts")))
    except UsageError:
        return False
