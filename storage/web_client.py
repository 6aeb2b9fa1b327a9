"""A polite and careful HTTP client: one answer at a time, checked before its body is read.

robots.txt, one request at a time per host, crawl delay, Retry-After, bounded back-off, checked addresses on
every redirect, one time budget per link. The environment's proxies are not used: they would connect to
addresses that nobody checked. What to do with a body is storage/fetch.py's business.
"""

from __future__ import annotations

import base64
import email.utils
import ssl
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar
from urllib.parse import unquote, urljoin

import httpcore
import httpx

from storage.address_guard import AllowedHosts, GuardedBackend, Resolver, system_resolver
from storage.errors import FetchError, RejectedError, UsageError
from storage.host_turns import host_turn
from storage.reasons import Reason
from storage.robots import ROBOTS_BYTES, Robots, RobotsAnswer
from storage.web_address import canonical_url, host_of, public_url, split_url

__all__ = ["Answer", "FetchConfig", "PassingTrouble", "WebClient"]

T = TypeVar("T")

USER_AGENT = "stillstream/0.1 (collects openly licensed videos for research; respects robots.txt)"
REDIRECTS = {301, 302, 303, 307, 308}
PASSING = {408, 425, 429, 500, 502, 503, 504}
BLOCK_BYTES = 64 * 1024


@dataclass(frozen=True, kw_only=True, slots=True)
class FetchConfig:
    """How to ask, and how much to put up with. Sizes are bytes, times seconds.

    `user_agent` should tell who is asking and where to complain. `allow_hosts`: `host` or `host:port` that
    may have private addresses. `obey_robots`: false only for hosts of one's own. `delay`: pause between two
    requests to a host, unless robots.txt asks for a longer one, of up to `max_delay`. `attempts` at one
    request, with pauses of `backoff`, doubled each time; a server that asks for more than `max_wait` is given
    up. `connect_seconds`, `read_seconds`: the longest silence while connecting and while reading.
    `max_seconds` is what one link may take, waiting for its turn apart. `max_redirects` followed.
    `max_bytes` of a video, `max_page_bytes` of a page, list or feed.
    """

    user_agent: str = USER_AGENT
    allow_hosts: tuple[str, ...] = ()
    obey_robots: bool = True
    delay: float = 1.0
    max_delay: float = 120.0
    max_wait: float = 120.0
    attempts: int = 4
    backoff: float = 1.0
    connect_seconds: float = 15.0
    read_seconds: float = 30.0
    max_seconds: float = 1800.0
    max_redirects: int = 5
    max_bytes: int = 4_000_000_000
    max_page_bytes: int = 20_000_000

    def __post_init__(self) -> None:
        if not self.user_agent.strip() or not self.user_agent.isascii() or "\n" in self.user_agent:
            raise UsageError(
                f"user_agent must be one line of ASCII that says who asks, got {self.user_agent!r}"
            )
        positive = (
            "attempts",
            "connect_seconds",
            "read_seconds",
            "max_seconds",
            "max_bytes",
            "max_page_bytes",
        )
        for name in positive:
            if getattr(self, name) <= 0:
                raise UsageError(f"{name} must be above 0, got {getattr(self, name)}")
        for name in ("delay", "max_delay", "max_wait", "backoff", "max_redirects"):
            if getattr(self, name) < 0:
                raise UsageError(f"{name} must not be below 0, got {getattr(self, name)}")
        if wrong := [host for host in self.allow_hosts if "/" in host or not host.strip()]:
            raise UsageError(f"an allowed host looks like host or host:port, got {wrong[0]!r}")


class PassingTrouble(Exception):  # noqa: N818 (never leaves the client; what leaves is `error`)
    """Something that may go well later: `wait` seconds from now, says the server, or as soon as we like."""

    def __init__(self, error: FetchError, wait: float = 0.0) -> None:
        super().__init__(str(error))
        self.error = error
        self.wait = wait


@dataclass(frozen=True, slots=True)
class Answer:
    """The head of an HTTP answer, and its body as a stream of raw blocks."""

    url: str
    status: int
    headers: httpx.Headers
    blocks: Iterator[bytes]

    @property
    def content_type(self) -> str:
        """As the server says, possibly empty."""
        return str(self.headers.get("content-type", ""))

    @property
    def length(self) -> int | None:
        """Bytes of the body as announced; None when it is not."""
        text = str(self.headers.get("content-length", "")).strip()
        return int(text) if text.isascii() and text.isdigit() and len(text) < 20 else None

    def raise_for_status(self) -> None:
        """FetchError for what will not go better, PassingTrouble for what may; nothing for 2xx."""
        if 200 <= self.status < 300:
            return
        message = f"{public_url(self.url)} answered {self.status}"
        if self.status in (404, 410):
            raise FetchError(message, reason=Reason.NOT_FOUND)
        error = FetchError(message, reason=Reason.HTTP_ERROR)
        if self.status in PASSING:
            raise PassingTrouble(error, _retry_after(self.headers))
        raise error


class WebClient:
    """Asks servers for things. One thread at a time; cheap to make, closed by `close` or `with`."""

    def __init__(self, config: FetchConfig, resolve: Resolver = system_resolver) -> None:
        self.config = config
        self._backend = GuardedBackend(AllowedHosts.of(config.allow_hosts), resolve)
        self._pool = httpcore.ConnectionPool(
            ssl_context=ssl.create_default_context(), network_backend=self._backend, keepalive_expiry=5.0
        )
        self._robots = Robots(config.user_agent, self._read_robots)
        self._seconds_left = config.max_seconds

    def __enter__(self) -> WebClient:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Close every connection."""
        self._pool.close()

    def attempt(self, action: Callable[[], T]) -> T:
        """Do what may meet passing trouble, again after a pause, within the time budget of one link."""
        self._seconds_left = self.config.max_seconds
        return self._attempt(action)

    @contextmanager
    def open(
        self, url: str, headers: dict[str, str] | None = None, *, robots: bool = True
    ) -> Iterator[Answer]:
        """The answer to a GET after all redirects, whatever its status; the body is not read yet.

        To be called inside `attempt`. Raises RejectedError for what must not be fetched.
        """
        home, seen = host_of(url), {canonical_url(url)}
        for _ in range(self.config.max_redirects + 1):
            if robots and self.config.obey_robots:
                self._robots.check(url)
            with self._ask(url, headers or {}, with_login=host_of(url) == home) as answer:
                location = answer.headers.get("location")
                if answer.status not in REDIRECTS or not location:
                    yield answer
                    return
            url = _follow(url, location)
            if canonical_url(url) in seen:
                raise FetchError(f"{public_url(url)} redirects in a circle", reason=Reason.HTTP_ERROR)
            seen.add(canonical_url(url))
        message = f"{public_url(url)}: more than {self.config.max_redirects} redirects"
        raise FetchError(message, reason=Reason.HTTP_ERROR)

    def _attempt(self, action: Callable[[], T]) -> T:
        for tried in range(1, self.config.attempts + 1):
            try:
                return action()
            except PassingTrouble as trouble:
                wait = max(trouble.wait, self.config.backoff * 2 ** (tried - 1))
                over = tried == self.config.attempts or self._seconds_left <= 0
                if over or wait > self.config.max_wait:
                    raise trouble.error from trouble
            time.sleep(wait)
        raise AssertionError("the last attempt returns or raises")

    @contextmanager
    def _ask(self, url: str, headers: dict[str, str], *, with_login: bool) -> Iterator[Answer]:
        """One request to one host, in its turn; the answer's body is read inside the block."""
        delay = max(self.config.delay, self._robots.delay(url))
        if delay > self.config.max_delay:
            message = f"robots.txt of {host_of(url)} asks for {delay:g} s between requests"
            raise RejectedError(message, reason=Reason.ROBOTS)
        request = self._request(url, headers, with_login=with_login)
        with host_turn(host_of(url), delay):
            begin = time.monotonic()
            self._backend.deadline = begin + self._seconds_left
            try:
                with self._translating(url), self._streaming(request) as response:
                    yield Answer(
                        url, response.status, httpx.Headers(response.headers), response.iter_stream()
                    )
            finally:
                self._seconds_left -= time.monotonic() - begin

    def _request(self, url: str, headers: dict[str, str], *, with_login: bool) -> dict[str, Any]:
        parts = split_url(url)
        try:
            parsed = httpx.URL(url.strip())
        except (httpx.InvalidURL, UnicodeError) as exc:
            raise RejectedError(f"not a web address: {exc}", reason=Reason.UNSUPPORTED) from exc
        target = httpcore.URL(
            scheme=parsed.raw_scheme, host=parsed.raw_host, port=parsed.port, target=parsed.raw_path
        )
        # Identity: a compressed body hides its size, and videos gain nothing.
        sent = {
            "User-Agent": self.config.user_agent,
            "Accept": "*/*",
            "Accept-Encoding": "identity",
            **headers,
        }
        if with_login and parts.username:
            login = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
            sent["Authorization"] = f"Basic {base64.b64encode(login.encode()).decode()}"
        return {"url": target, "headers": {"Host": parsed.netloc.decode("ascii"), **sent}}

    @contextmanager
    def _streaming(self, request: dict[str, Any]) -> Iterator[httpcore.Response]:
        read, connect = self.config.read_seconds, self.config.connect_seconds
        limits = {"connect": connect, "read": read, "write": read, "pool": connect}
        with self._pool.stream("GET", **request, extensions={"timeout": limits}) as response:
            yield response

    @contextmanager
    def _translating(self, url: str) -> Iterator[None]:
        """What goes wrong on the wire, as errors of ours."""
        where = public_url(url)
        try:
            yield
        except httpcore.TimeoutException as exc:
            if time.monotonic() >= self._backend.deadline:
                message = f"{where} took longer than {self.config.max_seconds:g} s"
                raise FetchError(message, reason=Reason.TIMEOUT) from exc
            message = f"{where} did not answer in time"
            raise PassingTrouble(FetchError(message, reason=Reason.TIMEOUT)) from exc
        except (httpcore.NetworkError, httpcore.ProtocolError) as exc:
            message = f"{where}: {str(exc) or type(exc).__name__}"
            raise PassingTrouble(FetchError(message, reason=Reason.NETWORK)) from exc
        except httpcore.UnsupportedProtocol as exc:
            raise FetchError(f"{where}: {exc}", reason=Reason.UNSUPPORTED) from exc

    def _read_robots(self, url: str) -> RobotsAnswer:
        def read() -> RobotsAnswer:
            with self.open(url, robots=False) as answer:
                if answer.status in PASSING:
                    answer.raise_for_status()
                body = bytearray()
                for block in answer.blocks:
                    body += block
                    if len(body) > ROBOTS_BYTES:
                        break
            return RobotsAnswer(answer.status, bytes(body[:ROBOTS_BYTES]).decode(errors="replace"))

        try:
            return self._attempt(read)
        except FetchError:
            return RobotsAnswer(0)


def _follow(url: str, location: str) -> str:
    """Where a redirect leads; raises RejectedError when that is no web address."""
    try:
        target = urljoin(url, location.strip()).partition("#")[0]
    except ValueError as exc:
        raise RejectedError(f"redirects to no web address: {exc}", reason=Reason.UNSUPPORTED) from exc
    split_url(target)
    return target


def _retry_after(headers: httpx.Headers) -> float:
    """Seconds that a server wants us to wait, told as seconds or as a date; 0 when it does not say."""
    text = str(headers.get("retry-after", "")).strip()
    if text.isascii() and text.isdigit():
        return float(text[:9])
    try:
        return max(email.utils.parsedate_to_datetime(text).timestamp() - time.time(), 0.0)
    except (TypeError, ValueError, OverflowError):
        return 0.0
