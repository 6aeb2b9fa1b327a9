"""The flow that decides whether a version of the weights becomes current."""

import flows.prefect_environment  # noqa: F401

# isort: split
from prefect import flow

from flows.jobs import Outcome
from flows.metrics import RUN_HOOKS
from flows.model_tasks import promote_model_task
from flows.outcomes import final_state, run_name
from flows.secrets import run_settings

__all__ = ["promote_model_flow"]


@flow(name="promote-model", flow_run_name=run_name("promote", "registry"), **RUN_HOOKS)
def promote_model_flow(
    registry: str, version: str, data: str | None = None, config: str | None = None
) -> list[Outcome]:
    """Judge `version` against the current one; it becomes current only if it is better for sure.

    Args:
        registry: The model registry.
        version: Name of the version, or the first digits of it.
        data: Datasets to judge on, separated by commas; None takes the settings'.
        config: Settings file (TOML); None takes stillstream.toml and the environment.
    """
    return final_state(promote_model_task(registry, version, run_settings(config), data))
