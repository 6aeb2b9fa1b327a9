"""The demo as one Prefect flow, of the same tasks as every other flow.

Its training is short, so its weights make the loops only when they are better, on clips they have not seen,
than the weights in the package.
"""

import flows.prefect_environment  # noqa: F401

# isort: split
import dataclasses
import json

from prefect import flow

from flows.demo import DemoPlan, Drawing
from flows.jobs import Outcome, TrainingJob
from flows.outcomes import final_state
from flows.settings import Settings
from flows.tasks import (
    animate_photos_task,
    build_dataset_task,
    evaluate_weights_task,
    publish_gallery_task,
    train_model_task,
)
from storage.errors import UsageError
from storage.objects import write_bytes
from storage.progress import OnProgress, Progress

__all__ = ["demo_flow"]

# Differs from the run called small: enough to see learning, short enough to wait for.
TRAINING = {"run": "small", "steps": 200, "validate_every": 100, "save_every": 100, "log_every": 10}
# Enough clips to tell good weights from bad ones; whole loops are the slow part.
JUDGEMENT = {"limit": 5, "loops": 1, "examples": 5, "deep": False}


@flow(name="demo", validate_parameters=False)
def demo_flow(plan: DemoPlan, drawing: Drawing, on_progress: OnProgress) -> list[Outcome]:
    """Go the whole way once.

    Args:
        plan: Where everything lies.
        drawing: The scenes that are being drawn.
        on_progress: Told how far each stage is.
    """
    drawing.wait(on_progress)
    settings = Settings(values={"evaluate": JUDGEMENT})
    dataset = build_dataset_task(plan.videos, plan.place("dataset"), settings, _named("dataset", on_progress))
    if not dataset.summary["counts"]["ok"]:
        raise UsageError(f"no clip of {plan.videos} can be learnt from: {dataset.summary['reasons']}")
    unseen = plan.place("dataset")
    if plan.held_out is not None:
        unseen = plan.place("held_out")
        build_dataset_task(plan.held_out, unseen, settings, _named("held out", on_progress))
    config = plan.place("weights", "training_config.json")
    write_bytes(config, json.dumps(TRAINING, indent=2).encode())
    train_model_task(
        TrainingJob(
            kind="motion", data=plan.place("dataset"), out=plan.place("weights", "motion"), config=config
        ),
        on_progress,
    )
    checkpoint, why = _better_weights(plan, unseen, settings, on_progress)
    settings = settings.override("animate", checkpoint=checkpoint)
    animation = animate_photos_task(plan.photos, plan.place("gallery"), settings, on_progress)
    gallery = publish_gallery_task(plan.place("gallery"), settings)
    on_progress(Progress(stage="gallery", done=1, total=1))
    return final_state(
        dataclasses.replace(
            animation,
            title="Demo",
            rows={
                "clips": dataset.summary["counts"],
                "weights": why,
                "photos": animation.summary["counts"],
                "dataset report": dataset.summary["report"],
                "evaluation": plan.place("evaluation", "index.html"),
                "gallery": gallery.summary["page_url"],
            },
        )
    )


def _better_weights(
    plan: DemoPlan, data: str, settings: Settings, on_progress: OnProgress
) -> tuple[str | None, str]:
    """The checkpoint to animate with (None: the weights in the package), and why it is that one."""
    from models.checkpoint import find_checkpoint

    own = plan.place("weights")
    mine = evaluate_weights_task(data, own, plan.place("evaluation"), settings, on_progress)
    if find_checkpoint(None, "motion") is None:
        return own, "trained here (there are none in the package)"
    theirs = evaluate_weights_task(
        data, None, plan.place("evaluation_of_package"), settings, _named("package", on_progress)
    )
    mine_error, theirs_error = _error(mine), _error(theirs)
    said = f"error beside no motion: trained here {mine_error:.2f}, package {theirs_error:.2f}"
    return (own, f"trained here ({said})") if mine_error < theirs_error else (None, f"package ({said})")


def _error(evaluation: Outcome) -> float:
    """End-point error of the automatic motion over that of no motion; less is better."""
    mean = evaluation.summary["ratios"]["automatic"]["zero"]["mean"]
    return float("inf") if mean is None else float(mean)


def _named(name: str, on_progress: OnProgress) -> OnProgress:
    """The same progress under stages called after what is done."""
    return lambda progress: on_progress(dataclasses.replace(progress, stage=f"{name}: {progress.stage}"))
