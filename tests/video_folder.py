"""A folder of videos of which it is known what each must become, for the tests of dataset building."""

from __future__ import annotations

import shutil
from pathlib import Path

import moving_pictures as pictures
import numpy as np

from storage.reasons import Reason

__all__ = ["EXPECTED", "fill_folder"]

# What the videos of `fill_folder` end as: None for a clip that is kept.
EXPECTED: dict[str, Reason | None] = {
    "good_a.mp4": None,
    "good_b.mp4": None,
    "bad_copy.mp4": Reason.DUPLICATE,
    "bad_cut.mp4": Reason.CUT,
    "bad_dark.mp4": Reason.TOO_DARK,
    "bad_empty.mp4": Reason.EMPTY,
    "bad_fade.mp4": Reason.FADE,
    "bad_page.mp4": Reason.UNREADABLE,
    "bad_pan.mp4": Reason.CAMERA_MOTION,
    "bad_random.mp4": Reason.UNREADABLE,
    "bad_short.mp4": Reason.TOO_SHORT,
    "bad_small.mp4": Reason.TOO_SMALL,
    "bad_still.mp4": Reason.STILL_PICTURE,
    "bad_bars.mp4": Reason.LETTERBOX,
}


def fill_folder(folder: Path) -> Path:
    """Write the videos of EXPECTED."""
    folder.mkdir(parents=True, exist_ok=True)
    pictures.write_clip(folder / "good_a.mp4", pictures.flowing(60, seed=1))
    pictures.write_clip(folder / "good_b.mp4", pictures.flowing(60, seed=2, velocity=(-1.4, 0.6)))
    # The listing is sorted: the copy comes first in it, and yet one of the two must be kept.
    shutil.copy(folder / "good_a.mp4", folder / "bad_copy.mp4")
    cut = pictures.flowing(30, seed=3) + pictures.flowing(30, seed=400)
    pictures.write_clip(folder / "bad_cut.mp4", cut)
    pictures.write_clip(folder / "bad_dark.mp4", [frame // 16 for frame in pictures.flowing(60, seed=4)])
    (folder / "bad_empty.mp4").write_bytes(b"")
    pictures.write_clip(folder / "bad_fade.mp4", _fade())
    (folder / "bad_page.mp4").write_bytes(b"<!doctype html><title>404</title>" * 40)
    pictures.write_clip(folder / "bad_pan.mp4", pictures.flowing(60, seed=5, place=lambda t: (1.5 * t, 0.0)))
    (folder / "bad_random.mp4").write_bytes(np.random.default_rng(6).bytes(50_000))
    pictures.write_clip(folder / "bad_short.mp4", pictures.flowing(20, seed=7))
    pictures.write_clip(folder / "bad_small.mp4", [frame[:96, :96] for frame in pictures.flowing(60, seed=8)])
    pictures.write_clip(folder / "bad_still.mp4", pictures.flowing(1, seed=9) * 60)
    pictures.write_clip(folder / "bad_bars.mp4", [_barred(frame) for frame in pictures.flowing(60, seed=10)])
    return folder


def _fade() -> list[pictures.Frame]:
    first, last = pictures.flowing(1, seed=11)[0], pictures.flowing(1, seed=12)[0]
    shares = np.clip(np.linspace(-0.2, 1.2, 60), 0, 1)
    return [(first * (1 - share) + last * share).astype(np.uint8) for share in shares]


def _barred(frame: pictures.Frame) -> pictures.Frame:
    barred = frame.copy()
    barred[:20] = barred[-20:] = 0
    return barred
