"""Prefect tasks: each is one Beam job, one training, one evaluation or one page, never one item.

A task retries only when the object store failed it; whatever else goes wrong would go wrong again. Every task
waits until nobody else writes to its output folder, and leaves artifacts that say what became of its items.
`on_progress` replaces the progress in the run's log.
"""

import flows.prefect_environment  # noqa: F401

# isort: split
import dataclasses
from typing import Any

from prefect import get_run_logger, task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State, TaskRun
from prefect.tasks import Task

from flows import jobs
from flows.artifacts import RunProgress, leave_artifacts, leave_figures, leave_sheet
from flows.contact_sheet import sheet_of_clips, sheet_of_loops
from flows.jobs import Outcome, TrainingJob
from flows.limits import one_writer
from flows.settings import Settings
from flows.unchanged import Record, datasets_digest, inputs_digest
from storage.errors import JobError, StillstreamError, StoreError
from storage.model_registry import pin_weights
from storage.progress import OnProgress

__all__ = [
    "StoppedError",
    "animate_photos_task",
    "build_dataset_task",
    "crawl_videos_task",
    "evaluate_weights_task",
    "publish_gallery_task",
    "train_model_task",
]

RETRY_SECONDS = [10, 60, 300]


class StoppedError(StillstreamError):
    """A job was asked to end before all was done; what is done is kept, and a rerun goes on from there."""


def _may_pass(task: Task[Any, Any], run: TaskRun, state: State[Any]) -> bool:
    """Whether trying again may help: the store or a worker was away, and what is finished is kept."""
    return isinstance(state.result(raise_on_failure=False), StoreError | JobError)


# What is done already is known from what lies at the output (see flows.unchanged), not from Prefect's cache.
NO_MEMORY: dict[str, Any] = {"cache_policy": NO_CACHE, "persist_result": False}
RETRIES: dict[str, Any] = {
    "retries": len(RETRY_SECONDS),
    "retry_delay_seconds": RETRY_SECONDS,
    "retry_jitter_factor": 0.3,  # many runs that lost the same store must not come back at once
    "retry_condition_fn": _may_pass,
    **NO_MEMORY,
}


@task(name="Crawl videos", **RETRIES)
def crawl_videos_task(
    sources: str, out: str, settings: Settings, on_progress: OnProgress | None = None
) -> Outcome:
    """One Beam job: sources → links → videos with a row for every URL."""
    with one_writer(out):
        outcome = jobs.crawl_videos(sources, out, settings, on_progress or RunProgress("crawl", "Crawl"))
    leave_artifacts(outcome, "crawl", links={"videos": str(outcome.summary["videos_url"])})
    return outcome


@task(name="Build dataset", **RETRIES)
def build_dataset_task(
    videos: str, out: str, settings: Settings, on_progress: OnProgress | None = None
) -> Outcome:
    """One Beam job: videos → dataset, and its report."""
    with one_writer(out):
        outcome = jobs.build_dataset(videos, out, settings, on_progress or RunProgress("dataset", "Dataset"))
    leave_artifacts(outcome, "dataset", links={"report": str(outcome.summary["report"])})
    leave_sheet(sheet_of_clips(out), "dataset", "Clips, each before its motion in colour")
    return outcome


@task(name="Train", task_run_name="train-{job.kind}", **RETRIES)
def train_model_task(
    job: TrainingJob, on_progress: OnProgress | None = None, overwrite: bool = False
) -> Outcome:
    """One training, under torchrun, its log in the run's log.

    The same training of the same dataset is not made twice unless `overwrite`, and goes on where an earlier
    run of it was interrupted.
    """
    from models.configs import load_config

    config = load_config(job.kind, job.config)
    inputs = inputs_digest(data=datasets_digest(job.data), kind=job.kind, config=config.to_json())
    record = Record(out=job.out, inputs=inputs, results=["training.json", "best.safetensors"])
    with one_writer(job.out):
        if not overwrite and (known := record.outcome()):
            known = _unchanged(known)
            leave_artifacts(known, f"training-{job.kind}")
            return known
        job = dataclasses.replace(job, resume=job.resume or (record.was_begun() and not overwrite))
        record.begin()
        logger = get_run_logger()
        progress = on_progress or RunProgress(f"training-{job.kind}", f"Training ({job.kind})")
        outcome = _whole(jobs.train_model(job, progress, on_line=logger.info))
        record.end(outcome)
    leave_artifacts(outcome, f"training-{job.kind}")
    return outcome


@task(name="Evaluate", **RETRIES)
def evaluate_weights_task(
    data: str,
    checkpoint: str | None,
    out: str,
    settings: Settings,
    on_progress: OnProgress | None = None,
) -> Outcome:
    """Judge weights on a dataset; the same weights on the same clips are judged once."""
    from models.animate import networks_digest

    checkpoint = pin_weights(checkpoint).checkpoint
    inputs = inputs_digest(
        data=datasets_digest(data), weights=networks_digest(checkpoint, "auto"), config=settings.evaluate
    )
    record = Record(out=out, inputs=inputs, results=["evaluation.json", "index.html"])
    with one_writer(out):
        if known := record.outcome():
            outcome = _unchanged(known)
        else:
            progress = on_progress or RunProgress("evaluation", "Evaluation")
            outcome = jobs.evaluate_weights(data, checkpoint, out, settings, progress)
            record.end(outcome)
    leave_artifacts(outcome, "evaluation", links={"page": str(outcome.summary["page"])})
    leave_figures(outcome)
    return outcome


@task(name="Animate photos", **RETRIES)
def animate_photos_task(
    photos: str, out: str, settings: Settings, on_progress: OnProgress | None = None
) -> Outcome:
    """One Beam job: photos → loops and their ledger."""
    with one_writer(out):
        outcome = jobs.animate_photos(
            photos, out, settings, on_progress or RunProgress("animation", "Animation")
        )
    leave_artifacts(outcome, "animation")
    leave_sheet(sheet_of_loops(out), "animation", "The newest loops' photos")
    return _whole(outcome)


@task(name="Publish gallery", **RETRIES)
def publish_gallery_task(url: str, settings: Settings) -> Outcome:
    """Write the gallery page beside the loops, if it would change."""
    outcome = jobs.publish_gallery(url, settings, only_changed=True)
    leave_artifacts(outcome, "gallery", links={"gallery": str(outcome.summary["page_url"])})
    leave_sheet(sheet_of_loops(url), "gallery", "The newest loops' photos")
    return outcome if outcome.summary["changed"] else _unchanged(outcome)


def _whole(outcome: Outcome) -> Outcome:
    """The outcome of a job that came to its end; one that a signal stopped early must not look completed."""
    if outcome.summary.get("stopped") or outcome.summary.get("interrupted"):
        raise StoppedError(f"{outcome.title}: stopped before its end; what is done is kept, run it again")
    return outcome


def _unchanged(outcome: Outcome) -> Outcome:
    """What came of it the last time, marked as such."""
    get_run_logger().info("nothing has changed since it was done: %s", outcome.title)
    return dataclasses.replace(outcome, title=f"{outcome.title}, unchanged")
