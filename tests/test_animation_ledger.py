"""The ledger of a run: parts while it goes on, one sorted table at its end."""

from pathlib import Path

from pipelines.animation_ledger import LedgerWriter, compact_ledger, ledger_parts, read_ledger


def test_parts_are_visible_at_once_and_merge_into_one_sorted_ledger(tmp_path: Path) -> None:
    out = str(tmp_path)
    writer = LedgerWriter(out)
    row = {"source": "s", "status": "ok", "outputs": ["x"], "stage_seconds": {"render": 1.5}}
    for name in ("b.jpg", "a.jpg"):
        writer.add({"photo": name, "message": "first", **row})
    writer.flush()
    assert [r["photo"] for r in read_ledger(out)] == ["a.jpg", "b.jpg"] and ledger_parts(out)
    assert compact_ledger(out) == 2 and not ledger_parts(out)
    writer.add({"photo": "b.jpg", "message": "second", **row})
    writer.remove("a.jpg")
    writer.flush()
    assert [(r["photo"], r["message"]) for r in read_ledger(out)] == [("b.jpg", "second")]
    assert compact_ledger(out) == 1
    assert list(read_ledger(out))[0]["stage_seconds"] == {"render": 1.5}
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["ledger.parquet"]
