"""One video in, its samples and manifest rows out: the whole way of a datum, for one source.

    video → windows → clip → first pass → still camera → average motion → scores → sample

Plain functions on a local file; nothing here knows of Beam. What is unsuitable or broken becomes a row.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2

from pipelines.clip import Clip, ClipConfig, Window, check_video, plan_windows, read_clip
from pipelines.clip_sample import SampleConfig, make_sample
from pipelines.fluidity import measure_fluidity
from pipelines.motion_statistics import motion_statistics
from pipelines.optical_flow import OpticalFlowConfig, average_motion, grey_frame
from pipelines.overlays import text_share
from pipelines.screening import ScreeningConfig, screen_frames
from pipelines.selection import MEASURED, SELECTED
from pipelines.stabilise import StabiliseConfig, stabilise_clip
from storage.digest import digest_bytes
from storage.errors import ItemError
from storage.reasons import Status
from storage.samples import Sample, sample_key, split_of
from storage.video import VideoInfo, probe_video

__all__ = [
    "MEASURE_VERSION",
    "STAGES",
    "Distilled",
    "MeasureConfig",
    "Row",
    "Source",
    "distil_video",
    "source_row",
]

MEASURE_VERSION = 3  # raise it when the same video gives other numbers: results are then computed anew

STAGES = ("read", "screen", "stabilise", "motion", "encode", SELECTED)
"""The way of a clip; the stage in a row is the one at which it ended."""

Row = dict[str, Any]


@dataclass(frozen=True, kw_only=True, slots=True)
class MeasureConfig:
    """Everything that changes what is measured; thresholds that only judge it are in SelectionConfig."""

    clip: ClipConfig = field(default_factory=ClipConfig)
    screening: ScreeningConfig = field(default_factory=ScreeningConfig)
    stabilise: StabiliseConfig = field(default_factory=StabiliseConfig)
    optical_flow: OpticalFlowConfig = field(default_factory=OpticalFlowConfig)
    sample: SampleConfig = field(default_factory=SampleConfig)


@dataclass(frozen=True, kw_only=True, slots=True)
class Source:
    """One video and what is known about it. `about`: licence, author, title, page, retrieved_at, category."""

    url: str
    sha256: str
    about: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class Distilled:
    """What one video gave: a row for every window tried (or one for the video), and the measured samples."""

    rows: list[Row]
    samples: list[Sample]


class _Stages:
    """Times the stages of one row and remembers the one at work, which is where an error belongs."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self.current = "read"

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        self.current = name
        begin = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - begin


def distil_video(path: Path, source: Source, config: MeasureConfig) -> Distilled:
    """Measure every planned window of a video; ItemErrors become rows, other errors are bugs and pass."""
    stages = _Stages()
    try:
        with stages("read"):
            info = probe_video(path)
            check_video(info, config.clip)
    except ItemError as error:
        return Distilled(rows=[source_row(source, error, stages.current, stages.seconds)], samples=[])
    rows: list[Row] = []
    samples: list[Sample] = []
    for window in plan_windows(info, config.clip):
        row, sample = _distil_window(path, source, info, window, config)
        rows.append(row)
        if sample is not None:
            samples.append(sample)
    return Distilled(rows=rows, samples=samples)


def source_row(source: Source, error: ItemError, stage: str, seconds: dict[str, float]) -> Row:
    """The row of a video that gave no window at all."""
    return {
        **_known(source),
        "key": f"{source.sha256[:16] or 'unread'}_{digest_bytes(source.url.encode())[:16]}",
        **_outcome(error, stage, seconds),
    }


def _distil_window(
    path: Path, source: Source, info: VideoInfo, window: Window, config: MeasureConfig
) -> tuple[Row, Sample | None]:
    stages = _Stages()
    row: Row = {
        **_known(source),
        "key": sample_key(source.sha256, window.start_frame),
        "clip_start_seconds": window.start_seconds,
        "width": info.width,
        "height": info.height,
        "fps": info.fps,
    }
    try:
        sample = _measure_window(path, window, config, row, stages)
    except ItemError as error:
        return {**row, **_outcome(error, stages.current, stages.seconds)}, None
    row |= {"status": Status.OK, "stage": MEASURED} | _times(stages.seconds)
    return row, sample


def _measure_window(path: Path, window: Window, config: MeasureConfig, row: Row, stages: _Stages) -> Sample:
    """The way of one clip; `row` collects what is known even when a later stage refuses the clip."""
    with stages("read"):
        clip = read_clip(path, window, config.clip)
        row |= {"frames": len(clip.frames)}
    with stages("screen"):
        grey = [grey_frame(frame) for frame in clip.frames]
        screening = screen_frames(grey, config.screening)
        row |= {"brightness": screening.brightness}
        row["scores"] = {"change": screening.change, "text_share": text_share(grey)}
    with stages("stabilise"):
        steady, camera = stabilise_clip(clip, config.stabilise, grey)
        if steady is not clip:
            clip, grey = steady, [grey_frame(frame) for frame in steady.frames]
        row |= {"camera_drift": camera.residual}
        row["scores"] |= {"camera_travel": camera.travel, "background": float(camera.verified)}
    with stages("motion"):
        estimate = average_motion(grey, config.optical_flow, seconds=clip.seconds)
        statistics = motion_statistics(estimate)
        row |= {
            "mean_speed": statistics.mean_speed,
            "p95_speed": statistics.p95_speed,
            "moving_share": statistics.moving_share,
            "coherence": statistics.coherence,
            "direction": statistics.direction,
        }
        fluidity = measure_fluidity(estimate)
        row |= {"fluid_score": fluidity.score}
        row["scores"] |= {
            "persistence": fluidity.persistence,
            "travelling": fluidity.travelling,
            "sway": fluidity.sway,
            "rest": fluidity.rest,
            "reversal": fluidity.reversal,
        }
    with stages("encode"):
        return make_sample(row["key"], clip, estimate, _sample_info(row, clip, config), config.sample)


def _sample_info(row: Row, clip: Clip, config: MeasureConfig) -> dict[str, Any]:
    about = ("source", "sha256", "licence", "author", "title", "page", "category", "split")
    return {
        **{name: row.get(name) for name in about},
        "start_seconds": clip.window.start_seconds,
        "start_frame": clip.window.start_frame,
        "fps": round(clip.fps, 6),
        "frames": len(clip.frames),
        "camera_drift": row["camera_drift"],
        "speeds": {"mean": row["mean_speed"], "p95": row["p95_speed"]},
        "moving_share": row["moving_share"],
        "method": config.optical_flow.method,
        "versions": {"measure": MEASURE_VERSION, "opencv": cv2.__version__},
    }


def _known(source: Source) -> Row:
    known = {name: value for name, value in source.about.items() if value is not None}
    split = split_of(source.sha256) if source.sha256 else None
    return {**known, "source": source.url, "sha256": source.sha256 or None, "split": split}


def _outcome(error: ItemError, stage: str, seconds: dict[str, float]) -> Row:
    return {
        "status": error.status,
        "reason": error.reason,
        "message": str(error),
        "stage": stage,
        **_times(seconds),
    }


def _times(seconds: dict[str, float]) -> Row:
    assert all(math.isfinite(value) for value in seconds.values())
    return {"seconds_spent": sum(seconds.values()), "stage_seconds": dict(seconds)}
