"""crawl.parquet: one row for every URL ever attempted, whatever became of it.

While a crawl runs, workers leave one small object per finished URL under `rows/`; they are merged into the
manifest now and then and removed. Whoever kills the crawl loses nothing: the next one begins by merging.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Iterator

import pyarrow as pa

from pipelines.crawl_table import CrawlTable, Row, row_from_json, row_to_json
from storage.digest import digest_bytes
from storage.errors import StoreError, UsageError
from storage.manifest import read_rows, write_rows
from storage.objects import delete_object, exists, join_url, list_objects, read_bytes, write_bytes

__all__ = [
    "CRAWL_SCHEMA",
    "CrawlManifest",
    "keep_merging",
    "leave_row",
    "manifest_url",
]

logger = logging.getLogger(__name__)

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


def manifest_url(out: str) -> str:
    """Where the manifest of a crawl lies."""
    return join_url(out, "crawl.parquet")


def leave_row(out: str, row: Row) -> None:
    """Keep one finished URL until the next merge; the last thing that is done about it."""
    url = join_url(out, ROWS_FOLDER, f"{digest_bytes(row['url'].encode())[:32]}.json")
    write_bytes(url, row_to_json(row).encode())


class CrawlManifest:
    """The rows of one output folder; they lie on local disk while a crawl runs. Use it in a `with`."""

    def __init__(self, out: str) -> None:
        self.out = out
        self.rows = CrawlTable()
        self._lock = threading.Lock()

    def __enter__(self) -> CrawlManifest:
        return self

    def __exit__(self, *exc: object) -> None:
        self.rows.close()

    @classmethod
    def read(cls, out: str) -> CrawlManifest:
        """What is known so far, with whatever a killed crawl left behind."""
        manifest = cls(out)
        if exists(manifest_url(out)):
            for row in read_rows(manifest_url(out)):
                manifest.rows.put(row)
        manifest.merge()
        return manifest

    def merge(self) -> None:
        """Take over what workers left, write it, and only then remove it there."""
        with self._lock:
            left = []
            for url, row in self._left():
                self.rows.put(row)
                left.append(url)
            if left:
                self.write()
            for url in left:
                delete_object(url)

    def write(self) -> None:
        """Publish all rows, in the order of their links."""
        write_rows(manifest_url(self.out), self.rows, CRAWL_SCHEMA)

    def _left(self) -> Iterator[tuple[str, Row]]:
        with contextlib.suppress(UsageError):  # there is no such folder yet
            for item in list(list_objects(join_url(self.out, ROWS_FOLDER), suffixes={".json"})):
                yield item.url, row_from_json(read_bytes(item.url))


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
