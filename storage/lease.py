"""A lease: one run at a time works in a folder, wherever the folder lies.

Who wants it writes a claim (`.lease/<token>.json`) and then looks who else has one: of two that begin at the
same instant at least one sees the other and withdraws. A claim is renewed while its holder lives. One that is
not renewed for long, or whose process on this machine is gone, belonged to a killed run and is cleared away.
Renewals are compared with what was read before, never with a clock: the machines' clocks may differ.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import random
import secrets
import socket
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from storage.errors import StoreError, UsageError
from storage.objects import delete_object, exists, is_local, join_url, list_objects, read_bytes, write_bytes

__all__ = ["Lease", "hold_lease"]

logger = logging.getLogger(__name__)

FOLDER = ".lease"
RENEW_SECONDS = 10.0
GONE_SECONDS = 45.0


class Lease:
    """A claim on a folder, renewed by a thread until it is released."""

    def __init__(self, folder: str, on_lost: Callable[[], None]) -> None:
        self.url = join_url(folder, FOLDER, f"{secrets.token_hex(8)}.json")
        self.lost = False
        self._folder = folder
        self._on_lost = on_lost
        self._since = datetime.now(UTC).isoformat(timespec="seconds")
        self._renewals = 0
        self._over = threading.Event()
        self._renewer = threading.Thread(target=self._renew, name="lease", daemon=True)

    def check(self) -> None:
        """Raise StoreError when the folder was given to another run, which believed this one gone."""
        if self.lost:
            raise StoreError(
                f"another run has taken {self._folder} over, because this one gave no sign of life; "
                "run again when that one has ended"
            )

    def claim(self) -> None:
        """Write the claim."""
        claim = {
            "machine": _machine(),
            "process": os.getpid(),
            "since": self._since,
            "renewals": self._renewals,
        }
        write_bytes(self.url, json.dumps(claim).encode())

    def withdraw(self) -> None:
        """Take the claim back."""
        delete_object(self.url)
        if is_local(self._folder):
            with contextlib.suppress(OSError):  # another's claim is there, or the folder is gone
                Path(join_url(self._folder, FOLDER).removeprefix("file://")).rmdir()

    def start(self) -> None:
        """Begin to renew the claim."""
        self._renewer.start()

    def release(self) -> None:
        """Stop renewing, and take the claim back."""
        self._over.set()
        self._renewer.join()
        try:
            self.withdraw()
        except StoreError as exc:
            logger.warning("the claim on %s stays until the next run: %s", self._folder, exc)

    def _renew(self) -> None:
        while not self._over.wait(RENEW_SECONDS):
            try:
                if not exists(self.url):
                    self.lost = True
                    self._on_lost()
                    return
                self._renewals += 1
                self.claim()
            except StoreError as exc:
                logger.warning("the claim on %s could not be renewed: %s", self._folder, exc)


@contextlib.contextmanager
def hold_lease(folder: str, *, on_lost: Callable[[], None] = lambda: None) -> Iterator[Lease]:
    """Have a folder for oneself during the block; `on_lost` is called when another run takes it over.

    Raises UsageError when another run works there; that takes up to 10 s to see, or 45 s for a run that was
    killed on another machine, which is then taken over.
    """
    lease = Lease(folder, on_lost)
    seen: dict[str, tuple[bytes, float]] = {}
    while True:
        if not _others(folder, lease.url):
            lease.claim()
            if not _others(folder, lease.url):
                break
            lease.withdraw()
        for url in _others(folder, lease.url):
            _clear_or_refuse(url, folder, seen)
        if seen:
            time.sleep(random.uniform(0.3, 0.9))  # noqa: S311 (so that two do not step on each other for ever)
    lease.start()
    try:
        yield lease
    finally:
        lease.release()


def _others(folder: str, own_url: str) -> list[str]:
    with contextlib.suppress(UsageError):  # nobody has a claim
        urls = [info.url for info in list_objects(join_url(folder, FOLDER), suffixes={".json"})]
        return [url for url in urls if url.rpartition("/")[2] != own_url.rpartition("/")[2]]
    return []


def _clear_or_refuse(url: str, folder: str, seen: dict[str, tuple[bytes, float]]) -> None:
    """Delete a claim whose holder is gone; UsageError for one that is renewed."""
    try:
        data = read_bytes(url)
    except UsageError:
        return  # released in this moment
    now = time.monotonic()
    before, first = seen.setdefault(url, (data, now))
    claim = _parsed(data)
    if data != before:
        raise UsageError(
            f"another run has been working on {folder} since {claim.get('since', 'some time')}; "
            "wait for its end, or give another --out"
        )
    if now - first > GONE_SECONDS or _process_is_gone(claim):
        logger.info("a run that was killed had claimed %s", folder)
        seen.pop(url)
        delete_object(url)


def _parsed(data: bytes) -> dict[str, Any]:
    try:
        claim = json.loads(data)
    except ValueError:
        return {}
    return claim if isinstance(claim, dict) else {}


def _process_is_gone(claim: dict[str, Any]) -> bool:
    """Whether a claim is of this machine and its process is no more; False where that cannot be told."""
    process = claim.get("process")
    if claim.get("machine") != _machine() or not isinstance(process, int):
        return False
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return True
    except OSError:
        pass  # it is somebody else's
    return False


def _machine() -> str:
    """A word for this machine and boot that tells nothing about it; containers are machines of their own."""
    parts = [socket.gethostname()]
    for source in ("/proc/sys/kernel/random/boot_id", "/proc/self/ns/pid"):
        with contextlib.suppress(OSError):
            path = Path(source)
            parts.append(os.readlink(path) if path.is_symlink() else path.read_text().strip())
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]
