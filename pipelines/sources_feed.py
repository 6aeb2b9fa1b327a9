"""Videos in XML: sitemaps with the video extension and their indexes, RSS with Media RSS, Atom."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any
from xml.etree.ElementTree import Element, ParseError

from defusedxml import ElementTree
from defusedxml.common import DefusedXmlException

from pipelines.links import Link, has_video_suffix
from storage.errors import FetchError
from storage.reasons import Reason
from storage.web_address import join_link, public_url

__all__ = ["Feed", "looks_like_xml", "parse_feed"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Feed:
    """What an XML file leads to: videos, pages, and further sitemaps."""

    videos: list[Link] = field(default_factory=list)
    pages: list[str] = field(default_factory=list)
    sitemaps: list[str] = field(default_factory=list)


def looks_like_xml(body: bytes) -> bool:
    """Whether a body is XML and no web page, told from its beginning."""
    head = body[:512].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if head.startswith((b"<rss", b"<feed", b"<urlset", b"<sitemapindex", b"<rdf")):
        return True
    return head.startswith(b"<?xml") and b"<html" not in head and b"<!doctype html" not in head


def parse_feed(body: bytes, url: str) -> Feed:
    """Read a sitemap or feed that came from `url`. Raises FetchError (unreadable) when it is neither.

    Entities and document types that could blow up or reach out are refused.
    """
    try:
        root = ElementTree.fromstring(body, forbid_dtd=False)
    except (ParseError, DefusedXmlException, ValueError, LookupError) as exc:
        message = f"{public_url(url)} is no XML that can be read: {exc or type(exc).__name__}"
        raise FetchError(message, reason=Reason.UNREADABLE) from exc
    kind = _name(root)
    if kind == "sitemapindex":
        return Feed(sitemaps=_urls(_texts(root, "loc"), url))
    if kind == "urlset":
        return _sitemap(root, url)
    if kind in ("rss", "rdf", "feed"):
        items = [element for element in root.iter() if _name(element) in ("item", "entry")]
        return Feed(videos=[link for item in items for link in _item_links(item, url)])
    raise FetchError(
        f"{public_url(url)} is XML, but neither a sitemap nor a feed ({kind})", reason=Reason.UNSUPPORTED
    )


def _sitemap(root: Element, url: str) -> Feed:
    videos: list[Link] = []
    pages: list[str] = []
    for entry in root:
        page = next(iter(_urls([_child(entry, "loc") or ""], url)), None)
        found = [element for element in entry if _name(element) == "video"]
        for video in found:
            for target in _urls([_child(video, "content_loc") or ""], url):
                title, author = _child(video, "title"), _child(video, "uploader")
                videos.append(Link(url=target, title=title, author=author, page=page))
        if page and has_video_suffix(page):
            videos.append(Link(url=page))
        elif page:
            pages.append(page)
    return Feed(videos=videos, pages=pages)


def _item_links(item: Element, url: str) -> Iterator[Link]:
    """The videos of one RSS item or Atom entry: enclosures and media:content, wherever they are nested."""
    page = _item_page(item, url)
    known: dict[str, Any] = {
        "title": _child(item, "title") or _deep(item, "title"),
        "author": _deep(item, "credit") or _deep(item, "creator") or _author(item),
        "licence": _licence(item),
        "page": page,
    }
    seen: set[str] = set()
    for element in item.iter():
        target = _media(element)
        for link in _urls([target] if target else [], url):
            if link not in seen:
                seen.add(link)
                yield Link(url=link, **known)


def _media(element: Element) -> str | None:
    """The address of a video that an element names, if it does."""
    name, kind = _name(element), element.get("type", "")
    if name == "link" and element.get("rel") == "enclosure":
        target = element.get("href")
    elif name == "enclosure" or (name == "content" and element.get("url")):
        target = element.get("url")
    else:
        return None
    is_video = kind.startswith("video/") or element.get("medium") == "video"
    return target if target and (is_video or (not kind and has_video_suffix(target))) else None


def _item_page(item: Element, url: str) -> str | None:
    for element in item:
        if _name(element) == "link" and element.get("rel", "alternate") == "alternate":
            return join_link(url, element.get("href") or element.text or "")
    return None


def _author(item: Element) -> str | None:
    author = next((element for element in item if _name(element) == "author"), None)
    if author is None:
        return None
    return _child(author, "name") or (author.text or "").strip() or None


def _licence(item: Element) -> str | None:
    for element in item.iter():
        if _name(element) == "license":
            return element.get("href") or (element.text or "").strip() or None
        if _name(element) == "link" and element.get("rel") == "license":
            return element.get("href")
    return _deep(item, "rights") or _deep(item, "copyright")


def _name(element: Element) -> str:
    """The tag without its namespace, in lower case; writers of feeds mix them up."""
    tag = element.tag if isinstance(element.tag, str) else ""
    return tag.rpartition("}")[2].lower()


def _child(element: Element, name: str) -> str | None:
    return next(((one.text or "").strip() or None for one in element if _name(one) == name), None)


def _deep(element: Element, name: str) -> str | None:
    return next(((one.text or "").strip() or None for one in element.iter() if _name(one) == name), None)


def _texts(element: Element, name: str) -> list[str]:
    return [(one.text or "").strip() for one in element.iter() if _name(one) == name]


def _urls(texts: list[str], base: str) -> list[str]:
    joined = (join_link(base, text) for text in texts if text)
    return [url for url in joined if url]
