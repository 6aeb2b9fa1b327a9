"""Sample data: landscapes drawn by number, as photos and short videos whose motion is known exactly.

Five scenes (waterfall, river, sea, clouds, smoke) with still land around them. A seed fixes terrain, palette,
time of day, framing, and the fluid's place, direction and speed; the same seed always gives the same picture.
The moving texture is carried by one stationary motion field (pipelines.scenery.texture says how), so
`Scene.motion_2HW` is the truth and not an estimate. DISTRACTORS are clips in which something else moves.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from io import BytesIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pipelines.scenery.clouds import draw_clouds
from pipelines.scenery.distractors import DISTRACTORS, draw_distractor
from pipelines.scenery.picture import Picture, develop_picture
from pipelines.scenery.river import draw_river
from pipelines.scenery.sea import draw_sea
from pipelines.scenery.smoke import draw_smoke
from pipelines.scenery.waterfall import draw_waterfall
from storage.errors import UsageError
from storage.locations import join_url
from storage.objects import write_bytes
from storage.video import encode_video

__all__ = [
    "DISTRACTORS",
    "SCENES",
    "Scene",
    "draw_scene",
    "scene_frames",
    "scene_name",
    "write_sample_photos",
    "write_sample_videos",
]

SCENES = ("waterfall", "river", "sea", "clouds", "smoke")
FRAME_RATE = 30.0
SMALLEST_SIDE = 64

_Draw = Callable[[tuple[int, int], int, float], Picture]
_DRAWERS: dict[str, _Draw] = {
    "waterfall": draw_waterfall,
    "river": draw_river,
    "sea": draw_sea,
    "clouds": draw_clouds,
    "smoke": draw_smoke,
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Scene:
    """A drawn landscape: frame 0 and the truth about how it moves."""

    kind: str
    seed: int
    photo_HW3: NDArray[np.uint8]
    motion_2HW: NDArray[np.float32]  # (dx, dy) px/frame at 30 fps and this size, y down; 0 where still
    moving_HW: NDArray[np.bool_]
    frame_at: Callable[[float], NDArray[np.uint8]]  # the picture at a time in frames of 1/30 s


def scene_name(kind: str, seed: int) -> str:
    """The file stem of a scene, such as river_003."""
    return f"{kind}_{seed:03d}"


def draw_scene(kind: str, *, seed: int = 0, size: tuple[int, int] = (360, 640), speed: float = 1.0) -> Scene:
    """Draw a scene at (height, width); `speed` scales its motion. UsageError for what cannot be drawn."""
    if kind not in SCENES + DISTRACTORS:
        known = ", ".join(SCENES + DISTRACTORS)
        raise UsageError(f"scene must be one of {known}, got {kind!r}; choose one of them")
    if min(size) < SMALLEST_SIDE:
        raise UsageError(f"size must be at least {SMALLEST_SIDE} pixels a side, got {size}; ask for more")
    if seed < 0 or speed <= 0.0:
        raise UsageError(f"seed must be 0 or more and speed above 0, got {seed} and {speed}; correct them")
    if kind in DISTRACTORS:
        clip = draw_distractor(kind, size, seed, speed)
        return _scene(kind, seed, clip.shot, clip.motion, clip.moving)
    picture = _DRAWERS[kind](size, seed, speed)
    return _scene(kind, seed, partial(develop_picture, picture), picture.motion_2HW, picture.moving_HW)


def _scene(
    kind: str,
    seed: int,
    frame_at: Callable[[float], NDArray[np.uint8]],
    motion_2HW: NDArray[np.float32],
    moving_HW: NDArray[np.bool_],
) -> Scene:
    return Scene(
        kind=kind,
        seed=seed,
        photo_HW3=frame_at(0.0),
        motion_2HW=motion_2HW,
        moving_HW=moving_HW,
        frame_at=frame_at,
    )


def scene_frames(scene: Scene, frames: int = 90, *, fps: float = FRAME_RATE) -> Iterator[NDArray[np.uint8]]:
    """Frames of the scene's video; frame 0 is the photo. Other rates show the same motion per second."""
    for index in range(frames):
        yield scene.frame_at(index * FRAME_RATE / fps)


def _write_truth(out_url: str, name: str, scene: Scene) -> None:
    buffer = BytesIO()
    np.save(buffer, scene.motion_2HW)
    write_bytes(join_url(out_url, f"{name}.motion.npy"), buffer.getvalue())
    buffer = BytesIO()
    Image.fromarray(scene.moving_HW.astype(np.uint8) * 255).save(buffer, "PNG")
    write_bytes(join_url(out_url, f"{name}.moving.png"), buffer.getvalue())


def write_sample_videos(
    out_url: str,
    *,
    kinds: Sequence[str] = SCENES,
    seeds: Sequence[int] = (0,),
    size: tuple[int, int] = (360, 640),
    frames: int = 90,
    truth: bool = False,
) -> list[str]:
    """Write one H.264 video per kind and seed, such as river_003.mp4; returns their URLs.

    `truth` adds <name>.motion.npy, (2, H, W) float32 px/frame, and <name>.moving.png, 255 where it moves.
    """
    urls = []
    for kind in kinds:
        for seed in seeds:
            scene = draw_scene(kind, seed=seed, size=size)
            name = scene_name(kind, seed)
            url = join_url(out_url, f"{name}.mp4")
            encode_video(scene_frames(scene, frames), url, fps=FRAME_RATE)
            if truth:
                _write_truth(out_url, name, scene)
            urls.append(url)
    return urls


def write_sample_photos(
    out_url: str,
    *,
    kinds: Sequence[str] = SCENES,
    seeds: Sequence[int] = (0,),
    size: tuple[int, int] = (720, 1280),
    truth: bool = False,
) -> list[str]:
    """Write one lossless PNG per kind and seed; returns their URLs. `truth` as for the videos."""
    urls = []
    for kind in kinds:
        for seed in seeds:
            scene = draw_scene(kind, seed=seed, size=size)
            name = scene_name(kind, seed)
            buffer = BytesIO()
            Image.fromarray(scene.photo_HW3).save(buffer, "PNG", compress_level=4)
            url = join_url(out_url, f"{name}.png")
            write_bytes(url, buffer.getvalue())
            if truth:
                _write_truth(out_url, name, scene)
            urls.append(url)
    return urls
