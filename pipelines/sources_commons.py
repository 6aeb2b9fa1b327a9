"""Videos in a Wikimedia Commons category, by the public API: page by page, with licence and author.

robots.txt of Commons closes /w/ to crawlers that read pages; the API has rules of its own (an honest user
agent, one request at a time, maxlag), which are kept. The videos themselves obey robots.txt like all others.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from html import unescape
from typing import Any
from urllib.parse import unquote, urlencode, urlsplit

from pipelines.links import Link
from storage.errors import FetchError
from storage.fetch import WebClient, fetch_page
from storage.reasons import Reason
from storage.web_address import join_link, public_url

__all__ = ["COMMONS_API", "category_of", "list_category"]

COMMONS_API = "https://commons.wikimedia.org/w/api.php"
SCHEME = "commons:"
FILES = {
    "action": "query",
    "format": "json",
    "formatversion": "2",
    "maxlag": "5",
    "generator": "categorymembers",
    "gcmtype": "file",
    "gcmlimit": "50",
    "prop": "imageinfo",
    "iiprop": "url|size|mime|extmetadata",
    "iiextmetadatafilter": "LicenseShortName|LicenseUrl|Artist|ObjectName",
}
SUBCATEGORIES = {
    "action": "query",
    "format": "json",
    "formatversion": "2",
    "maxlag": "5",
    "list": "categorymembers",
    "cmtype": "subcat",
    "cmlimit": "500",
}


def category_of(source: str) -> str | None:
    """The category that a source names, as `commons:NAME` or by its page's address; None when it does not."""
    if source.lower().startswith(SCHEME):
        name = source[len(SCHEME) :].strip("/ ")
    else:
        parts = urlsplit(source)
        if parts.hostname != "commons.wikimedia.org" or not parts.path.startswith("/wiki/Category:"):
            return None
        name = unquote(parts.path.removeprefix("/wiki/"))
    name = name.replace("_", " ")
    return name if name.lower().startswith("category:") else f"Category:{name}"


def list_category(
    client: WebClient, category: str, *, api: str = COMMONS_API, depth: int = 0, max_pages: int = 100
) -> Iterator[Link]:
    """The videos of a category and, down to `depth`, of its subcategories, in at most `max_pages` requests.

    Raises FetchError when the API answers something else than it should.
    """
    todo, seen, asked = [(category, 0)], {category}, 0
    while todo:
        name, level = todo.pop(0)
        queries = [{**FILES, "gcmtitle": name}]
        if level < depth:
            queries.append({**SUBCATEGORIES, "cmtitle": name})
        for query in queries:
            more: dict[str, Any] | None = {}
            while more is not None and asked < max_pages:
                asked += 1
                answer = _ask(client, api, {**query, **more})
                found = answer.get("query", {})
                yield from _videos(found.get("pages", []))
                for title in (str(one.get("title", "")) for one in found.get("categorymembers", [])):
                    if title and title not in seen:
                        seen.add(title)
                        todo.append((title, level + 1))
                more = answer.get("continue")


def _ask(client: WebClient, api: str, query: dict[str, Any]) -> dict[str, Any]:
    page = fetch_page(client, f"{api}?{urlencode(query)}", robots=False)
    try:
        answer = json.loads(page.body)
    except ValueError as exc:
        raise FetchError(
            f"{public_url(api)} answered no JSON; is it an api.php?", reason=Reason.HTTP_ERROR
        ) from exc
    if not isinstance(answer, dict) or "error" in answer:
        said = answer.get("error", answer) if isinstance(answer, dict) else answer
        raise FetchError(f"{public_url(api)} answered an error: {str(said)[:300]}", reason=Reason.HTTP_ERROR)
    return answer


def _videos(pages: list[dict[str, Any]]) -> Iterator[Link]:
    for page in pages:
        info = (page.get("imageinfo") or [{}])[0]
        kind, url = str(info.get("mime", "")), join_link("https:", str(info.get("url", "")))
        if url is None or not (kind.startswith("video/") or kind == "application/ogg"):
            continue
        said = {name: _plain(item.get("value")) for name, item in (info.get("extmetadata") or {}).items()}
        yield Link(
            url=url,
            licence=said.get("LicenseShortName") or said.get("LicenseUrl"),
            author=said.get("Artist"),
            title=said.get("ObjectName") or str(page.get("title", "")).removeprefix("File:") or None,
            page=info.get("descriptionurl"),
        )


def _plain(value: Any) -> str | None:
    """A value of the API without its markup."""
    text = unescape(re.sub(r"<[^>]*>", " ", str(value or "")))
    return " ".join(text.split()) or None
