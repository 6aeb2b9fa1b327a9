"""The flow that trains both models on a dataset."""

import flows.prefect_environment  # noqa: F401

# isort: split
from prefect import flow

from flows.jobs import Outcome, TrainingJob
from flows.metrics import RUN_HOOKS
from flows.outcomes import final_state, run_name
from flows.secrets import run_settings
from flows.tasks import train_model_task
from storage.objects import join_url

__all__ = ["train_models_flow"]


@flow(name="train-models", flow_run_name=run_name("train", "out"), **RUN_HOOKS)
def train_models_flow(  # noqa: PLR0913 (what a person may choose)
    data: str,
    out: str,
    motion_config: str = "default",
    animator_config: str | None = "default",
    nproc: int = 1,
    resume: bool = False,
    overwrite: bool = False,
    config: str | None = None,
) -> list[Outcome]:
    """Train the motion network into `out`/motion and the animator into `out`/animator, by torchrun.

    A training that was interrupted goes on, and one that is done is not done again, as long as dataset and
    configuration are the same.

    Args:
        data: A dataset, or several separated by commas.
        out: Folder for both; `animate` takes it as --checkpoint.
        motion_config: Training configuration of the motion network, by name or as a file's URL.
        animator_config: The same for the animator; None trains no animator.
        nproc: Processes on this machine.
        resume: Go on from the last saved state even where it is not known what it was made from.
        overwrite: Train from the beginning although nothing has changed.
        config: Settings file (TOML) that names secrets; None takes stillstream.toml and the environment.
    """
    run_settings(config)
    configs = {"motion": motion_config, "animator": animator_config}
    outcomes = [
        train_model_task(
            TrainingJob(
                kind="motion" if kind == "motion" else "animator",
                data=data,
                out=join_url(out, kind),
                config=training,
                nproc=nproc,
                resume=resume,
            ),
            overwrite=overwrite,
        )
        for kind, training in configs.items()
        if training is not None
    ]
    return final_state(*outcomes)
