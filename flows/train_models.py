"""The flow that trains both models on a dataset."""

import flows.prefect_environment  # noqa: F401

# isort: split
from prefect import flow

from flows.jobs import Outcome, TrainingJob
from flows.outcomes import final_state, run_name
from flows.tasks import train_model_task
from storage.objects import join_url

__all__ = ["train_models_flow"]


@flow(name="train-models", flow_run_name=run_name("train", "out"))
def train_models_flow(
    data: str,
    out: str,
    motion_config: str = "default",
    animator_config: str | None = "default",
    nproc: int = 1,
    resume: bool = False,
) -> list[Outcome]:
    """Train the motion network into `out`/motion and the animator into `out`/animator, by torchrun.

    Args:
        data: A dataset, or several separated by commas.
        out: Folder for both; `animate` takes it as --checkpoint.
        motion_config: Training configuration of the motion network, by name or as a file's URL.
        animator_config: The same for the animator; None trains no animator.
        nproc: Processes on this machine.
        resume: Go on from the last saved state.
    """
    configs = {"motion": motion_config, "animator": animator_config}
    outcomes = [
        train_model_task(
            TrainingJob(
                kind="motion" if kind == "motion" else "animator",
                data=data,
                out=join_url(out, kind),
                config=config,
                nproc=nproc,
                resume=resume,
            )
        )
        for kind, config in configs.items()
        if config is not None
    ]
    return final_state(*outcomes)
