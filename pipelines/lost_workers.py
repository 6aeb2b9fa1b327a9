"""Beam's local runner waits for ever for a worker process that has died or never came; here it is told.

A worker dies when memory runs out, its machine goes away or somebody kills it. What it was asked and has not
answered is then answered with an error, which ends the job instead of leaving it hanging. The streams that
were cut with it end like any other, without tracebacks of threads that nobody waits for.
"""

# mypy: disable-error-code="no-untyped-call, misc"
# Beam and gRPC are typed in parts only.
from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterable, Iterator
from typing import Any

import grpc  # type: ignore[import-untyped]
from apache_beam.portability import python_urns
from apache_beam.portability.api import beam_fn_api_pb2
from apache_beam.runners.portability import local_job_service
from apache_beam.runners.portability.fn_api_runner import worker_handlers
from apache_beam.runners.worker import data_plane

__all__ = ["LOST", "NEVER_CAME", "notice_lost_workers", "until_cut"]

LOST = "a worker process has died"
NEVER_CAME = "a worker process was started and never came"
COMING_SECONDS = 300.0  # the imports of many workers at once on a busy machine


def until_cut(stream: Iterable[Any]) -> Iterator[Any]:
    """What a stream brings, which is over when its other side goes away."""
    with contextlib.suppress(grpc.RpcError):
        yield from stream


class _WatchedConnection(worker_handlers.ControlConnection):
    """The runner's connection to one worker, which answers for the worker when that has gone."""

    def __init__(self) -> None:
        super().__init__()
        self._error = ""
        self._watch = threading.Lock()
        self._coming: threading.Timer | None = None

    def push(self, req: Any) -> Any:
        """Ask the worker."""
        future = super().push(req)
        with self._watch:
            if self._input is None and self._coming is None:
                self._coming = threading.Timer(COMING_SECONDS, self.end, (NEVER_CAME,))
                self._coming.daemon = True
                self._coming.start()
            if self._error:
                self._answer_all()
        return future

    def close(self) -> None:
        """Let the worker end."""
        with self._watch:
            if self._coming is not None:
                self._coming.cancel()
        super().close()

    def _read(self) -> None:
        """Take answers until the stream ends, which it also does when the worker dies."""
        with self._watch:
            if self._coming is not None:
                self._coming.cancel()
        with contextlib.suppress(grpc.RpcError):
            super()._read()
        self.end(LOST)

    def end(self, error: str) -> None:
        """From now on every question is answered with this error."""
        with self._watch:
            self._error = error
            self._answer_all()

    def _answer_all(self) -> None:
        while self._futures_by_id:
            instruction, future = self._futures_by_id.popitem()
            future.set(beam_fn_api_pb2.InstructionResponse(instruction_id=instruction, error=self._error))


class _WatchedChannel(data_plane._GrpcDataChannel):
    """The data of one worker; that the worker has gone is said once, and by its name."""

    def input_elements(self, *args: Any, **kwargs: Any) -> Iterator[Any]:
        """What the worker hands over for one instruction."""
        try:
            yield from super().input_elements(*args, **kwargs)
        except RuntimeError as exc:
            if not self._closed:
                raise
            raise RuntimeError(LOST) from exc

    def _read_inputs(self, elements_iterator: Iterable[Any]) -> None:
        super()._read_inputs(until_cut(elements_iterator))


class _WatchedProcess(worker_handlers.SubprocessSdkWorkerHandler):
    """A worker process of this machine, whose end is known at once, also before it has come."""

    def start_worker(self) -> None:
        """Start the process, and wait for its end in a thread."""
        self.worker = local_job_service.SubprocessSdkWorker(
            self._worker_command_line, self.control_address, self.provision_info, self.worker_id
        )
        self.worker_thread = threading.Thread(target=self._run, name="run_worker")
        self.worker_thread.start()

    def _run(self) -> None:
        with contextlib.suppress(RuntimeError):  # its exit code, which nobody waits for
            self.worker.run()
        assert isinstance(self.control_conn, _WatchedConnection)
        self.control_conn.end(LOST)


def notice_lost_workers() -> None:
    """From now on local jobs fail when a worker dies."""
    worker_handlers.ControlConnection = _WatchedConnection
    data_plane._GrpcDataChannel = _WatchedChannel
    environments = worker_handlers.WorkerHandler._registered_environments
    environments[python_urns.SUBPROCESS_SDK] = (_WatchedProcess, bytes)
