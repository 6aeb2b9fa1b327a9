"""From what a person calls a source to links: lists, folders, pages, sitemaps, feeds, categories.

FILE.txt|csv|tsv|jsonl|parquet     a list of links, also over http
FOLDER, s3://…/PREFIX              videos that are already somewhere
https://…                          a video, web page, sitemap or feed, told from what comes
commons:CATEGORY                   a category of Wikimedia Commons
ytdlp:URL                          a page that yt-dlp understands
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from urllib.parse import urlsplit

from pipelines.links import BadSource, Found, Link, has_video_suffix
from pipelines.sources_commons import COMMONS_API, category_of, list_category
from pipelines.sources_feed import Feed, looks_like_xml, parse_feed
from pipelines.sources_list import LIST_SUFFIXES, parse_list, read_list
from pipelines.sources_web import parse_page
from pipelines.sources_ytdlp import YTDLP_SCHEME, list_ytdlp
from storage.errors import ItemError, UsageError
from storage.fetch import WebClient, fetch_page
from storage.objects import list_objects, read_bytes
from storage.video_input import VIDEO_SUFFIXES
from storage.web_address import canonical_url, host_of, is_web_url, public_url

__all__ = ["SourceConfig", "find_links"]

logger = logging.getLogger(__name__)

XML_SUFFIXES = {".xml", ".rss", ".atom"}
LIST_TYPES = {
    "text/plain": ".txt",
    "text/csv": ".csv",
    "text/tab-separated-values": ".tsv",
    "application/x-ndjson": ".jsonl",
    "application/jsonl": ".jsonl",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class SourceConfig:
    """How far to look.

    `depth`: links to follow away from the first page (0: only there). `max_pages`: pages to read in all.
    `commons_api`: the api.php to ask for categories.
    """

    depth: int = 0
    max_pages: int = 100
    commons_api: str = COMMONS_API

    def __post_init__(self) -> None:
        if self.depth < 0 or self.max_pages < 1:
            raise UsageError(
                f"depth must be 0 or more and max_pages 1 or more, got {self.depth} and {self.max_pages}"
            )
        if not is_web_url(self.commons_api):
            raise UsageError(f"commons_api must be the address of an api.php, got {self.commons_api!r}")


def find_links(source: str, client: WebClient, config: SourceConfig) -> Iterator[Found]:
    """All links that a source leads to, and the pages on the way that could not be read.

    Raises UsageError when the source itself is no source: a folder that is not there, a list without links'
    column, or yt-dlp missing.
    """
    if source.startswith(YTDLP_SCHEME):
        page = source.removeprefix(YTDLP_SCHEME)
        yield from _guarded(page, list_ytdlp(page))
    elif (category := category_of(source)) is not None:
        links = list_category(
            client, category, api=config.commons_api, depth=config.depth, max_pages=config.max_pages
        )
        yield from _guarded(source, links)
    elif is_web_url(source):
        yield from _Walk(client, config).run(source)
    else:
        yield from _stored(source)


def _guarded(source: str, links: Iterator[Link]) -> Iterator[Found]:
    try:
        yield from links
    except ItemError as error:
        yield BadSource(url=public_url(source), error=error)


def _stored(source: str) -> Iterator[Found]:
    suffix = f".{source.rpartition('.')[2].lower()}"
    if suffix in LIST_SUFFIXES:
        yield from read_list(source)
    elif suffix in XML_SUFFIXES:
        yield from _guarded(source, _stored_feed(source))
    else:
        single = suffix in VIDEO_SUFFIXES
        found = list_objects(source, suffixes=None if single else VIDEO_SUFFIXES)
        yield from (Link(url=item.url) for item in found)


def _stored_feed(source: str) -> Iterator[Link]:
    yield from parse_feed(read_bytes(source), "").videos


class _Walk:
    """Breadth first from one address over pages of the same host, sitemaps and feeds, within the limits."""

    def __init__(self, client: WebClient, config: SourceConfig) -> None:
        self._client = client
        self._config = config
        self._todo: deque[tuple[str, int]] = deque()
        self._seen: set[str] = set()
        self._host = ""

    def run(self, start: str) -> Iterator[Found]:
        """Everything that can be found from here."""
        if has_video_suffix(start):
            yield Link(url=start)
            return
        try:
            self._host = host_of(start)
        except ItemError as error:
            yield BadSource(url=public_url(start), error=error)
            return
        self._push(start, 0)
        asked = 0
        while self._todo and asked < self._config.max_pages:
            url, level = self._todo.popleft()
            asked += 1
            try:
                yield from self._visit(url, level)
            except ItemError as error:
                # Pages on the way are guesses: whether each can be read is no news, except the one asked for.
                if level == 0:
                    yield BadSource(url=public_url(url), error=error)
                else:
                    logger.info("passed by %s: %s", public_url(url), error)
        if self._todo:
            logger.info("stopped after %d pages, %d were left", asked, len(self._todo))

    def _visit(self, url: str, level: int) -> Iterator[Link]:
        page = fetch_page(self._client, url)
        suffix = f".{urlsplit(page.url).path.rpartition('.')[2].lower()}"
        if page.kind.startswith("video/"):
            yield Link(url=url)
        elif looks_like_xml(page.body):
            yield from self._feed(parse_feed(page.body, page.url), level)
        elif page.kind in LIST_TYPES or (suffix in LIST_SUFFIXES and page.kind != "text/html"):
            lines = iter(page.text.splitlines())
            links = parse_list(lines, LIST_TYPES.get(page.kind, suffix), public_url(page.url))
            yield from (link for link in links if is_web_url(link.url))  # strangers name no files of ours
        else:
            found = parse_page(page.text, page.url)
            yield from found.videos
            self._push_pages(found.pages, level + 1)

    def _feed(self, feed: Feed, level: int) -> Iterator[Link]:
        yield from feed.videos
        for url in feed.sitemaps:
            # An index is one list in several files; going through it is no step away.
            self._push(url, level)
        self._push_pages(feed.pages, level + 1)

    def _push_pages(self, urls: list[str], level: int) -> None:
        for url in urls:
            if level <= self._config.depth and host_of(url) == self._host:
                self._push(url, level)

    def _push(self, url: str, level: int) -> None:
        key = canonical_url(url)
        if key not in self._seen:
            self._seen.add(key)
            self._todo.append((url, level))
