"""Beam's local runner waits for ever for a worker process that has died; here it is told.

A worker dies when memory runs out, its machine goes away or somebody kills it. What it was asked and has not
answered is then answered with an error, which ends the job instead of leaving it hanging.
"""

# mypy: disable-error-code="no-untyped-call, misc"
# Beam and gRPC are typed in parts only.
from __future__ import annotations

import contextlib
import threading
from typing import Any

import grpc  # type: ignore[import-untyped]
from apache_beam.portability.api import beam_fn_api_pb2
from apache_beam.runners.portability.fn_api_runner import worker_handlers

__all__ = ["LOST", "notice_lost_workers"]

LOST = "a worker process has died"


class _WatchedConnection(worker_handlers.ControlConnection):
    """The runner's connection to one worker, which answers for the worker when that has gone."""

    def __init__(self) -> None:
        super().__init__()
        self._gone = False
        self._watch = threading.Lock()

    def push(self, req: Any) -> Any:
        """Ask the worker."""
        future = super().push(req)
        with self._watch:
            if self._gone:
                self._answer_all()
        return future

    def _read(self) -> None:
        """Take answers until the stream ends, which it also does when the worker dies."""
        with contextlib.suppress(grpc.RpcError):
            super()._read()
        with self._watch:
            self._gone = True
            self._answer_all()

    def _answer_all(self) -> None:
        while self._futures_by_id:
            instruction, future = self._futures_by_id.popitem()
            future.set(beam_fn_api_pb2.InstructionResponse(instruction_id=instruction, error=LOST))


def notice_lost_workers() -> None:
    """From now on local jobs fail when a worker dies."""
    worker_handlers.ControlConnection = _WatchedConnection
