# ruff: noqa: N802 - names carry their dimensions
"""The measurements of one clip: rendering with its target motion, motion from one frame of it, and its loop.

Every measurement is a row of numbers for one method in one part of the protocol; `models.evaluate` averages
them. Times are frames at 30 fps since the clip's first stored frame. Legend: H, W rows and columns of the
frames, h, w of the motion grid; motion (2, H, W) in pixels per frame, (dx, dy), y down; frames uint8 RGB.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from functools import cached_property

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from models.animator import Animator
from models.animator_recipe import frame_times
from models.baselines import cross_fade, cross_fade_loop, splat_between
from models.euler import integrate_motion
from models.hint_motion import apply_hints
from models.hints import Arrow, Hints
from models.metrics import (
    angular_error,
    end_point_error,
    loop_quality,
    mask_iou,
    picture_quality,
)
from models.motion import MotionPrediction, predict_motion
from models.motion_network import MotionNetwork
from models.renderer import LoopConfig, render_loop
from models.warp import resize_motion
from storage.samples import Sample

__all__ = [
    "HINTS",
    "Clip",
    "Row",
    "baseline_motion_rows",
    "loop_rows",
    "motion_row",
    "predict_with_hints",
    "rendering_rows",
    "target_arrows",
]

Floats = NDArray[np.float32]
Bytes = NDArray[np.uint8]
Row = dict[str, float]

LATEST = 30  # frames after the photo up to which rendered frames are compared with real ones
LOOP_FRAMES = 60
# The frames of a loop that are looked at: what is shown of it, the seam, pairs of neighbours for the steps,
# and enough in between to see its contrast pulse.
SHOWN_TIMES = (0, 15, 30, 45)
LOOP_TIMES = (0, 1, 8, 15, 16, 30, 31, 38, 45, 58, 59)
COMPARED = 4  # of the real frames up to LATEST, evenly chosen, the last among them
HINTS = 5
HINT_SECONDS = 0.5
MOTION_FPS = 30.0
EQUAL_PSNR = 60.0  # dB; equal pictures have an infinite one, which no mean survives


@dataclass(frozen=True)
class Clip:
    """A sample with its target motion and moving mask at the frames' size."""

    sample: Sample

    @cached_property
    def frames(self) -> list[Bytes]:
        return [self.sample.frames[number] for number in range(len(self.sample.frames))]

    @cached_property
    def times(self) -> list[int]:
        return frame_times(self.sample)

    @property
    def photo_HW3(self) -> Bytes:
        return self.frames[0]

    @property
    def size_HW(self) -> tuple[int, int]:
        return self.photo_HW3.shape[0], self.photo_HW3.shape[1]

    @cached_property
    def moving_HW(self) -> Floats:
        mask = self.sample.moving_HW.astype(np.float32)
        return np.asarray(cv2.resize(mask, self.size_HW[::-1], interpolation=cv2.INTER_LINEAR), np.float32)

    @cached_property
    def motion_2HW(self) -> Floats:
        motion = self.sample.motion_2HW.astype(np.float32) * self.sample.moving_HW
        return resize_motion(motion, self.size_HW)

    @property
    def compared(self) -> list[int]:
        """Numbers of the frames that rendered ones are compared with: real, later than the photo, t ≤ 30."""
        late = [number for number, time in enumerate(self.times) if 0 < time <= LATEST]
        chosen = np.linspace(len(late) / COMPARED, len(late), COMPARED).round().astype(int) - 1
        return [late[place] for place in chosen] if len(late) > COMPARED else late


def rendering_rows(clip: Clip, animator: Animator | None) -> dict[tuple[str, str], Row]:
    """Rows by (part, method): frames from the photo alone, and frames between the first and the last one."""
    compared = clip.compared
    if not compared or not clip.sample.moving_HW.any():
        return {}
    rows = {}
    real = [clip.frames[number] for number in compared]
    for method, drawn in _from_photo(clip, animator, [clip.times[number] for number in compared]).items():
        rows["rendering", method] = _picture_row(list(zip(drawn, real, strict=True)), clip.moving_HW)
    inner = [number for number in compared if number < len(clip.frames) - 1]
    if inner:
        between = _between(clip, inner, animator)
        for method in between[0]:
            pairs = [(made[method], clip.frames[n]) for made, n in zip(between, inner, strict=True)]
            rows["between", method] = _picture_row(pairs, clip.moving_HW)
    return rows


def _from_photo(clip: Clip, animator: Animator | None, times: list[int]) -> dict[str, list[Bytes]]:
    """Frames of one period of 60 frames by the target motion, at `times`.

    Without what serves the eye and not the distance to a real frame: shorter periods, restored contrast.
    """
    config = LoopConfig(frames=LOOP_FRAMES, fps=MOTION_FPS, max_displacement=2.0, contrast=False)
    loops = _loops(clip.photo_HW3, (clip.motion_2HW, clip.moving_HW), config, animator, (0, *times))
    return {method: list(frames)[1:] for method, frames in loops.items()}


def _loops(
    photo: Bytes,
    field: tuple[Floats, Floats],
    config: LoopConfig,
    animator: Animator | None,
    times: Collection[int],
) -> dict[str, Iterator[Bytes]]:
    """Frames of a photo's loop by every method, from its motion and moving mask."""
    motion, moving = field
    loops = {
        "still": iter([photo] * len(times)),
        "cross_fade": cross_fade_loop(photo, motion, moving, LOOP_FRAMES, times),
        "splat": render_loop(photo, motion, moving, config, times=times),
    }
    return loops | (
        {} if animator is None else {"deep": render_loop(photo, motion, moving, config, animator, times)}
    )


def _between(clip: Clip, numbers: list[int], animator: Animator | None) -> list[dict[str, Bytes]]:
    """Frames `numbers` made from the clip's first and last frames by every method."""
    start, end, last = clip.frames[0], clip.frames[-1], clip.times[-1]
    times = [clip.times[number] for number in numbers]
    ahead = _displacements(clip.motion_2HW, times)
    back = _displacements(clip.motion_2HW, [time - last for time in times])
    found = []
    for time in times:
        alpha, fields = time / last, (ahead[time], back[time - last])
        made = {
            "still": start,
            "cross_fade": cross_fade(start, end, alpha),
            "splat": splat_between(start, end, fields, clip.moving_HW, alpha),
        }
        if animator is not None:
            made["deep"] = _deep_between(animator, (start, end), fields, clip.moving_HW, alpha)
        found.append(made)
    return found


def _displacements(motion_2HW: Floats, times: Collection[int]) -> dict[int, Floats]:
    """F(0→t) for times that all lie on one side of 0."""
    furthest = max(times, key=abs)
    way = -1 if furthest < 0 else 1
    fields = enumerate(integrate_motion(motion_2HW, furthest))
    return {way * step: field for step, field in fields if way * step in times}


@torch.inference_mode()
def _deep_between(
    animator: Animator,
    pictures: tuple[Bytes, Bytes],
    fields: tuple[Floats, Floats],
    moving_HW: Floats,
    alpha: float,
) -> Bytes:
    device = next(animator.parameters()).device
    start, end = (torch.from_numpy(each).to(device).movedim(-1, 0)[None].float() / 255 for each in pictures)
    forward, backward = (torch.from_numpy(each).to(device)[None] for each in fields)
    moving = torch.from_numpy(moving_HW).to(device)[None, None]
    frame = animator(start, end, (forward, backward), torch.tensor([alpha], device=device), moving)
    return np.asarray((frame[0].movedim(0, -1) * 255).round().to(torch.uint8).cpu().numpy(), np.uint8)


def _picture_row(pairs: list[tuple[Bytes, Bytes]], moving_HW: Floats) -> Row:
    """Means over the frames, for the whole picture and for its moving region."""
    found = [picture_quality(*pair, [None, moving_HW]) for pair in pairs]
    row: Row = {}
    for place, qualities in zip(("", "_moving"), zip(*found, strict=True), strict=True):
        noise, similarity, distance = zip(*qualities, strict=True)
        row[f"psnr{place}"] = float(np.mean(np.minimum(noise, EQUAL_PSNR)))
        row[f"ssim{place}"] = float(np.mean(similarity))
        row[f"perceptual{place}"] = float(np.mean(distance))
    return row


def motion_row(clip: Clip, motion_2HW: Floats, moving_HW: Floats) -> Row:
    """A motion field of any size against the target, at the target's grid; pixels of the frames per frame."""
    sample = clip.sample
    grid_HW = (sample.motion_2HW.shape[1], sample.motion_2HW.shape[2])
    target = sample.motion_2HW.astype(np.float32) * sample.moving_HW
    motion = resize_motion(motion_2HW, grid_HW)
    moving = cv2.resize((moving_HW > 0).astype(np.float32), grid_HW[::-1], interpolation=cv2.INTER_AREA)
    per_cell = clip.size_HW[1] / grid_HW[1]
    return {
        "end_point_error": end_point_error(motion, target) * per_cell,
        "end_point_error_moving": end_point_error(motion, target, sample.moving_HW) * per_cell,
        "angular_error": angular_error(motion, target, sample.moving_HW),
        "iou": mask_iou(np.asarray(moving, np.float32), sample.moving_HW.astype(np.float32)),
    }


def baseline_motion_rows(clip: Clip, mean: tuple[Floats, Floats]) -> dict[tuple[str, str], Row]:
    """Zero motion, and the mean motion of the other sources where more often than not something moves."""
    zero = np.zeros((2, *clip.size_HW), np.float32)
    field, moving = mean
    often = (moving >= 0.5).astype(np.float32)
    return {
        ("motion", "zero"): motion_row(clip, zero, zero[0]),
        ("motion", "mean"): motion_row(clip, field, often),
    }


def predict_with_hints(clip: Clip, network: MotionNetwork) -> MotionPrediction:
    """The motion of the photo as a person who draws HINTS right arrows would get it."""
    hints = Hints(arrows=target_arrows(clip))
    found = predict_motion(clip.photo_HW3, network, hints=hints)
    motion, moving = apply_hints(found.motion_2HW, found.moving_HW, hints, confidence=found.confidence)
    return MotionPrediction(motion, moving, found.confidence, found.nothing_to_animate)


def target_arrows(clip: Clip) -> tuple[Arrow, ...]:
    """HINTS arrows that say the target's motion at moving, rather trusted places; always the same ones."""
    sample = clip.sample
    rows, columns = sample.motion_2HW.shape[1:]
    trust = (sample.moving_HW * (sample.confidence_HW + 1e-6)).ravel().astype(np.float64)
    seed = np.frombuffer(sample.key.encode(), np.uint8).tolist()
    count = min(HINTS, int(np.count_nonzero(trust)))
    chosen = np.random.default_rng(seed).choice(trust.size, count, replace=False, p=trust / trust.sum())
    arrows = []
    for place in chosen.tolist():
        y, x = divmod(place, columns)
        dx, dy = (float(value) for value in sample.motion_2HW[:, y, x])
        start = (x + 0.5) / columns, (y + 0.5) / rows
        way = np.array([dx / columns, dy / rows]) * HINT_SECONDS * MOTION_FPS
        # Cut short where the arrow would leave the picture, at the same speed.
        share = min([1.0, *(((s > 0) - x) / s for x, s in zip(start, way, strict=True) if s != 0)])
        end = start[0] + share * way[0], start[1] + share * way[1]
        arrows.append(Arrow(start=start, end=end, seconds=HINT_SECONDS * share))
    return tuple(arrows)


def loop_rows(
    photo_HW3: Bytes, found: MotionPrediction, animator: Animator | None
) -> tuple[dict[tuple[str, str], Row], tuple[Bytes, ...]]:
    """Still region, seam, vividness and pulsing of the loops that a prediction gives, by every method.

    Also four frames of the best renderer's loop: 0, N/4, N/2, 3N/4.
    """
    rows = {}
    config = LoopConfig(frames=LOOP_FRAMES, fps=MOTION_FPS)
    field = found.motion_2HW, found.moving_HW
    shown: list[Bytes] = []
    for method, drawn in _loops(photo_HW3, field, config, animator, LOOP_TIMES).items():
        frames = list(drawn)
        shown = [frame for time, frame in zip(LOOP_TIMES, frames, strict=True) if time in SHOWN_TIMES]
        quality = loop_quality(frames, found.moving_HW, LOOP_TIMES)
        rows["loop", method] = {
            "still_largest": float(quality.still_largest),
            "still_changed": quality.still_changed,
            "seam_ssim": quality.seam_ssim,
            "seam_step": quality.seam_step,
            "largest_step": quality.largest_step,
            "vividness": quality.vividness,
            "pulsing": quality.pulsing,
        }
    return rows, tuple(shown)
