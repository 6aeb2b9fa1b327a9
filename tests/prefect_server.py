"""A real Prefect server for the tests: SQLite in a folder of its own, a free port, asked through its API."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

__all__ = ["PrefectServer", "free_port", "wait_for"]

T = TypeVar("T")
TERMINAL = ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")
START_SECONDS = 900.0


def free_port() -> int:
    """A port of this machine that nobody listens on."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port


def wait_for(what: str, look: Callable[[], T | None], seconds: float = 300.0) -> T:
    """What `look` finds, as soon as it finds something."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if found := look():
            return found
        time.sleep(1.0)
    raise AssertionError(f"waited {seconds:.0f} s in vain for {what}")


class PrefectServer:
    """Start, ask, stop."""

    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}/api"
        self.log = folder / "server.log"
        self.environment = {
            "PREFECT_HOME": str(folder),
            "PREFECT_API_URL": self.url,
            "PREFECT_API_DATABASE_CONNECTION_URL": f"sqlite+aiosqlite:///{folder}/prefect.db",
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
            "DO_NOT_TRACK": "1",
            "PREFECT_CLI_PROMPT": "false",
            "PREFECT_SERVER_SERVICES_SCHEDULER_LOOP_SECONDS": "5",
            "PREFECT_RUNNER_POLL_FREQUENCY": "2",
        }
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it and wait until it answers."""
        command = [str(Path(sys.executable).with_name("prefect")), "server", "start"]
        command += ["--host", "127.0.0.1", "--port", str(self.port)]
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(
                command, env={**os.environ, **self.environment}, stdout=log, stderr=log
            )
        wait_for("the Prefect server", self._is_healthy, START_SECONDS)

    def stop(self) -> None:
        """End it."""
        if self._process is not None:
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(60)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()

    def ask(self, path: str, body: object | None = None) -> Any:
        """GET, or POST with a body; the answer as Python values. Asks again while the database is busy."""
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(
            f"{self.url}{path}", data=data, headers={"content-type": "application/json"}
        )
        for wait in (1, 2, 4, 8, None):
            try:
                with urllib.request.urlopen(request, timeout=60) as answer:
                    content = answer.read()
                break
            except urllib.error.HTTPError as exc:
                if exc.code != 503 or wait is None:
                    raise
                time.sleep(wait)
        return json.loads(content) if content else None

    def deployments(self) -> dict[str, Any]:
        """All of them by name."""
        return {each["name"]: each for each in self.ask("/deployments/filter", {})}

    def run(self, deployment: str, parameters: dict[str, Any] | None = None) -> str:
        """Ask for a run now; returns its id."""
        body = {"state": {"type": "SCHEDULED"}, "parameters": parameters or {}}
        created = self.ask(f"/deployments/{self.deployments()[deployment]['id']}/create_flow_run", body)
        return str(created["id"])

    def cancel(self, run_id: str) -> None:
        """Ask for its end, as the button on Prefect's page does."""
        state = {"type": "CANCELLING", "name": "Cancelling"}
        self.ask(f"/flow_runs/{run_id}/set_state", {"state": state, "force": False})

    def ended(self, run_id: str, seconds: float = 600.0) -> dict[str, Any]:
        """The run, once it has ended."""

        def look() -> dict[str, Any] | None:
            run: dict[str, Any] = self.ask(f"/flow_runs/{run_id}")
            return run if run["state"]["type"] in TERMINAL else None

        return wait_for(f"the end of run {run_id}", look, seconds)

    def artifacts(self, run_id: str) -> dict[str, Any]:
        """What a run left, by key."""
        found = self.ask("/artifacts/filter", {"artifacts": {"flow_run_id": {"any_": [run_id]}}})
        return {each["key"]: each for each in found}

    def log_of(self, run_id: str) -> str:
        """What a run said."""
        found = self.ask(
            "/logs/filter", {"logs": {"flow_run_id": {"any_": [run_id]}}, "sort": "TIMESTAMP_ASC"}
        )
        return "\n".join(each["message"] for each in found)

    def _is_healthy(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, self.log.read_text()
        try:
            return bool(self.ask("/health"))
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            return False
