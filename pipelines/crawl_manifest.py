"""crawl.parquet: one row for every URL ever attempted, whatever became of it.

While a crawl runs, workers leave one small object per finished URL under `rows/`; they are merged into the
manifest now and then and removed. Whoever kills the crawl loses nothing: the next one begins by merging.
"""

from __future__ import annotations

import contextlib
import json
import logging
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import pyarrow as pa

from pipelines.fingerprint import FRAMES_BITS, change_distance, frames_distance
from storage.digest import digest_bytes
from storage.errors import StoreError, UsageError
from storage.manifest import read_rows, write_rows
from storage.objects import delete_object, exists, join_url, list_objects, read_bytes, write_bytes
from storage.reasons import Reason, Status

__all__ = [
    "CRAWL_SCHEMA",
    "MAX_DISTANCE",
    "CrawlManifest",
    "Row",
    "find_twins",
    "keep_merging",
    "leave_row",
    "manifest_url",
    "twin_row",
]

logger = logging.getLogger(__name__)

Row = dict[str, Any]

CRAWL_SCHEMA = pa.schema(
    [
        pa.field("url", pa.string(), nullable=False),
        pa.field("status", pa.string(), nullable=False),
        pa.field("reason", pa.string()),
        pa.field("message", pa.string()),
        pa.field("stage", pa.string()),
        pa.field("source", pa.string()),
        pa.field("order", pa.int64()),  # place among all links found: the first of two twins is the original
        pa.field("licence", pa.string()),
        pa.field("author", pa.string()),
        pa.field("title", pa.string()),
        pa.field("page", pa.string()),
        pa.field("retrieved_at", pa.timestamp("us", tz="UTC")),
        pa.field("object", pa.string()),  # path below the output folder
        pa.field("sha256", pa.string()),
        pa.field("phash", pa.string()),
        pa.field("bytes", pa.int64()),
        pa.field("content_type", pa.string()),
        pa.field("etag", pa.string()),
        pa.field("width", pa.int32()),
        pa.field("height", pa.int32()),
        pa.field("fps", pa.float32()),
        pa.field("video_seconds", pa.float32()),
        pa.field("seconds_spent", pa.float32()),
    ]
)
ROWS_FOLDER = "rows"
BAND_BITS = 16
# Hashes that differ in fewer bits than there are bands have a band in common, so none is overlooked.
MAX_DISTANCE = FRAMES_BITS // BAND_BITS - 1
# Of 192 bits: at most 44 between 68 real clips and small, strongly compressed copies of them; at least 78
# between stretches of one real video whose frames alone would have passed for the same.
LARGEST_CHANGE = 60


def manifest_url(out: str) -> str:
    """Where the manifest of a crawl lies."""
    return join_url(out, "crawl.parquet")


def leave_row(out: str, row: Row) -> None:
    """Keep one finished URL until the next merge; the last thing that is done about it."""
    url = join_url(out, ROWS_FOLDER, f"{digest_bytes(row['url'].encode())[:32]}.json")
    write_bytes(url, json.dumps(row, allow_nan=False, default=_plain).encode())


@dataclass(slots=True)
class CrawlManifest:
    """The rows of one output folder by URL."""

    out: str
    rows: dict[str, Row] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)

    @classmethod
    def read(cls, out: str) -> CrawlManifest:
        """What is known so far, with whatever a killed crawl left behind."""
        manifest = cls(out)
        if exists(manifest_url(out)):
            manifest.rows = {row["url"]: row for row in read_rows(manifest_url(out))}
        manifest.merge()
        return manifest

    def merge(self) -> None:
        """Take over what workers left, write it, and only then remove it there."""
        with self.lock:
            left = list(self._left())
            for _, row in left:
                self.rows[row["url"]] = row
            if left:
                self.write()
            for url, _ in left:
                delete_object(url)

    def write(self) -> None:
        """Publish all rows, in the order of their links."""
        rows = sorted(self.rows.values(), key=lambda row: (row.get("order") or 0, row["url"]))
        write_rows(manifest_url(self.out), rows, CRAWL_SCHEMA)

    def _left(self) -> Iterator[tuple[str, Row]]:
        with contextlib.suppress(UsageError):  # there is no such folder yet
            for item in list(list_objects(join_url(self.out, ROWS_FOLDER), suffixes={".json"})):
                row = json.loads(read_bytes(item.url))
                if row.get("retrieved_at"):
                    row["retrieved_at"] = datetime.fromisoformat(row["retrieved_at"])
                yield item.url, row


@contextlib.contextmanager
def keep_merging(manifest: CrawlManifest, seconds: float) -> Iterator[None]:
    """Merge every `seconds` while the block runs, and once at its end, however it ends."""
    over = threading.Event()

    def work() -> None:
        while not over.wait(seconds):
            try:
                manifest.merge()
            except StoreError as error:  # the rows stay where they are for the next merge
                logger.warning("rows could not be merged now: %s", error)

    worker = threading.Thread(target=work, name="merging rows", daemon=True)
    worker.start()
    try:
        yield
    finally:
        over.set()
        worker.join()
        manifest.merge()


def find_twins(rows: Iterable[Row], distance: int) -> dict[str, tuple[Row, str]]:
    """Rows that show what an earlier one shows: URL → (the original's row, how they are alike).

    Rows count in the order of their links. The same bytes are twins; so are videos of about the same length
    (0.5 s) whose frames' hashes differ in at most `distance` bits and in which the same changes; -1 compares
    bytes only.
    """
    twins: dict[str, tuple[Row, str]] = {}
    by_digest: dict[str, Row] = {}
    by_band: dict[tuple[int, int, str], list[Row]] = {}
    for row in sorted(rows, key=lambda row: (row.get("order") or 0, row["url"])):
        if row["sha256"] in by_digest:
            twins[row["url"]] = (by_digest[row["sha256"]], "the same bytes")
            continue
        by_digest[row["sha256"]] = row
        if distance < 0 or not row.get("phash"):
            continue
        second = int(row["video_seconds"] or 0.0)
        near = (
            other
            for at in (second - 1, second, second + 1)
            for band in _bands(row["phash"])
            for other in by_band.get((at, *band), ())
        )
        original = next((other for other in near if _alike(row, other, distance)), None)
        if original is not None:
            twins[row["url"]] = (original, "the same pictures")
            continue
        for band in _bands(row["phash"]):
            by_band.setdefault((second, *band), []).append(row)
    return twins


def _alike(one: Row, other: Row, distance: int) -> bool:
    near_in_time = abs(float(one["video_seconds"]) - float(other["video_seconds"])) <= 0.5
    hashes = (one["phash"], other["phash"])
    return (
        near_in_time and frames_distance(*hashes) <= distance and change_distance(*hashes) <= LARGEST_CHANGE
    )


def _bands(phash: str) -> Iterator[tuple[int, str]]:
    digits = BAND_BITS // 4
    for index in range(0, FRAMES_BITS // 4, digits):
        yield index, phash[index : index + digits]


def _plain(value: object) -> str:
    if isinstance(value, datetime):
        return value.isoformat()
    raise TypeError(f"a row cannot hold {type(value).__name__}")


def twin_row(row: Row, original: Row, how: str) -> Row:
    """The row of a twin: rejected, with a word about its original; its own object is not kept."""
    message = f"{how} as {original['url']}"
    changes = {"status": Status.REJECTED, "reason": Reason.DUPLICATE, "message": message, "object": None}
    return {**row, **changes}
