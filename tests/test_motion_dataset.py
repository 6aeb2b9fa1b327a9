"""Dataset building end to end, over a folder of videos known to be good or bad, and under kill -9."""

import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import moving_pictures as pictures
import numpy as np
import pytest
import video_folder

from flows.report import gather_statistics
from pipelines.motion_dataset import DatasetConfig, build_dataset, rescore_dataset
from pipelines.runner import RunnerConfig
from pipelines.selection import SelectionConfig
from storage.dataset_format import manifest_url, read_dataset_json, shard_url
from storage.errors import UsageError
from storage.manifest import read_rows
from storage.shards import read_shard
from storage.verify import verify_dataset

TIMES = ("seconds_spent", "stage_seconds")


def rows_of(dataset):
    return list(read_rows(manifest_url(str(dataset))))


def comparable_rows(dataset):
    return [{name: value for name, value in row.items() if name not in TIMES} for row in rows_of(dataset)]


def shards_of(dataset):
    return {shard.name: shard.sha256 for shard in read_dataset_json(str(dataset)).shards}


def samples_of(dataset):
    info = read_dataset_json(str(dataset))
    return [sample for shard in info.shards for sample in read_shard(shard_url(str(dataset), shard.name))]


def files_of(dataset):
    return sorted(path.relative_to(dataset).as_posix() for path in Path(dataset).rglob("*") if path.is_file())


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    return video_folder.fill_folder(tmp_path_factory.mktemp("videos"))


@pytest.fixture(scope="module")
def dataset(videos, tmp_path_factory):
    out = tmp_path_factory.mktemp("built") / "dataset"
    build_dataset(str(videos), str(out))
    return out


def test_every_video_ends_as_expected(videos, dataset):
    got = {Path(row["source"]).name: row["reason"] for row in rows_of(dataset)}
    expected = dict(video_folder.EXPECTED)
    # Of two files with one content either may be the copy.
    if got["good_a.mp4"] == "duplicate":
        expected["good_a.mp4"], expected["bad_copy.mp4"] = expected["bad_copy.mp4"], None
    assert got == expected


def test_the_accounts_are_exact(dataset):
    rows, info = rows_of(dataset), read_dataset_json(str(dataset))
    statuses = Counter(row["status"] for row in rows)
    assert len(rows) == len(video_folder.EXPECTED)
    assert info.counts == {
        "attempted": len(rows),
        **{name: statuses[name] for name in ("ok", "rejected", "failed")},
    }
    assert statuses == {"ok": 2, "rejected": 9, "failed": 3}
    assert sum(info.splits.values()) == info.samples == 2
    assert all(row["stage"] for row in rows)
    assert all(row["message"] for row in rows if row["status"] != "ok")


def test_the_accounts_are_exact_at_every_stage(videos, dataset):
    """The same figures from the files themselves, the manifest, the summary and the report."""
    summary = build_dataset(str(videos), str(dataset))
    ended = Counter((row["stage"], row["status"]) for row in rows_of(dataset))
    assert {stage: counts["rejected"] for stage, counts in summary.stages.items()} == {
        "read": 3,  # too short, too small, a copy
        "screen": 5,  # cut, dark, fade, still, bars
        "stabilise": 1,  # a camera that pans
        "motion": 0,
        "encode": 0,
        "select": 0,
    }
    left = len(video_folder.EXPECTED)
    for stage, counts in summary.stages.items():
        assert counts["attempted"] == left == counts["ok"] + counts["rejected"] + counts["failed"]
        assert (counts["rejected"], counts["failed"]) == (ended[stage, "rejected"], ended[stage, "failed"])
        left = counts["ok"]
    assert left == summary.counts["ok"] == ended["select", "ok"] == 2
    funnel = gather_statistics(rows_of(dataset)).funnel()
    assert [step["left"] for step in funnel[1:]] == [counts["ok"] for counts in summary.stages.values()]


def test_nothing_is_left_over_and_all_verifies(dataset):
    assert verify_dataset(str(dataset)) == []
    assert not [name for name in files_of(dataset) if name.startswith("parts") or ".tmp" in name]


def test_samples_hold_the_motion_that_was_drawn(dataset):
    samples = samples_of(dataset)
    velocities = {"good_b.mp4": (-1.4, 0.6), "good_a.mp4": (0.3, 1.8), "bad_copy.mp4": (0.3, 1.8)}
    for sample in samples:
        velocity = velocities[Path(sample.info["source"]).name]
        motion = sample.motion_2HW.astype(np.float32)
        assert np.abs(np.median(motion[:, sample.moving_HW], axis=1) - velocity).max() < 0.15
        assert not motion[:, ~sample.moving_HW].any()
        assert len(sample.frames) == len(sample.info["frame_indices"]) == 12
        assert sample.frames[0].shape == (*pictures.SIZE, 3)
        assert sample.info["fps"] == pytest.approx(30)


def test_a_second_run_changes_nothing(videos, dataset):
    before = {name: (dataset / name).read_bytes() for name in files_of(dataset)}
    summary = build_dataset(str(videos), str(dataset))
    assert {name: (dataset / name).read_bytes() for name in files_of(dataset)} == before
    assert summary.counts["ok"] == 2


def test_new_videos_only_write_new_shards(videos, dataset, tmp_path):
    grown, more = tmp_path / "grown", tmp_path / "videos"
    shutil.copytree(dataset, grown)
    shutil.copytree(videos, more)  # copies keep their times, so only the folder's name is new
    pictures.write_clip(videos / "later.mp4", pictures.flowing(60, seed=77, velocity=(1.2, 0.0)))
    try:
        before = read_dataset_json(str(grown))
        old = {shard.name: (grown / "shards" / shard.name).stat().st_mtime_ns for shard in before.shards}
        progress = []
        summary = build_dataset(str(videos), str(grown), on_progress=progress.append)
    finally:
        (videos / "later.mp4").unlink()
    assert summary.counters["sources"] == 1 and summary.counters["clips_ok"] == 1
    assert min(summary.stage_seconds[name] for name in ("screen", "stabilise", "motion")) > 0
    assert [step.total for step in progress if step.stage == "distil"][-1] == 1
    after = read_dataset_json(str(grown))
    assert summary.counts["ok"] == 3
    assert after.shards[: len(before.shards)] == before.shards and len(after.shards) == len(before.shards) + 1
    assert {name: (grown / "shards" / name).stat().st_mtime_ns for name in old} == old
    assert (grown / "versions" / f"{after.parent}.json").exists()
    assert verify_dataset(str(grown)) == []


def test_rescoring_holds_samples_back_and_takes_them_again(dataset, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(dataset, copy)
    keys = {sample.key for sample in samples_of(copy)}
    strict = DatasetConfig(selection=SelectionConfig(least_speed=10.0))
    assert rescore_dataset(str(copy), strict).counts["ok"] == 0
    assert verify_dataset(str(copy)) == []
    assert {row["reason"] for row in rows_of(copy) if row["stage"] == "select"} == {"no_motion"}
    again = rescore_dataset(str(copy), DatasetConfig())
    assert again.counts["ok"] == 2
    assert {sample.key for sample in samples_of(copy)} == keys
    assert verify_dataset(str(copy)) == []
    assert comparable_rows(copy) != [] and rows_of(copy)[0]["key"] == rows_of(dataset)[0]["key"]


def test_another_measure_builds_anew(dataset, videos, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(dataset, copy)
    config = DatasetConfig()
    config = replace(config, measure=replace(config.measure, sample=replace(config.measure.sample, frames=5)))
    build_dataset(str(videos / "good_b.mp4"), str(copy), config)
    assert [len(sample.frames) for sample in samples_of(copy)] == [5]
    assert len(rows_of(copy)) == 1
    assert verify_dataset(str(copy)) == []


def test_a_wrong_place_is_one_clear_line(tmp_path):
    with pytest.raises(UsageError, match="found no file"):
        build_dataset(str(tmp_path / "nowhere"), str(tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_what_is_known_of_a_source_reaches_the_rows(tmp_path):
    clip = pictures.write_clip(tmp_path / "videos" / "river" / "a.mp4", pictures.flowing(45, seed=20))
    said = {"licence": "CC0", "author": "somebody", "retrieved_at": "2026-01-02T03:04:05+00:00"}
    clip.with_suffix(".json").write_text(json.dumps(said))
    build_dataset(str(tmp_path / "videos"), str(tmp_path / "out"))
    (row,) = rows_of(tmp_path / "out")
    assert (row["licence"], row["author"], row["category"]) == ("CC0", "somebody", "river")
    assert row["retrieved_at"].isoformat() == said["retrieved_at"]
    assert samples_of(tmp_path / "out")[0].info["licence"] == "CC0"


def test_a_video_that_takes_too_long_fails_alone_and_is_tried_again(tmp_path):
    videos, out = tmp_path / "videos", tmp_path / "out"
    videos.mkdir()
    pictures.write_clip(videos / "a.mp4", pictures.flowing(45, seed=21))
    (videos / "b.mp4").write_bytes(b"no video at all")
    hasty = build_dataset(str(videos), str(out), DatasetConfig(time_limit=0.001))
    assert hasty.counts == {"attempted": 2, "ok": 0, "rejected": 0, "failed": 2}
    assert "timeout" in {row["reason"] for row in rows_of(out)}
    patient = build_dataset(str(videos), str(out))
    assert patient.counts == {"attempted": 2, "ok": 1, "rejected": 0, "failed": 1}
    assert patient.reasons == {"unreadable": 1}
    assert verify_dataset(str(out)) == []


def test_a_source_that_vanishes_is_a_row(tmp_path):
    videos, out = tmp_path / "videos", tmp_path / "out"
    videos.mkdir()
    pictures.write_clip(videos / "a.mp4", pictures.flowing(45, seed=21))
    (videos / "gone.mp4").symlink_to(tmp_path / "nowhere.mp4")
    summary = build_dataset(str(videos), str(out))
    assert summary.counts == {"attempted": 2, "ok": 1, "rejected": 0, "failed": 1}
    assert summary.reasons == {"not_found": 1}


BUILD = (
    "import sys; from pipelines.motion_dataset import build_dataset; build_dataset(sys.argv[1], sys.argv[2])"
)


def build_and_kill(videos, out, over):
    """Run a build in a process of its own and kill it when `over(seconds)`; returns whether it was killed."""
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    process = subprocess.Popen([sys.executable, "-c", BUILD, str(videos), str(out)], env=environment)
    start = time.monotonic()
    while process.poll() is None:
        if over(time.monotonic() - start):
            process.send_signal(signal.SIGKILL)
            process.wait()
            return True
        time.sleep(0.002)
    return False


def check_equal(killed, undisturbed):
    assert comparable_rows(killed) == comparable_rows(undisturbed)
    assert shards_of(killed) == shards_of(undisturbed)
    assert verify_dataset(str(killed)) == []
    assert files_of(killed) == files_of(undisturbed)


def test_a_killed_build_ends_as_an_undisturbed_one(videos, dataset, tmp_path):
    out = tmp_path / "killed"
    parts = out / "parts"
    assert build_and_kill(videos, out, lambda _: sum(1 for _ in parts.glob("*/*.json")) >= 5)
    assert not (out / "dataset.json").exists()
    summary = build_dataset(str(videos), str(out))
    assert summary.sources["sources_reused"] >= 5
    check_equal(out, dataset)


# When to kill: once so many parts are there, or the first file of a kind, and then a random moment later.
MOMENTS = (
    ("parts/*/*", 1, 1.5),
    ("parts/*/*.json", 1, 1.0),
    ("parts/*/*.json", 4, 0.3),
    ("parts/*/*.json", 7, 0.3),
    ("parts/*/*.json", 10, 0.3),
    ("parts/*/*.json", 13, 0.1),
    ("shards/*", 1, 0.01),
    ("manifest.parquet", 1, 0.005),
    ("manifest.parquet", 1, 0.02),
    ("dataset.json", 1, 0.01),
)


def kill_at_every_moment(videos, out):
    """Start a build again and again and kill it ever later; returns how often it was killed."""
    chance = random.Random(0)
    killed = 0
    for pattern, count, longest in MOMENTS:
        before = {}
        if "parts" not in pattern:
            before = {path: path.stat().st_mtime_ns for path in out.glob(pattern)}
        came, delay = [], chance.uniform(0.0, longest)

        def over(seconds, pattern=pattern, count=count, before=before, came=came, delay=delay):
            if not came and _new_files(out, pattern, before) >= count:
                came.append(seconds)
            return came and seconds - came[0] >= delay

        killed += build_and_kill(videos, out, over)
    return killed


def _new_files(out, pattern, before):
    count = 0
    for path in out.glob(pattern):
        with contextlib.suppress(FileNotFoundError):  # a temporary object
            count += before.get(path) != path.stat().st_mtime_ns
    return count


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_ten_kills_change_nothing(videos, dataset, tmp_path):
    out = tmp_path / "killed"
    assert kill_at_every_moment(videos, out) >= 8
    build_dataset(str(videos), str(out))
    check_equal(out, dataset)


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_ten_kills_while_videos_are_added_change_nothing(videos, tmp_path):
    first, more = tmp_path / "first", tmp_path / "more"
    first.mkdir()
    for name in ("good_a.mp4", "bad_cut.mp4"):
        shutil.copy2(videos / name, first / name)
    build_dataset(str(first), str(tmp_path / "one"))
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    shutil.copytree(videos, more)
    first.rename(tmp_path / "away")
    more.rename(first)
    pictures.write_clip(first / "slow.mp4", pictures.flowing(60, seed=78, velocity=(0.11, 0.0)))
    assert kill_at_every_moment(first, tmp_path / "one") >= 8
    build_dataset(str(first), str(tmp_path / "one"))
    build_dataset(str(first), str(tmp_path / "two"))
    check_equal(tmp_path / "one", tmp_path / "two")


@pytest.mark.slow
def test_two_workers_build_the_same(videos, dataset, tmp_path):
    build_dataset(str(videos), str(tmp_path / "two"), runner=RunnerConfig(workers=2))
    assert comparable_rows(tmp_path / "two") == comparable_rows(dataset)
    assert shards_of(tmp_path / "two") == shards_of(dataset)
