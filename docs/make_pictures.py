"""Draw the documentation's pictures from our own sample scenes: `python -m docs.make_pictures [NAME…]`.

scenes.jpg      the contact sheet of the sample scenes
living.webp     four photos as endless loops
motion.webp     photo, drifting motion in colour, loop
splatting.jpg   a photo pushed along its motion both ways in time, and what becomes of it
predicted.jpg   true motion beside what the weights in the package predict
"""

import math
import sys
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from models.colour_wheel import colour_wheel, motion_to_colour
from models.euler import displacement_after
from models.renderer import LoopConfig, render_loop
from models.softmax_splatting import splat_numpy
from pipelines.sample_data import SCENES, Scene, draw_scene
from storage.loops import LoopOptions, write_loop

OUT = Path(__file__).parent / "pictures"
SHEET_SEEDS = (3, 4)
SIZE = (270, 480)  # height, width
LIVING = (("waterfall", 3), ("clouds", 4), ("river", 3), ("sea", 3))
EXPLAINED = (("waterfall", 3), ("sea", 3))
LOOP = LoopConfig(frames=36, fps=18.0)
GAP = 8
GRAIN = 4  # pixels: of the texture that shows where colours drift to
HOLE = (255, 0, 160)
Picture = NDArray[np.uint8]


def main(names: list[str]) -> None:
    """Draw those named, or all."""
    OUT.mkdir(exist_ok=True)
    for name, draw in PICTURES.items():
        if not names or name in names:
            draw(name)


def _draw_scenes(name: str) -> None:
    scenes = [_scene(kind, seed) for seed in SHEET_SEEDS for kind in SCENES]
    _save(_sheet([_shrink(scene.photo_HW3, 0.6) for scene in scenes], columns=len(SCENES)), name)


def _draw_living(name: str) -> None:
    _film([_loop(_scene(kind, seed)) for kind, seed in LIVING], 0.8, name, quality=76)


def _draw_motion(name: str) -> None:
    parts = [part for kind, seed in EXPLAINED for part in _explained(_scene(kind, seed))]
    _film(parts, 0.55, name, columns=3, quality=62)


def _draw_splatting(name: str) -> None:
    _save(_sheet(_splatted(_scene("waterfall", 4)), columns=4), name)


def _draw_predicted(name: str) -> None:
    rows = [picture for kind in SCENES for picture in _predicted(_scene(kind, SHEET_SEEDS[0]))]
    _save(_sheet(rows, columns=3), name)


@cache
def _scene(kind: str, seed: int) -> Scene:
    return draw_scene(kind, seed=seed, size=SIZE)


def _loop(scene: Scene, picture: Picture | None = None) -> Iterator[Picture]:
    """The frames of a scene, or of another picture that moves like it."""
    moving = scene.moving_HW.astype(np.float32)
    shown = scene.photo_HW3 if picture is None else picture
    return render_loop(shown, scene.motion_2HW, moving, LOOP)


def _explained(scene: Scene) -> list[Iterator[Picture]]:
    """The photo, its motion with the colour wheel in a corner, and its loop."""
    still: Iterator[Picture] = iter([scene.photo_HW3] * LOOP.frames)
    grain = np.random.default_rng(0).random((SIZE[0] // GRAIN, SIZE[1] // GRAIN), np.float32)
    grain = np.asarray(cv2.resize(grain, SIZE[::-1], interpolation=cv2.INTER_CUBIC), np.float32)
    colour = motion_to_colour(scene.motion_2HW)
    shade = np.where(scene.moving_HW, np.clip(0.55 + 0.6 * grain, 0, 1), 1.0)[..., None]
    drifting = (_with_wheel(frame) for frame in _loop(scene, np.rint(colour * shade).astype(np.uint8)))
    return [still, drifting, _loop(scene)]


def _with_wheel(colour: Picture) -> Picture:
    wheel, colour = colour_wheel(64), colour.copy()
    corner = colour[8:72, -72:-8]
    alpha = wheel[..., 3:] / 255
    corner[:] = np.rint(wheel[..., :3] * alpha + corner * (1 - alpha))
    return colour


def _splatted(scene: Scene) -> list[Picture]:
    """Half a loop forward, half a loop backward with their holes, both together, and the finished frame."""
    half = LOOP.frames // 2
    moving = scene.moving_HW[..., None].astype(np.float32)
    water = np.concatenate([scene.photo_HW3 * moving, moving], axis=-1)
    pushed = [splat_numpy(water, displacement_after(scene.motion_2HW, frames)) for frames in (half, -half)]
    sums = [each.features * each.weights_HW[..., None] for each in pushed]
    panels = [_landed(scene, each) for each in (*sums, sums[0] + sums[1])]
    frames = render_loop(scene.photo_HW3, scene.motion_2HW, moving[..., 0], LOOP, times=range(half + 1))
    *_, finished = frames
    rows, columns = np.nonzero(scene.moving_HW)
    top, left = max(0, rows.min() - 12), max(0, columns.min() - 12)
    crop = slice(top, rows.max() + 1), slice(left, columns.max() + 12)
    return [_shrink(panel[crop], 250 / panel[crop].shape[1]) for panel in [*panels, finished]]


def _landed(scene: Scene, sums_HW4: NDArray[np.float32]) -> Picture:
    """Colours over their weights where water landed, a glaring one where none did, pale land around it."""
    colours = np.rint(sums_HW4[..., :3] / np.maximum(sums_HW4[..., 3:], 1e-6))
    wet = np.where(sums_HW4[..., 3:] > 0.1, colours, HOLE)
    land = 255 - (255 - scene.photo_HW3) // 3
    return np.where(scene.moving_HW[..., None], wet, land).clip(0, 255).astype(np.uint8)


def _predicted(scene: Scene) -> list[Picture]:
    """Photo, true motion, and the motion that the weights in the package see in the photo."""
    from models.checkpoint import load_motion_network
    from models.motion import predict_motion

    seen = predict_motion(scene.photo_HW3, load_motion_network()).motion_2HW
    fastest = float(np.percentile(np.hypot(*scene.motion_2HW), 99))
    fields = [motion_to_colour(field, max_speed=fastest) for field in (scene.motion_2HW, seen)]
    return [_shrink(picture, 0.5) for picture in (scene.photo_HW3, *(_with_wheel(field) for field in fields))]


def _film(
    parts: list[Iterator[Picture]], factor: float, name: str, *, columns: int = 2, quality: int
) -> None:
    frames: Iterable[Picture] = (
        _sheet([_shrink(frame, factor) for frame in together], columns=columns)
        for together in zip(*parts, strict=True)
    )
    write_loop(frames, str(OUT / name), format="webp", fps=LOOP.fps, options=LoopOptions(quality=quality))


def _shrink(picture_HW3: Picture, factor: float) -> Picture:
    method = cv2.INTER_AREA if factor < 1 else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(picture_HW3, None, fx=factor, fy=factor, interpolation=method), np.uint8)


def _sheet(pictures: list[Picture], *, columns: int) -> Picture:
    height, width = pictures[0].shape[:2]
    rows = math.ceil(len(pictures) / columns)
    sheet = np.full((rows * (height + GAP) - GAP, columns * (width + GAP) - GAP, 3), 255, np.uint8)
    for index, picture in enumerate(pictures):
        y, x = (index // columns) * (height + GAP), (index % columns) * (width + GAP)
        sheet[y : y + height, x : x + width] = picture
    return sheet


def _save(picture: Picture, name: str) -> None:
    Image.fromarray(picture).save(OUT / name, quality=86, optimize=True)


PICTURES = {
    "scenes.jpg": _draw_scenes,
    "living.webp": _draw_living,
    "motion.webp": _draw_motion,
    "splatting.jpg": _draw_splatting,
    "predicted.jpg": _draw_predicted,
}

if __name__ == "__main__":
    main(sys.argv[1:])
