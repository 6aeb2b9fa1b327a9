"""The flow that publishes the gallery of a folder of loops."""

import flows.prefect_environment  # noqa: F401

# isort: split
from prefect import flow

from flows.jobs import Outcome
from flows.metrics import RUN_HOOKS
from flows.outcomes import final_state, run_name
from flows.secrets import run_settings
from flows.tasks import publish_gallery_task

__all__ = ["publish_gallery_flow"]


@flow(name="publish-gallery", flow_run_name=run_name("gallery", "url"), **RUN_HOOKS)
def publish_gallery_flow(url: str, config: str | None = None) -> list[Outcome]:
    """Write index.html beside the loops at `url`.

    Args:
        url: A folder that `animate` wrote.
        config: Settings file (TOML); None takes stillstream.toml and the environment.
    """
    return final_state(publish_gallery_task(url, run_settings(config)))
