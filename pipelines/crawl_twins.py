"""Twins: rows of a crawl that show what an earlier row shows, by their bytes or by their fingerprints."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterable, Iterator

from pipelines.crawl_table import Row
from pipelines.fingerprint import FRAMES_BITS, change_distance, frames_distance
from storage.reasons import Reason, Status

__all__ = ["LARGEST_CHANGE", "MAX_DISTANCE", "find_twins", "twin_row"]

BAND_BITS = 16
BANDS = FRAMES_BITS // BAND_BITS
# Hashes that differ in fewer bits than there are bands have a band in common, so none is overlooked.
MAX_DISTANCE = BANDS - 1
# Of 192 bits: at most 44 between 68 real clips and small, strongly compressed copies of them; at least 78
# between stretches of one real video whose frames alone would have passed for the same.
LARGEST_CHANGE = 60
NEAR_SECONDS = 0.5  # of length
TABLES = """
CREATE TABLE firsts (number INTEGER PRIMARY KEY, sha256 TEXT UNIQUE, url TEXT, object TEXT, phash TEXT,
                     seconds REAL);
CREATE TABLE bands (band INTEGER, number INTEGER, PRIMARY KEY (band, number)) WITHOUT ROWID;
"""


def find_twins(rows: Iterable[Row], distance: int) -> Iterator[tuple[Row, Row, str]]:
    """Yield each twin, what is known of its original (`url`, `object`), and how they are alike.

    `rows` come in the order of their links. The same bytes are twins; so are videos of about the same length
    whose frames' hashes differ in at most `distance` bits and in which the same changes; -1 compares bytes
    only. What was seen is kept on disk.
    """
    with contextlib.closing(sqlite3.connect("", isolation_level=None)) as base:
        base.executescript(TABLES)
        for row in rows:
            same = base.execute(
                "SELECT url, object FROM firsts WHERE sha256 = ?", (row["sha256"],)
            ).fetchone()
            if same is not None:
                yield row, {"url": same[0], "object": same[1]}, "the same bytes"
                continue
            hashed = distance >= 0 and bool(row.get("phash"))
            if hashed and (near := _nearest(base, row, distance)) is not None:
                yield row, near, "the same pictures"
                continue
            values = (
                row["sha256"],
                row["url"],
                row.get("object"),
                row.get("phash"),
                row.get("video_seconds"),
            )
            number = base.execute("INSERT INTO firsts VALUES (NULL, ?, ?, ?, ?, ?)", values).lastrowid
            if hashed:
                bands = ((band, number) for band in _bands(row["phash"], _second(row)))
                base.executemany("INSERT OR IGNORE INTO bands VALUES (?, ?)", bands)


def twin_row(row: Row, original: Row, how: str) -> Row:
    """The row of a twin: rejected, with a word about its original; its own object is not kept."""
    message = f"{how} as {original['url']}"
    changes = {"status": Status.REJECTED, "reason": Reason.DUPLICATE, "message": message, "object": None}
    return {**row, **changes}


def _nearest(base: sqlite3.Connection, row: Row, distance: int) -> Row | None:
    """The earliest row that shows the same."""
    second = _second(row)
    bands = [band for at in (second - 1, second, second + 1) for band in _bands(row["phash"], at)]
    marks = ",".join("?" * len(bands))
    found = base.execute(
        f"SELECT url, object, phash, seconds FROM firsts WHERE number IN "  # noqa: S608 (marks only)
        f"(SELECT number FROM bands WHERE band IN ({marks})) ORDER BY number",
        bands,
    )
    for url, path, phash, seconds in found:
        if _alike(row, phash, seconds, distance):
            return {"url": url, "object": path}
    return None


def _alike(row: Row, phash: str, seconds: float | None, distance: int) -> bool:
    return (
        abs(float(row["video_seconds"] or 0.0) - float(seconds or 0.0)) <= NEAR_SECONDS
        and frames_distance(row["phash"], phash) <= distance
        and change_distance(row["phash"], phash) <= LARGEST_CHANGE
    )


def _second(row: Row) -> int:
    return int(row["video_seconds"] or 0.0)


def _bands(phash: str, second: int) -> Iterator[int]:
    """A number for each part of the frames' hashes, of what it is, where it is, and the video's length."""
    digits = BAND_BITS // 4
    for index in range(BANDS):
        part = int(phash[index * digits : (index + 1) * digits], 16)
        yield ((second * BANDS + index) << BAND_BITS) | part
