"""Worker pools, their front and job services as processes of their own, for the tests of clusters."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from pipelines.worker_pool_health import answers

__all__ = ["Service", "free_port", "front", "pool", "prism", "prism_binary"]

START_SECONDS = 400.0
ROOT = Path(__file__).parents[1]


class Service:
    """A process that listens on a port of this machine."""

    def __init__(self, command: list[str], port: int, log: Path) -> None:
        self.port = port
        self._log = log
        path = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
        environment = {**os.environ, "PYTHONPATH": path, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
        with log.open("ab") as output:
            self.process = subprocess.Popen(
                command, stdout=output, stderr=output, env=environment, start_new_session=True
            )

    @property
    def address(self) -> str:
        return f"localhost:{self.port}"

    @property
    def log(self) -> str:
        return self._log.read_text(errors="replace")

    def wait(self, ready: Callable[[str], bool]) -> Service:
        """Wait until the service at its address is ready."""
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline and self.process.poll() is None:
            if ready(self.address):
                return self
            time.sleep(0.1)
        raise RuntimeError(f"nothing answers at {self.address}: {self.log[-2000:]}")

    def kill(self) -> None:
        """End the process as a machine that goes away does; whatever it started has to notice."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def stop(self) -> None:
        """End the process orderly."""
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(30)
            except subprocess.TimeoutExpired:
                self.kill()


def pool(folder: Path, name: str, *, port: int | None = None, preload: str = "") -> Service:
    """A worker pool that answers."""
    port = port or free_port()
    command = [sys.executable, "-m", "pipelines.worker_pool", "--port", str(port), "--preload", preload]
    return Service(command, port, folder / f"{name}.log").wait(answers)


def front(folder: Path, pools: list[Service]) -> Service:
    """One address for several pools."""
    port = free_port()
    spread = ",".join(each.address for each in pools)
    command = [sys.executable, "-m", "pipelines.worker_pool", "--port", str(port), "--spread", spread]
    return Service(command, port, folder / "front.log").wait(answers)


def prism_binary() -> str | None:
    """Beam's job service written in Go (`make prism` builds it), or None."""
    beside = Path(sys.executable).with_name("prism")
    return str(beside) if beside.exists() else shutil.which("prism")


@contextlib.contextmanager
def prism(folder: Path) -> Iterator[Service]:
    """A running portable job service."""
    binary = prism_binary()
    assert binary is not None
    port = free_port()
    command = [binary, "-job_port", str(port), "-serve_http=false", "-log_kind", "text"]
    service = Service(command, port, folder / "prism.log").wait(_listens)
    try:
        yield service
    finally:
        service.stop()


def _listens(address: str) -> bool:
    host, _, port = address.rpartition(":")
    with contextlib.suppress(OSError), socket.create_connection((host, int(port)), 1):
        return True
    return False


def free_port() -> int:
    """A port that is free at this moment."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])
