"""Distractors: clips that a dataset of flowing water, cloud and smoke must refuse, or survive.

Solids and limbs that travel, plants that sway, cameras that move, and what editors do to clips, each over a
drawn landscape. The truth that comes with them is the fluid's motion alone: zero where nothing flows.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from pipelines.scenery import noise
from pipelines.scenery.clouds import draw_clouds
from pipelines.scenery.creatures import (
    Actor,
    choose_actors,
    draw_animal,
    draw_car,
    draw_reeds,
    draw_walker,
)
from pipelines.scenery.light import smoothstep
from pipelines.scenery.picture import Picture, develop_picture
from pipelines.scenery.river import draw_river
from pipelines.scenery.sea import draw_sea
from pipelines.scenery.smoke import draw_smoke

__all__ = ["DISTRACTORS", "Distractor", "draw_distractor"]

Frame = NDArray[np.uint8]
Shot = Callable[[float], Frame]  # time in frames -> picture
_Size = tuple[int, int]
_Act = Callable[[Frame, Actor, float], None]


@dataclass(frozen=True, kw_only=True, slots=True)
class Distractor:
    """A clip as a function of time, and the motion of the fluid in it, if any."""

    shot: Shot
    motion: NDArray[np.float32]  # (2, H, W) px/frame
    moving: NDArray[np.bool_]  # (H, W)


_Draw = Callable[[_Size, int, float], Distractor]


def _film(picture: Picture) -> Distractor:
    def shot(time: float) -> Frame:
        return develop_picture(picture, time)

    return Distractor(shot=shot, motion=picture.motion_2HW, moving=picture.moving_HW)


def _silent(shot: Shot, size: _Size) -> Distractor:
    """A clip in which nothing flows."""
    return Distractor(shot=shot, motion=np.zeros((2, *size), np.float32), moving=np.zeros(size, bool))


def _frozen(size: _Size, seed: int) -> Frame:
    """A landscape at one moment; seeds go through the kinds."""
    draw = (draw_smoke, draw_clouds, draw_river, draw_sea)[seed % 4]
    return develop_picture(draw(size, seed, 1.0), 0.0)


def _still(size: _Size, seed: int, _speed: float) -> Distractor:
    photo = _frozen(size, seed)
    return _silent(lambda _time: photo.copy(), size)


def _road(photo: Frame, seed: int) -> Frame:
    """A photo with a level strip of trodden ground along its lower third, for actors to stand on."""
    height, width = photo.shape[:2]
    y, x = np.mgrid[0:height, 0:width] / height
    stones = noise.fractal(x * 14.0, y * 60.0, seed=seed + 3, octaves=5, gain=0.7)
    rim = 0.01 * noise.fractal(x * 5.0, np.zeros_like(x), seed=seed + 4)
    ground = np.array([118.0, 104.0, 84.0]) * (1.0 + 0.22 * stones - 0.25 * (1.0 - y))[..., None]
    share = smoothstep(0.66, 0.68, y + rim)[..., None]
    return np.asarray(np.clip(np.rint(photo * (1.0 - share) + ground * share), 0, 255), np.uint8)


def _crowd(draw: _Act, count: int, tall: float, pace: float) -> _Draw:
    def compose(size: _Size, seed: int, speed: float) -> Distractor:
        photo = _road(_frozen(size, 4 * seed), seed)
        rng = np.random.default_rng([seed, 61])
        actors = choose_actors(rng, size, count=count, tall=tall, speed=pace * speed)

        def shot(time: float) -> Frame:
            frame = photo.copy()
            for actor in actors:
                draw(frame, actor, time)
            return frame

        return _silent(shot, size)

    return compose


def _swaying(size: _Size, seed: int, speed: float) -> Distractor:
    photo = _frozen(size, seed)

    def shot(time: float) -> Frame:
        frame = photo.copy()
        draw_reeds(frame, np.random.default_rng([seed, 62]), time * speed)
        return frame

    return _silent(shot, size)


def _panning(size: _Size, seed: int, speed: float) -> Distractor:
    height, width = size
    wide = _frozen((height, 2 * width), seed)
    rng = np.random.default_rng([seed, 63])
    step = speed * float(rng.uniform(1.2, 3.5)) * height / 360.0

    def shot(time: float) -> Frame:
        # There and back, so that a long clip never runs off the picture.
        x = (step * time) % (2.0 * width)
        x = min(x, 2.0 * width - x)
        return _look(wide, size, x, 0.0, 0.0)

    return _silent(shot, size)


def _look(picture: Frame, size: _Size, x: float, y: float, turn: float) -> Frame:
    """The part of a picture at an offset in pixels, turned by `turn` radians about its centre."""
    height, width = size
    c, s = np.cos(turn), np.sin(turn)
    cx, cy = 0.5 * width, 0.5 * height
    matrix = np.array([[c, -s, x + cx - c * cx + s * cy], [s, c, y + cy - s * cx - c * cy]])
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    out = cv2.warpAffine(picture, matrix, (width, height), flags=flags, borderMode=cv2.BORDER_REFLECT)
    return np.asarray(out, np.uint8)


def _handheld(size: _Size, seed: int, speed: float) -> Distractor:
    """A river held in a trembling hand; the motion is that of frame 0's view."""
    film = _film(draw_river(size, seed, speed))
    rng = np.random.default_rng([seed, 64])
    rates = 2.0 * np.pi / rng.uniform(11.0, 70.0, (3, 4))
    phases = rng.uniform(0.0, 6.28, (3, 4))
    reach = np.array([2.2, 1.8, 0.004]) * np.array([size[0] / 360.0, size[0] / 360.0, 1.0])

    def shot(time: float) -> Frame:
        x, y, turn = (np.sin(rates * time + phases) - np.sin(phases)).mean(axis=1) * reach * 1.5
        return _look(film.shot(time), size, float(x), float(y), float(turn))

    return replace(film, shot=shot)


def _cut(size: _Size, seed: int, speed: float) -> Distractor:
    first, second = _film(draw_river(size, seed, speed)), _film(draw_sea(size, seed + 1, speed))
    when = float(np.random.default_rng([seed, 65]).integers(25, 45))
    return replace(first, shot=lambda time: (first if time < when else second).shot(time))


def _fade(size: _Size, seed: int, speed: float) -> Distractor:
    film = _film(draw_sea(size, seed, speed))

    def shot(time: float) -> Frame:
        light = float(np.clip(1.0 - abs(time - 45.0) / 45.0, 0.0, 1.0))
        return np.asarray(np.rint(film.shot(time) * light), np.uint8)

    return replace(film, shot=shot)


def _slideshow(size: _Size, seed: int, _speed: float) -> Distractor:
    slides = [_frozen(size, seed + n) for n in range(3)]
    hold, blend = 24, 8

    def shot(time: float) -> Frame:
        index, rest = divmod(time, hold)
        now, later = slides[int(index) % 3], slides[(int(index) + 1) % 3]
        share = max(0.0, (rest - (hold - blend)) / blend)
        return np.asarray(np.rint(now * (1.0 - share) + later * share), np.uint8)

    return _silent(shot, size)


def _letterbox(size: _Size, seed: int, speed: float) -> Distractor:
    film = _film(draw_sea(size, seed, speed))
    bar = round(size[0] * float(np.random.default_rng([seed, 66]).uniform(0.10, 0.16)))
    open_rows = np.zeros((size[0], 1), bool)
    open_rows[bar:-bar] = True

    def shot(time: float) -> Frame:
        return np.where(open_rows[..., None], film.shot(time), np.uint8(0))

    return Distractor(shot=shot, motion=film.motion * open_rows, moving=film.moving & open_rows)


def _titled(size: _Size, seed: int, speed: float) -> Distractor:
    film = _film(draw_clouds(size, seed, speed))
    scale = size[0] / 360.0
    written = np.zeros(size, np.uint8)
    for text, row, letter in (("THE QUIET SKY", 0.42, 2.0), ("A FILM ABOUT WEATHER", 0.58, 1.0)):
        thick = max(1, round(3.5 * scale * letter / 2.0))
        (wide, _), _ = cv2.getTextSize(text, cv2.FONT_HERSHEY_DUPLEX, letter * scale, thick)
        place = (int((size[1] - wide) / 2), int(row * size[0]))
        cv2.putText(written, text, place, cv2.FONT_HERSHEY_DUPLEX, letter * scale, 255, thick, cv2.LINE_AA)
    ink = (written / 255.0)[..., None]

    def shot(time: float) -> Frame:
        return np.asarray(np.rint(film.shot(time) * (1.0 - ink) + 245.0 * ink), np.uint8)

    free = written == 0
    return Distractor(shot=shot, motion=film.motion * free, moving=film.moving & free)


def _dark(size: _Size, seed: int, speed: float) -> Distractor:
    film = _film(draw_river(size, seed, speed, moods=("moonlight",)))
    return replace(film, shot=lambda time: np.asarray(np.rint(film.shot(time) * 0.10), np.uint8))


_DRAWERS: dict[str, _Draw] = {
    "vehicle": _crowd(draw_car, 4, 0.11, 5.0),
    "people": _crowd(draw_walker, 6, 0.30, 1.6),
    "animal": _crowd(draw_animal, 5, 0.17, 2.0),
    "swaying_plants": _swaying,
    "still": _still,
    "panning_camera": _panning,
    "handheld_river": _handheld,
    "cut": _cut,
    "fade": _fade,
    "slideshow": _slideshow,
    "letterbox_sea": _letterbox,
    "titled_clouds": _titled,
    "dark_river": _dark,
}
DISTRACTORS = tuple(_DRAWERS)


def draw_distractor(kind: str, size: tuple[int, int], seed: int, speed: float) -> Distractor:
    """Draw one of DISTRACTORS at (height, width)."""
    return _DRAWERS[kind](size, seed, speed)
