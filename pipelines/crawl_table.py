"""What a crawl knows while it runs, on local disk: rows by URL, and links still to be fetched.

A private SQLite database that vanishes with its connection. A crawl of millions of links needs no more memory
than one of ten.
"""

from __future__ import annotations

import json
import sqlite3
import threading
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from pipelines.links import Link
from storage.reasons import Reason, Status

__all__ = ["CrawlTable", "Row", "Task", "row_from_json", "row_to_json"]

Row = dict[str, Any]

PAGE = 500
TABLES = """
CREATE TABLE rows (url TEXT PRIMARY KEY, place INTEGER, status TEXT, reason TEXT, sha256 TEXT, body TEXT);
CREATE INDEX rows_by_place ON rows (place, url);
CREATE INDEX rows_by_digest ON rows (sha256);
CREATE TABLE tasks (place INTEGER PRIMARY KEY, body TEXT);
CREATE TABLE spellings (address TEXT PRIMARY KEY, url TEXT);
CREATE TABLE met (url TEXT PRIMARY KEY);
CREATE TABLE objects (path TEXT PRIMARY KEY);
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Task:
    """One link to fetch, where it came from, and its place among all links."""

    link: Link
    source: str
    order: int


class CrawlTable:
    """Rows, tasks, and the sets that planning asks; usable from several threads. Close it."""

    def __init__(self) -> None:
        # Without a name SQLite keeps what does not fit its small cache in a temporary file of its own.
        self._base = sqlite3.connect("", check_same_thread=False, isolation_level=None)
        self._lock = threading.Lock()
        with self._lock:
            self._base.executescript(TABLES)

    def close(self) -> None:
        """Forget everything."""
        self._base.close()

    def __len__(self) -> int:
        return int(self._one("SELECT count(*) FROM rows")[0])

    def __iter__(self) -> Iterator[Row]:
        """All rows in the order of their links; they may be replaced meanwhile."""
        place, url = -1, ""
        while True:
            page = self._all(
                "SELECT place, url, body FROM rows WHERE (place, url) > (?, ?) ORDER BY place, url LIMIT ?",
                place, url, PAGE,
            )  # fmt: skip
            for _, _, body in page:
                yield row_from_json(body)
            if len(page) < PAGE:
                return
            place, url = page[-1][:2]

    def get(self, url: str) -> Row | None:
        """The row of a URL."""
        found = self._all("SELECT body FROM rows WHERE url = ?", url)
        return row_from_json(found[0][0]) if found else None

    def put(self, row: Row) -> None:
        """Take in a row, in place of an earlier one of its URL."""
        verdict = (row["status"], row["reason"], row.get("sha256"))
        values = (row["url"], row.get("order") or 0, *verdict, row_to_json(row))
        self._run("INSERT OR REPLACE INTO rows VALUES (?, ?, ?, ?, ?, ?)", *values)

    def last_place(self) -> int:
        """The highest place of any row."""
        return int(self._one("SELECT coalesce(max(place), 0) FROM rows")[0])

    def dropped_digests(self) -> Iterator[str]:
        """Digests that only twins have: nobody needs their objects."""
        found = self._all(
            "SELECT DISTINCT sha256 FROM rows AS twin WHERE reason = ? AND sha256 IS NOT NULL "
            "AND NOT EXISTS (SELECT 1 FROM rows WHERE sha256 = twin.sha256 AND status = ?)",
            str(Reason.DUPLICATE), str(Status.OK),
        )  # fmt: skip
        yield from (str(digest) for (digest,) in found)

    def meet(self, url: str) -> bool:
        """Whether a URL is met for the first time in this run."""
        return self._run("INSERT OR IGNORE INTO met VALUES (?)", url) > 0

    def claim(self, address: str, url: str) -> str:
        """The first URL that claimed an address; `url` itself when there was none."""
        self._run("INSERT OR IGNORE INTO spellings VALUES (?, ?)", address, url)
        return str(self._one("SELECT url FROM spellings WHERE address = ?", address)[0])

    def note_objects(self, paths: Iterable[str]) -> None:
        """Remember which objects are stored."""
        with self._lock:
            self._base.executemany("INSERT OR IGNORE INTO objects VALUES (?)", ((path,) for path in paths))

    def is_stored(self, path: str) -> bool:
        """Whether an object was noted."""
        return bool(self._all("SELECT 1 FROM objects WHERE path = ?", path))

    def add_task(self, task: Task) -> None:
        """Keep a link to be fetched."""
        self._run("INSERT OR REPLACE INTO tasks VALUES (?, ?)", task.order, json.dumps(asdict(task)))

    def count_tasks(self) -> int:
        """How many links are to be fetched."""
        return int(self._one("SELECT count(*) FROM tasks")[0])

    def task_pages(self, size: int) -> Iterator[list[Task]]:
        """The tasks in their order, so many at a time."""
        place = -1
        while page := self._all(
            "SELECT place, body FROM tasks WHERE place > ? ORDER BY place LIMIT ?", place, size
        ):
            place = page[-1][0]
            yield [_task(body) for _, body in page]

    def _run(self, statement: str, *values: Any) -> int:
        with self._lock:
            return self._base.execute(statement, values).rowcount

    def _all(self, statement: str, *values: Any) -> list[Any]:
        with self._lock:
            return self._base.execute(statement, values).fetchall()

    def _one(self, statement: str, *values: Any) -> Any:
        return self._all(statement, *values)[0]


def row_to_json(row: Row) -> str:
    """A row as JSON; times become text."""
    return json.dumps(row, allow_nan=False, default=_plain)


def row_from_json(text: str | bytes) -> Row:
    """A row from its JSON."""
    row: Row = json.loads(text)
    if row.get("retrieved_at"):
        row["retrieved_at"] = datetime.fromisoformat(row["retrieved_at"])
    return row


def _plain(value: object) -> str:
    if isinstance(value, datetime):
        return value.isoformat()
    raise TypeError(f"a row cannot hold {type(value).__name__}")


def _task(body: str) -> Task:
    plain = json.loads(body)
    return Task(link=Link(**plain["link"]), source=plain["source"], order=plain["order"])
