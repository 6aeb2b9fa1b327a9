"""Lists of links: text, CSV, JSON lines or Parquet, with columns url, licence, author, title and page."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from pipelines.links import Link
from storage.errors import FormatError, UsageError
from storage.manifest import read_rows
from storage.objects import open_object

__all__ = ["LIST_SUFFIXES", "parse_list", "read_list"]

LIST_SUFFIXES = frozenset({".txt", ".csv", ".tsv", ".jsonl", ".ndjson", ".parquet"})
COLUMNS = {
    "url": ("url", "video_url", "contenturl", "content_url", "link"),
    "licence": ("licence", "license"),
    "author": ("author", "creator", "artist"),
    "title": ("title", "name", "caption"),
    "page": ("page", "source_page", "page_url"),
}


def read_list(url: str) -> Iterator[Link]:
    """The links in a list at any fsspec URL. Raises UsageError when it is missing or has no column url."""
    suffix = f".{url.rpartition('.')[2].lower()}"
    if suffix == ".parquet":
        yield from _links(read_rows(url), url)
        return
    with open_object(url, "r") as stream:
        yield from parse_list(stream, suffix, url)


def parse_list(lines: Iterable[str], suffix: str, where: str) -> Iterator[Link]:
    """The links in the lines of a list; `suffix` tells how they are written."""
    if suffix in (".csv", ".tsv"):
        reader = csv.DictReader(lines, delimiter="\t" if suffix == ".tsv" else ",")
        yield from _links(reader, where)
    elif suffix in (".jsonl", ".ndjson"):
        yield from _links(_json_rows(lines, where), where)
    else:
        words = (line.strip() for line in lines)
        yield from (Link(url=word) for word in words if word and not word.startswith("#"))


def _json_rows(lines: Iterable[str], where: str) -> Iterator[Mapping[str, Any]]:
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as exc:
            raise FormatError(f"line {number} of {where} is no JSON object: {exc}") from exc
        yield row if isinstance(row, Mapping) else {"url": row}


def _links(rows: Iterable[Mapping[Any, Any]], where: str) -> Iterator[Link]:
    for row in rows:
        plain = {str(name).strip().lower().lstrip("\ufeff"): value for name, value in row.items()}
        if not any(name in plain for name in COLUMNS["url"]):
            raise UsageError(f"{where} needs a column url, it has {', '.join(plain) or 'none'}")
        known = {column: _first(plain, names) for column, names in COLUMNS.items()}
        url = known.pop("url")
        if url:
            yield Link(url=url, **known)


def _first(row: Mapping[str, Any], names: Iterable[str]) -> str | None:
    values = (row.get(name) for name in names)
    return next((str(value).strip() for value in values if value not in (None, "")), None)
