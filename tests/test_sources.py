"""From sources to links: lists, folders, pages, sitemaps, feeds and categories, over a real local server."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from bad_http_server import BadServer

from pipelines.links import BadSource, Link, licence_accepted, licence_name
from pipelines.sources import SourceConfig, find_links
from pipelines.sources_commons import category_of
from pipelines.sources_feed import parse_feed
from pipelines.sources_web import parse_page
from storage.errors import FetchError, FormatError, UsageError
from storage.fetch import FetchConfig, WebClient
from storage.objects import join_url, write_bytes
from storage.reasons import Reason


@pytest.fixture
def server() -> Iterator[BadServer]:
    with BadServer() as running:
        yield running


def links_of(source: str, server: BadServer | None = None, **changes: Any) -> list[Any]:
    allowed = (server.host,) if server else ()
    config = FetchConfig(allow_hosts=allowed, delay=0.0, backoff=0.01, attempts=2)
    with WebClient(config) as client:
        return list(find_links(source, client, SourceConfig(**changes)))


def urls_of(found: list[Any]) -> list[str]:
    return [one.url for one in found]


FULL = Link(url="https://e.org/1", licence="CC BY 4.0", author="Ann", title="Sea", page="https://e.org/p")


def test_lists_of_every_kind_say_the_same(tmp_path: Path) -> None:
    row = {"url": FULL.url, "licence": FULL.licence, "author": FULL.author, "title": FULL.title}
    row["page"] = FULL.page
    (tmp_path / "a.jsonl").write_text(json.dumps(row) + "\n\n" + json.dumps("https://e.org/2") + "\n")
    (tmp_path / "a.csv").write_text(
        "\ufeffURL,License,Creator,Name,Page\nhttps://e.org/1,CC BY 4.0,Ann,Sea,https://e.org/p\n"
        "https://e.org/2,,,,\n"
    )
    (tmp_path / "a.txt").write_text("# mine\nhttps://e.org/1\n\nhttps://e.org/2\n")
    pq.write_table(pa.Table.from_pylist([row, {"url": "https://e.org/2"}]), tmp_path / "a.parquet")
    for name in ("a.jsonl", "a.csv", "a.parquet"):
        assert links_of(str(tmp_path / name)) == [FULL, Link(url="https://e.org/2")], name
    assert urls_of(links_of(str(tmp_path / "a.txt"))) == ["https://e.org/1", "https://e.org/2"]


def test_sources_that_are_none_are_refused_with_the_cure(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("name\nx\n")
    (tmp_path / "a.jsonl").write_text("{nonsense\n")
    for source, error in (("a.csv", UsageError), ("a.jsonl", FormatError), ("none.txt", UsageError)):
        with pytest.raises(error):
            links_of(str(tmp_path / source))
    with pytest.raises(UsageError):
        links_of(str(tmp_path / "nowhere"))


def test_without_ytdlp_its_pages_are_refused_with_the_cure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "yt_dlp", None)  # as if it were not installed
    with pytest.raises(UsageError, match=r"stillstream\[ytdlp\]"):
        links_of("ytdlp:https://e.org/watch")


def test_folders_give_their_videos(tmp_path: Path) -> None:
    for url in (str(tmp_path), "memory://links"):
        for name in ("b.mp4", "sub/a.webm", "notes.txt"):
            write_bytes(join_url(url, name), b"x")
        assert [link.rpartition("/")[2] for link in urls_of(links_of(url))] == ["b.mp4", "a.webm"]


PAGE = """<html><head><title> Sea
 views </title><base href="/media/"><meta name="author" content="Ann">
<meta property="og:video" content="og.mp4"><meta property="og:video" content="https://player.test/embed/1">
<link rel="license" href="https://creativecommons.org/licenses/by/4.0/">
<script type="application/ld+json">{"@graph": [{"@type": ["VideoObject"], "contentUrl": "ld.webm",
 "name": "Linked", "license": {"@id": "CC0"}, "creator": [{"name": "Bob"}]}]}</script>
<script type="application/ld+json">{broken</script></head><body>
<video src="one.mp4"><source src="two.webm"></video><source src="no.mp3">
<a href="three.MOV?x=1#t=3">v</a><a href="/more">more</a><a href="mailto:a@b.c">mail</a>
<a href="javascript:alert(1)">x</a><a rel="nofollow" href="/never">n</a><a href="file:///etc/passwd.mp4">f</a>
<video><source src="http://[bad"></video></body>"""


def test_a_web_page_gives_its_videos_with_what_it_says() -> None:
    found = parse_page(PAGE, "https://e.org/p")
    base = "https://e.org/media/"
    videos = {link.url: link for link in found.videos}
    assert set(videos) == {
        base + name for name in ("og.mp4", "ld.webm", "one.mp4", "two.webm", "three.MOV?x=1")
    }
    licence = "https://creativecommons.org/licenses/by/4.0/"
    assert videos[base + "one.mp4"] == Link(
        url=base + "one.mp4", licence=licence, author="Ann", title="Sea views", page="https://e.org/p"
    )
    linked = videos[base + "ld.webm"]
    assert (linked.title, linked.licence, linked.author) == ("Linked", "CC0", "Bob")
    assert found.pages == ["https://e.org/more"]


def test_depth_and_pages_are_limited_to_the_host(server: BadServer) -> None:
    server.text("/0", f'<a href="/1">n</a><a href="http://localhost:{server.port}/away">x</a>')
    for index in range(1, 9):
        page = f'<video src="/v{index}.mp4"></video><a href="/{index + 1}">n</a><a href="/0">back</a>'
        server.text(f"/{index}", page)
    start = server.url("/0")
    assert links_of(start, server) == []
    assert urls_of(links_of(start, server, depth=2)) == [server.url("/v1.mp4"), server.url("/v2.mp4")]
    assert len(links_of(start, server, depth=99, max_pages=4)) == 3
    assert not server.requests("/away")


def test_a_page_that_cannot_be_read_is_told(server: BadServer) -> None:
    (found,) = links_of(server.url("/none"), server)
    assert isinstance(found, BadSource) and found.error.reason is Reason.NOT_FOUND


def test_an_address_may_be_a_video_or_a_list(server: BadServer) -> None:
    server.video("/watch", b"x")
    server.text("/list.txt", f"{server.url('/a')}\n/etc/passwd\nfile:///etc/passwd\n", "text/plain")
    assert urls_of(links_of(server.url("/watch"), server)) == [server.url("/watch")]
    assert urls_of(links_of(server.url("/list.txt"), server)) == [server.url("/a")]


SITEMAP = """<?xml version="1.0"?><urlset xmlns="http://www.sitemaps.org/schemas/sitemap/0.9"
 xmlns:video="http://www.google.com/schemas/sitemap-video/1.1"><url><loc>https://e.org/p</loc><video:video>
<video:title>Sea</video:title><video:content_loc>https://e.org/a.mp4</video:content_loc>
<video:uploader>Ann</video:uploader></video:video></url><url><loc>https://e.org/b.webm</loc></url></urlset>"""


def test_sitemaps_and_their_indexes(server: BadServer) -> None:
    index = f"<sitemapindex><sitemap><loc>{server.url('/map.xml')}</loc></sitemap></sitemapindex>"
    server.text("/index.xml", index, "application/xml")
    server.text("/map.xml", SITEMAP, "application/xml")
    assert links_of(server.url("/index.xml"), server) == [
        Link(url="https://e.org/a.mp4", title="Sea", author="Ann", page="https://e.org/p"),
        Link(url="https://e.org/b.webm"),
    ]


RSS = """<rss xmlns:media="http://search.yahoo.com/mrss/" xmlns:dc="http://purl.org/dc/elements/1.1/"><channel>
<item><title>Sea</title><link>/p1</link><dc:creator>Ann</dc:creator>
<enclosure url="https://e.org/a.mp4" type="video/mp4" length="1"/>
<enclosure url="https://e.org/a.mp3" type="audio/mpeg" length="1"/></item>
<item><title>River</title><media:group><media:content url="https://e.org/b" medium="video"/>
<media:content url="https://e.org/b.jpg" medium="image"/><media:credit>Bob</media:credit>
<media:license href="https://creativecommons.org/licenses/by-sa/3.0/">CC</media:license></media:group></item>
</channel></rss>"""
ATOM = """<feed xmlns="http://www.w3.org/2005/Atom"><entry><title>Fog</title><author><name>Cyd</name></author>
<link href="https://e.org/fog"/><link rel="enclosure" type="video/webm" href="/fog.webm"/>
<rights>CC0</rights></entry></feed>"""


def test_feeds_rss_media_rss_and_atom() -> None:
    sea, river = parse_feed(RSS.encode(), "https://e.org/feed").videos
    assert sea == Link(url="https://e.org/a.mp4", title="Sea", author="Ann", page="https://e.org/p1")
    assert (river.url, river.author) == ("https://e.org/b", "Bob")
    assert licence_name(river.licence) == "cc-by-sa-3.0"
    (fog,) = parse_feed(ATOM.encode(), "https://e.org/feed").videos
    assert fog == Link(
        url="https://e.org/fog.webm", licence="CC0", author="Cyd", title="Fog", page="https://e.org/fog"
    )


@pytest.mark.parametrize(
    "body",
    [
        b"<rss><channel>",
        b"<svg/>",
        b"",
        b'<!DOCTYPE r [<!ENTITY a "aa"><!ENTITY b "&a;&a;">]><rss>&b;</rss>',
        b'<!DOCTYPE r [<!ENTITY a SYSTEM "file:///etc/passwd">]><rss>&a;</rss>',
    ],
)
def test_xml_that_is_broken_or_dangerous_is_refused(body: bytes) -> None:
    with pytest.raises(FetchError):
        parse_feed(body, "https://e.org/feed")


def commons_page(name: str, mime: str = "video/webm") -> dict[str, Any]:
    said = {"LicenseShortName": "CC BY-SA 4.0", "Artist": '<a href="//x">Ann &amp; Bob</a>'}
    info = {
        "url": f"https://upload.test/{name}",
        "mime": mime,
        "descriptionurl": f"https://commons.test/wiki/File:{name}",
        "extmetadata": {key: {"value": value} for key, value in said.items()},
    }
    return {"title": f"File:{name}", "imageinfo": [info]}


def test_a_commons_category_page_by_page_with_subcategories(server: BadServer) -> None:
    def api(handler: Any) -> None:
        query = {name: values[0] for name, values in parse_qs(urlsplit(handler.path).query).items()}
        answer: dict[str, Any] = {"query": {}}
        if query.get("cmtype") == "subcat":
            answer["query"] = {"categorymembers": [{"title": "Category:Sub"}]}
        elif query["gcmtitle"] == "Category:Sub":
            answer["query"] = {"pages": [commons_page("sub.webm")]}
        elif "gcmcontinue" not in query:
            answer = {"query": {"pages": [commons_page("a.webm"), commons_page("b.jpg", "image/jpeg")]}}
            answer["continue"] = {"gcmcontinue": "next", "continue": "-||"}
        else:
            answer["query"] = {"pages": [commons_page("c.ogv", "application/ogg")]}
        handler.answer(200, json.dumps(answer).encode(), Content_Type="application/json")

    server.behaviours["/w/api.php"] = api
    server.text("/robots.txt", "User-agent: *\nDisallow: /w/\n", "text/plain")
    place = {"commons_api": server.url("/w/api.php")}
    first, second = links_of("commons:Videos of waves", server, **place)
    assert (first.url, first.licence, first.author) == (
        "https://upload.test/a.webm",
        "CC BY-SA 4.0",
        "Ann & Bob",
    )
    assert (first.title, first.page) == ("a.webm", "https://commons.test/wiki/File:a.webm")
    assert second.url == "https://upload.test/c.ogv"
    assert "gcmtitle=Category%3AVideos+of+waves" in server.requests("/w/api.php")[0].path
    assert urls_of(links_of("commons:Waves", server, depth=1, **place))[2:] == [
        "https://upload.test/sub.webm"
    ]
    server.text("/w/api.php", '{"error": {"code": "maxlag", "info": "waiting"}}', "application/json")
    (found,) = links_of("commons:Waves", server, **place)
    assert isinstance(found, BadSource) and "maxlag" in str(found.error)


def test_categories_are_named_in_two_ways() -> None:
    assert category_of("https://commons.wikimedia.org/wiki/Category:Sea_waves") == "Category:Sea waves"
    assert category_of("commons:Category:Sea") == "Category:Sea"
    assert category_of("https://e.org/wiki/Category:Sea") is None and category_of("videos/") is None


def test_licences_are_compared_by_what_they_are() -> None:
    assert licence_name("CC BY-SA 4.0") == licence_name(
        "http://creativecommons.org/licenses/by-sa/4.0/deed.de"
    )
    assert licence_name("https://creativecommons.org/publicdomain/zero/1.0/") == "cc0-1.0"
    assert licence_accepted("CC BY 3.0", ["cc-by"]) and licence_accepted("CC0", ["cc0", "cc-by"])
    assert licence_accepted("Public domain", ["pd"]) and licence_accepted(None, [])
    for licence in ("CC BY-NC 4.0", "CC BY-SA 4.0", None, "", "all rights reserved"):
        assert not licence_accepted(licence, ["cc-by", "cc0"]), licence
    assert not licence_accepted("CC BY 3.0", ["cc-by-4.0"])
