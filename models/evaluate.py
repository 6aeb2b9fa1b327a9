"""Judge weights on clips that they have not seen, always beside what needs no weights at all.

The protocol: (1) `rendering`, frames of the target motion from the photo alone, and `between` the first and
last frames, against the real ones up to 30 frames on; (2) `motion` from one frame, without and with five
hints; (3) what changes where nothing should, (4) the seam with how vivid the loop is, (5) how its contrast
pulses, all in `loop`. Numbers are means over sources with bootstrap intervals; a frozen picture is always
among the methods, since it wins on some of them.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from models.animator import Animator
from models.baselines import mean_motions
from models.bootstrap import Estimate, estimate_mean, estimate_ratio
from models.checkpoint import find_weights, load_animator, load_motion_network
from models.dataset import DataConfig, SampleIndex, SampleReader, read_index, split_urls
from models.motion import MotionPrediction, predict_motion
from models.motion_network import MotionNetwork
from models.protocol import (
    HINTS,
    Clip,
    Row,
    baseline_motion_rows,
    best_frames,
    loop_rows,
    motion_row,
    predict_with_hints,
    rendering_rows,
)
from storage.digest import digest_bytes
from storage.errors import FormatError, UsageError
from storage.objects import read_bytes
from storage.progress import OnProgress, Progress

__all__ = ["Evaluation", "EvaluationConfig", "Example", "evaluate"]

logger = logging.getLogger(__name__)

HINTED = f"hints_{HINTS}"


@dataclass(frozen=True, kw_only=True, slots=True)
class EvaluationConfig:
    """What is evaluated.

    `split`: its samples alone (empty: all). `limit`: at most so many samples, the sources in turn (0: all).
    `loops`: how many of them are rendered whole (0: all), the slow part. `examples`: how many come back with
    pictures. `deep`: with the animator, if there is one. `groups`: file name → source, for clips cut from one
    video.
    """

    split: str = ""
    limit: int = 0
    loops: int = 16
    examples: int = 8
    deep: bool = True
    groups: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if min(self.limit, self.loops, self.examples) < 0:
            raise UsageError(
                "limit, loops and examples must be at least 0, "
                f"got {self.limit}, {self.loops} and {self.examples}"
            )


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Example:
    """One clip in pictures: motion in pixels per frame at the photo's size, four frames of its loop."""

    key: str
    source: str
    category: str
    photo_HW3: NDArray[np.uint8]
    target_2HW: NDArray[np.float32]
    predicted_2HW: NDArray[np.float32]
    hinted_2HW: NDArray[np.float32]
    frames: tuple[NDArray[np.uint8], ...]
    confidence: float
    nothing_to_animate: bool
    rows: dict[str, dict[str, Row]]


Tables = dict[str, dict[str, dict[str, Estimate]]]


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Evaluation:
    """The result: `tables` by part, method and measure; the same by category; pictures of a few clips.

    `ratios`: end-point error over that of zero and of mean motion. `nothing_to_animate`: share of the clips
    that the network would not have animated.
    """

    data: str
    checkpoint: str
    weights: dict[str, str | None]
    samples: int
    sources: int
    categories: dict[str, int]
    splits: dict[str, int]
    skipped: list[str]
    tables: Tables
    ratios: dict[str, dict[str, Estimate]]
    by_category: dict[str, Tables]
    nothing_to_animate: Estimate
    seconds: float
    examples: list[Example]

    def as_json(self) -> dict[str, Any]:
        """Plain values, without the pictures."""
        return {
            "data": self.data,
            "checkpoint": self.checkpoint,
            "weights": self.weights,
            "samples": self.samples,
            "sources": self.sources,
            "categories": self.categories,
            "splits": self.splits,
            "skipped": self.skipped,
            "interval": "95 % bootstrap over sources",
            "tables": _plain(self.tables),
            "ratios": _plain(self.ratios),
            "by_category": _plain(self.by_category),
            "nothing_to_animate": self.nothing_to_animate.as_json(),
            "seconds": round(self.seconds, 1),
        }

    to_json = as_json

    def headline(self) -> dict[str, str]:
        """The few figures that matter most, as texts."""
        lines = {"clips": f"{self.samples} of {self.sources} sources"}
        automatic, hinted = self.tables["motion"]["automatic"], self.tables["motion"][HINTED]
        lines["moving IoU"] = str(automatic["iou"])
        lines["angular error"] = f"{automatic['angular_error']} °"
        lines[f"angular error, {HINTS} hints"] = f"{hinted['angular_error']} °"
        for base, ratio in self.ratios["automatic"].items():
            lines[f"end-point error / {base} motion"] = str(ratio)
        for method, row in self.tables.get("rendering", {}).items():
            lines[f"PSNR moving, {method.replace('_', '-')}"] = f"{row['psnr_moving']} dB"
        for method, row in self.tables.get("loop", {}).items():
            if method in ("splat", "deep"):
                lines[f"still pixels changed, {method}"] = f"{row['still_changed'].largest:.2%}"
        return lines


def evaluate(
    data_url: str,
    checkpoint_url: str | None = None,
    config: EvaluationConfig | None = None,
    *,
    on_progress: OnProgress | None = None,
) -> Evaluation:
    """Run the protocol for the weights at `checkpoint_url` (None: the default ones) on datasets.

    Raises UsageError for missing weights or samples, FormatError for a broken dataset or checkpoint.
    """
    config = config or EvaluationConfig()
    started = time.monotonic()
    index = read_index(split_urls(data_url))
    index = (index.with_split(config.split) if config.split else index).spread(config.limit)
    measured = _Measured(checkpoint_url, config)
    reader = SampleReader(index, DataConfig())
    means = _mean_motions(reader, measured)
    pictured = set(_spread_categories(index, means, config.examples))
    looped = set(_spread_categories(index, means, config.loops or len(index)))
    for row in range(len(index)):
        if row in means:
            measured.measure(Clip(reader.read(row)), means[row], loop=row in looped, picture=row in pictured)
        if on_progress is not None:
            on_progress(Progress(stage="evaluate", done=row + 1, total=len(index)))
    reader.close()
    if not measured.records:
        raise FormatError(f"none of the {len(index)} samples at {data_url} could be read; see the log")
    return _evaluation(data_url, index, measured, sorted(reader.skipped), time.monotonic() - started)


@dataclass(frozen=True, slots=True, eq=False)
class _Record:
    """One row of one clip."""

    source: str
    category: str
    part: str
    method: str
    row: Row


class _Measured:
    """The networks, and the rows they gave so far."""

    def __init__(self, checkpoint_url: str | None, config: EvaluationConfig) -> None:
        self.config = config
        self.checkpoint = checkpoint_url or "default weights"
        motion, animator = find_weights(checkpoint_url, "motion"), find_weights(checkpoint_url, "animator")
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.network: MotionNetwork = load_motion_network(motion).to(device)
        self.animator: Animator | None = None
        if animator is not None and config.deep:
            self.animator = load_animator(animator).to(device)
        self.weights = {
            kind: digest_bytes(read_bytes(place)) if place else None
            for kind, place in (("motion", motion), ("animator", animator if config.deep else None))
        }
        self.records: list[_Record] = []
        self.refused: list[tuple[str, float]] = []
        self.examples: list[Example] = []

    def source_of(self, clip: Clip) -> str:
        source = str(clip.sample.info.get("source") or clip.sample.key)
        return self.config.groups.get(source.rpartition("/")[2], source)

    def measure(
        self, clip: Clip, mean: tuple[NDArray[np.float32], NDArray[np.float32]], *, loop: bool, picture: bool
    ) -> None:
        """Every part of the protocol for one clip."""
        found = predict_motion(clip.photo_HW3, self.network)
        hinted = predict_with_hints(clip, self.network)
        rows = baseline_motion_rows(clip, mean)
        rows["motion", "automatic"] = motion_row(clip, found.motion_2HW, found.moving_HW)
        rows["motion", HINTED] = motion_row(clip, hinted.motion_2HW, hinted.moving_HW)
        rows |= rendering_rows(clip, self.animator)
        if loop and not found.nothing_to_animate:
            rows |= loop_rows(clip.photo_HW3, found, self.animator)
        source, category = self.source_of(clip), str(clip.sample.info.get("category") or "unknown")
        self.records += [_Record(source, category, part, name, row) for (part, name), row in rows.items()]
        self.refused.append((source, float(found.nothing_to_animate)))
        if picture:
            self.examples.append(self._example(clip, found, hinted, rows))

    def _example(
        self,
        clip: Clip,
        found: MotionPrediction,
        hinted: MotionPrediction,
        rows: dict[tuple[str, str], Row],
    ) -> Example:
        nested: dict[str, dict[str, Row]] = {}
        for (part, method), row in rows.items():
            nested.setdefault(part, {})[method] = row
        return Example(
            key=clip.sample.key,
            source=self.source_of(clip),
            category=str(clip.sample.info.get("category") or "unknown"),
            photo_HW3=clip.photo_HW3,
            target_2HW=clip.motion_2HW,
            predicted_2HW=found.motion_2HW,
            hinted_2HW=hinted.motion_2HW,
            frames=best_frames(clip.photo_HW3, found, self.animator),
            confidence=found.confidence,
            nothing_to_animate=found.nothing_to_animate,
            rows=nested,
        )


def _mean_motions(
    reader: SampleReader, measured: _Measured
) -> dict[int, tuple[NDArray[np.float32], NDArray[np.float32]]]:
    """The mean motion of the other sources for every readable row; small fields, so all fit in memory."""
    fields: dict[int, tuple[Any, Any, str]] = {}
    for row in range(len(reader.index)):

        def keep(sample: Any, row: int = row) -> dict[str, Any]:
            clip = Clip(sample)
            # Decoded here as well: a clip whose frames or times are damaged must not count anywhere.
            assert len(clip.frames) == len(clip.times)
            motion, moving = sample.motion_2HW.astype(np.float32), sample.moving_HW.astype(np.float32)
            fields[row] = (motion, moving, measured.source_of(clip))
            return {}

        reader.example(row, keep)
    motions, movings, sources = zip(*fields.values(), strict=True) if fields else ((), (), ())
    return dict(zip(fields, mean_motions(motions, movings, sources), strict=True))


def _spread_categories(index: SampleIndex, rows: Iterable[int], count: int) -> list[int]:
    """At most `count` of the rows: the categories in turn."""
    turn: dict[int, int] = {}
    places = []
    for row in rows:
        category = int(index.category_N[row])
        turn[category] = turn.get(category, -1) + 1
        places.append((turn[category], row))
    return [row for _, row in sorted(places)[:count]]


def _evaluation(
    data_url: str, index: SampleIndex, measured: _Measured, skipped: list[str], seconds: float
) -> Evaluation:
    records = measured.records
    per_sample = [record for record in records if (record.part, record.method) == ("motion", "zero")]
    categories = sorted({record.category for record in records})
    return Evaluation(
        data=data_url,
        checkpoint=measured.checkpoint,
        weights=measured.weights,
        samples=len(per_sample),
        sources=len({record.source for record in per_sample}),
        categories={name: sum(record.category == name for record in per_sample) for name in categories},
        splits={
            str(name): int(count)
            for name, count in zip(*np.unique(index.split_N, return_counts=True), strict=True)
        },
        skipped=skipped,
        tables=_tables(records),
        ratios=_ratios(records),
        by_category={
            name: _tables([each for each in records if each.category == name]) for name in categories
        },
        nothing_to_animate=estimate_mean(
            [flag for _, flag in measured.refused], [name for name, _ in measured.refused]
        ),
        seconds=seconds,
        examples=measured.examples,
    )


def _tables(records: list[_Record]) -> Tables:
    grouped: dict[str, dict[str, list[_Record]]] = {}
    for record in records:
        grouped.setdefault(record.part, {}).setdefault(record.method, []).append(record)
    return {
        part: {
            method: {
                measure: estimate_mean([each.row[measure] for each in found], [each.source for each in found])
                for measure in found[0].row
            }
            for method, found in methods.items()
        }
        for part, methods in grouped.items()
    }


def _ratios(records: list[_Record]) -> dict[str, dict[str, Estimate]]:
    """End-point errors over those of the baselines, for predictions without and with hints."""
    errors: dict[str, list[float]] = {}
    sources: list[str] = []
    for record in records:
        if record.part == "motion":
            errors.setdefault(record.method, []).append(record.row["end_point_error"])
            if record.method == "zero":
                sources.append(record.source)
    return {
        method: {base: estimate_ratio(errors[method], errors[base], sources) for base in ("zero", "mean")}
        for method in ("automatic", HINTED)
    }


def _plain(value: Any) -> Any:
    if isinstance(value, Estimate):
        return value.as_json()
    return {name: _plain(each) for name, each in value.items()}
