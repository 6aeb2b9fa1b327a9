"""The whole way as a user goes it: videos → dataset → training → loops → gallery, by the command, on S3."""

import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from pipelines.sample_data import draw_scene, write_sample_photos, write_sample_videos
from storage.dataset_format import read_dataset_json
from storage.manifest import read_rows
from storage.objects import exists, join_url, list_objects, local_copy, read_bytes, write_bytes
from storage.video import decode_frames

KINDS = ("waterfall", "river")
# An untrained network moves nothing by itself, so a person says what moves and where to.
HINTS = {
    "arrows": [{"from": [0.5, 0.6], "to": [0.5, 0.8], "seconds": 0.5}],
    "moving": [[[0.2, 0.5], [0.8, 0.5], [0.8, 0.95], [0.2, 0.95]]],
}
PROGRAM = str(Path(sys.executable).with_name("stillstream"))


def stillstream(*arguments: str) -> dict[str, Any]:
    """Run the command, which must succeed; returns what it says by --json, where that was asked for."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "NO_COLOR": "1"}
    done = subprocess.run([PROGRAM, *arguments], capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout)) if "--json" in arguments else {}


def put_videos(url: str) -> None:
    """Two good videos and one that was cut off."""
    good = write_sample_videos(url, kinds=KINDS, seeds=[0], size=(144, 256), frames=66)
    write_bytes(join_url(url, "torn.mp4"), read_bytes(good[0])[:20_000])


def put_photos(url: str) -> None:
    """Two good photos with hints, one of them under a difficult name, and one that was cut off."""
    write_sample_photos(url, kinds=["river"], seeds=[1], size=(96, 160))
    write_bytes(join_url(url, "river_001.hints.json"), json.dumps(HINTS).encode())
    buffer = io.BytesIO()
    Image.fromarray(draw_scene("waterfall", seed=2, size=(97, 161)).photo_HW3).save(
        buffer, "JPEG", quality=95
    )
    write_bytes(join_url(url, "Sommer 50% #1", "fällt.jpg"), buffer.getvalue())
    write_bytes(join_url(url, "Sommer 50% #1", "fällt.hints.json"), json.dumps(HINTS).encode())
    write_bytes(join_url(url, "torn.jpg"), buffer.getvalue()[:900])


@pytest.mark.timeout(1500)
def test_from_videos_to_a_gallery_on_an_object_store(s3_url: str) -> None:
    videos, photos, data, weights, loops = (
        join_url(s3_url, name) for name in ("videos", "photos", "data", "weights", "loops")
    )
    put_videos(videos)
    put_photos(photos)

    built = stillstream("dataset", videos, "--out", data, "--json")
    assert built["counts"]["attempted"] == 3 and built["counts"]["failed"] == 1
    assert [item["name"].rpartition("/")[2] for item in built["items"] if item["status"] == "failed"] == [
        "torn.mp4"
    ]
    info = read_dataset_json(data)
    assert info.samples == info.counts["ok"] == 2, built
    assert b"torn" in read_bytes(join_url(data, "report", "index.html"))

    trained = stillstream(
        "train", "motion", "--data", data, "--out", join_url(weights, "motion"), "--config", "debug", "--json"
    )
    assert trained["steps"] == 30 and exists(trained["checkpoint_url"])

    common = [
        "animate",
        photos,
        "--out",
        loops,
        "--checkpoint",
        weights,
        "--renderer",
        "splat",
        "--seconds",
        "0.5",
        "--json",
    ]
    animated = stillstream(*common)
    assert animated["counts"] == {"attempted": 3, "ok": 2, "rejected": 0, "failed": 1}
    rows = {row["photo"]: row for row in read_rows(join_url(loops, "ledger.parquet"))}
    assert rows.keys() == {"river_001.png", "Sommer 50% #1/fällt.jpg", "torn.jpg"}
    assert (rows["torn.jpg"]["status"], rows["torn.jpg"]["reason"]) == ("failed", "truncated")
    with local_copy(join_url(loops, "Sommer 50% #1", "fällt.mp4")) as path:
        assert sum(1 for _ in decode_frames(path)) == 15

    before = {(item.key, item.etag) for item in list_objects(loops, suffixes=[".mp4"])}
    again = stillstream(*common)
    assert again["counts"] == animated["counts"]
    assert {(item.key, item.etag) for item in list_objects(loops, suffixes=[".mp4"])} == before

    stillstream("gallery", loops)
    page = read_bytes(join_url(loops, "index.html")).decode()
    assert "Sommer%2050%25%20%231/f%C3%A4llt.mp4" in page and "torn.jpg" in page


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_the_demo_leaves_a_gallery_whose_loops_move(tmp_path: Path) -> None:
    import numpy as np

    stillstream("demo", "--out", str(tmp_path / "demo"))
    rows = list(read_rows(str(tmp_path / "demo" / "gallery" / "ledger.parquet")))
    assert len(rows) == 5
    loops = sorted((tmp_path / "demo" / "gallery").glob("*.mp4"))
    assert len(loops) == sum(row["status"] == "ok" for row in rows) > 0
    for loop in loops:
        frames = [frame.astype(int) for _, frame in decode_frames(loop)]
        assert np.abs(frames[len(frames) // 2] - frames[0]).max() > 20, loop.name
    assert (tmp_path / "demo" / "gallery" / "index.html").is_file()
    assert (tmp_path / "demo" / "dataset" / "report" / "index.html").is_file()
    assert (tmp_path / "demo" / "evaluation" / "index.html").is_file()
