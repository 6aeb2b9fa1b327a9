"""Prefect tasks on a model registry: register what was trained, and let the gate decide about it."""

import flows.prefect_environment  # noqa: F401

# isort: split
from prefect import get_run_logger, task
from prefect.artifacts import create_markdown_artifact, create_table_artifact

from flows import model_jobs
from flows.artifacts import RunProgress, leave_artifacts
from flows.jobs import Outcome
from flows.limits import one_writer
from flows.settings import Settings
from flows.tasks import RETRIES

__all__ = ["add_model_task", "promote_model_task"]


@task(name="Register model", **RETRIES)
def add_model_task(registry: str, checkpoint: str | None = None) -> Outcome:
    """A checkpoint becomes a candidate; None only founds the registry, where there is none yet."""
    with one_writer(registry):
        outcome = model_jobs.add_model(registry, checkpoint)
    leave_artifacts(outcome, "model")
    return outcome


@task(name="Promote model", **RETRIES)
def promote_model_task(registry: str, version: str, settings: Settings, data: str | None = None) -> Outcome:
    """Evaluate a version beside the current one, and promote it if it is better for sure.

    A refusal is a decision like any other: the task completes, and an artifact says why.
    """
    with one_writer(registry):
        outcome = model_jobs.promote_model(
            registry, version, settings, data=data, on_progress=RunProgress("promotion", "Promotion")
        )
    get_run_logger().info("version %s: %s (%s)", version, outcome.summary["decision"], outcome.summary["why"])
    leave_artifacts(outcome, "promotion")
    _leave_verdict(outcome)
    return outcome


def _leave_verdict(outcome: Outcome) -> None:
    """The decision in a sentence, and every figure of both versions with its interval."""
    summary = outcome.summary
    said = f"**{summary['version']}: {summary['decision']}.** {summary['why']}"
    create_markdown_artifact(key="promotion-decision", markdown=said)
    verdict = summary["verdict"] or {}
    rows = [
        {
            "figure (less is better)": name,
            "candidate": _number(figure["candidate"]),
            "current": _number(figure["current"]),
            "difference": _number(figure["difference"]["mean"]),
            "95 % interval": " … ".join(_number(figure["difference"][end]) for end in ("low", "high")),
        }
        for name, figure in verdict.get("figures", {}).items()
    ]
    if rows:
        create_table_artifact(key="promotion-figures", table=rows, description="Candidate beside current")


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.4g}"
