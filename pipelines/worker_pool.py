"""A pool of Beam worker processes for runners on other machines (`--environment_type=EXTERNAL`).

    python -m pipelines.worker_pool --port 50000 --host 0.0.0.0

A runner (Flink's TaskManager, Spark's executor, any portable job service) asks the pool for workers over
gRPC. Beam brings a pool of its own; this one differs in four things. Every worker is forked from one server
process that has imported the pipelines once, so that starting twenty of them does not import torch twenty
times. Native libraries get a stated number of threads, since workers already use the cores. What workers
print goes to the pool's own log instead of a pipe that nobody reads. Workers end with their pool, however
that ends.

Whoever reaches the port can run code: listen on 127.0.0.1, or on a network of trusted machines.
"""

# mypy: disable-error-code="no-untyped-call, misc"
# Beam and gRPC are typed in parts only.
from __future__ import annotations

import argparse
import logging
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.process import BaseProcess
from typing import Any, Protocol

# isort: off
from pipelines.pool_worker import serve  # before Beam, whose chatter it keeps off the log

# isort: on
import grpc  # type: ignore[import-untyped]
from apache_beam.portability.api import beam_fn_api_pb2, beam_fn_api_pb2_grpc

from storage.isolated import PINNED

__all__ = ["PRELOADED", "Pool", "Workers", "main", "serve_pool"]

logger = logging.getLogger(__name__)

PRELOADED = ("pipelines.transforms", "pipelines.photo_animation", "pipelines.crawl")
STOP_SECONDS = 10.0
CALLS = 16  # requests answered at a time


class Workers(Protocol):
    """What a pool's service needs: start and stop a worker by the runner's name for it."""

    def start(self, request: beam_fn_api_pb2.StartWorkerRequest) -> str:
        """Start a worker; returns what went wrong, or nothing."""

    def stop(self, worker_id: str) -> None:
        """End a worker; unknown ones are ended already."""

    def close(self) -> None:
        """End every worker."""


class Pool:
    """Workers of this machine, forked from a server process that has imported `preload`."""

    def __init__(self, preload: Sequence[str] = PRELOADED) -> None:
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload([serve.__module__, *preload])
        self._workers: dict[str, BaseProcess] = {}
        self._lock = threading.Lock()
        # The first fork waits for the imports; with it done, a pool that answers is one that is ready.
        first = self._context.Process(target=os.getpid, name="warm-up")
        first.start()
        first.join()

    def start(self, request: beam_fn_api_pb2.StartWorkerRequest) -> str:
        """Fork a worker that serves the runner's control endpoint."""
        process = self._context.Process(
            target=serve,
            args=(request.control_endpoint.url, request.worker_id, os.getpid()),
            name=f"beam worker {request.worker_id}",
        )
        with self._lock:
            self._forget_ended()
            process.start()
            self._workers[request.worker_id] = process
        logger.info("worker %s runs as process %s", request.worker_id, process.pid)
        return ""

    def stop(self, worker_id: str) -> None:
        """Ask a worker to end; one that does not is killed."""
        with self._lock:
            process = self._workers.pop(worker_id, None)
        if process is None:
            return
        process.terminate()
        process.join(STOP_SECONDS)
        if process.is_alive():
            logger.warning("worker %s does not end, killing it", worker_id)
            process.kill()
            process.join()
        logger.info("worker %s has ended", worker_id)

    def close(self) -> None:
        """End every worker at once."""
        for worker_id in list(self._workers):
            self.stop(worker_id)

    def _forget_ended(self) -> None:
        for worker_id, process in list(self._workers.items()):
            if not process.is_alive():
                process.join()
                del self._workers[worker_id]


class _Service(beam_fn_api_pb2_grpc.BeamFnExternalWorkerPoolServicer):
    """Beam's worker pool protocol over `Workers`."""

    def __init__(self, workers: Workers) -> None:
        self._workers = workers

    def StartWorker(self, request: Any, context: Any) -> beam_fn_api_pb2.StartWorkerResponse:  # noqa: N802
        """Start a worker; the runner shows the error's text."""
        try:
            error = self._workers.start(request)
        except OSError as exc:
            error = f"no worker process: {exc}"
        return beam_fn_api_pb2.StartWorkerResponse(error=error)

    def StopWorker(self, request: Any, context: Any) -> beam_fn_api_pb2.StopWorkerResponse:  # noqa: N802
        """End a worker."""
        self._workers.stop(request.worker_id)
        return beam_fn_api_pb2.StopWorkerResponse()


def serve_pool(make_workers: Callable[[], Workers], host: str, port: int) -> None:
    """Answer runners until SIGTERM or SIGINT, then end every worker; OSError when the port is taken."""
    server = grpc.server(
        ThreadPoolExecutor(CALLS),
        options=[("grpc.so_reuseport", 0), ("grpc.http2.max_ping_strikes", 0)],
    )
    try:
        bound = server.add_insecure_port(f"{host}:{port}")
    except RuntimeError as exc:
        raise OSError(f"cannot listen on {host}:{port}; is another pool running there?") from exc
    workers = make_workers()
    beam_fn_api_pb2_grpc.add_BeamFnExternalWorkerPoolServicer_to_server(_Service(workers), server)
    asked = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: asked.set())
    server.start()
    logger.info("workers are to be had at %s:%d", host, bound)
    asked.wait()
    server.stop(grace=1).wait()
    workers.close()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a pool, or with `--spread` the front of several."""
    options = _parser().parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", force=True)
    os.environ |= dict.fromkeys(PINNED, str(options.threads))

    def make_workers() -> Workers:
        if options.spread:
            from pipelines.worker_pool_front import Front

            return Front(options.spread.split(","))
        return Pool([module for module in options.preload.split(",") if module])

    try:
        serve_pool(make_workers, options.host, options.port)
    except OSError as exc:
        logger.error("%s", exc)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m pipelines.worker_pool", description="Beam worker pool")
    parser.add_argument("--port", type=int, default=50000, help="port that runners ask for workers (50000)")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (127.0.0.1)")
    parser.add_argument("--threads", type=int, default=1, help="threads of native libraries per worker (1)")
    parser.add_argument(
        "--preload",
        default=",".join(PRELOADED),
        metavar="MODULE,…",
        help="what the process that workers are forked from imports first (all pipelines)",
    )
    parser.add_argument(
        "--spread", metavar="HOST:PORT,…", help="run no workers here but spread them over these pools"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
