"""From the frames of one steady clip to its motion: the average of the optical flow of adjacent frames.

What moves to and fro cancels in the average, and what keeps flowing stays (Holynski et al., CVPR 2021,
section 3). H, W: the clip's own size; T: its frames; motion in pixels per frame at that size and 30 fps.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from pipelines.flow_average import mean_without_outliers
from pipelines.motion_refinement import refine_motion
from pipelines.moving_mask import Change, find_moving, sharpen_border
from pipelines.optical_flow_methods import METHODS, half_size_method, optical_flow_method
from pipelines.rhythm import Rhythm, measure_rhythm
from pipelines.travelling import travelling_share
from storage.errors import UsageError

__all__ = ["REFERENCE_FPS", "MotionEstimate", "OpticalFlowConfig", "average_motion", "grey_frame"]

REFERENCE_FPS = 30.0  # all motion is stored as pixels per frame at this rate
# A frame that differs from the one before by less than this share of what is usual in the clip repeats it.
DOUBLE_SHARE = 0.2
FARTHEST_DOUBLE = 4.5  # steps of 30 fps; optical flow cannot bridge more
SMOOTH_PIXELS = 1.5  # the seams between patches, which are at least twice as wide
# Two flows that should cancel may miss by this much and still agree: px, and share of their lengths
# (Sundaram, Brox and Keutzer, ECCV 2010, use a rule of this shape).
AGREEMENT_PIXELS = 0.5
AGREEMENT_SHARE = 0.1


@dataclass(frozen=True, kw_only=True, slots=True)
class OpticalFlowConfig:
    """How motion is measured.

    `method`: one of `pipelines.optical_flow_methods`. `check_every`: the backward flow is computed for one
    pair in so many (0: never); it tells where optical flow can be trusted at all, which hardly changes from
    frame to frame, and costs as much as the forward.
    `still_share` and `still_floor`: a pixel is still below this share of the clip's mean moving speed, and
    below this speed (px/frame at 30 fps) in any case.
    """

    method: str = "dis_average"
    check_every: int = 20
    still_share: float = 0.1
    still_floor: float = 0.1

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise UsageError(f"method must be one of {', '.join(METHODS)}, got {self.method!r}")
        if self.check_every < 0:
            raise UsageError(f"check_every must be 0 (never) or more, got {self.check_every}")
        if not 0 <= self.still_share < 1 or self.still_floor <= 0:
            raise UsageError(
                "still_share must be in [0, 1) and still_floor above 0, "
                f"got {self.still_share} and {self.still_floor}"
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class MotionEstimate:
    """The motion of one clip at the clip's size.

    `motion_2HW`: float32 px/frame at 30 fps, zero where still. `confidence_HW`: float32 in [0, 1], how
    coherent the pairs were, |mean v| / mean |v|, where forward and backward optical flow agree.
    `moving_HW`: bool. `average_2HW`: the average before the still part was set to zero.
    `activity_HW`: mean |v|, px/frame at 30 fps. `persistence_HW`: share of
    the pairs in which a pixel was about as fast as usual. `travelling`: see `pipelines.travelling`; `rhythm`:
    see `pipelines.rhythm`.
    """

    motion_2HW: NDArray[np.float32]
    confidence_HW: NDArray[np.float32]
    moving_HW: NDArray[np.bool_]
    average_2HW: NDArray[np.float32]
    activity_HW: NDArray[np.float32]
    persistence_HW: NDArray[np.float32]
    travelling: float
    rhythm: Rhythm


def average_motion(
    frames: Sequence[NDArray[np.uint8]],
    config: OpticalFlowConfig | None = None,
    *,
    fps: float = REFERENCE_FPS,
    seconds: Sequence[float] | None = None,
) -> MotionEstimate:
    """Average the optical flow of all adjacent pairs of a clip from a still camera.

    `frames`: at least two, all (H, W, 3) RGB or all (H, W) grey, uint8. Their times are `seconds` where given
    (variable frame rate), else one frame every 1 / `fps`. Raises UsageError when there is nothing to pair.
    """
    config = config or OpticalFlowConfig()
    if len(frames) < 2:
        raise UsageError(f"motion needs at least two frames, got {len(frames)}")
    steps_T = _steps(len(frames), fps, seconds)
    grey, steps_T = _without_doubles([grey_frame(frame) for frame in frames], steps_T)
    flows_THW2, agreement_HW, change = _pairwise(grey, steps_T, config)
    averages = mean_without_outliers(flows_THW2)
    average_HW2, activity_HW, persistence_HW = (_enlarge(plane, grey[0].shape) for plane in averages)
    planes = np.ascontiguousarray(average_HW2.transpose(2, 0, 1))
    average_2HW = np.stack([cv2.GaussianBlur(plane, (0, 0), SMOOTH_PIXELS) for plane in planes])
    # The floor keeps sensor noise on still ground from looking like incoherent motion.
    speed_HW = cv2.magnitude(average_2HW[0], average_2HW[1])
    floor = config.still_floor
    confidence_HW = np.minimum((speed_HW + floor) / (activity_HW + floor), 1.0) * agreement_HW
    moving_HW = find_moving(average_2HW, change, _still_limit(speed_HW, config))
    refined_2HW = refine_motion(average_2HW, moving_HW, confidence_HW, grey, steps_T)
    return MotionEstimate(
        motion_2HW=sharpen_border(refined_2HW, moving_HW),
        confidence_HW=confidence_HW.astype(np.float32),
        moving_HW=moving_HW,
        average_2HW=average_2HW,
        activity_HW=activity_HW,
        persistence_HW=persistence_HW,
        travelling=travelling_share(flows_THW2),
        rhythm=measure_rhythm(flows_THW2),
    )


def _enlarge(plane: NDArray[np.float32], shape: tuple[int, ...]) -> NDArray[np.float32]:
    """A plane of half the size, or two together, at the whole (H, W)."""
    return np.asarray(
        cv2.resize(plane, (shape[1], shape[0]), interpolation=cv2.INTER_LINEAR), dtype=np.float32
    )


def _steps(count: int, fps: float, seconds: Sequence[float] | None) -> NDArray[np.float64]:
    """How many frames of the reference rate each pair spans, (T - 1,)."""
    if seconds is None:
        if not fps > 0:
            raise UsageError(f"fps must be above 0, got {fps}")
        return np.full(count - 1, REFERENCE_FPS / fps)
    if len(seconds) != count or np.any(np.diff(seconds) <= 0):
        raise UsageError(f"seconds must be {count} rising times, one for each frame, got {list(seconds)}")
    return np.diff(np.asarray(seconds, dtype=np.float64)) * REFERENCE_FPS


def grey_frame(frame: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """A frame (H, W, 3) RGB as (H, W) grey; grey ones pass. Raises UsageError for anything else."""
    if frame.dtype != np.uint8 or frame.ndim not in (2, 3) or (frame.ndim == 3 and frame.shape[2] != 3):
        raise UsageError(f"frames must be (H, W, 3) or (H, W) uint8, got {frame.shape} {frame.dtype}")
    return frame if frame.ndim == 2 else np.asarray(cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY), dtype=np.uint8)


def _without_doubles(
    grey: list[NDArray[np.uint8]], steps_T: NDArray[np.float64]
) -> tuple[list[NDArray[np.uint8]], NDArray[np.float64]]:
    """Leave out frames that repeat the one before, as 15 fps footage does at 30; the others then span more.

    Else half of the pairs would show no motion and the others twice as much.
    """
    # A grid of samples tells, and costs a sixteenth.
    samples = [np.ascontiguousarray(frame[::4, ::4]) for frame in grey]
    change_T = np.array([cv2.norm(*pair, cv2.NORM_L1) for pair in zip(samples, samples[1:], strict=False)])
    same_T = change_T < DOUBLE_SHARE * np.percentile(change_T, 75)
    kept: list[NDArray[np.uint8]] = [grey[0]]
    steps: list[float] = []
    since = 0.0
    for frame, step, same in zip(grey[1:], steps_T, same_T, strict=True):
        since += float(step)
        if same and since < FARTHEST_DOUBLE:
            continue
        kept.append(frame)
        steps.append(since)
        since = 0.0
    return (kept, np.array(steps)) if steps else (grey[:2], steps_T[:1])


def _pairwise(
    grey: list[NDArray[np.uint8]], steps_T: NDArray[np.float64], config: OpticalFlowConfig
) -> tuple[NDArray[np.float32], NDArray[np.float32], Change]:
    """Flow of each adjacent pair at 30 fps, (T - 1, H/2, W/2, 2) in pixels of the whole size; the share of
    the checks that agreed, (H, W); and how the pixels changed."""
    flow = _half_flow(config.method, grey)
    flows_THW2 = np.empty((len(grey) - 1, *_half_size(grey[0])[::-1], 2), dtype=np.float32)
    agreeing_hw = np.zeros(flows_THW2.shape[1:3], dtype=np.float32)
    change = Change(grey[0].shape)
    checks = 0
    for pair, (first, second) in enumerate(zip(grey, grey[1:], strict=False)):
        forward_hw2 = flow(pair, pair + 1)
        change.add(first, second)
        if config.check_every and pair % config.check_every == config.check_every // 2:
            agreeing_hw += _agreeing(forward_hw2, flow(pair + 1, pair))
            checks += 1
        np.multiply(forward_hw2, np.float32(1.0 / steps_T[pair]), out=flows_THW2[pair])
    if checks:
        agreeing_hw /= np.float32(checks)
    else:
        agreeing_hw[:] = 1.0
    return flows_THW2, _enlarge(agreeing_hw, grey[0].shape), change


def _half_size(frame: NDArray[np.uint8]) -> tuple[int, int]:
    """(width, height) of the flow that is kept: it is smoother than half the pixels can show, and half the
    size is a quarter of the work."""
    height, width = frame.shape
    return max(1, width // 2), max(1, height // 2)


def _half_flow(name: str, grey: list[NDArray[np.uint8]]) -> Callable[[int, int], NDArray[np.float32]]:
    """A function of two frames' numbers: the flow at half the size, in pixels of the whole."""
    size = _half_size(grey[0])
    at_half, whole = half_size_method(name), optical_flow_method(name)
    if at_half is None:
        return lambda one, other: np.asarray(
            cv2.resize(whole(grey[one], grey[other]), size, interpolation=cv2.INTER_AREA), dtype=np.float32
        )
    half = [
        np.asarray(cv2.resize(frame, size, interpolation=cv2.INTER_AREA), dtype=np.uint8) for frame in grey
    ]
    # One factor for every number: multiplying pairs by pairs takes numpy ten times as long.
    scale_hw2 = np.empty((*size[::-1], 2), dtype=np.float32)
    scale_hw2[:] = grey[0].shape[1] / size[0], grey[0].shape[0] / size[1]
    return lambda one, other: np.asarray(at_half(half[one], half[other]) * scale_hw2)


def _agreeing(forward_hw2: NDArray[np.float32], backward_hw2: NDArray[np.float32]) -> NDArray[np.float32]:
    """1 where going there and back again returns to the start, float32; flows at half the size, in pixels of
    the whole."""
    y_hw, x_hw = np.mgrid[0 : forward_hw2.shape[0], 0 : forward_hw2.shape[1]].astype(np.float32)
    back_hw2 = cv2.remap(
        backward_hw2,
        x_hw + forward_hw2[..., 0] / 2,
        y_hw + forward_hw2[..., 1] / 2,
        cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_REPLICATE,
    )
    miss_hw = cv2.magnitude(*cv2.split(forward_hw2 + back_hw2))
    length_hw = cv2.magnitude(*cv2.split(forward_hw2)) + cv2.magnitude(*cv2.split(back_hw2))
    return np.asarray(miss_hw <= AGREEMENT_PIXELS + AGREEMENT_SHARE * length_hw, dtype=np.float32)


def _still_limit(speed_HW: NDArray[np.float32], config: OpticalFlowConfig) -> float:
    """The speed below which a pixel of this clip is still, px/frame."""
    faster = speed_HW[speed_HW > config.still_floor]
    mean = float(faster.mean()) if faster.size else 0.0
    return max(config.still_floor, config.still_share * mean)
