"""The flow that judges weights."""

import flows.prefect_environment  # noqa: F401

# isort: split
from prefect import flow

from flows.jobs import Outcome
from flows.metrics import RUN_HOOKS
from flows.outcomes import final_state, run_name
from flows.secrets import run_settings
from flows.tasks import evaluate_weights_task

__all__ = ["evaluate_weights_flow"]


@flow(name="evaluate-weights", flow_run_name=run_name("evaluate", "data"), **RUN_HOOKS)
def evaluate_weights_flow(
    data: str,
    out: str,
    checkpoint: str | None = None,
    split: str | None = "val",
    config: str | None = None,
) -> list[Outcome]:
    """Judge weights on the clips of a dataset, beside what needs no weights.

    Args:
        data: A dataset, or several separated by commas.
        out: Folder for evaluation.json and its page.
        checkpoint: Weights; None takes those in the package.
        split: Only this split: train, val or test; None takes the settings', which by default is all.
        config: Settings file (TOML); None takes stillstream.toml and the environment.
    """
    settings = run_settings(config).override("evaluate", split=split)
    return final_state(evaluate_weights_task(data, checkpoint, out, settings))
