"""One address for several worker pools: workers are spread over those that answer.

A portable job names one worker pool. Where a cluster has several and no side car beside each of its
machines, this front stands before them: it asks the pools in turn and passes over one that does not answer.
"""

# mypy: disable-error-code="no-untyped-call, misc"
# Beam and gRPC are typed in parts only.
from __future__ import annotations

import itertools
import logging
import threading
from collections.abc import Iterator, Sequence

import grpc  # type: ignore[import-untyped]
from apache_beam.portability.api import beam_fn_api_pb2, beam_fn_api_pb2_grpc

__all__ = ["Front"]

logger = logging.getLogger(__name__)

ANSWER_SECONDS = 60.0  # of a pool that lives; one that does not refuses at once


class Front:
    """Forwards the pool protocol to `pools` (HOST:PORT each) in turn."""

    def __init__(self, pools: Sequence[str]) -> None:
        self._pools = [pool.strip() for pool in pools]
        self._turn = itertools.cycle(range(len(self._pools)))
        self._where: dict[str, str] = {}
        self._lock = threading.Lock()

    def start(self, request: beam_fn_api_pb2.StartWorkerRequest) -> str:
        """Start a worker in the next pool that answers; returns what went wrong when none does."""
        errors = []
        for pool in self._in_turn():
            try:
                with grpc.insecure_channel(pool) as channel:
                    stub = beam_fn_api_pb2_grpc.BeamFnExternalWorkerPoolStub(channel)
                    answer = stub.StartWorker(request, timeout=ANSWER_SECONDS)
            except grpc.RpcError as exc:
                errors.append(f"the worker pool {pool} does not answer ({exc.code().name})")
                logger.warning("%s, trying the next", errors[-1])
                continue
            if not answer.error:
                with self._lock:
                    self._where[request.worker_id] = pool
                logger.info("worker %s runs in the pool %s", request.worker_id, pool)
            return str(answer.error)
        return ", ".join(errors)

    def stop(self, worker_id: str) -> None:
        """End a worker where it runs; with a pool that has gone its workers have, too."""
        with self._lock:
            pool = self._where.pop(worker_id, None)
        if pool is None:
            return
        try:
            with grpc.insecure_channel(pool) as channel:
                stub = beam_fn_api_pb2_grpc.BeamFnExternalWorkerPoolStub(channel)
                stub.StopWorker(
                    beam_fn_api_pb2.StopWorkerRequest(worker_id=worker_id), timeout=ANSWER_SECONDS
                )
        except grpc.RpcError as exc:
            logger.warning("the worker pool %s does not answer (%s)", pool, exc.code().name)

    def close(self) -> None:
        """End the workers that were started through this front."""
        for worker_id in list(self._where):
            self.stop(worker_id)

    def _in_turn(self) -> Iterator[str]:
        with self._lock:
            first = next(self._turn)
        yield from self._pools[first:] + self._pools[:first]
