"""`stillstream status`: what a folder holds, how many of its items are in which state, and nothing else."""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from samples import write_small_dataset

from flows.cli import run
from pipelines.animation_ledger import LedgerWriter, compact_ledger
from pipelines.crawl_manifest import CRAWL_SCHEMA
from pipelines.parts import PartStore
from pipelines.status import read_status
from storage.errors import UsageError
from storage.manifest import LEDGER_SCHEMA, write_rows
from storage.model_registry import EventKind, ModelRegistry
from storage.objects import ObjectInfo, join_url, write_bytes


def told(url: str, capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    """What the command says by --json."""
    assert run(["status", url, "--json"]) == 0
    return dict(json.loads(capsys.readouterr().out))


def photo_row(number: int, status: str = "ok", **values: object) -> dict[str, Any]:
    reason = {"ok": None, "failed": "truncated", "rejected": "nothing_to_animate"}[status]
    return {"photo": f"{number:06d}.jpg", "source": "x", "status": status, "reason": reason, **values}


def test_a_dataset_tells_of_its_clips(any_url: str, capsys: pytest.CaptureFixture[str]) -> None:
    write_small_dataset(any_url)
    found = told(any_url, capsys)
    assert found["what"] == "dataset" and found["states"] == {"ok": 6, "rejected": 0, "failed": 1}
    assert found["reasons"] == {"truncated": 1} and found["total"] == 7
    assert found["facts"]["splits"] == {"train": 4, "val": 2} and found["facts"]["shards"] == 2


def test_a_dataset_that_is_being_built_says_how_far_it_is(tmp_path: Path) -> None:
    url = str(tmp_path / "data")
    store = PartStore(dataset_url=url, config_digest="c" * 64)
    store.write_listing(ObjectInfo(url=f"v{n}.mp4", key=f"v{n}.mp4", size=1, etag="e") for n in range(700))
    for number in range(3):
        write_bytes(join_url(store.url, f"part{number}.json"), b"{}")
    found = read_status(url)
    assert found.what == "unfinished dataset" and found.states == {"measured": 3, "waiting": 697}
    write_small_dataset(url)
    assert read_status(url).facts["being extended"] == {"measured": 3, "waiting": 697}


def test_a_registry_tells_of_its_versions(any_url: str, capsys: pytest.CaptureFixture[str]) -> None:
    registry = ModelRegistry(any_url)
    names = []
    for text in ("a", "b", "c", "d"):
        write_bytes(join_url(any_url, "incoming", text), text.encode())
        names.append(registry.add({"motion": join_url(any_url, "incoming", text)}, {"motion": "x"}, {}).name)
    registry.found()
    registry.record(EventKind.PROMOTED, names[0], why="first")
    registry.record(EventKind.PROMOTED, names[1], why="better")
    registry.record(EventKind.REFUSED, names[2], why="worse for sure")
    found = told(any_url, capsys)
    assert found["states"] == {"current": 1, "former": 1, "refused": 1, "candidate": 1}
    assert (
        found["facts"]["current version"] == names[1] and "worse for sure" in found["facts"]["last decision"]
    )


def test_a_library_tells_of_its_photos_in_the_middle_of_a_run(tmp_path: Path) -> None:
    url = str(tmp_path)
    first = LedgerWriter(url)
    for number in range(3):
        first.add(photo_row(number, model_version="abc"))
    first.flush()
    compact_ledger(url)
    assert read_status(url).states == {"ok": 3, "rejected": 0, "failed": 0}
    tasks = b"".join(b'{"record": {}}\n' for _ in range(10))
    write_bytes(join_url(url, "ledger", "pending-000000000.jsonl"), tasks)
    write_bytes(join_url(url, "ledger", "pending-orphans.jsonl"), b"{}")
    second = LedgerWriter(url)
    second.add(photo_row(2, "failed"))
    second.add(photo_row(7, "rejected"))
    second.flush()
    found = read_status(url)
    assert found.states == {"ok": 2, "rejected": 1, "failed": 1, "waiting": 8}
    assert found.reasons == {"truncated": 1, "nothing_to_animate": 1}
    assert found.facts == {"model versions": {"abc": 2}}


def test_a_crawl_tells_of_its_links(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [
        {"url": "http://a/1", "status": "ok"},
        {"url": "http://a/2", "status": "failed", "reason": "network"},
    ]
    write_rows(str(tmp_path / "crawl.parquet"), rows, CRAWL_SCHEMA)
    found = told(str(tmp_path), capsys)
    assert (found["what"], found["states"]) == ("crawl", {"ok": 1, "rejected": 0, "failed": 1})


def test_people_see_a_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_small_dataset(str(tmp_path))
    assert run(["status", str(tmp_path)]) == 0
    shown = capsys.readouterr().out
    assert "Dataset" in shown and "truncated 1" in shown and "clips" in shown
    registry = ModelRegistry(str(tmp_path / "models"))
    write_bytes(str(tmp_path / "weights"), b"w")
    name = registry.add({"motion": str(tmp_path / "weights")}, {"motion": "x"}, {}).name
    registry.record(EventKind.PROMOTED, name, why="first")
    registry.found()
    assert run(["status", registry.url]) == 0
    shown = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["│", "current", "│", "1", "│"] in shown and ["│", "current", "version", "│", name, "│"] in shown


def test_anything_else_is_one_clear_line(any_url: str, capsys: pytest.CaptureFixture[str]) -> None:
    write_bytes(join_url(any_url, "holiday.jpg"), b"x")
    assert run(["status", any_url]) == 2
    assert "is no dataset, model registry, animated library or crawl" in capsys.readouterr().err
    with pytest.raises(UsageError):
        read_status(join_url(any_url, "nothing", "here"))


def test_memory_does_not_grow_with_the_ledger(tmp_path: Path) -> None:
    def rows(count: int) -> Iterator[dict[str, Any]]:
        for number in range(count):
            yield photo_row(number, "ok", outputs=["a.mp4", "a.poster.jpg"])

    peaks = []
    for count in (6_000, 30_000):
        folder = tmp_path / str(count)
        folder.mkdir()
        write_rows(str(folder / "ledger.parquet"), rows(count), LEDGER_SCHEMA)
        tracemalloc.start()
        assert read_status(str(folder)).states["ok"] == count
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 2 * peaks[0], peaks
