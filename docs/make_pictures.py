"""Draw the README's pictures from the project's own sample scenes: `python -m docs.make_pictures`.

scenes.jpg    the contact sheet of the sample scenes
motion.jpg    photo, motion field in colour, moving part of one scene each
river.webp    one photo as an endless loop
"""

from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from models.colour_wheel import colour_wheel, motion_to_colour
from models.renderer import LoopConfig, render_loop
from pipelines.sample_data import SCENES, Scene, draw_scene
from storage.loops import LoopOptions, write_loop

OUT = Path(__file__).parent / "pictures"
SHEET_SEEDS = (3, 4)
SIZE = (270, 480)  # height, width
GAP = 8
Picture = NDArray[np.uint8]


def main() -> None:
    """Draw them all."""
    OUT.mkdir(exist_ok=True)
    scenes = [draw_scene(kind, seed=seed, size=SIZE) for seed in SHEET_SEEDS for kind in SCENES]
    _save(_sheet([_shrink(scene.photo_HW3, 0.6) for scene in scenes], columns=len(SCENES)), "scenes.jpg")
    rows = [picture for scene in scenes[:3] for picture in _explained(scene)]
    _save(_sheet(rows, columns=3), "motion.jpg")
    river = draw_scene("river", seed=3, size=SIZE)
    moving = river.moving_HW.astype(np.float32)
    frames = render_loop(river.photo_HW3, river.motion_2HW, moving, LoopConfig(frames=40, fps=20.0))
    write_loop(
        (_shrink(frame, 0.75) for frame in frames),
        str(OUT / "river.webp"),
        format="webp",
        fps=20.0,
        options=LoopOptions(quality=60),
    )


def _explained(scene: Scene) -> list[Picture]:
    """The photo, its motion with the colour wheel in a corner, and its moving part."""
    colour = motion_to_colour(scene.motion_2HW)
    wheel = colour_wheel(64)
    corner = colour[8:72, -72:-8]
    alpha = wheel[..., 3:] / 255
    corner[:] = np.rint(wheel[..., :3] * alpha + corner * (1 - alpha))
    moving = np.where(scene.moving_HW[..., None], scene.photo_HW3, np.uint8(255))
    return [_shrink(picture, 0.75) for picture in (scene.photo_HW3, colour, moving)]


def _shrink(picture_HW3: Picture, factor: float) -> Picture:
    return np.asarray(
        cv2.resize(picture_HW3, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA), np.uint8
    )


def _sheet(pictures: list[Picture], *, columns: int) -> Picture:
    height, width = pictures[0].shape[:2]
    rows = -(-len(pictures) // columns)
    sheet = np.full((rows * (height + GAP) - GAP, columns * (width + GAP) - GAP, 3), 255, np.uint8)
    for index, picture in enumerate(pictures):
        y, x = (index // columns) * (height + GAP), (index % columns) * (width + GAP)
        sheet[y : y + height, x : x + width] = picture
    return sheet


def _save(picture: Picture, name: str) -> None:
    Image.fromarray(picture).save(OUT / name, quality=86, optimize=True)


if __name__ == "__main__":
    main()
