"""Figures for Prometheus: what `flows serve` answers a scraper, filled by all of its flow runs.

Flow runs are processes of their own. With PROMETHEUS_MULTIPROC_DIR set, which must happen before this module
is imported, prometheus_client keeps every process's numbers in files there, and the endpoint adds them up.
Without it, as in a run from a work pool, counting costs nothing and reaches nobody.
"""

import flows.prefect_environment  # noqa: F401

# isort: split
import time
from collections.abc import Mapping
from typing import Any

from prefect.client.schemas.objects import FlowRun, State
from prefect.flows import Flow
from prometheus_client import CollectorRegistry, Counter, Gauge, start_http_server
from prometheus_client.multiprocess import MultiProcessCollector

from flows.jobs import Outcome
from storage.web_address import public_url

__all__ = ["RUN_HOOKS", "count_outcome", "count_run", "serve_metrics"]

RUNS = Counter("stillstream_runs", "Flow runs by the state they ended in", ["flow", "state"])
LAST_DONE = Gauge(
    "stillstream_last_completed_timestamp_seconds",
    "When a flow last completed",
    ["flow"],
    multiprocess_mode="mostrecent",
)
ITEMS = Gauge(
    "stillstream_items",
    "Items by status after the last job that wrote to a folder",
    ["job", "out", "status"],
    multiprocess_mode="mostrecent",
)
JOB_SECONDS = Counter("stillstream_job_seconds", "Time that jobs took", ["job"])
STAGE_SECONDS = Counter("stillstream_stage_seconds", "Work per stage, over all workers", ["job", "stage"])
STARTED = Gauge(
    "stillstream_serve_started_timestamp_seconds",
    "When the serving process began",
    multiprocess_mode="mostrecent",
)


def serve_metrics(port: int, host: str) -> None:
    """Answer scrapers at a port, in a thread of its own."""
    registry = CollectorRegistry()
    MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    STARTED.set_to_current_time()
    start_http_server(port, host, registry)


def count_outcome(job: str, outcome: Outcome) -> None:
    """Take a job's items and seconds in."""
    summary = outcome.summary
    out = next((summary[name] for name in ("out", "dataset_url", "page_url", "page") if name in summary), "")
    for status, count in _numbers(summary.get("counts")).items():
        if status != "attempted":
            ITEMS.labels(job, public_url(str(out)), status).set(count)
    JOB_SECONDS.labels(job).inc(float(summary.get("seconds") or 0.0))
    for stage, seconds in _numbers(summary.get("stage_seconds")).items():
        STAGE_SECONDS.labels(job, stage).inc(seconds)


def count_run(flow: Flow[..., Any], flow_run: FlowRun, state: State[Any]) -> None:
    """Take in how a flow run ended."""
    # The hook for a cancelled run is called while the serving process is ending it.
    RUNS.labels(flow.name, "Cancelled" if state.is_cancelling() else state.name or state.type.value).inc()
    if state.is_completed():
        LAST_DONE.labels(flow.name).set(time.time())


# What every flow is made with; Prefect calls the last two in the serving process when a run cannot any more.
RUN_HOOKS: dict[str, Any] = {
    name: [count_run] for name in ("on_completion", "on_failure", "on_cancellation", "on_crashed")
}


def _numbers(values: object) -> Mapping[str, float]:
    return values if isinstance(values, Mapping) else {}
