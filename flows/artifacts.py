"""What a run leaves for a person to look at: table, links, progress, pictures, figures, and what is amiss."""

import flows.prefect_environment  # noqa: F401

# isort: split
import contextlib
import contextvars
import math
import re
import time
from collections.abc import Mapping
from typing import Any, cast
from uuid import UUID

import httpx
from prefect import get_run_logger
from prefect.artifacts import (
    create_image_artifact,
    create_link_artifact,
    create_markdown_artifact,
    create_progress_artifact,
    create_table_artifact,
    update_progress_artifact,
)

from flows.jobs import Outcome
from flows.metrics import count_outcome
from storage.progress import Progress

__all__ = ["RunProgress", "leave_artifacts", "leave_figures", "leave_sheet"]

LOG_STEPS = 10
UPDATE_SECONDS = 5.0


def leave_artifacts(outcome: Outcome, key: str, *, links: Mapping[str, str] | None = None) -> None:
    """A summary table, links, and, when items are not ok, a note that lists them; the same for Prometheus."""
    count_outcome(key, outcome)
    rows = [{"": name, "value": _text(value)} for name, value in outcome.rows.items()]
    create_table_artifact(key=_key(f"{key}-summary"), table=rows, description=outcome.title)
    for name, link in (links or {}).items():
        create_link_artifact(key=_key(f"{key}-{name}"), link=link, link_text=f"{outcome.title}: {name}")
    if outcome.not_ok:
        create_markdown_artifact(key=_key(f"{key}-not-ok"), markdown=_not_ok_note(outcome))


def leave_sheet(picture_uri: str | None, key: str, description: str) -> None:
    """A contact sheet, where there is anything to show."""
    if picture_uri is not None:
        create_image_artifact(image_url=picture_uri, key=_key(f"{key}-sheet"), description=description)


def leave_figures(outcome: Outcome) -> None:
    """Every measure of an evaluation, each method beside its baselines, with its interval."""
    rows = [
        {"part": part, "method": method, "measure": measure, **_estimate(estimate)}
        for part, methods in outcome.summary["tables"].items()
        for method, measures in methods.items()
        for measure, estimate in measures.items()
    ]
    create_table_artifact(key="evaluation-figures", table=rows, description="Evaluation, figure by figure")


class RunProgress:
    """Progress as an artifact with a bar per run, and as a few log lines per stage.

    Jobs report from threads of their own, which know nothing of the run, hence the context in which it was
    made. A server that cannot be reached at the moment does not stop a job.
    """

    def __init__(self, key: str, title: str) -> None:
        self._logger = get_run_logger()
        self._context = contextvars.copy_context()
        created = create_progress_artifact(0.0, key=_key(f"{key}-progress"), description=f"{title}: begun")
        self._artifact = cast(UUID, created)
        self._title = title
        self._updated = 0.0
        self._logged: dict[str, int] = {}

    def __call__(self, progress: Progress) -> None:
        step = LOG_STEPS * progress.done // (progress.total or max(progress.done, 1))
        is_new = self._logged.get(progress.stage) != step
        if is_new:
            self._logged[progress.stage] = step
            self._logger.info(
                "%s: %d of %s %s", progress.stage, progress.done, progress.total or "?", dict(progress.counts)
            )
        is_end = is_new and progress.done == progress.total
        if is_end or time.monotonic() - self._updated >= UPDATE_SECONDS:
            self._updated = time.monotonic()
            self._update(progress)

    def _update(self, progress: Progress) -> None:
        share = 100.0 * min(1.0, progress.done / progress.total) if progress.total else 0.0
        text = f"{self._title}: {progress.stage}, {progress.done} of {progress.total or '?'}"
        with contextlib.suppress(httpx.HTTPError):
            self._context.run(update_progress_artifact, self._artifact, share, text)


def _estimate(estimate: Mapping[str, Any]) -> dict[str, str]:
    """An estimate as texts; a table in JSON has no place for NaN."""
    interval = f"{_number(estimate['low'])} … {_number(estimate['high'])}"
    return {"mean": _number(estimate["mean"]), "95 % interval": interval}


def _number(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, (int, float)) and math.isfinite(value) else "–"


def _text(value: object) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_text(each)}" for name, each in value.items()) or "none"
    return str(value)


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
