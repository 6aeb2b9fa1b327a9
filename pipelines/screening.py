"""The cheap first pass over a clip: cuts, fades, still pictures, slideshows, bars, darkness.

It looks at small grey copies of the frames (longer side about 112 px), so that what is unsuitable is thrown
out before dense optical flow is paid for.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from storage.errors import RejectedError, UsageError
from storage.reasons import Reason

__all__ = ["Screening", "ScreeningConfig", "screen_frames"]

SMALL_SIDE = 112
NOISE = 0.6  # grey levels; changes of a small copy below this are sensor noise and compression
LONG_RUN = 10  # frames; doubled frames of a low frame rate alternate
SHORTEST_FADE = 16  # frames
EDGE_SHARE = 0.25  # bars reach at most this far into the picture on each side


@dataclass(frozen=True, kw_only=True, slots=True)
class ScreeningConfig:
    """Limits of the first pass. Levels are grey levels of 255.

    `darkest`: mean level of the brightest tenth. `cut_level` and `cut_ratio`: a cut changes the picture by
    this many levels at least and so many times as much as its neighbours do. `fade_level`: levels between
    first and last frame that a fade or dissolve must bridge. `stillest`: a frame that differs less is the
    same picture. `thickest_bar`: share of the height or width that black bars may take.
    """

    darkest: float = 24.0
    cut_level: float = 12.0
    cut_ratio: float = 6.0
    fade_level: float = 18.0
    stillest: float = 0.08
    thickest_bar: float = 0.03

    def __post_init__(self) -> None:
        if min(self.darkest, self.cut_level, self.cut_ratio, self.fade_level, self.stillest) <= 0:
            raise UsageError("screening levels and ratios must be above 0")
        if not 0 <= self.thickest_bar < EDGE_SHARE:
            raise UsageError(f"thickest_bar must be in [0, {EDGE_SHARE}), got {self.thickest_bar}")


@dataclass(frozen=True, kw_only=True, slots=True)
class Screening:
    """What the first pass measured: mean level in [0, 1] and mean change of level from frame to frame."""

    brightness: float
    change: float


def screen_frames(grey: list[NDArray[np.uint8]], config: ScreeningConfig | None = None) -> Screening:
    """Look over a clip's grey frames (H, W) uint8; raises RejectedError with the reason."""
    config = config or ScreeningConfig()
    small_THW = np.stack([_shrink(frame) for frame in grey]).astype(np.float32)
    change_T = np.abs(np.diff(small_THW, axis=0)).mean(axis=(1, 2))
    _check_light(small_THW, config)
    _check_bars(small_THW, config)
    _check_still(small_THW, change_T, config)
    _check_cut(small_THW, change_T, config)
    _check_fade(small_THW, config)
    return Screening(brightness=float(small_THW.mean()) / 255.0, change=float(change_T.mean()))


def _shrink(frame: NDArray[np.uint8]) -> NDArray[np.uint8]:
    # A whole number of times smaller, which is quick; what does not fill a block at the edge is left out.
    times = max(1, min(round(max(frame.shape) / SMALL_SIDE), min(frame.shape) // 8))
    height, width = (side // times for side in frame.shape)
    blocks = frame[: height * times, : width * times]
    return np.asarray(cv2.resize(blocks, (width, height), interpolation=cv2.INTER_AREA), dtype=np.uint8)


def _check_light(small_THW: NDArray[np.float32], config: ScreeningConfig) -> None:
    # A fire at night is dark nearly everywhere: only what its brightest tenth is like tells.
    bright = float(np.percentile(small_THW[:: max(1, len(small_THW) // 4)], 90))
    if bright < config.darkest:
        raise RejectedError(
            f"the brightest tenth should reach level {config.darkest:.0f} of 255, got {bright:.0f}",
            reason=Reason.TOO_DARK,
        )


def _check_bars(small_THW: NDArray[np.float32], config: ScreeningConfig) -> None:
    """Black bars on two opposite sides: darker than anything else and the same in every frame."""
    top_HW = small_THW.max(axis=0)
    for axis, sides in ((1, "top and bottom"), (0, "left and right")):
        line = top_HW.max(axis=axis)
        length = len(line)
        black = line < 32
        first = int(np.argmin(black)) if not black.all() else length
        last = int(np.argmin(black[::-1])) if not black.all() else length
        thin = max(1, round(config.thickest_bar * length))
        if first <= thin or last <= thin or max(first, last) > EDGE_SHARE * length + 1:
            continue
        # A night sky is black too, but the picture does not begin along a straight line there.
        inner = np.moveaxis(top_HW, 1 - axis, 0)
        edges = (inner[first] - inner[first - 1], inner[length - last - 1] - inner[length - last])
        if min(float(np.mean(edge > 12)) for edge in edges) > 0.5:
            raise RejectedError(
                f"bars at {sides} take {(first + last) / length:.0%} of the picture", reason=Reason.LETTERBOX
            )


def _check_still(
    small_THW: NDArray[np.float32], change_T: NDArray[np.float32], config: ScreeningConfig
) -> None:
    whole = float(np.abs(small_THW[-1] - small_THW[0]).mean())
    same_T = change_T < config.stillest
    if same_T.all() and whole < 4 * config.stillest:
        raise RejectedError("all frames show the same still picture", reason=Reason.STILL_PICTURE)
    # A slideshow stands still for most of its time.
    still = _share_in_runs(same_T, LONG_RUN)
    later_THW = small_THW[min(LONG_RUN, len(small_THW) - 1) :]
    step = float(np.abs(later_THW - small_THW[: len(later_THW)]).mean(axis=(1, 2)).max())
    if still > 0.5 and step > config.cut_level:
        raise RejectedError(
            f"the picture stands still for {still:.0%} of the clip and then changes",
            reason=Reason.SLIDESHOW,
        )


def _share_in_runs(flags: NDArray[np.bool_], length: int) -> float:
    """The share of flags that are set in a row of at least `length`."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], flags, [False]]).astype(np.int8)))
    runs = edges[1::2] - edges[::2]
    return float(runs[runs >= length].sum()) / max(len(flags), 1)


def _check_cut(
    small_THW: NDArray[np.float32], change_T: NDArray[np.float32], config: ScreeningConfig
) -> None:
    """One step much larger than those around it, to a picture that then stays."""
    usual = float(np.median(change_T)) + NOISE
    step = int(change_T.argmax())
    if change_T[step] < config.cut_level or change_T[step] < config.cut_ratio * usual:
        return
    before, after = small_THW[max(0, step - 2)], small_THW[min(len(small_THW) - 1, step + 3)]
    # A flash returns to what was there before; a cut does not.
    if float(np.abs(after - before).mean()) > 0.5 * float(change_T[step]):
        raise RejectedError(f"a cut at frame {step + 1} of the clip", reason=Reason.CUT)


def _check_fade(small_THW: NDArray[np.float32], config: ScreeningConfig) -> None:
    """A fade or dissolve, over the whole clip or a half of it."""
    half = len(small_THW) // 2
    stretches = [(0, len(small_THW))]
    if half >= SHORTEST_FADE:
        stretches += [(start, start + half) for start in (0, half // 2, len(small_THW) - half)]
    if any(_fades(small_THW[start:end], config) for start, end in stretches):
        raise RejectedError("the clip fades from one picture to another", reason=Reason.FADE)


def _fades(small_THW: NDArray[np.float32], config: ScreeningConfig) -> bool:
    """Whether every pixel goes straight from one picture to another."""
    first, last = small_THW[:3].mean(axis=0), small_THW[-3:].mean(axis=0)
    bridged_HW = last - first
    distance = float(np.abs(bridged_HW).mean())
    if distance < config.fade_level:
        return False
    quarters = [small_THW[round(share * (len(small_THW) - 1))] for share in (0.25, 0.5, 0.75)]
    energy = float((bridged_HW**2).sum())
    shares = [float(((quarter - first) * bridged_HW).sum()) / energy for quarter in quarters]
    misses = [
        float(np.abs(quarter - first - share * bridged_HW).mean()) / distance
        for share, quarter in zip(shares, quarters, strict=True)
    ]
    return max(misses) < 0.3 and bool(np.all(np.diff([0.0, *shares, 1.0]) > -0.02))
