"""Judge weights on clips that they have not seen, always beside what needs no weights at all.

The protocol: (1) `rendering`, frames of the target motion from the photo alone, and `between` the first and
last frames, against the real ones up to 30 frames on; (2) `motion` from one frame, without and with five
hints; (3) what changes where nothing should, (4) the seam with how vivid the loop is, (5) how its contrast
pulses, all in `loop`. Numbers are means over sources with bootstrap intervals; a frozen picture is always
among the methods, since it wins on some of them.
"""

from __future__ import annotations

import csv
import dataclasses
import json
import logging
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from models.animator import Animator
from models.baselines import mean_motions
from models.bootstrap import estimate_mean
from models.checkpoint import find_weights, load_animator, load_motion_network
from models.dataset import DataConfig, SampleIndex, SampleReader, read_index, split_urls
from models.evaluation import HINTED, ClipFigures, Evaluation, Example, category_tables, error_ratios, tables
from models.motion import predict_motion
from models.motion_network import MotionNetwork
from models.protocol import (
    Clip,
    Row,
    baseline_motion_rows,
    loop_rows,
    motion_row,
    predict_with_hints,
    rendering_rows,
)
from storage.digest import digest_bytes
from storage.errors import FormatError, UsageError
from storage.objects import read_bytes
from storage.progress import OnProgress, Progress

__all__ = ["Evaluation", "EvaluationConfig", "Example", "evaluate", "read_groups"]

logger = logging.getLogger(__name__)

Floats = NDArray[np.float32]
Bytes = NDArray[np.uint8]


@dataclass(frozen=True, kw_only=True, slots=True)
class EvaluationConfig:
    """What is evaluated.

    `split`: its samples alone (empty: all). `limit`: at most so many samples, the sources in turn (0: all).
    `loops`: for how many of them loops are rendered, too (0: all), the slow part. `examples`: how many come
    back with pictures. `deep`: with the animator, if there is one. `groups`: a table (csv, tsv or JSON) that
    says from which source each file was cut, columns file and source; without it every file is a source.
    """

    split: str = ""
    limit: int = 0
    loops: int = 12
    examples: int = 8
    deep: bool = True
    groups: str = ""

    def __post_init__(self) -> None:
        if min(self.limit, self.loops, self.examples) < 0:
            raise UsageError(
                "limit, loops and examples must be at least 0, "
                f"got {self.limit}, {self.loops} and {self.examples}"
            )


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
    groups = read_groups(config.groups) if config.groups else {}
    index = _with_groups(read_index(split_urls(data_url)), groups)
    index = (index.with_split(config.split) if config.split else index).spread(config.limit)
    measured = _Measured(checkpoint_url, config, groups)
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
    if not measured.clips:
        raise FormatError(f"none of the {len(index)} samples at {data_url} could be read; see the log")
    return _evaluation(data_url, index, measured, sorted(reader.skipped), time.monotonic() - started)


class _Measured:
    """The networks, and the rows they gave so far."""

    def __init__(
        self, checkpoint_url: str | None, config: EvaluationConfig, groups: Mapping[str, str]
    ) -> None:
        self.groups = groups
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
        self.clips: list[ClipFigures] = []
        self.examples: list[Example] = []

    def source_of(self, clip: Clip) -> str:
        source = str(clip.sample.info.get("source") or clip.sample.key)
        return self.groups.get(_file_name(source), source)

    def measure(self, clip: Clip, mean: tuple[Floats, Floats], *, loop: bool, picture: bool) -> None:
        """Every part of the protocol for one clip."""
        found = predict_motion(clip.photo_HW3, self.network)
        hinted = predict_with_hints(clip, self.network)
        rows = baseline_motion_rows(clip, mean)
        rows["motion", "automatic"] = motion_row(clip, found.motion_2HW, found.moving_HW)
        rows["motion", HINTED] = motion_row(clip, hinted.motion_2HW, hinted.moving_HW)
        rows |= rendering_rows(clip, self.animator)
        frames: tuple[Bytes, ...] = ()
        if loop or picture:
            looped, frames = loop_rows(clip.photo_HW3, found, self.animator)
            rows |= {} if found.nothing_to_animate else looped
        figures = ClipFigures(
            key=clip.sample.key,
            source=self.source_of(clip),
            category=str(clip.sample.info.get("category") or "unknown"),
            confidence=found.confidence,
            nothing_to_animate=found.nothing_to_animate,
            rows=_nested(rows),
        )
        self.clips.append(figures)
        if picture:
            motions = clip.motion_2HW, found.motion_2HW, hinted.motion_2HW
            self.examples.append(_example(figures, clip.photo_HW3, motions, frames))


def _nested(rows: dict[tuple[str, str], Row]) -> dict[str, dict[str, Row]]:
    nested: dict[str, dict[str, Row]] = {}
    for (part, method), row in rows.items():
        nested.setdefault(part, {})[method] = row
    return nested


def _example(
    clip: ClipFigures, photo: Bytes, motions: tuple[Floats, Floats, Floats], frames: tuple[Bytes, ...]
) -> Example:
    return Example(
        key=clip.key,
        source=clip.source,
        category=clip.category,
        photo_HW3=photo,
        target_2HW=motions[0],
        predicted_2HW=motions[1],
        hinted_2HW=motions[2],
        frames=frames,
        confidence=clip.confidence,
        nothing_to_animate=clip.nothing_to_animate,
        rows=clip.rows,
    )


def read_groups(url: str) -> dict[str, str]:
    """File name → source from a table at any URL: JSON {file: source}, or csv or tsv with these two columns.

    Raises UsageError for a table without them.
    """
    text = read_bytes(url).decode("utf-8", errors="replace")
    if url.endswith(".json"):
        try:
            found = json.loads(text)
        except ValueError as exc:
            raise UsageError(f"{url} is not valid JSON: {exc}") from exc
        if not isinstance(found, dict):
            raise UsageError(f"{url} must hold one object, file → source, got {type(found).__name__}")
        return {_file_name(str(file)): str(source) for file, source in found.items()}
    table = csv.DictReader(text.splitlines(), delimiter="\t" if url.endswith(".tsv") else ",")
    if not {"file", "source"} <= set(table.fieldnames or ()):
        raise UsageError(f"{url} must have the columns file and source, got {table.fieldnames}")
    return {_file_name(row["file"]): row["source"] for row in table}


def _with_groups(index: SampleIndex, groups: Mapping[str, str]) -> SampleIndex:
    """The index with files of one group as one source, so that a limit takes the groups in turn."""
    names = np.array([groups.get(_file_name(source), source) for source in index.sources], np.str_)
    sources, place = np.unique(names, return_inverse=True)
    return dataclasses.replace(
        index, sources=tuple(sources.tolist()), source_N=place[index.source_N].astype(np.int32)
    )


def _file_name(place: str) -> str:
    return place.rpartition("/")[2]


def _mean_motions(reader: SampleReader, measured: _Measured) -> dict[int, tuple[Floats, Floats]]:
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
    clips = measured.clips
    sources = [clip.source for clip in clips]
    return Evaluation(
        data=data_url,
        checkpoint=measured.checkpoint,
        weights=measured.weights,
        samples=len(clips),
        sources=len(set(sources)),
        categories=dict(sorted(Counter(clip.category for clip in clips).items())),
        splits={
            str(name): int(count)
            for name, count in zip(*np.unique(index.split_N, return_counts=True), strict=True)
        },
        skipped=skipped,
        tables=tables(clips),
        ratios=error_ratios(clips),
        by_category=category_tables(clips),
        nothing_to_animate=estimate_mean([float(clip.nothing_to_animate) for clip in clips], sources),
        seconds=seconds,
        examples=measured.examples,
        clips=clips,
    )
