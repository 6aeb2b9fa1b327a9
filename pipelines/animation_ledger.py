"""The ledger of a folder of loops: one row per photo, readable while a run is still going.

Workers append parts (`ledger/part-*.jsonl`, a few seconds of rows each); the end of a run, or the beginning
of the next one after a kill, merges them into `ledger.parquet`. `read_ledger` shows both as one.
Memory does not grow with the ledger: rows are sorted on disk.
"""

import contextlib
import heapq
import json
import tempfile
import time
import uuid
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from storage.errors import UsageError
from storage.manifest import LEDGER_SCHEMA, read_rows, write_rows
from storage.objects import (
    delete_object,
    exists,
    is_local,
    join_url,
    list_objects,
    read_bytes,
    write_bytes,
)

__all__ = [
    "LEDGER_NAME",
    "PARTS_FOLDER",
    "LedgerWriter",
    "Row",
    "compact_ledger",
    "ledger_parts",
    "read_ledger",
]

Row = dict[str, Any]

LEDGER_NAME = "ledger.parquet"
PARTS_FOLDER = "ledger"
PART_PREFIX = "part-"
FLUSH_ROWS = 200
FLUSH_SECONDS = 2.0
ROWS_IN_MEMORY = 5_000
REMOVED = "removed"  # a part's row with this mark takes a photo out of the ledger


class LedgerWriter:
    """Collects rows and publishes them as parts, often enough that a watcher sees the run advance."""

    def __init__(self, out: str) -> None:
        self._out = out
        self._rows: list[Row] = []
        self._flushed_at = time.monotonic()

    def add(self, row: Row) -> None:
        """Take a row over; it is published within about two seconds, or by `flush`."""
        self._rows.append({"finished_at": datetime.now(UTC).isoformat(), **row})
        if len(self._rows) >= FLUSH_ROWS or time.monotonic() - self._flushed_at >= FLUSH_SECONDS:
            self.flush()

    def remove(self, photo: str) -> None:
        """Take a photo out of the ledger: it now goes by another name."""
        self.add({"photo": photo, REMOVED: True})

    def flush(self) -> None:
        """Publish what has been collected."""
        if self._rows:
            lines = "".join(json.dumps(row, ensure_ascii=True, allow_nan=False) + "\n" for row in self._rows)
            part = f"{PART_PREFIX}{time.time_ns():020d}-{uuid.uuid4().hex[:8]}.jsonl"
            write_bytes(join_url(self._out, PARTS_FOLDER, part), lines.encode())
            self._rows = []
        self._flushed_at = time.monotonic()


def read_ledger(out: str) -> Iterator[Row]:
    """The rows of a folder of loops, one per photo, sorted by photo; nothing when there is no ledger yet."""
    parts = ledger_parts(out)
    if parts:
        yield from _merged(out, parts)
    elif exists(join_url(out, LEDGER_NAME)):
        yield from read_rows(join_url(out, LEDGER_NAME))


def compact_ledger(out: str) -> int:
    """Merge the parts into `ledger.parquet` and delete them; returns the number of rows."""
    parts = ledger_parts(out)
    if not parts and exists(join_url(out, LEDGER_NAME)):
        return sum(1 for _ in read_rows(join_url(out, LEDGER_NAME), columns=["photo"]))
    count = write_rows(join_url(out, LEDGER_NAME), _merged(out, parts), LEDGER_SCHEMA)
    for url in parts:
        delete_object(url)
    if is_local(out):
        with contextlib.suppress(OSError):  # others may have put files there
            Path(join_url(out, PARTS_FOLDER).removeprefix("file://")).rmdir()
    return count


def ledger_parts(out: str) -> list[str]:
    """The parts that are not merged yet, oldest first."""
    with contextlib.suppress(UsageError):  # no such folder
        found = list_objects(join_url(out, PARTS_FOLDER), suffixes={".jsonl"})
        return sorted(info.url for info in found if info.key.startswith(PART_PREFIX))
    return []


def _merged(out: str, parts: list[str]) -> Iterator[Row]:
    """Ledger and parts as one, the newest row of each photo, sorted; sorted runs wait on disk."""
    with tempfile.TemporaryDirectory(prefix="stillstream-") as folder:
        runs = list(_sorted_runs(_all_rows(out, parts), Path(folder)))
        last: Row | None = None
        for row in heapq.merge(*(_read_run(path) for path in runs), key=_order):
            if last is not None and row["photo"] != last["photo"]:
                yield from _if_kept(last)
            last = row
        if last is not None:
            yield from _if_kept(last)


def _if_kept(row: Row) -> Iterator[Row]:
    if not row.get(REMOVED):
        finished = row.get("finished_at")
        yield {**row, "finished_at": datetime.fromisoformat(finished) if finished else None}


def _order(row: Row) -> tuple[str, str]:
    return row["photo"], row.get("finished_at") or ""


def _all_rows(out: str, parts: list[str]) -> Iterator[Row]:
    if exists(join_url(out, LEDGER_NAME)):
        for row in read_rows(join_url(out, LEDGER_NAME)):
            finished = row.get("finished_at")
            yield {**row, "finished_at": finished.isoformat() if finished else None}
    for url in parts:
        for line in read_bytes(url).splitlines():
            yield json.loads(line)


def _sorted_runs(rows: Iterable[Row], folder: Path) -> Iterator[Path]:
    batch: list[Row] = []
    for index, row in enumerate(rows, start=1):
        batch.append(row)
        if index % ROWS_IN_MEMORY == 0:
            yield _write_run(batch, folder / f"{index}.jsonl")
            batch = []
    if batch:
        yield _write_run(batch, folder / "rest.jsonl")


def _write_run(batch: list[Row], path: Path) -> Path:
    batch.sort(key=_order)
    path.write_text("".join(json.dumps(row, ensure_ascii=True) + "\n" for row in batch))
    return path


def _read_run(path: Path) -> Iterator[Row]:
    with path.open() as lines:
        for line in lines:
            yield json.loads(line)
