"""Crawling end to end: real videos from a real local server, exact counts, reruns, kill -9."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import tracemalloc
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bad_http_server import BadServer

from flows.cli import run
from pipelines.crawl import CrawlConfig, crawl
from pipelines.crawl_manifest import CrawlManifest, leave_row
from pipelines.crawl_plan import CrawlPlan
from pipelines.crawl_twins import LARGEST_CHANGE, find_twins
from pipelines.fingerprint import change_distance, fingerprint_video, frames_distance
from pipelines.links import Link
from pipelines.transforms import describe_source
from storage.digest import digest_bytes
from storage.errors import UsageError
from storage.fetch import FetchConfig
from storage.manifest import read_rows
from storage.objects import delete_object, join_url, list_objects, read_bytes, write_bytes
from storage.progress import Progress
from storage.video import encode_video


def picture_video(path: Path, seed: int, size: tuple[int, int] = (96, 160), crf: int = 20) -> bytes:
    """A second and a half of a smooth random picture that drifts; the same at any size for a seed."""
    import cv2

    rough = np.random.default_rng(seed).integers(0, 255, (6, 10, 3), dtype=np.uint8)
    big = cv2.resize(rough, (size[1] + size[1] // 4, size[0]), interpolation=cv2.INTER_CUBIC)
    steps = [round(index * size[1] / 4 / 36) for index in range(36)]
    encode_video(
        (np.ascontiguousarray(big[:, at : at + size[1]]) for at in steps), str(path), fps=24, crf=crf
    )
    return path.read_bytes()


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("made")
    made = {name: picture_video(folder / f"{name}.mp4", seed) for seed, name in enumerate("abc")}
    made["a small"] = picture_video(folder / "small.mp4", 0, (64, 106), crf=28)
    return made


@pytest.fixture
def server(videos: dict[str, bytes]) -> Iterator[BadServer]:
    with BadServer() as running:
        for name in "abc":
            running.video(f"/{name}.mp4", videos[name])
        yield running


def config(server: BadServer, **changes: Any) -> CrawlConfig:
    fetch = FetchConfig(allow_hosts=(server.host,), delay=0.0, backoff=0.01, attempts=2, max_bytes=5_000_000)
    return CrawlConfig(**{"fetch": fetch, **changes})


def rows_of(out: Path | str) -> dict[str, dict[str, Any]]:
    return {row["url"]: row for row in read_rows(f"{out}/crawl.parquet")}


def write_list(path: Path, *urls: str) -> str:
    path.write_text("\n".join(urls) + "\n")
    return str(path)


def test_every_link_becomes_one_row(server: BadServer, videos: dict[str, bytes], tmp_path: Path) -> None:
    """Exact counts over good and bad links, by reason."""
    server.text("/robots.txt", "User-agent: *\nDisallow: /private/\n", "text/plain")
    server.text("/page.mp4", "<html></html>")
    server.video("/junk.mp4", videos["a"][:64] + bytes(20_000))
    server.video("/again.mp4", videos["a"])
    server.video("/small.mp4", videos["a small"])
    server.endless("/huge.mp4", videos["a"][:1000])
    server.redirect("/away.mp4", "http://169.254.169.254/a.mp4")
    expected = {
        "/a.mp4": ("ok", None),
        "/b.mp4": ("ok", None),
        "/gone.mp4": ("failed", "not_found"),
        "/page.mp4": ("rejected", "wrong_type"),
        "/junk.mp4": ("failed", None),
        "/again.mp4": ("rejected", "duplicate"),
        "/small.mp4": ("rejected", "duplicate"),
        "/huge.mp4": ("rejected", "too_large"),
        "/away.mp4": ("rejected", "private_address"),
        "/private/a.mp4": ("rejected", "robots"),
        "/a.mp4?utm_source=x": ("rejected", "duplicate"),
    }
    secret = server.url("/c.mp4?id=1&token=hush").replace("http://", "http://me:password@")
    links = [
        *map(server.url, expected),
        secret,
        server.url("/a.mp4"),
        "http://localhost:1/x.mp4",
        "ftp://e.org/x",
    ]
    told: list[Progress] = []
    out = tmp_path / "out"
    summary = crawl(write_list(tmp_path / "l.txt", *links), str(out), config(server), on_progress=told.append)
    rows = rows_of(out)
    for path, (status, reason) in expected.items():
        row = rows[server.url(path)]
        assert row["status"] == status and reason in (None, row["reason"]), row
    assert rows[server.url("/c.mp4?id=1&token=hidden")]["status"] == "ok"
    assert rows["http://localhost:1/x.mp4"]["reason"] == "private_address"
    counts = Counter(row["status"] for row in rows.values())
    assert summary.counts == {
        "attempted": len(rows),
        **{name: counts[name] for name in ("ok", "rejected", "failed")},
    }
    assert len(rows) == len(expected) + 3 and counts["ok"] == 3
    assert told[-1].done == summary.fetched == len(expected) + 3 - 1
    assert sum(summary.counters.values()) == summary.fetched
    assert summary.stage_seconds.keys() == {"links", "fetch", "twins"} and summary.stage_seconds["fetch"] > 0
    everything = "".join(path.read_text(errors="replace") for path in out.rglob("*") if path.is_file())
    assert "password" not in everything and "hush" not in everything
    assert "stillstream-crawl-" not in everything, "the name of a temporary file is told"


def test_what_is_published_and_what_the_dataset_builder_sees(
    server: BadServer, videos: dict[str, bytes], tmp_path: Path
) -> None:
    row = {
        "url": server.url("/a.mp4"),
        "licence": "CC BY 4.0",
        "author": "Ann",
        "title": "Sea",
        "page": "http://p/",
    }
    (tmp_path / "l.jsonl").write_text(json.dumps(row))
    crawl(str(tmp_path / "l.jsonl"), str(tmp_path / "out"), config(server))
    digest = digest_bytes(videos["a"])
    files = sorted(path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("*.*"))
    assert files == [
        "crawl.parquet",
        f"videos/{digest[:2]}/{digest}.json",
        f"videos/{digest[:2]}/{digest}.mp4",
    ]
    assert (tmp_path / "out" / files[2]).read_bytes() == videos["a"]
    sidecar = json.loads((tmp_path / "out" / files[1]).read_text())
    kept = rows_of(tmp_path / "out")[row["url"]]
    for name in row:
        assert sidecar[name] == kept[name] == row[name]
    assert sidecar["retrieved_at"] == kept["retrieved_at"].isoformat() and sidecar["phash"] == kept["phash"]
    assert (kept["width"], kept["height"], kept["fps"]) == (160, 96, 24.0)
    (listed,) = list_objects(str(tmp_path / "out" / "videos"), suffixes={".mp4"})
    about = describe_source(listed)
    assert (about["licence"], about["author"], about["page"]) == ("CC BY 4.0", "Ann", "http://p/")
    assert about["category"] is None, "the folder is a digest and no category"


def test_a_rerun_fetches_only_what_is_new_failed_or_gone(
    server: BadServer, videos: dict[str, bytes], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    server.text("/page.mp4", "<html></html>")
    paths = ["/a.mp4", "/b.mp4", "/late.mp4", "/page.mp4"]
    links = write_list(tmp_path / "l.txt", *map(server.url, paths))
    assert crawl(links, str(out), config(server)).counts["failed"] == 1
    server.video("/late.mp4", videos["c"])
    kept = next(out.glob(f"videos/*/{digest_bytes(videos['b'])}.mp4"))
    kept.unlink()
    server.seen.clear()
    summary = crawl(links, str(out), config(server))
    assert summary.counts == {"attempted": 4, "ok": 3, "rejected": 1, "failed": 0}
    assert sorted({one.path for one in server.seen}) == ["/b.mp4", "/late.mp4", "/robots.txt"]
    assert kept.exists() and (summary.fetched, summary.skipped) == (2, 2)
    server.seen.clear()
    assert crawl(links, str(out), config(server)).fetched == 0 and not server.seen
    # Other links later: those known stay in the manifest.
    more = write_list(tmp_path / "more.txt", server.url("/none.mp4"))
    assert crawl(more, str(out), config(server)).counts["attempted"] == 5


def test_licences_are_an_allow_list_that_may_be_widened(server: BadServer, tmp_path: Path) -> None:
    (tmp_path / "l.csv").write_text(
        f"url,licence\n{server.url('/a.mp4')},CC BY 4.0\n{server.url('/b.mp4')},CC BY-NC 4.0\n"
        f"{server.url('/c.mp4')},\n"
    )
    source, out = str(tmp_path / "l.csv"), str(tmp_path / "out")
    strict = crawl(source, out, config(server, licences=("cc-by", "cc0")))
    assert strict.counts["ok"] == 1 and strict.reasons == {"licence": 2}
    assert not server.requests("/b.mp4") and not server.requests("/c.mp4")
    wide = crawl(source, out, config(server, licences=("cc-by", "cc-by-nc")))
    assert wide.counts["ok"] == 2 and wide.reasons == {"licence": 1}


def test_a_page_and_a_folder_as_sources(server: BadServer, videos: dict[str, bytes], tmp_path: Path) -> None:
    server.text("/", '<title>Waves</title><video src="/a.mp4"></video><a href="b.mp4">b</a>')
    out = tmp_path / "out"
    assert crawl(server.url("/"), str(out), config(server)).counts["ok"] == 2
    assert rows_of(out)[server.url("/a.mp4")]["title"] == "Waves"
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "x.mp4").write_bytes(videos["c"])
    (folder / "copy of a.mp4").write_bytes(videos["a"])
    (folder / "bad.mp4").write_bytes(b"<html>")
    summary = crawl(str(folder), str(out), config(server))
    assert summary.counts == {"attempted": 5, "ok": 3, "rejected": 2, "failed": 0}
    assert summary.reasons == {"duplicate": 1, "wrong_type": 1}


def test_a_source_that_is_not_there_is_a_row_or_an_error(server: BadServer, tmp_path: Path) -> None:
    summary = crawl(server.url("/none.html"), str(tmp_path / "out"), config(server))
    assert summary.counts == {"attempted": 1, "ok": 0, "rejected": 0, "failed": 1}
    with pytest.raises(UsageError):
        crawl(str(tmp_path / "nowhere"), str(tmp_path / "out"), config(server))


def test_fingerprints_know_the_same_clip_at_another_size(videos: dict[str, bytes], tmp_path: Path) -> None:
    hashes = {}
    for name, data in videos.items():
        (tmp_path / "v.mp4").write_bytes(data)
        found = fingerprint_video(tmp_path / "v.mp4")
        assert found.phash is not None and len(found.phash) == 112
        hashes[name] = found.phash
    assert frames_distance(hashes["a"], hashes["a small"]) <= CrawlConfig().near
    assert change_distance(hashes["a"], hashes["a small"]) <= LARGEST_CHANGE / 2
    for one, other in (("a", "b"), ("a", "c"), ("b", "c")):
        assert frames_distance(hashes[one], hashes[other]) > 60
    encode_video((np.full((64, 64, 3), 90, np.uint8) for _ in range(24)), str(tmp_path / "p.mp4"), fps=24)
    assert fingerprint_video(tmp_path / "p.mp4").phash is None, "a plain colour is like every other"


def tripod_video(path: Path, waves: int, size: tuple[int, int] = (96, 160), crf: int = 18) -> str:
    """Strong still hills and, low in contrast before them, waves of their own for every seed; its hash."""
    import cv2

    hills = np.random.default_rng(1).integers(0, 255, (20, 32), dtype=np.uint8)
    ground = cv2.resize(hills, (640, 384), interpolation=cv2.INTER_CUBIC).astype(np.float32)
    chance = np.random.default_rng(waves)
    foam = [cv2.resize(chance.normal(0, 1.0, (10, 16)).astype(np.float32), (640, 384)) for _ in range(48)]

    def frame_at(index: int) -> Any:
        picture = np.clip(ground + sum(foam[index : index + 8]), 0, 255).astype(np.uint8)
        return cv2.cvtColor(cv2.resize(picture, size[::-1], interpolation=cv2.INTER_AREA), cv2.COLOR_GRAY2RGB)

    encode_video((frame_at(index) for index in range(40)), str(path), fps=24, crf=crf)
    found = fingerprint_video(path).phash
    assert found is not None
    return found


def test_two_clips_from_one_tripod_are_no_twins(tmp_path: Path) -> None:
    first = tripod_video(tmp_path / "one.mp4", 11)
    second = tripod_video(tmp_path / "two.mp4", 12)
    copy = tripod_video(tmp_path / "copy.mp4", 11, (64, 106))
    assert frames_distance(first, second) <= CrawlConfig().near, "the frames alone would not tell"

    def row(url: str, phash: str) -> dict[str, Any]:
        return {"url": url, "sha256": url, "phash": phash, "video_seconds": 1.6, "order": len(url)}

    rows = [row("1", first), row("22", second), row("333", copy)]
    twins = find_twins(rows, CrawlConfig().near)
    assert [(twin["url"], original["url"]) for twin, original, _ in twins] == [("333", "1")]


@pytest.mark.slow
def test_object_storage_is_a_source_and_a_place(
    server: BadServer, videos: dict[str, bytes], s3_url: str, tmp_path: Path
) -> None:
    stored, out = join_url(s3_url, "stored"), join_url(s3_url, "out")
    write_bytes(join_url(stored, "x.mp4"), videos["c"])
    write_bytes(join_url(stored, "deep/copy of a.mp4"), videos["a"])
    write_bytes(join_url(stored, "page.mp4"), b"<html>")
    links = write_list(tmp_path / "l.txt", *map(server.url, ("/a.mp4", "/b.mp4", "/none.mp4")))
    assert crawl(links, out, config(server)).counts["ok"] == 2
    summary = crawl(stored, out, config(server))
    assert summary.counts == {"attempted": 6, "ok": 3, "rejected": 2, "failed": 1}
    assert summary.reasons == {"duplicate": 1, "wrong_type": 1, "not_found": 1}
    kept = {row["url"]: row for row in rows_of(out).values() if row["status"] == "ok"}
    found = {item.key: item for item in list_objects(out)}
    assert set(found) == {
        "crawl.parquet",
        *(row["object"] for row in kept.values()),
        *(f"{row['object'].rpartition('.')[0]}.json" for row in kept.values()),
    }
    for url, name in ((server.url("/a.mp4"), "a"), (join_url(stored, "x.mp4"), "c")):
        assert read_bytes(join_url(out, kept[url]["object"])) == videos[name]
        assert describe_source(found[kept[url]["object"]])["retrieved_at"]
    assert crawl(stored, out, config(server)).fetched == 0
    delete_object(join_url(out, kept[join_url(stored, "x.mp4")]["object"]))
    assert crawl(stored, out, config(server)).fetched == 1
    assert set(found) == {item.key for item in list_objects(out)}


@pytest.mark.slow
def test_kill_9_costs_little(server: BadServer, videos: dict[str, bytes], tmp_path: Path) -> None:
    """Everything finished before the kill is in the next manifest and is not fetched again."""

    def never(handler: Any) -> None:
        time.sleep(20)

    server.behaviours["/c.mp4"] = never
    links = write_list(tmp_path / "l.txt", *(server.url(f"/{name}.mp4") for name in "abc"))
    out = tmp_path / "out"
    script = (
        "import sys; from pipelines.crawl import CrawlConfig, crawl; from storage.fetch import FetchConfig\n"
        "fetch = FetchConfig(allow_hosts=(sys.argv[3],), delay=0.0)\n"
        "crawl(sys.argv[1], sys.argv[2], CrawlConfig(fetch=fetch))"
    )
    running = subprocess.Popen([sys.executable, "-c", script, links, str(out), server.host])
    try:
        deadline = time.monotonic() + 60
        while not server.requests("/c.mp4") and time.monotonic() < deadline:
            time.sleep(0.05)
        assert server.requests("/c.mp4")
    finally:
        os.kill(running.pid, signal.SIGKILL)
        running.wait()
    server.seen.clear()
    server.video("/c.mp4", videos["c"])
    summary = crawl(links, str(out), config(server))
    assert summary.counts == {"attempted": 3, "ok": 3, "rejected": 0, "failed": 0}
    assert [one.path for one in server.seen] == ["/robots.txt", "/c.mp4"]
    leftovers = [path.name for path in out.rglob("*") if path.is_file() and "/rows/" in str(path)]
    assert not leftovers and len(list(out.glob("videos/*/*"))) == 6


def test_the_command(
    server: BadServer,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("STILLSTREAM_CRAWL__FETCH__DELAY", "0")
    out = tmp_path / "out"
    server.text("/", '<a href="/deep">more</a>')
    server.text("/deep", '<video src="/a.mp4"></video><a href="/none.mp4">gone</a>')
    command = ["crawl", server.url("/"), "--out", str(out), "--depth", "1", "--json"]
    assert run([*command, "--allow-host", server.host]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["counts"] == {"attempted": 2, "ok": 1, "rejected": 0, "failed": 1}
    assert said["items"][0]["reason"] == "not_found" and Path(said["manifest_url"]).exists()
    assert run([*command, "--strict", "--allow-host", server.host]) == 1
    refused = ["crawl", server.url("/"), "--out", str(tmp_path / "no"), "--json"]
    assert run(refused) == 0, "a link that is refused is a row, and no broken job"
    assert "private_address" in capsys.readouterr().out


def test_rows_that_a_killed_crawl_left_are_taken_over(tmp_path: Path) -> None:
    row = {"url": "http://e.org/a.mp4", "status": "failed", "reason": "network", "order": 1}
    leave_row(str(tmp_path), {**row, "retrieved_at": datetime.now(UTC)})
    leave_row(str(tmp_path), {**row, "message": "later", "retrieved_at": datetime.now(UTC)})
    assert not (tmp_path / "crawl.parquet").exists()
    with CrawlManifest.read(str(tmp_path)) as manifest:
        known = manifest.rows.get(row["url"])
        assert known is not None and known["message"] == "later"
    assert rows_of(tmp_path)[row["url"]]["retrieved_at"].tzinfo is not None
    assert not [path for path in tmp_path.rglob("*.json")]


def test_planning_needs_no_more_memory_for_more_links(tmp_path: Path) -> None:
    def peak(count: int) -> int:
        with CrawlManifest.read(str(tmp_path / str(count))) as manifest:
            plan = CrawlPlan(manifest, ("cc0",))
            tracemalloc.start()
            for index in range(count):
                licence = "CC0" if index % 2 else "CC BY 4.0"
                plan.add(Link(url=f"http://e.org/{index:07d}.mp4", licence=licence, title="x" * 200), "list")
            pages = [len(page) for page in manifest.rows.task_pages(100)]
            _, most = tracemalloc.get_traced_memory()
            tracemalloc.stop()
            assert sum(pages) == manifest.rows.count_tasks() == len(manifest.rows) == count // 2
            assert [row["order"] for row in manifest.rows] == list(range(1, count, 2))
        return most

    # A link, its task and its row take more than a kilobyte in memory.
    assert peak(2800) < peak(1200) + 600_000


def test_a_wrong_configuration_is_refused() -> None:
    for wrong in ({"near": 99}, {"near": -2}, {"merge_seconds": 0.0}):
        with pytest.raises(UsageError):
            replace(CrawlConfig(), **wrong)  # type: ignore[arg-type]
