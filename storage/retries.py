"""Retries and error translation: the one border between foreign stores and our errors.

Every access to a store goes through `attempt`. Trouble that passes (5xx, timeouts, refused connections)
is retried with growing pauses until the budget is spent; everything else is translated at once.
"""

from __future__ import annotations

import errno
import logging
import random
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar, cast

from storage.errors import StillstreamError, StoreError, UsageError

__all__ = [
    "RETRY_SECONDS",
    "ShortReadError",
    "attempt",
    "attempt_keeping_missing",
    "is_passing",
    "translate_error",
    "translating_disk_trouble",
]

logger = logging.getLogger(__name__)

# How long one access may be retried: a store that restarts is away for tens of seconds.
RETRY_SECONDS = 60.0
FIRST_PAUSE_SECONDS = 0.2
LONGEST_PAUSE_SECONDS = 5.0

_DISK_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_DISK_TROUBLE = _DISK_FULL | {errno.EIO, errno.EROFS, errno.ESTALE}
_PASSING_ERRNO = frozenset(
    {errno.EREMOTEIO, errno.EBUSY, errno.ETIMEDOUT, errno.ECONNRESET, errno.ECONNREFUSED, errno.EPIPE}
)
# Errors of botocore, aiohttp and fsspec that mean "try again"; by name, so that nothing is imported.
_PASSING_NAMES = frozenset(
    {
        "ClientConnectionError",
        "ClientPayloadError",
        "EndpointConnectionError",
        "FSTimeoutError",
        "HTTPClientError",
        "IncompleteRead",
        "ResponseParserError",
        "ResponseStreamingError",
    }
)

T = TypeVar("T")


class ShortReadError(OSError):
    """Fewer bytes came than the store had promised."""


def attempt(action: Callable[[], T], *, doing: str, url: str) -> T:
    """Run an access to a store, e.g. `attempt(lambda: fs.cat_file(p), doing="read", url=url)`.

    `action` may run several times and must be idempotent. Raises UsageError for a missing path and
    StoreError for the rest; errors of our own pass through.
    """
    deadline = time.monotonic() + RETRY_SECONDS
    pause = FIRST_PAUSE_SECONDS
    while True:
        try:
            return action()
        except StillstreamError:
            raise
        except _foreign_errors() as exc:
            if not is_passing(exc) or time.monotonic() + pause > deadline:
                raise translate_error(exc, doing=doing, url=url) from exc
            logger.warning("could not %s %s (%s); trying again in %.1f s", doing, url, _brief(exc), pause)
        # The jitter keeps many workers from coming back in step.
        time.sleep(pause * random.uniform(0.75, 1.25))  # noqa: S311
        pause = min(pause * 2, LONGEST_PAUSE_SECONDS)


def attempt_keeping_missing(action: Callable[[], T], *, doing: str, url: str) -> T:
    """As `attempt`, but a missing object stays a FileNotFoundError for the caller to use."""
    missing: list[OSError] = []

    def guarded() -> T | None:
        try:
            return action()
        except (FileNotFoundError, NotADirectoryError) as exc:
            missing.append(exc)
            return None

    result = attempt(guarded, doing=doing, url=url)
    if missing:
        raise FileNotFoundError(url) from missing[0]
    return cast(T, result)


def is_passing(exc: BaseException) -> bool:
    """Whether an error is of the kind that passes by itself: a busy, restarting or unreachable server."""
    for link in _chain(exc):
        code = _http_status(link)
        if code is not None:
            return code >= 500 and code != 501 or code in (408, 429)
        if isinstance(link, (ConnectionError, TimeoutError, ShortReadError)):
            return True
        if isinstance(link, OSError) and link.errno in _PASSING_ERRNO:
            return True
        if any(kind.__name__ in _PASSING_NAMES for kind in type(link).__mro__):
            return True
    return False


def translate_error(exc: BaseException, *, doing: str, url: str) -> StillstreamError:
    """Our error for a foreign one: UsageError for a wrong path, StoreError for the rest."""
    if isinstance(exc, FileNotFoundError):
        return UsageError(f"cannot {doing} {url}: there is nothing at this path; check its spelling")
    if isinstance(exc, IsADirectoryError):
        return UsageError(f"cannot {doing} {url}: it is a folder; name a file in it")
    if isinstance(exc, NotADirectoryError):
        return UsageError(f"cannot {doing} {url}: a part of this path is a file, not a folder")
    if isinstance(exc, PermissionError):
        return StoreError(
            f"cannot {doing} {url}: permission denied ({_brief(exc)}); "
            "check the rights of the path, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
        )
    if isinstance(exc, OSError) and exc.errno in _DISK_FULL:
        return StoreError(
            f"cannot {doing} {url}: the disk is full or over quota ({_brief(exc)}); free space and run again"
        )
    if type(exc).__name__ in ("NoCredentialsError", "PartialCredentialsError"):
        return StoreError(f"cannot {doing} {url}: no keys; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY")
    if is_passing(exc):
        return StoreError(f"cannot {doing} {url}: gave up after {RETRY_SECONDS:.0f} s ({_brief(exc)})")
    return StoreError(f"cannot {doing} {url}: {_brief(exc)}")


@contextmanager
def translating_disk_trouble(url: str) -> Iterator[None]:
    """Translate a disk's trouble that arises in the block; other errors in it are the block's own affair."""
    try:
        yield
    except OSError as exc:
        if exc.errno not in _DISK_TROUBLE:
            raise
        raise translate_error(exc, doing="write", url=url) from exc


def _foreign_errors() -> tuple[type[Exception], ...]:
    # Not every botocore or aiohttp error is an OSError; they are known once something has imported them.
    kinds: list[type[Exception]] = [OSError]
    if (boto := sys.modules.get("botocore.exceptions")) is not None:
        kinds += [boto.BotoCoreError, boto.ClientError]
    if (aiohttp := sys.modules.get("aiohttp")) is not None:
        kinds.append(aiohttp.ClientError)
    return tuple(kinds)


def _chain(exc: BaseException) -> list[BaseException]:
    links: list[BaseException] = []
    link: BaseException | None = exc
    while link is not None and link not in links:
        links.append(link)
        link = link.__cause__
    return links


def _http_status(exc: BaseException) -> int | None:
    response = getattr(exc, "response", None)
    if isinstance(response, dict):
        code = response.get("ResponseMetadata", {}).get("HTTPStatusCode")
        return code if isinstance(code, int) else None
    status = getattr(exc, "status", None)
    return status if isinstance(status, int) else None


def _brief(exc: BaseException) -> str:
    text = " ".join(str(exc).split())
    return f"{type(exc).__name__}: {text[:200]}" if text else type(exc).__name__
