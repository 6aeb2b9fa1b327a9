"""The flow that animates a library of photos."""

import flows.prefect_environment  # noqa: F401

# isort: split
from prefect import flow

from flows.jobs import Outcome
from flows.metrics import RUN_HOOKS
from flows.outcomes import final_state, run_name
from flows.secrets import run_settings
from flows.tasks import animate_photos_task

__all__ = ["animate_photos_flow"]


@flow(name="animate-photos", flow_run_name=run_name("animate", "out"), **RUN_HOOKS)
def animate_photos_flow(  # noqa: PLR0913 (what a person may choose)
    photos: str,
    out: str,
    checkpoint: str | None = None,
    config: str | None = None,
    workers: int | None = None,
    overwrite: bool = False,
    keep_older: bool = False,
) -> list[Outcome]:
    """Animate `photos` into loops at `out`; what is done already is skipped.

    Args:
        photos: A file, folder, glob or any fsspec URL.
        out: Folder of the loops and their ledger.
        checkpoint: Weights, or a model registry; None takes the settings', then those in the package.
        config: Settings file (TOML); None takes stillstream.toml and the environment.
        workers: Worker processes; None takes the settings'.
        overwrite: Render again what is done.
        keep_older: Leave loops alone that were made by other weights.
    """
    settings = run_settings(config).override("runner", workers=workers)
    settings = settings.override("animate", checkpoint=checkpoint, overwrite=overwrite or None)
    settings = settings.override("animate", keep_older=keep_older or None)
    return final_state(animate_photos_task(photos, out, settings))
