"""Videos on a web page: video and source tags, links, Open Graph, JSON-LD; and pages to go on to."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from html.parser import HTMLParser
from typing import Any

from pipelines.links import Link, has_video_suffix
from storage.web_address import join_link

__all__ = ["WebPage", "parse_page"]

OPEN_GRAPH = {"og:video", "og:video:url", "og:video:secure_url", "twitter:player:stream"}


@dataclass(frozen=True, kw_only=True, slots=True)
class WebPage:
    """What a page holds: videos, and other pages in the order in which they are linked."""

    videos: list[Link]
    pages: list[str]


@dataclass(slots=True)
class _Notes:
    """What the parser came upon."""

    base: str
    videos: dict[str, Link] = field(default_factory=dict)
    pages: dict[str, None] = field(default_factory=dict)
    title: str | None = None
    author: str | None = None
    licence: str | None = None


def parse_page(html: str, url: str) -> WebPage:
    """Read a page that came from `url`; only http and https links count, whatever the page says."""
    parser = _Parser(url)
    parser.feed(html)
    parser.close()
    notes = parser.notes
    videos = [
        replace(
            link,
            page=url,
            title=link.title or notes.title,
            author=link.author or notes.author,
            licence=link.licence or notes.licence,
        )
        for link in notes.videos.values()
    ]
    return WebPage(videos=videos, pages=list(notes.pages))


class _Parser(HTMLParser):
    def __init__(self, url: str) -> None:
        super().__init__(convert_charrefs=True)
        self.notes = _Notes(base=url)
        self._in_video = 0
        self._text: list[str] | None = None

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Every tag that may lead to a video or a page."""
        found = {name: value or "" for name, value in attrs}
        if tag == "base" and found.get("href"):
            self.notes.base = join_link(self.notes.base, found["href"]) or self.notes.base
        elif tag == "video":
            self._in_video += 1
            self._add(found.get("src"))
        elif tag == "source" and (self._in_video or found.get("type", "").startswith("video/")):
            self._add(found.get("src"))
        elif tag in ("a", "link"):
            self._link(tag, found)
        elif tag == "meta":
            self._meta(found)
        elif tag == "title" or (tag == "script" and found.get("type", "").strip() == "application/ld+json"):
            self._text = []

    def handle_data(self, data: str) -> None:
        """Text of the title or of a script, when inside one."""
        if self._text is not None:
            self._text.append(data)

    def handle_endtag(self, tag: str) -> None:
        """What was collected is complete."""
        if tag == "video":
            self._in_video = max(self._in_video - 1, 0)
        elif tag in ("title", "script") and self._text is not None:
            text, self._text = "".join(self._text), None
            if tag == "title":
                self.notes.title = self.notes.title or " ".join(text.split()) or None
            else:
                self._linked_data(text)

    def _add(self, url: str | None, **known: str | None) -> None:
        target = join_link(self.notes.base, url) if url else None
        if target is None:
            return
        link = Link(url=target, **known)
        old = self.notes.videos.get(target)
        if old is not None:  # a second mention may say more
            link = replace(
                old,
                title=old.title or link.title,
                author=old.author or link.author,
                licence=old.licence or link.licence,
            )
        self.notes.videos[target] = link

    def _link(self, tag: str, found: dict[str, str]) -> None:
        href, relations = found.get("href", ""), found.get("rel", "").lower().split()
        target = join_link(self.notes.base, href) if href else None
        if target is None:
            return
        if "license" in relations:
            self.notes.licence = self.notes.licence or target
        elif tag == "a" and (has_video_suffix(target) or found.get("type", "").startswith("video/")):
            self._add(target)
        elif tag == "a" and "nofollow" not in relations:
            self.notes.pages.setdefault(target)

    def _meta(self, found: dict[str, str]) -> None:
        name = (found.get("property") or found.get("name") or "").lower()
        content = found.get("content", "").strip()
        if name in OPEN_GRAPH:
            # Players embedded as pages are named here as well; only files are wanted.
            if has_video_suffix(content):
                self._add(content)
        elif name == "og:title":
            self.notes.title = content or self.notes.title
        elif name in ("author", "article:author"):
            self.notes.author = self.notes.author or content or None

    def _linked_data(self, text: str) -> None:
        try:
            data = json.loads(text)
        except (ValueError, RecursionError):
            return
        for item in _objects(data, 0):
            kinds = item.get("@type")
            if "VideoObject" in (kinds if isinstance(kinds, list) else [kinds]):
                self._add(
                    _text(item.get("contentUrl")),
                    title=_text(item.get("name")),
                    licence=_text(item.get("license")),
                    author=_text(item.get("author")) or _text(item.get("creator")),
                )


def _objects(data: Any, depth: int) -> Iterator[dict[str, Any]]:
    if depth > 20:
        return
    if isinstance(data, dict):
        yield data
    for value in data.values() if isinstance(data, dict) else data if isinstance(data, list) else ():
        yield from _objects(value, depth + 1)


def _text(value: Any) -> str | None:
    """A JSON-LD value as text: people and licences may be objects, or lists of them."""
    if isinstance(value, list):
        return _text(value[0]) if value else None
    if isinstance(value, dict):
        return _text(value.get("name") or value.get("url") or value.get("@id"))
    return value.strip() or None if isinstance(value, str) else None
