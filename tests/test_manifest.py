"""Manifest and ledger: closed lists are kept, columns are typed, and rows stream."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute
import pyarrow.parquet as pq
import pytest

from storage import manifest
from storage.errors import FormatError, UsageError
from storage.manifest import (
    LEDGER_SCHEMA,
    MANIFEST_SCHEMA,
    count_reasons,
    count_statuses,
    read_rows,
    read_table,
    write_rows,
)
from storage.reasons import Reason

WHEN = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def row(index: int, **more: Any) -> dict[str, Any]:
    return {"key": f"k{index:04d}", "source": f"s3://b/{index}.mp4", "status": "ok", **more}


def test_rows_come_back_typed(any_url: str) -> None:
    rows = [
        row(
            0,
            fps=29.97,
            width=640,
            retrieved_at=WHEN,
            title="Wasserfall 水",
            stage_seconds={"flow": 1.5, "cut": 1},
        ),
        row(1, status="rejected", reason=Reason.CAMERA_MOTION, message='it\'s "moving"', camera_drift=0.25),
        row(2, status="failed", reason="truncated"),
    ]
    assert write_rows(f"{any_url}/manifest.parquet", rows, MANIFEST_SCHEMA) == 3
    first, second, third = read_rows(f"{any_url}/manifest.parquet")
    assert first["fps"] == pytest.approx(29.97)
    assert (first["width"], first["retrieved_at"], first["title"]) == (640, WHEN, "Wasserfall 水")
    assert first["stage_seconds"] == {"flow": 1.5, "cut": 1.0}
    assert first["reason"] is None
    assert (second["reason"], second["camera_drift"]) == ("camera_motion", 0.25)
    assert third["key"] == "k0002"


def test_only_asked_columns_are_read(tmp_path: Path) -> None:
    url = str(tmp_path / "m.parquet")
    write_rows(url, [row(0)], MANIFEST_SCHEMA)
    assert list(read_rows(url, columns=["status", "key"])) == [{"status": "ok", "key": "k0000"}]
    assert read_table(url, columns=["key"]).column_names == ["key"]
    with pytest.raises(FormatError, match="no column colour"):
        list(read_rows(url, columns=["colour"]))


def test_rows_stream_in_groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(manifest, "ROW_GROUP_ROWS", 100)
    url = str(tmp_path / "m.parquet")
    ahead: list[int] = []

    def rows() -> Iterator[dict[str, Any]]:
        for index in range(1050):
            ahead.append(index)
            yield row(index)

    assert write_rows(url, rows(), MANIFEST_SCHEMA) == 1050
    assert pq.ParquetFile(url).num_row_groups == 11
    reader = read_rows(url)
    assert [next(reader)["key"] for _ in range(250)] == [f"k{index:04d}" for index in range(250)]
    reader.close()


def test_a_file_can_be_rewritten_from_itself(tmp_path: Path) -> None:
    url = str(tmp_path / "m.parquet")
    write_rows(url, [row(0), row(1)], MANIFEST_SCHEMA)
    write_rows(url, ({**one, "category": "sea"} for one in read_rows(url)), MANIFEST_SCHEMA)
    assert [one["category"] for one in read_rows(url)] == ["sea", "sea"]


def test_the_same_rows_give_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_rows(str(tmp_path / name), [row(0, scores={"b": 1.0, "a": 2.0})], MANIFEST_SCHEMA)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        (row(0, colour="blue"), "unknown columns colour"),
        (row(0, status="fine"), "status must be one of"),
        (row(0, status="failed"), "needs a reason"),
        (row(0, status="failed", reason="whim"), "closed list"),
        (row(0, reason="cut"), "closed list"),
        (row(0, width="wide"), "'width'"),
        (row(0, width=2**40), "'width'"),
        ({"source": "x", "status": "ok"}, "'key'"),
    ],
)
def test_rows_that_break_the_schema_are_refused(tmp_path: Path, bad: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        write_rows(str(tmp_path / "m.parquet"), [row(1), bad], MANIFEST_SCHEMA)
    assert list(tmp_path.iterdir()) == []


def test_the_ledger_holds_lists(tmp_path: Path) -> None:
    url = str(tmp_path / "ledger.parquet")
    one = {"photo": "a b.jpg", "source": "x/a b.jpg", "status": "ok", "outputs": ["a b.mp4", "a b.json"]}
    write_rows(url, [{**one, "warnings": [], "finished_at": WHEN, "seconds": 1.5}], LEDGER_SCHEMA)
    (again,) = read_rows(url)
    assert (again["outputs"], again["warnings"], again["finished_at"]) == (["a b.mp4", "a b.json"], [], WHEN)


def test_damaged_files_are_named(tmp_path: Path) -> None:
    path = tmp_path / "m.parquet"
    write_rows(str(path), [row(index) for index in range(100)], MANIFEST_SCHEMA)
    data = path.read_bytes()
    for bad in (b"", b"not parquet at all", data[:-20], data[: len(data) // 2]):
        path.write_bytes(bad)
        with pytest.raises(FormatError, match=r"m\.parquet is not a readable Parquet file"):
            list(read_rows(str(path)))
    with pytest.raises(UsageError, match="nothing"):
        list(read_rows(str(tmp_path / "gone.parquet")))


def test_counts_add_up() -> None:
    rows = [row(0), row(1, status="rejected", reason="cut"), row(2, status="rejected", reason="cut")]
    rows += [row(3, status="failed", reason="empty")]
    counts = count_statuses(rows)
    assert (counts.attempted, counts.ok, counts.rejected, counts.failed) == (4, 1, 2, 1)
    assert count_reasons(rows) == {"cut": 2, "empty": 1}
    with pytest.raises(FormatError, match="odd"):
        count_statuses([{"status": "odd"}])
    with pytest.raises(AssertionError):
        manifest.Counts(attempted=2, ok=0, rejected=0, failed=1)


def test_scores_are_plain_columns_for_queries(tmp_path: Path) -> None:
    url = str(tmp_path / "m.parquet")
    write_rows(url, [row(index, mean_speed=float(index)) for index in range(10)], MANIFEST_SCHEMA)
    table = read_table(url)
    assert table.schema.field("mean_speed").type == pa.float32()
    assert table.filter(pa.compute.field("mean_speed") > 6.5).num_rows == 3
