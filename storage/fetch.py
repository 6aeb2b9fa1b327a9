"""Fetching from the web: pages into memory, videos into a local file, each within its limits.

A video's head is checked before its body, its first bytes before the rest. What was cut off is taken up
where it ended, by Range with If-Range, so that two versions of a file are never glued together.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from storage.digest import digest_file
from storage.errors import FetchError, RejectedError
from storage.media_type import MAGIC_BYTES, check_content_type, video_suffix
from storage.reasons import Reason
from storage.web_address import public_url
from storage.web_client import Answer, FetchConfig, PassingTrouble, WebClient

__all__ = ["Download", "FetchConfig", "Page", "WebClient", "fetch_page", "fetch_video"]

CONTENT_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+|\*)")


@dataclass(frozen=True, kw_only=True, slots=True)
class Page:
    """A small answer in memory; `url` is where the redirects ended."""

    url: str
    content_type: str
    body: bytes

    @property
    def kind(self) -> str:
        """The content type without its parameters, in lower case."""
        return self.content_type.partition(";")[0].strip().lower()

    @property
    def text(self) -> str:
        """The body as text, by the charset that the server names, else UTF-8."""
        charset = re.search(r"charset=[\"']?([\w-]+)", self.content_type, re.IGNORECASE)
        try:
            return self.body.decode(charset.group(1) if charset else "utf-8", errors="replace")
        except LookupError:
            return self.body.decode(errors="replace")


@dataclass(frozen=True, kw_only=True, slots=True)
class Download:
    """A video that was fetched whole: where it came from, what it is (suffix), and its digest."""

    url: str
    suffix: str
    content_type: str
    size: int
    sha256: str
    etag: str


def fetch_page(client: WebClient, url: str, *, robots: bool = True) -> Page:
    """A page, feed or list, decompressed when need be, never more than `max_page_bytes`.

    A video is not read: its page has an empty body. Raises RejectedError or FetchError.
    """

    def once() -> Page:
        with client.open(url, robots=robots) as answer:
            answer.raise_for_status()
            if answer.content_type.lower().startswith("video/"):
                return Page(url=answer.url, content_type=answer.content_type, body=b"")
            body = _read_capped(answer, client.config.max_page_bytes)
            return Page(url=answer.url, content_type=answer.content_type, body=body)

    return client.attempt(once)


def fetch_video(client: WebClient, url: str, path: Path) -> Download:
    """Fetch a video into a local file. Raises RejectedError for what is none, FetchError when it fails."""
    transfer = _Transfer(url, path, client.config.max_bytes)

    def once() -> None:
        with client.open(url, transfer.range_headers()) as answer:
            transfer.receive(answer)

    client.attempt(once)
    return transfer.finish()


class _Transfer:
    """One video on its way into a file, over as many answers as it takes."""

    def __init__(self, url: str, path: Path, max_bytes: int) -> None:
        self._url = public_url(url)
        self._path = path
        self._max_bytes = max_bytes
        self._received = 0
        self._total: int | None = None
        self._validator = ""
        self._etag = ""
        self._final_url = self._url
        self._content_type = ""
        path.write_bytes(b"")

    def range_headers(self) -> dict[str, str]:
        """What to ask for next: the rest, if a validator can prove that it is the rest of the same file."""
        if not self._received or not self._validator:
            return {}
        return {"Range": f"bytes={self._received}-", "If-Range": self._validator}

    def receive(self, answer: Answer) -> None:
        """Take one answer; raises PassingTrouble when it ended early."""
        if answer.status == 416:
            self._received = 0
            error = FetchError(f"{self._url} changed while it was fetched", reason=Reason.NETWORK)
            raise PassingTrouble(error)
        answer.raise_for_status()
        self._check_head(answer)
        start = self._start_of(answer)
        self._check_size(self._total)
        with self._path.open("r+b") as file:
            file.seek(start)
            file.truncate()
            self._received = start
            self._write(file, answer.blocks)
        if self._total is not None and self._received != self._total:
            message = f"{self._url} sent {self._received} of {self._total} bytes"
            raise PassingTrouble(FetchError(message, reason=Reason.TRUNCATED))

    def finish(self) -> Download:
        """The whole file, judged by its first bytes once more: a short one may not have been."""
        if not self._received:
            raise FetchError(f"{self._url} sent no bytes", reason=Reason.EMPTY)
        with self._path.open("rb") as file:
            suffix = video_suffix(file.read(MAGIC_BYTES))
        return Download(
            url=public_url(self._final_url),
            suffix=suffix,
            content_type=self._content_type[:200],
            size=self._received,
            sha256=digest_file(self._path),
            etag=self._etag[:200],
        )

    def _check_head(self, answer: Answer) -> None:
        check_content_type(answer.content_type)
        coding = str(answer.headers.get("content-encoding", "identity")).strip().lower()
        if coding not in ("", "identity"):
            raise RejectedError(
                f"{self._url} sends its body compressed ({coding[:40]}) though plain bytes were asked for",
                reason=Reason.WRONG_TYPE,
            )

    def _start_of(self, answer: Answer) -> int:
        """At which byte the answer begins; takes over what it says about the whole file."""
        start, total = 0, answer.length
        if answer.status == 206:
            found = CONTENT_RANGE.fullmatch(str(answer.headers.get("content-range", "")).strip())
            if found is None or int(found.group(1)) != self._received or not self._received:
                self._received, self._validator = 0, ""
                error = FetchError(f"{self._url} answered with another range", reason=Reason.NETWORK)
                raise PassingTrouble(error)
            start = self._received
            total = None if found.group(3) == "*" else int(found.group(3))
        self._total = total
        self._etag = str(answer.headers.get("etag", ""))
        strong = self._etag if self._etag.startswith('"') else ""
        self._validator = strong or str(answer.headers.get("last-modified", ""))
        self._final_url, self._content_type = answer.url, answer.content_type
        return start

    def _write(self, file: BinaryIO, blocks: Iterable[bytes]) -> None:
        head = b"" if self._received == 0 else None
        for block in blocks:
            file.write(block)
            self._received += len(block)
            self._check_size(self._received)
            if head is not None:
                head += block
                if len(head) >= MAGIC_BYTES:
                    video_suffix(head[:MAGIC_BYTES])
                    head = None

    def _check_size(self, size: int | None) -> None:
        if size is not None and size > self._max_bytes:
            raise RejectedError(
                f"{self._url} has {size} bytes or more, the limit is {self._max_bytes}",
                reason=Reason.TOO_LARGE,
            )


def _read_capped(answer: Answer, limit: int) -> bytes:
    """The body in plain, refused as soon as it is longer than `limit` (also when it only unpacks to that)."""
    if answer.length is not None and answer.length > limit:
        raise _too_long(answer, limit)
    packed = str(answer.headers.get("content-encoding", "")).strip().lower() in ("gzip", "x-gzip", "deflate")
    unpack = zlib.decompressobj(wbits=47) if packed else None  # 47: gzip or zlib, whichever it is
    body, first = bytearray(), True
    for block in answer.blocks:
        if first and unpack is None and block.startswith(b"\x1f\x8b"):  # sitemap.xml.gz
            unpack = zlib.decompressobj(wbits=47)
        first = False
        try:
            body += block if unpack is None else unpack.decompress(block, limit + 1 - len(body))
        except zlib.error as exc:
            message = f"{public_url(answer.url)} is packed in a way that cannot be undone: {exc}"
            raise FetchError(message, reason=Reason.UNREADABLE) from exc
        if len(body) > limit:
            raise _too_long(answer, limit)
    return bytes(body)


def _too_long(answer: Answer, limit: int) -> RejectedError:
    return RejectedError(
        f"{public_url(answer.url)} is a page of more than {limit} bytes", reason=Reason.TOO_LARGE
    )
