"""Fetching politely and safely, against a real server that misbehaves."""

from __future__ import annotations

import hashlib
import random
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from bad_http_server import BadServer

from storage.address_guard import AllowedHosts, is_public_address
from storage.errors import FetchError, ItemError, RejectedError, UsageError
from storage.fetch import Download, FetchConfig, WebClient, fetch_page, fetch_video
from storage.media_type import video_suffix
from storage.reasons import Reason
from storage.web_address import canonical_url, public_url

VIDEO = b"\x00\x00\x00\x20ftypisom" + random.Random(3).randbytes(300_000)


@pytest.fixture
def server() -> Iterator[BadServer]:
    with BadServer() as running:
        yield running


def config(server: BadServer, **changes: Any) -> FetchConfig:
    """Quick, and allowed to talk to the server."""
    quick = {"delay": 0.0, "backoff": 0.01, "read_seconds": 2.0, "attempts": 3, "max_wait": 3.0}
    return FetchConfig(**{**quick, "allow_hosts": (server.host,), **changes})


@pytest.fixture
def fetch(server: BadServer, tmp_path: Path) -> Callable[..., Download]:
    """Fetch a path of the server as a video."""

    def call(path: str, **changes: Any) -> Download:
        with WebClient(config(server, **changes)) as client:
            return fetch_video(client, server.url(path), tmp_path / "spool")

    return call


def reason_of(call: Callable[[], object], kind: type[ItemError]) -> Reason:
    with pytest.raises(kind) as caught:
        call()
    assert type(caught.value) is kind
    return caught.value.reason


def test_a_good_video_arrives_whole(server: BadServer, fetch: Any, tmp_path: Path) -> None:
    server.video("/a.mp4", VIDEO)
    got = fetch("/a.mp4")
    assert (tmp_path / "spool").read_bytes() == VIDEO
    assert (got.size, got.suffix, got.sha256) == (len(VIDEO), ".mp4", hashlib.sha256(VIDEO).hexdigest())
    sent = server.requests("/a.mp4")[0].headers
    assert sent["accept-encoding"] == "identity" and sent["user-agent"].startswith("stillstream")


@pytest.mark.parametrize(
    "address",
    "127.0.0.1 10.1.2.3 172.16.0.1 192.168.1.1 169.254.169.254 100.64.0.1 100.100.100.200 0.0.0.0 224.0.0.1 "
    "255.255.255.255 168.63.129.16 198.18.0.1 ::1 :: fe80::1 fe80::1%eth0 fc00::1 fd00:ec2::254 fec0::1 "
    "ff02::1 ::ffff:127.0.0.1 ::ffff:a9fe:a9fe ::127.0.0.1 64:ff9b::7f00:1 64:ff9b::a9fe:a9fe "
    "64:ff9b:1::1 2002:7f00:1:: 2001:db8::1 nonsense".split(),
)
def test_addresses_that_are_not_public(address: str) -> None:
    assert not is_public_address(address)


@pytest.mark.parametrize("address", "8.8.8.8 2606:4700::1111 ::ffff:8.8.8.8 64:ff9b::808:808".split())
def test_addresses_that_are_public(address: str) -> None:
    assert is_public_address(address)


def test_allowed_hosts_are_named_with_or_without_their_port() -> None:
    allowed = AllowedHosts.of(["Videos.Test", "[::1]:80", "127.0.0.1:99"])
    assert ("videos.test", 8080) in allowed and ("::1", 80) in allowed and ("127.0.0.1", 99) in allowed
    assert ("127.0.0.1", 98) not in allowed and ("::1", 81) not in allowed


@pytest.mark.parametrize(
    "host", "127.0.0.1 localhost 2130706433 0x7f.1 127.1 [::1] [::ffff:127.0.0.1]".split()
)
def test_a_private_address_is_refused_however_it_is_written(
    server: BadServer, tmp_path: Path, host: str
) -> None:
    server.video("/a.mp4", VIDEO)
    url = f"http://{host}:{server.port}/a.mp4"
    with WebClient(config(server, allow_hosts=())) as client:
        call = lambda: fetch_video(client, url, tmp_path / "spool")  # noqa: E731
        assert reason_of(call, RejectedError) is Reason.PRIVATE_ADDRESS
    assert not server.seen


def test_a_redirect_to_a_private_address_is_refused(server: BadServer, fetch: Any) -> None:
    server.video("/secret", VIDEO)
    for target in (f"http://localhost:{server.port}/secret", "http://169.254.169.254/latest/meta-data"):
        server.redirect("/away", target)
        assert reason_of(lambda: fetch("/away"), RejectedError) is Reason.PRIVATE_ADDRESS
    assert not server.requests("/secret")
    server.redirect("/file", "file:///etc/passwd")
    assert reason_of(lambda: fetch("/file"), RejectedError) is Reason.UNSUPPORTED


def test_a_resolver_that_changes_its_mind_gains_nothing(server: BadServer, tmp_path: Path) -> None:
    """DNS rebinding: the first answer is public, the next ones are this machine."""
    answers: list[str] = []

    def rebind(host: str, port: int) -> list[str]:
        answers.append("192.0.2.1" if not answers else "127.0.0.1")
        return [{"192.0.2.1": "8.8.8.8"}.get(answers[-1], answers[-1])]

    connected: list[str] = []
    real = socket.create_connection

    def spy(address: tuple[str, int], *args: Any, **kwargs: Any) -> socket.socket:
        connected.append(address[0])
        if address[0] == "8.8.8.8":
            raise OSError("no network in this test")
        return real(address, *args, **kwargs)

    server.video("/a.mp4", VIDEO)
    url = f"http://rebind.test:{server.port}/a.mp4"
    with pytest.MonkeyPatch.context() as patch, WebClient(config(server), resolve=rebind) as client:
        patch.setattr(socket, "create_connection", spy)
        call = lambda: fetch_video(client, url, tmp_path / "spool")  # noqa: E731
        assert reason_of(call, RejectedError) is Reason.PRIVATE_ADDRESS
    # The first connection went to the very address that was checked; the second answer got none.
    assert connected == ["8.8.8.8"] and len(answers) == 2 and not server.seen


def test_one_private_address_among_public_ones_is_enough(server: BadServer, tmp_path: Path) -> None:
    with WebClient(config(server), resolve=lambda host, port: ["8.8.8.8", "10.0.0.1"]) as client:
        call = lambda: fetch_video(client, "http://mixed.test/a.mp4", tmp_path / "spool")  # noqa: E731
        assert reason_of(call, RejectedError) is Reason.PRIVATE_ADDRESS


@pytest.mark.skipif(shutil.which("openssl") is None, reason="no openssl to make a certificate with")
def test_tls_is_checked_against_the_name_though_an_address_is_connected(
    server: BadServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    command = "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=videos.test".split()
    command += ["-addext", "subjectAltName=DNS:videos.test", "-keyout", str(key), "-out", str(certificate)]
    subprocess.run(command, check=True, capture_output=True)
    server.video("/a.mp4", VIDEO)
    names = server.secure(str(certificate), str(key))
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    settings = config(server, allow_hosts=("videos.test", "other.test"))
    with WebClient(settings, resolve=lambda host, port: ["127.0.0.1"]) as client:
        url = f"https://videos.test:{server.port}/a.mp4"
        assert fetch_video(client, url, tmp_path / "spool").size == len(VIDEO)
        assert set(names) == {"videos.test"}
        other = url.replace("videos.test", "other.test")
        assert reason_of(lambda: fetch_video(client, other, tmp_path / "x"), FetchError) is Reason.NETWORK


def test_robots_txt_disallows(server: BadServer, fetch: Any) -> None:
    server.text("/robots.txt", "User-agent: *\nDisallow: /private/\n", "text/plain")
    server.video("/private/a.mp4", VIDEO)
    server.video("/a.mp4", VIDEO)
    server.redirect("/moved.mp4", "/private/a.mp4")
    assert reason_of(lambda: fetch("/private/a.mp4"), RejectedError) is Reason.ROBOTS
    assert reason_of(lambda: fetch("/moved.mp4"), RejectedError) is Reason.ROBOTS
    assert not server.requests("/private/a.mp4")
    assert fetch("/a.mp4").size == len(VIDEO)


def test_a_site_whose_robots_txt_cannot_be_read_is_left_alone(server: BadServer, fetch: Any) -> None:
    server.video("/a.mp4", VIDEO)
    server.behaviours["/robots.txt"] = lambda handler: handler.answer(503)
    assert reason_of(lambda: fetch("/a.mp4"), FetchError) is Reason.NETWORK
    assert not server.requests("/a.mp4")


def test_the_crawl_delay_is_kept(server: BadServer, tmp_path: Path) -> None:
    server.text("/robots.txt", "User-agent: *\nCrawl-delay: 0.3\n", "text/plain")
    server.video("/a.mp4", VIDEO)
    with WebClient(config(server)) as client:
        for _ in range(3):
            fetch_video(client, server.url("/a.mp4"), tmp_path / "spool")
    begins = [one.begin for one in server.seen]
    assert all(after - before >= 0.29 for before, after in zip(begins, begins[1:], strict=False))
    server.text("/robots.txt", "User-agent: *\nCrawl-delay: 999\n", "text/plain")
    with WebClient(config(server)) as client:
        call = lambda: fetch_video(client, server.url("/a.mp4"), tmp_path / "spool")  # noqa: E731
        assert reason_of(call, RejectedError) is Reason.ROBOTS


def test_one_request_at_a_time_however_many_clients(server: BadServer, tmp_path: Path) -> None:
    def slow(handler: Any) -> None:
        time.sleep(0.05)
        handler.answer(200, VIDEO, Content_Type="video/mp4")

    server.behaviours["/a.mp4"] = slow

    def work(index: int) -> None:
        with WebClient(config(server)) as client:
            fetch_video(client, server.url("/a.mp4"), tmp_path / str(index))

    threads = [threading.Thread(target=work, args=(index,)) for index in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(server.requests("/a.mp4")) == 4 and server.most_at_once == 1


def test_a_404_with_a_page_is_not_found_and_asked_once(server: BadServer, fetch: Any) -> None:
    assert reason_of(lambda: fetch("/gone.mp4"), FetchError) is Reason.NOT_FOUND
    assert len(server.requests("/gone.mp4")) == 1


def test_429_waits_as_long_as_the_server_says(server: BadServer, fetch: Any) -> None:
    server.first(
        "/a.mp4", 429, lambda handler: handler.answer(200, VIDEO, Content_Type="video/mp4"), Retry_After="1"
    )
    assert fetch("/a.mp4").size == len(VIDEO)
    first, second = server.requests("/a.mp4")
    assert second.begin - first.begin >= 1.0


def test_503_is_tried_again_but_not_for_ever(server: BadServer, fetch: Any) -> None:
    good = lambda handler: handler.answer(200, VIDEO, Content_Type="video/mp4")  # noqa: E731
    server.first("/a.mp4", 503, good, times=2)
    assert fetch("/a.mp4").size == len(VIDEO) and len(server.requests("/a.mp4")) == 3
    server.first("/b.mp4", 503, good, times=99)
    assert reason_of(lambda: fetch("/b.mp4"), FetchError) is Reason.HTTP_ERROR
    assert len(server.requests("/b.mp4")) == 3
    server.first("/c.mp4", 503, good, Retry_After="86400")
    assert reason_of(lambda: fetch("/c.mp4"), FetchError) is Reason.HTTP_ERROR
    assert len(server.requests("/c.mp4")) == 1


@pytest.mark.parametrize("part", ["body", "head"])
def test_a_slow_drip_ends_at_the_time_limit(server: BadServer, fetch: Any, part: str) -> None:
    if part == "body":
        server.drip("/a.mp4", VIDEO, 0.05)
    else:
        server.drip_head("/a.mp4", 0.05)
    begin = time.monotonic()
    assert reason_of(lambda: fetch("/a.mp4", max_seconds=0.6), FetchError) is Reason.TIMEOUT
    assert time.monotonic() - begin < 3
    assert len(server.requests("/a.mp4")) == 1


def test_redirects_are_followed_but_not_in_a_circle(server: BadServer, fetch: Any) -> None:
    server.video("/a.mp4", VIDEO)
    server.redirect("/moved", "/a.mp4")
    assert fetch("/moved").url == server.url("/a.mp4")
    server.redirect("/x", "/y")
    server.redirect("/y", "/x")
    assert reason_of(lambda: fetch("/x"), FetchError) is Reason.HTTP_ERROR
    for index in range(9):
        server.redirect(f"/r{index}", f"/r{index + 1}")
    assert reason_of(lambda: fetch("/r0"), FetchError) is Reason.HTTP_ERROR


def test_what_is_no_video_is_refused_by_its_type_or_its_first_bytes(server: BadServer, fetch: Any) -> None:
    server.text("/page.mp4", "<html></html>" * 100_000)
    assert reason_of(lambda: fetch("/page.mp4"), RejectedError) is Reason.WRONG_TYPE
    server.video("/lie.mp4", b"<html></html>" * 100_000)
    assert reason_of(lambda: fetch("/lie.mp4"), RejectedError) is Reason.WRONG_TYPE
    server.video("/short.mp4", b"<html>")
    assert reason_of(lambda: fetch("/short.mp4"), RejectedError) is Reason.WRONG_TYPE
    server.video("/nothing.mp4", b"")
    assert reason_of(lambda: fetch("/nothing.mp4"), FetchError) is Reason.EMPTY


def test_too_large_by_header_and_by_a_body_without_end(server: BadServer, fetch: Any, tmp_path: Path) -> None:
    server.video("/a.mp4", VIDEO)
    assert reason_of(lambda: fetch("/a.mp4", max_bytes=100_000), RejectedError) is Reason.TOO_LARGE
    assert (tmp_path / "spool").stat().st_size == 0
    server.endless("/b.mp4", VIDEO[:1000])
    assert reason_of(lambda: fetch("/b.mp4", max_bytes=1_000_000), RejectedError) is Reason.TOO_LARGE
    assert (tmp_path / "spool").stat().st_size < 1_200_000


def test_a_lying_length_is_found_out(server: BadServer, fetch: Any) -> None:
    def promise_more(handler: Any) -> None:
        handler.answer(200, VIDEO, Content_Type="video/mp4", Content_Length=str(len(VIDEO) + 10))
        handler.close_connection = True

    server.behaviours["/a.mp4"] = promise_more
    assert reason_of(lambda: fetch("/a.mp4"), FetchError) is Reason.NETWORK


def test_a_cut_off_body_is_taken_up_where_it_ended(server: BadServer, fetch: Any, tmp_path: Path) -> None:
    server.cut("/a.mp4", [('"v1"', VIDEO)], at=123_456)
    assert fetch("/a.mp4").size == len(VIDEO)
    assert (tmp_path / "spool").read_bytes() == VIDEO
    again = server.requests("/a.mp4")[1].headers
    start = int(again["range"].removeprefix("bytes=").rstrip("-"))
    assert 0 < start <= 123_456 and again["if-range"] == '"v1"'


def test_two_versions_are_never_glued_together(server: BadServer, fetch: Any, tmp_path: Path) -> None:
    other = VIDEO[:16] + random.Random(4).randbytes(200_000)
    server.cut("/a.mp4", [('"v1"', VIDEO), ('"v2"', other)], at=123_456)
    assert fetch("/a.mp4").etag == '"v2"'
    assert (tmp_path / "spool").read_bytes() == other


def test_without_a_validator_a_cut_off_body_begins_anew(
    server: BadServer, fetch: Any, tmp_path: Path
) -> None:
    server.cut("/a.mp4", [('W/"weak"', VIDEO)], at=123_456)
    fetch("/a.mp4")
    assert (tmp_path / "spool").read_bytes() == VIDEO
    assert "range" not in server.requests("/a.mp4")[1].headers


def test_compressed_bodies(server: BadServer, fetch: Any) -> None:
    """A video that comes compressed is refused, a page is unpacked up to its limit."""
    server.bomb("/a.mp4", 50_000_000, "video/mp4")
    assert reason_of(lambda: fetch("/a.mp4"), RejectedError) is Reason.WRONG_TYPE
    server.bomb("/bomb", 50_000_000)
    server.bomb("/page", 100_000)
    with WebClient(config(server, max_page_bytes=1_000_000)) as client:
        call = lambda: fetch_page(client, server.url("/bomb"))  # noqa: E731
        assert reason_of(call, RejectedError) is Reason.TOO_LARGE
        assert fetch_page(client, server.url("/page")).body == bytes(100_000)


def test_passwords_go_to_their_host_only_and_into_no_message(server: BadServer, tmp_path: Path) -> None:
    with BadServer() as other:
        other.video("/a.mp4", VIDEO)
        server.redirect("/a.mp4", other.url("/a.mp4"))
        settings = config(server, allow_hosts=(server.host, other.host))
        with WebClient(settings) as client:
            url = f"http://me:pass%40word@{server.host}/a.mp4?token=abc"
            got = fetch_video(client, url, tmp_path / "spool")
            assert server.requests("/a.mp4")[0].headers["authorization"].startswith("Basic ")
            assert "authorization" not in other.requests("/a.mp4")[0].headers
            with pytest.raises(FetchError) as caught:
                fetch_video(client, url.replace("a.mp4", "none.mp4"), tmp_path / "spool")
    assert got.url == other.url("/a.mp4")
    assert "pass" not in str(caught.value) and "abc" not in str(caught.value)


def test_nobody_listening_is_a_network_failure(server: BadServer, tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        host = f"127.0.0.1:{taken.getsockname()[1]}"
        with WebClient(config(server, allow_hosts=(host,), obey_robots=False)) as client:
            call = lambda: fetch_video(client, f"http://{host}/a.mp4", tmp_path / "spool")  # noqa: E731
            assert reason_of(call, FetchError) is Reason.NETWORK


def test_urls_have_one_spelling_and_no_secrets() -> None:
    assert canonical_url("HTTP://Me:Pw@Example.ORG:80/a b?b=2&a=1&utm_source=x#end") == (
        "http://example.org/a%20b?a=1&b=2"
    )
    assert canonical_url("https://example.org") == canonical_url("https://EXAMPLE.org:443/")
    assert canonical_url("https://e.org/a?X-Amz-Signature=1") == canonical_url("https://e.org/a")
    shown = public_url("https://me:pw@e.org/a?id=7&access_token=zzz#t")
    assert shown == "https://e.org/a?id=7&access_token=hidden"
    assert "pw" not in public_url("s3://me:pw@bucket/a") and "pw" not in public_url("http://me:pw@[bad/a")


@pytest.mark.parametrize(
    ("head", "suffix"),
    [
        (b"\x00\x00\x00\x14ftypqt  ", ".mov"),
        (b"\x1a\x45\xdf\xa3" + b"\x00" * 8 + b"webm", ".webm"),
        (b"RIFF\x00\x00\x00\x00AVI ", ".avi"),
        (b"OggS", ".ogv"),
        ((b"\x47" + bytes(187)) * 3, ".ts"),
    ],
)
def test_containers_are_known_by_their_first_bytes(head: bytes, suffix: str) -> None:
    assert video_suffix(head) == suffix


def test_pictures_and_scripts_are_no_videos() -> None:
    for head in (b"\x00\x00\x00\x18ftypavif", b"\x89PNG\r\n", b"#!/bin/sh", b"#EXTM3U", b""):
        with pytest.raises(RejectedError):
            video_suffix(head)


def test_a_wrong_configuration_is_refused() -> None:
    for wrong in ({"attempts": 0}, {"user_agent": " "}, {"delay": -1.0}, {"allow_hosts": ("http://x/",)}):
        with pytest.raises(UsageError):
            FetchConfig(**wrong)  # type: ignore[arg-type]
