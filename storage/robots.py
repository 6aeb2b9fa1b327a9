"""What a site's robots.txt allows, by Protego, with the rules of RFC 9309 for files that are not there."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from protego import Protego

from storage.errors import FetchError, RejectedError
from storage.reasons import Reason

__all__ = ["ROBOTS_BYTES", "Robots", "RobotsAnswer"]

# RFC 9309, 2.5: at least 500 KiB must be parsed; more is cut off.
ROBOTS_BYTES = 512 * 1024


@dataclass(frozen=True, slots=True)
class RobotsAnswer:
    """The HTTP status of a robots.txt (0: no answer at all) and its text."""

    status: int
    text: str = ""


@dataclass(slots=True)
class Robots:
    """Rules per site, each fetched once by `fetch(url of robots.txt)`.

    No such file (4xx) allows everything; a site that cannot answer (5xx or no connection) allows nothing
    for now, which is a failure and is tried again in the next run.
    """

    user_agent: str
    fetch: Callable[[str], RobotsAnswer]
    _rules: dict[str, Protego | None] = field(default_factory=dict)

    def check(self, url: str) -> None:
        """Raise RejectedError (robots) when a URL must not be fetched, FetchError when nobody can tell."""
        rules = self._rules_of(url)
        if rules is None:
            raise FetchError(
                f"{_origin(url)}/robots.txt cannot be read, so nothing may be fetched there now",
                reason=Reason.NETWORK,
            )
        if not rules.can_fetch(url, self.user_agent):
            raise RejectedError(f"robots.txt of {_origin(url)} disallows this link", reason=Reason.ROBOTS)

    def delay(self, url: str) -> float:
        """Seconds a site wants between requests; 0 when it does not say."""
        rules = self._rules.get(_origin(url))
        if rules is None:
            return 0.0
        delay = float(rules.crawl_delay(self.user_agent) or 0.0)
        rate = rules.request_rate(self.user_agent)
        return max(delay, rate.seconds / rate.requests) if rate is not None and rate.requests else delay

    def _rules_of(self, url: str) -> Protego | None:
        origin = _origin(url)
        if origin not in self._rules:
            answer = self.fetch(f"{origin}/robots.txt")
            missing = 400 <= answer.status < 500 and answer.status != 429
            readable = 200 <= answer.status < 300
            text = answer.text if readable else ""
            self._rules[origin] = Protego.parse(text) if readable or missing else None
        return self._rules[origin]


def _origin(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme.lower()}://{parts.netloc.rpartition('@')[2].lower()}"
