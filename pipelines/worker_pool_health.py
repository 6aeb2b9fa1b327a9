"""Does a worker pool answer? The health check of its container: one harmless request, no Beam imported.

python -m pipelines.worker_pool_health 127.0.0.1:50000
"""

from __future__ import annotations

import sys

import grpc  # type: ignore[import-untyped]

__all__ = ["answers", "main"]

METHOD = "/org.apache.beam.model.fn_execution.v1.BeamFnExternalWorkerPool/StopWorker"
NOBODY = b"\x0a\x06nobody"  # StopWorkerRequest(worker_id="nobody") as protobuf writes it
ANSWER_SECONDS = 5.0


def answers(address: str) -> bool:
    """Whether the pool at HOST:PORT carries a request out: ending a worker that does not exist."""
    with grpc.insecure_channel(address) as channel:
        call = channel.unary_unary(METHOD)
        try:
            call(NOBODY, timeout=ANSWER_SECONDS, wait_for_ready=False)
        except grpc.RpcError:
            return False
    return True


def main() -> int:
    """Exit code 0 when the pool answers, else 1."""
    return 0 if answers(sys.argv[1] if len(sys.argv) > 1 else "127.0.0.1:50000") else 1


if __name__ == "__main__":
    sys.exit(main())
