"""The flow that distils videos into a dataset."""

import flows.prefect_environment  # noqa: F401

# isort: split
from prefect import flow

from flows.jobs import Outcome
from flows.metrics import RUN_HOOKS
from flows.outcomes import final_state, run_name
from flows.secrets import run_settings
from flows.tasks import build_dataset_task

__all__ = ["build_dataset_flow"]


@flow(name="build-dataset", flow_run_name=run_name("dataset", "out"), **RUN_HOOKS)
def build_dataset_flow(
    videos: str, out: str, config: str | None = None, runner: str | None = None, workers: int | None = None
) -> list[Outcome]:
    """Build or extend the dataset at `out` from `videos`.

    Args:
        videos: A file, folder, glob or any fsspec URL.
        out: Folder of the dataset; one that is there is extended.
        config: Settings file (TOML); None takes stillstream.toml and the environment.
        runner: Beam runner; None takes the settings'.
        workers: Worker processes; None takes the settings'.
    """
    settings = run_settings(config).override("runner", name=runner, workers=workers)
    return final_state(build_dataset_task(videos, out, settings))
