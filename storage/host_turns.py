"""One request at a time per host, with the wanted pause between two, over all processes of this machine.

A turn is a lock on a small file per host; its modification time is when the last request ended.
"""

from __future__ import annotations

import fcntl
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from storage.digest import digest_bytes

__all__ = ["host_turn"]


@contextmanager
def host_turn(host: str, delay: float) -> Iterator[None]:
    """Wait until nobody else talks to `host` and `delay` seconds have passed since, then hold the turn."""
    descriptor = os.open(_turn_file(host), os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        status = os.fstat(descriptor)
        if status.st_size:  # not the very first turn
            # A clock that was set back must not make us wait for hours.
            time.sleep(min(max(status.st_mtime + delay - time.time(), 0.0), delay))
        try:
            yield
        finally:
            os.pwrite(descriptor, b".", 0)
            os.utime(descriptor)
    finally:
        os.close(descriptor)


def _turn_file(host: str) -> Path:
    folder = Path(tempfile.gettempdir()) / f"stillstream-hosts-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    return folder / digest_bytes(host.encode())[:32]
