"""`stillstream flows serve`: all deployments with their schedules in one process that stays."""

import logging
import os
import tempfile
from typing import TYPE_CHECKING

import flows.prefect_environment  # noqa: F401

if TYPE_CHECKING:
    from flows.settings import Settings

__all__ = ["serve_flows"]

logger = logging.getLogger(__name__)


def serve_flows(settings: "Settings", config_file: str | None = None) -> None:
    """Register all deployments at the Prefect server and run them when they are due, until SIGINT or SIGTERM.

    Each run is a process of its own; the runs still going are stopped at the end. Prometheus is answered as
    [flows] says.
    """
    config = settings.flows
    with tempfile.TemporaryDirectory(prefix="stillstream-metrics-") as folder:
        os.environ["PROMETHEUS_MULTIPROC_DIR"] = folder  # before prometheus_client is first imported
        from prefect import serve

        from flows.deployments import served_deployments
        from flows.metrics import serve_metrics

        deployments = served_deployments(settings, config_file)
        if config.metrics_port:
            serve_metrics(config.metrics_port, config.metrics_host)
            logger.info("metrics at http://%s:%d/metrics", config.metrics_host, config.metrics_port)
        for deployment in deployments:
            when = ", ".join(str(getattr(each.schedule, "cron", "")) for each in deployment.schedules or ())
            logger.info("serving %s %s", deployment.name, f"({when})" if when else "(on demand)")
        serve(*deployments, limit=config.limit, print_starting_message=False)
