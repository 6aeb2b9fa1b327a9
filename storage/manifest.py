"""Manifest and ledger: one Parquet row for every item ever attempted, with its status and reason.

The manifest belongs to a dataset (one row per clip attempted, or per video that gave none), the ledger to
a folder of animated photos (one row per photo).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from storage.errors import FormatError, UsageError
from storage.objects import Url, atomic_writer, open_object
from storage.reasons import Reason, Status

__all__ = [
    "LEDGER_SCHEMA",
    "MANIFEST_SCHEMA",
    "Counts",
    "column_names",
    "count_reasons",
    "count_statuses",
    "read_rows",
    "read_table",
    "write_rows",
]

# Rows held in memory at once by writer and reader.
ROW_GROUP_ROWS = 5_000

_STATUS_FIELDS = [
    pa.field("status", pa.string(), nullable=False),
    pa.field("reason", pa.string()),
    pa.field("message", pa.string()),
]
_SECONDS_FIELDS = [
    pa.field("seconds_spent", pa.float32()),
    pa.field("stage_seconds", pa.map_(pa.string(), pa.float32())),
]

MANIFEST_SCHEMA = pa.schema(
    [
        pa.field("key", pa.string(), nullable=False),
        pa.field("source", pa.string(), nullable=False),
        pa.field("sha256", pa.string()),
        pa.field("source_tag", pa.string()),  # size and entity tag: whether the source is still the same
        pa.field("clip_start_seconds", pa.float64()),
        *_STATUS_FIELDS,
        pa.field("stage", pa.string()),
        # What is known of the source.
        pa.field("category", pa.string()),
        pa.field("licence", pa.string()),
        pa.field("author", pa.string()),
        pa.field("title", pa.string()),
        pa.field("page", pa.string()),
        pa.field("retrieved_at", pa.timestamp("us", tz="UTC")),
        pa.field("width", pa.int32()),
        pa.field("height", pa.int32()),
        pa.field("fps", pa.float32()),
        pa.field("frames", pa.int32()),
        # Where the sample lies.
        pa.field("split", pa.string()),
        pa.field("shard", pa.string()),
        # Measures of the clip; thresholds are applied to these columns and can be changed afterwards.
        pa.field("camera_drift", pa.float32()),
        pa.field("mean_speed", pa.float32()),
        pa.field("p95_speed", pa.float32()),
        pa.field("moving_share", pa.float32()),
        pa.field("coherence", pa.float32()),
        pa.field("fluid_score", pa.float32()),
        pa.field("brightness", pa.float32()),
        pa.field("direction", pa.float32()),
        pa.field("scores", pa.map_(pa.string(), pa.float32())),
        *_SECONDS_FIELDS,
    ]
)

LEDGER_SCHEMA = pa.schema(
    [
        pa.field("photo", pa.string(), nullable=False),
        pa.field("source", pa.string(), nullable=False),
        # What the photo was when it was listed: a rerun compares these and reads nothing.
        pa.field("source_size", pa.int64()),
        pa.field("source_etag", pa.string()),
        pa.field("name", pa.string()),  # path of its results, without a suffix
        pa.field("photo_sha256", pa.string()),
        pa.field("config_digest", pa.string()),
        pa.field("weights_digest", pa.string()),
        pa.field("model_version", pa.string()),  # in a model registry, where the weights come from one
        *_STATUS_FIELDS,
        pa.field("outputs", pa.list_(pa.string())),
        pa.field("seconds", pa.float32()),
        pa.field("frames", pa.int32()),
        pa.field("width", pa.int32()),
        pa.field("height", pa.int32()),
        pa.field("moving_share", pa.float32()),
        pa.field("confidence", pa.float32()),
        pa.field("mean_speed", pa.float32()),
        pa.field("category", pa.string()),
        pa.field("warnings", pa.list_(pa.string())),
        pa.field("finished_at", pa.timestamp("us", tz="UTC")),
        *_SECONDS_FIELDS,
    ]
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Counts:
    """Items by status; ok + rejected + failed = attempted, always."""

    attempted: int
    ok: int
    rejected: int
    failed: int

    def __post_init__(self) -> None:
        assert self.ok + self.rejected + self.failed == self.attempted, self


def count_statuses(rows: Iterable[Mapping[str, Any]]) -> Counts:
    """Count rows by status; raises FormatError for a status outside the closed list."""
    counted = Counter(str(row["status"]) for row in rows)
    if unknown := counted.keys() - set(Status):
        raise FormatError(
            f"a row's status must be one of {', '.join(Status)}, got {', '.join(sorted(unknown))}"
        )
    ok, rejected, failed = counted[Status.OK], counted[Status.REJECTED], counted[Status.FAILED]
    return Counts(attempted=counted.total(), ok=ok, rejected=rejected, failed=failed)


def count_reasons(rows: Iterable[Mapping[str, Any]]) -> dict[str, int]:
    """Rows that are not ok by reason, the most frequent first."""
    counted = Counter(str(row["reason"]) for row in rows if row["status"] != Status.OK)
    return dict(sorted(counted.items(), key=lambda item: (-item[1], item[0])))


def write_rows(url: Url, rows: Iterable[Mapping[str, Any]], schema: pa.Schema) -> int:
    """Write rows as Parquet, atomically and in row groups; returns how many there were.

    Columns missing from a row become null. Raises UsageError for a column the schema does not have, for a
    value it cannot hold, and for a status or reason outside the closed lists.
    """
    written = 0
    rows = iter(rows)
    # Rows may come from a reader of the very object that is being replaced: it stays until the end.
    with atomic_writer(url) as stream, pq.ParquetWriter(stream, schema, compression="zstd") as writer:
        while group := list(islice(rows, ROW_GROUP_ROWS)):
            writer.write_batch(_to_batch(group, schema, str(url)))
            written += len(group)
    return written


def read_rows(url: Url, columns: Sequence[str] | None = None) -> Iterator[dict[str, Any]]:
    """The rows of a Parquet file as dicts, streamed; maps come as dicts, times as aware datetimes.

    Raises UsageError when the file is missing and FormatError when it is not Parquet.
    """
    with open_object(url) as stream, _translating_arrow(url):
        file = pq.ParquetFile(stream)
        _check_columns(url, file.schema_arrow, columns)
        for batch in file.iter_batches(batch_size=ROW_GROUP_ROWS, columns=columns):
            yield from batch.to_pylist(maps_as_pydicts="strict")


def column_names(url: Url) -> list[str]:
    """The columns of a Parquet file, which an older version may have written; errors as `read_rows`."""
    with open_object(url) as stream, _translating_arrow(url):
        return list(pq.ParquetFile(stream).schema_arrow.names)


def read_table(url: Url, columns: Sequence[str] | None = None) -> pa.Table:
    """The whole file as an Arrow table; errors as `read_rows`."""
    with open_object(url) as stream, _translating_arrow(url):
        file = pq.ParquetFile(stream)
        _check_columns(url, file.schema_arrow, columns)
        return file.read(columns=columns)


class _translating_arrow:  # noqa: N801 (reads as a function where it is used)
    """Translate Arrow's complaints about a file into FormatError."""

    def __init__(self, url: Url) -> None:
        self.url = url

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, exc: BaseException | None, trace: object) -> None:
        if isinstance(exc, pa.ArrowException) or (isinstance(exc, OSError) and "arquet" in str(exc)):
            raise FormatError(
                f"{self.url} is not a readable Parquet file ({exc}); it was damaged, write it again"
            ) from exc


def _check_columns(url: Url, schema: pa.Schema, columns: Sequence[str] | None) -> None:
    missing = [name for name in columns or () if name not in schema.names]
    if missing:
        raise FormatError(f"{url} has no column {', '.join(missing)}; it has {', '.join(schema.names)}")


def _to_batch(rows: list[Mapping[str, Any]], schema: pa.Schema, url: str) -> pa.RecordBatch:
    names = set(schema.names)
    for row in rows:
        if unknown := row.keys() - names:
            raise UsageError(
                f"a row for {url} has unknown columns {', '.join(sorted(unknown))}; add them to its schema"
            )
        if "status" in names:
            _check_status(row)
    columns = [_to_array([row.get(field.name) for row in rows], field, url) for field in schema]
    return pa.RecordBatch.from_arrays(columns, schema=schema)


def _check_status(row: Mapping[str, Any]) -> None:
    status, reason = row.get("status"), row.get("reason")
    if status not in set(Status):
        raise UsageError(f"a row's status must be one of {', '.join(Status)}, got {status!r} in {dict(row)}")
    if (status == Status.OK) != (reason is None) or (reason is not None and reason not in set(Reason)):
        raise UsageError(
            f"a row that is not ok needs a reason from the closed list, got {reason!r} in {dict(row)}"
        )


def _to_array(values: list[Any], field: pa.Field, url: str) -> pa.Array:
    if pa.types.is_map(field.type):
        values = [sorted(value.items()) if isinstance(value, Mapping) else value for value in values]
    elif pa.types.is_string(field.type):
        values = [None if value is None else str(value) for value in values]
    if not field.nullable and None in values:
        raise UsageError(f"every row for {url} needs a value for {field.name!r}")
    try:
        return pa.array(values, type=field.type)
    except (pa.ArrowException, TypeError, ValueError, OverflowError) as exc:
        raise UsageError(f"column {field.name!r} for {url} holds {field.type} values: {exc}") from exc
