"""Prefect tasks: each is one Beam job, one training, one evaluation or one page, never one item.

A task retries only when the object store failed it; whatever else goes wrong would go wrong again. Every task
leaves an artifact that says what became of its items. `on_progress` replaces the progress in the run's log.
"""

import flows.prefect_environment  # noqa: F401

# isort: split
import re
from collections.abc import Mapping
from typing import Any

from prefect import get_run_logger, task
from prefect.artifacts import create_link_artifact, create_markdown_artifact, create_table_artifact
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State, TaskRun
from prefect.tasks import Task

from flows import jobs
from flows.jobs import Outcome, TrainingJob
from flows.settings import Settings
from storage.errors import StoreError
from storage.progress import OnProgress, Progress

__all__ = [
    "animate_photos_task",
    "build_dataset_task",
    "evaluate_weights_task",
    "publish_gallery_task",
    "train_model_task",
]

RETRY_SECONDS = [10, 60, 300]
PROGRESS_STEPS = 10


def _store_failed(task: Task[Any, Any], run: TaskRun, state: State[Any]) -> bool:
    """Whether trying again may help."""
    return isinstance(state.result(raise_on_failure=False), StoreError)


# A rerun of a job skips what is done by itself, so Prefect need not remember results.
RETRIES: dict[str, Any] = {
    "retries": len(RETRY_SECONDS),
    "retry_delay_seconds": RETRY_SECONDS,
    "retry_condition_fn": _store_failed,
    "cache_policy": NO_CACHE,
}


@task(name="Build dataset", **RETRIES)
def build_dataset_task(
    videos: str, out: str, settings: Settings, on_progress: OnProgress | None = None
) -> Outcome:
    """One Beam job: videos → dataset, and its report."""
    outcome = jobs.build_dataset(videos, out, settings, on_progress or _progress_log())
    _leave_artifacts(outcome, "dataset", links={"report": str(outcome.summary["report"])})
    return outcome


@task(name="Train", task_run_name="train-{job.kind}", cache_policy=NO_CACHE)
def train_model_task(job: TrainingJob, on_progress: OnProgress | None = None) -> Outcome:
    """One training, under torchrun, its log in the run's log."""
    logger = get_run_logger()
    outcome = jobs.train_model(job, on_progress, on_line=logger.info)
    _leave_artifacts(outcome, f"training-{job.kind}")
    return outcome


@task(name="Evaluate", **RETRIES)
def evaluate_weights_task(
    data: str,
    checkpoint: str | None,
    out: str,
    settings: Settings,
    on_progress: OnProgress | None = None,
) -> Outcome:
    """Judge weights on a dataset."""
    outcome = jobs.evaluate_weights(data, checkpoint, out, settings, on_progress or _progress_log())
    _leave_artifacts(outcome, "evaluation", links={"page": str(outcome.summary["page"])})
    return outcome


@task(name="Animate photos", **RETRIES)
def animate_photos_task(
    photos: str, out: str, settings: Settings, on_progress: OnProgress | None = None
) -> Outcome:
    """One Beam job: photos → loops and their ledger."""
    outcome = jobs.animate_photos(photos, out, settings, on_progress or _progress_log())
    _leave_artifacts(outcome, "animation")
    return outcome


@task(name="Publish gallery", **RETRIES)
def publish_gallery_task(url: str, settings: Settings) -> Outcome:
    """Write the gallery page beside the loops."""
    outcome = jobs.publish_gallery(url, settings)
    _leave_artifacts(outcome, "gallery", links={"gallery": str(outcome.summary["page_url"])})
    return outcome


def _progress_log() -> OnProgress:
    """Progress as a few log lines per stage: a run's log is no place for a bar."""
    logger = get_run_logger()
    told: dict[str, int] = {}

    def on_progress(progress: Progress) -> None:
        step = PROGRESS_STEPS * progress.done // (progress.total or max(progress.done, 1))
        if told.get(progress.stage) != step:
            told[progress.stage] = step
            logger.info(
                "%s: %d of %s %s", progress.stage, progress.done, progress.total or "?", dict(progress.counts)
            )

    return on_progress


def _leave_artifacts(outcome: Outcome, key: str, *, links: Mapping[str, str] | None = None) -> None:
    """A summary table, links, and, when items are not ok, a note that lists them."""
    rows = [{"": name, "value": str(value)} for name, value in outcome.rows.items()]
    create_table_artifact(key=_key(f"{key}-summary"), table=rows, description=outcome.title)
    for name, link in (links or {}).items():
        create_link_artifact(key=_key(f"{key}-{name}"), link=link, link_text=f"{outcome.title}: {name}")
    if outcome.not_ok:
        create_markdown_artifact(key=_key(f"{key}-not-ok"), markdown=_not_ok_note(outcome))


def _not_ok_note(outcome: Outcome) -> str:
    lines = [
        f"**{outcome.not_ok} items are not ok, {outcome.failed} of them failed.** All: `{outcome.items_url}`",
        "",
    ]
    lines += ["| item | status | reason | |", "|---|---|---|---|"]
    lines += ["| " + " | ".join(_cell(text) for text in item) + " |" for item in outcome.items]
    return "\n".join(lines)


def _cell(text: str) -> str:
    """Text in a table cell: names come from strangers and must not become markup."""
    return re.sub(r"([\\`*_{}\[\]<>|#!])", r"\\\1", " ".join(text.split()))


def _key(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
