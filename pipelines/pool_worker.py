"""One worker of a pool: Beam's harness, which ends when its runner or its pool has gone."""

# mypy: disable-error-code="no-untyped-call"
# Beam is typed in parts only.
from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import sys
import threading

__all__ = ["serve"]

logger = logging.getLogger(__name__)

RUNNER_GONE = 3
POOL_GONE = 4


def _is_no_chatter(said: logging.LogRecord) -> bool:
    """Importing Beam warns of cloud clients that nobody asked for, on the root logger itself."""
    return not str(said.msg).startswith("apitools not found")


logging.getLogger().addFilter(_is_no_chatter)


def serve(control_url: str, worker_id: str, pool_pid: int) -> None:
    """Work for the runner at `control_url` until it has no more; does not return."""
    import grpc  # type: ignore[import-untyped]
    from apache_beam.runners.worker.sdk_worker import SdkHarness

    logging.basicConfig(
        level=logging.WARNING, format=f"%(asctime)s %(levelname)s [{worker_id}] %(message)s", force=True
    )
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the pool's to handle
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    threading.Thread(target=_end_with_the_pool, args=(pool_pid,), daemon=True).start()
    code = 0
    try:
        SdkHarness(control_url, worker_id=worker_id, data_buffer_time_limit_ms=-1).run()
    except (grpc.RpcError, grpc.FutureTimeoutError) as exc:
        logger.warning("the runner at %s has gone: %s", control_url, type(exc).__name__)
        code = RUNNER_GONE
    finally:
        # Work still in flight has nobody to hand its result to, and would keep the process alive.
        sys.stderr.flush()
        os._exit(code)


def _end_with_the_pool(pool_pid: int) -> None:
    pool = multiprocessing.parent_process()
    if pool is not None:
        pool.join()  # the end of a pipe: known at once, also when the pool was killed
    logger.warning("the pool (process %d) has gone", pool_pid)
    os._exit(POOL_GONE)
