"""What one command does, as a plain function with a plain result; commands and flows both call it.

Each job runs its pipeline or training, publishes the page that belongs to it, and says what became of every
item.
"""

import dataclasses
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from storage.manifest import read_rows
from storage.model_registry import pin_weights
from storage.objects import exists, join_url
from storage.progress import OnProgress, Progress
from storage.reasons import Status

if TYPE_CHECKING:
    from flows.settings import Settings
    from pipelines.motion_dataset import DatasetSummary
    from pipelines.photo_animation import AnimationSummary

__all__ = [
    "Outcome",
    "TrainingJob",
    "animate_photos",
    "build_dataset",
    "crawl_videos",
    "evaluate_weights",
    "folder_status",
    "publish_gallery",
    "rescore_dataset",
    "train_model",
    "verify_dataset",
    "watch_photos",
]

logger = logging.getLogger(__name__)

Kind = Literal["motion", "animator"]
Item = tuple[str, str, str, str]  # name, status, reason, message
KEPT_ITEMS = 50


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """What a job did: `rows` for a person's table, `summary` for a machine, and the items that are not ok.

    `items` are the first of `not_ok`; all of them are in the file at `items_url`.
    """

    title: str
    rows: Mapping[str, object]
    summary: Mapping[str, Any]
    items: list[Item] = field(default_factory=list)
    not_ok: int = 0
    failed: int = 0
    items_url: str = ""

    def as_json(self) -> dict[str, Any]:
        """The summary with the items that are not ok."""
        named = [dict(zip(("name", "status", "reason", "message"), item, strict=True)) for item in self.items]
        return {**self.summary, "items": named}


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainingJob:
    """What to train on what: `config` is the name of a configuration or the URL of a file."""

    kind: Kind
    data: str
    out: str
    config: str = "default"
    nproc: int = 1
    resume: bool = False


def crawl_videos(
    sources: str, out: str, settings: "Settings", on_progress: OnProgress | None = None
) -> Outcome:
    """Fetch the videos that sources lead to, with a row for every URL."""
    from pipelines import crawl

    summary = crawl.crawl(sources, out, settings.crawl, settings.runner, on_progress)
    return Outcome(
        title="Crawl",
        rows={
            "links": summary.counts,
            "reasons": summary.reasons,
            "fetched now": summary.fetched,
            "done before": summary.skipped,
            "seconds": f"{summary.seconds:.1f}",
            "by stage": _seconds(summary.stage_seconds),
            "videos": summary.videos_url,
            "manifest": summary.manifest_url,
        },
        summary=dataclasses.asdict(summary),
        items=_items(summary.manifest_url, "url"),
        not_ok=summary.counts["rejected"] + summary.counts["failed"],
        failed=summary.counts["failed"],
        items_url=summary.manifest_url,
    )


def build_dataset(
    videos: str, out: str, settings: "Settings", on_progress: OnProgress | None = None
) -> Outcome:
    """Distil videos into a dataset and publish its report."""
    from pipelines import motion_dataset

    summary = motion_dataset.build_dataset(videos, out, settings.dataset, settings.runner, on_progress)
    return _dataset_outcome(summary, on_progress)


def rescore_dataset(url: str, settings: "Settings", on_progress: OnProgress | None = None) -> Outcome:
    """Judge a dataset's clips by other limits, without decoding anything, and publish its report again."""
    from pipelines import motion_dataset

    return _dataset_outcome(motion_dataset.rescore_dataset(url, settings.dataset), on_progress)


def _dataset_outcome(summary: "DatasetSummary", on_progress: OnProgress | None) -> Outcome:
    from flows.report import publish_report

    report_url = publish_report(summary.dataset_url)
    _tell(on_progress, "report")
    manifest = join_url(summary.dataset_url, "manifest.parquet")
    return Outcome(
        title="Dataset",
        rows={
            "clips": summary.counts,
            "reasons": summary.reasons,
            "splits": summary.splits,
            "seconds": f"{summary.seconds:.1f}",
            "by stage": _seconds(summary.stage_seconds),
            "dataset": summary.dataset_url,
            "report": report_url,
        },
        summary={**dataclasses.asdict(summary), "report": report_url},
        items=_items(manifest, "source"),
        not_ok=summary.counts["rejected"] + summary.counts["failed"],
        failed=summary.counts["failed"],
        items_url=manifest,
    )


def verify_dataset(url: str) -> Outcome:
    """Re-read all of a dataset; every problem is an item that failed."""
    from storage.verify import verify_dataset as find_problems

    problems = find_problems(url)
    return Outcome(
        title="Dataset verification",
        rows={"dataset": url, "problems": len(problems)},
        summary={"dataset_url": url, "problems": problems},
        items=[(url, "failed", "damaged", problem) for problem in problems[:KEPT_ITEMS]],
        not_ok=len(problems),
        failed=len(problems),
        items_url=f"{url} (--json lists them)",
    )


def train_model(
    job: TrainingJob, on_progress: OnProgress | None = None, on_line: Callable[[str], None] | None = None
) -> Outcome:
    """Train in this process; under torchrun when there are several or `on_line` wants the log's lines."""
    from flows.training import launch_training
    from models import train
    from models.configs import load_config

    if job.nproc > 1 or on_line is not None:
        load_config(job.kind, job.config)  # what is wrong with it is told before any process starts
        summary = launch_training(job, on_line=on_line or logger.info, on_progress=on_progress)
    else:
        trained = train.train(
            job.kind, job.config, job.data, job.out, resume=job.resume, on_progress=on_progress
        )
        summary = dataclasses.asdict(trained)
    return Outcome(
        title=f"Training ({job.kind})",
        rows={
            "steps": summary["steps"],
            "best score": summary["best_metric"],
            "metrics": summary["metrics"],
            "seconds": f"{summary['seconds']:.1f}",
            "checkpoint": summary["checkpoint_url"],
        },
        summary={**summary, "kind": job.kind, "out": job.out},
    )


def evaluate_weights(
    data: str, checkpoint: str | None, out: str, settings: "Settings", on_progress: OnProgress | None = None
) -> Outcome:
    """Judge weights on a dataset and publish the figures with pictures."""
    from flows.evaluation_page import publish_evaluation
    from models.evaluate import evaluate

    weights = pin_weights(checkpoint).checkpoint
    evaluation = evaluate(data, weights, settings.evaluate, on_progress=on_progress)
    page_url = publish_evaluation(evaluation, out)
    return Outcome(
        title="Evaluation",
        rows={**evaluation.headline(), "page": page_url},
        summary={**evaluation.as_json(), "page": page_url},
    )


def animate_photos(
    photos: str, out: str, settings: "Settings", on_progress: OnProgress | None = None
) -> Outcome:
    """Animate photos into a folder of loops with its ledger."""
    from pipelines import photo_animation

    summary = photo_animation.animate_photos(photos, out, settings.animate, settings.runner, on_progress)
    return _animation_outcome(summary)


def watch_photos(photos: str, out: str, settings: "Settings") -> Iterator[Outcome]:
    """Animate photos as they arrive, until the process is asked to stop; an outcome per round of work."""
    from pipelines import photo_animation

    for summary in photo_animation.animate_new(photos, out, settings.animate, settings.runner):
        yield _animation_outcome(summary)


def _animation_outcome(summary: "AnimationSummary") -> Outcome:
    counts = summary.counts
    shares = ", ".join(f"{stage} {share:.0%}" for stage, share in summary.stage_shares.items())
    return Outcome(
        title="Animation, stopped before its end" if summary.stopped else "Animation",
        rows={
            "photos": counts,
            "done before": summary.skipped,
            "reasons": summary.reasons,
            "seconds": f"{summary.seconds:.1f}",
            "photos per hour": f"{summary.photos_per_hour:.0f}",
            "time by stage": shares,
            "loops": summary.out,
        },
        summary=dataclasses.asdict(summary),
        items=_items(summary.ledger_url, "photo"),
        not_ok=counts["rejected"] + counts["failed"],
        failed=counts["failed"],
        items_url=summary.ledger_url,
    )


def publish_gallery(url: str, settings: "Settings", *, only_changed: bool = False) -> Outcome:
    """Write the gallery page beside the loops, or only if it would change."""
    from flows import gallery

    summary = gallery.publish_gallery(url, settings.gallery, only_changed=only_changed)
    return Outcome(
        title="Gallery",
        rows={"page": summary.page_url, "photos": summary.counts},
        summary=dataclasses.asdict(summary),
    )


def folder_status(url: str) -> Outcome:
    """How many items of a dataset, model registry, library or crawl are in which state."""
    from pipelines.status import read_status

    status = read_status(url)
    reasons = {"reasons": status.reasons} if status.reasons else {}
    return Outcome(
        title=status.what.capitalize(),
        rows={status.unit: status.total, **status.states, **reasons, **status.facts},
        summary={**dataclasses.asdict(status), "total": status.total},
    )


def _items(url: str, name: str) -> list[Item]:
    """The first items that are not ok in a manifest or ledger, failed ones before rejected ones."""
    if not exists(url):
        return []
    found: dict[str, list[Item]] = {Status.FAILED: [], Status.REJECTED: []}
    for row in read_rows(url, columns=[name, "status", "reason", "message"]):
        kept = found.get(row["status"])
        if kept is not None and len(kept) < KEPT_ITEMS:
            kept.append((row[name], row["status"], row["reason"] or "", row["message"] or ""))
    return [item for items in found.values() for item in items][:KEPT_ITEMS]


def _tell(on_progress: OnProgress | None, stage: str) -> None:
    if on_progress is not None:
        on_progress(Progress(stage=stage, done=1, total=1))


def _seconds(stages: Mapping[str, float] | Iterable[tuple[str, float]]) -> str:
    return ", ".join(f"{name} {seconds:.1f} s" for name, seconds in dict(stages).items())
