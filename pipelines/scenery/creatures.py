"""Creatures: vehicles, walkers, animals and reeds, drawn over a picture at a time in frames.

They move as solids and limbs do, not as fluids: what the fluid score must tell apart. Shapes are given in
units of their own height and drawn with 1/16 pixel accuracy, so slow motion is smooth.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

__all__ = ["Actor", "choose_actors", "draw_animal", "draw_car", "draw_reeds", "draw_walker"]

Frame = NDArray[np.uint8]
Colour = tuple[int, int, int]
_SHIFT = 4  # fractional bits of cv2's drawing coordinates


@dataclass(frozen=True, kw_only=True, slots=True)
class Actor:
    """Something that crosses the picture: foot position at time 0, height and speed in pixels."""

    x: float
    y: float
    tall: float
    speed: float
    colour: Colour
    phase: float

    def place(self, time: float, width: int) -> float:
        """Its column at a time; it comes back on the other side after leaving."""
        margin = 3.0 * self.tall
        span = width + 2.0 * margin
        return (self.x + self.speed * time + margin) % span - margin


def choose_actors(
    rng: np.random.Generator, size: tuple[int, int], *, count: int, tall: float, speed: float
) -> list[Actor]:
    """Actors along the lower part of the picture, small ones above, all going one way."""
    height, width = size
    way = -1.0 if rng.random() < 0.5 else 1.0
    depths = np.sort(rng.uniform(0.74, 0.96, count))
    actors = []
    for index, depth in enumerate(depths):
        scale = (depth - 0.45) / 0.5 * height
        actors.append(
            Actor(
                x=float((index + rng.uniform(0.1, 0.9)) * width / count),
                y=float(depth * height),
                tall=float(tall * scale * rng.uniform(0.85, 1.15)),
                speed=float(way * speed * scale / 360.0 * rng.uniform(0.8, 1.2)),
                colour=(int(rng.integers(20, 230)), int(rng.integers(20, 200)), int(rng.integers(20, 230))),
                phase=float(rng.uniform(0.0, 6.28)),
            )
        )
    return actors


def _points(points: Sequence[tuple[float, float]], x: float, y: float, scale: float) -> NDArray[np.int32]:
    """Shape coordinates (right, up) in heights to cv2's fixed-point pixels."""
    array = np.array(points, np.float64)
    pixels = np.stack([x + array[:, 0] * scale, y - array[:, 1] * scale], axis=1)
    return np.asarray(np.rint(pixels * (1 << _SHIFT)), np.int32)


def _fill(frame: Frame, points: NDArray[np.int32], colour: Colour) -> None:
    cv2.fillPoly(frame, [points], colour, lineType=cv2.LINE_AA, shift=_SHIFT)


def _disc(frame: Frame, centre: NDArray[np.int32], radius: float, colour: Colour) -> None:
    place = (int(centre[0]), int(centre[1]))
    cv2.circle(frame, place, int(radius * (1 << _SHIFT)), colour, -1, cv2.LINE_AA, _SHIFT)


def _limb(frame: Frame, points: NDArray[np.int32], thick: float, colour: Colour) -> None:
    cv2.polylines(frame, [points], False, colour, max(1, round(thick)), cv2.LINE_AA, _SHIFT)


def _dark(colour: Colour, share: float = 0.5) -> Colour:
    r, g, b = (int(c * share) for c in colour)
    return (r, g, b)


def draw_car(frame: Frame, actor: Actor, time: float) -> None:
    """A car: one rigid body on wheels."""
    x, y, s = actor.place(time, frame.shape[1]), actor.y, actor.tall
    body = [
        (-1.3, 0.15),
        (-1.3, 0.55),
        (-0.75, 0.62),
        (-0.45, 1.0),
        (0.4, 1.0),
        (0.75, 0.6),
        (1.3, 0.5),
        (1.3, 0.15),
    ]
    _fill(frame, _points(body, x, y, s), actor.colour)
    _fill(frame, _points([(-0.62, 0.62), (-0.4, 0.92), (0.0, 0.92), (0.0, 0.62)], x, y, s), (60, 75, 90))
    _fill(frame, _points([(0.08, 0.62), (0.08, 0.92), (0.36, 0.92), (0.6, 0.62)], x, y, s), (60, 75, 90))
    _fill(
        frame, _points([(-1.3, 0.15), (-1.3, 0.28), (1.3, 0.28), (1.3, 0.15)], x, y, s), _dark(actor.colour)
    )
    for wheel in (-0.75, 0.75):
        centre = _points([(wheel, 0.18)], x, y, s)[0]
        _disc(frame, centre, 0.21 * s, (18, 18, 20))
        _disc(frame, centre, 0.10 * s, (150, 150, 155))


def draw_walker(frame: Frame, actor: Actor, time: float) -> None:
    """A walking person: swinging legs and arms under a gliding body."""
    x, y, s = actor.place(time, frame.shape[1]), actor.y, actor.tall
    # One stride covers 0.8 of a height, so the feet do not slide over the ground.
    stride = actor.phase + 2.0 * np.pi * actor.speed * time / (0.8 * s)
    bob = 0.015 * abs(np.sin(stride))
    trousers, coat = _dark(actor.colour, 0.35), actor.colour
    for side in (0.0, np.pi):
        swing = np.sin(stride + side)
        lift = 0.07 * max(0.0, np.cos(stride + side))
        leg = [(0.0, 0.50 + bob), (0.11 * swing + 0.03, 0.26 + lift), (0.22 * swing, lift)]
        _limb(frame, _points(leg, x, y, s), 0.085 * s, trousers)
        arm = [(0.0, 0.80 + bob), (-0.09 * swing, 0.62), (-0.17 * swing + 0.03, 0.48)]
        _limb(frame, _points(arm, x, y, s), 0.06 * s, _dark(coat, 0.8))
    _limb(frame, _points([(0.0, 0.50 + bob), (0.0, 0.80 + bob)], x, y, s), 0.17 * s, coat)
    _disc(frame, _points([(0.01, 0.93 + bob)], x, y, s)[0], 0.075 * s, (196, 150, 120))


def draw_animal(frame: Frame, actor: Actor, time: float) -> None:
    """A four-legged animal: trotting legs, nodding head, wagging tail."""
    x, y, s = actor.place(time, frame.shape[1]), actor.y, actor.tall
    ahead = 1.0 if actor.speed > 0 else -1.0
    stride = actor.phase + 2.0 * np.pi * abs(actor.speed) * time / (0.9 * s)
    coat, legs = actor.colour, _dark(actor.colour, 0.6)
    for hip, lag in ((-0.55, 0.0), (-0.45, np.pi), (0.45, np.pi), (0.55, 0.0)):
        swing = np.sin(stride + lag)
        lift = 0.08 * max(0.0, np.cos(stride + lag))
        leg = [
            (ahead * hip, 0.55),
            (ahead * (hip + 0.08 * swing), 0.28 + lift),
            (ahead * (hip + 0.2 * swing), lift),
        ]
        _limb(frame, _points(leg, x, y, s), 0.09 * s, legs)
    nod = 0.04 * np.sin(2.0 * stride)
    _limb(frame, _points([(-0.5 * ahead, 0.66), (0.5 * ahead, 0.68)], x, y, s), 0.34 * s, coat)
    _limb(frame, _points([(0.55 * ahead, 0.7), (0.85 * ahead, 0.98 + nod)], x, y, s), 0.16 * s, coat)
    _limb(frame, _points([(0.85 * ahead, 0.98 + nod), (1.08 * ahead, 0.9 + nod)], x, y, s), 0.15 * s, coat)
    wag = 0.1 * np.sin(1.3 * stride)
    _limb(frame, _points([(-0.62 * ahead, 0.72), (-0.82 * ahead, 0.5 + wag)], x, y, s), 0.05 * s, legs)


def draw_reeds(frame: Frame, rng: np.random.Generator, time: float) -> None:
    """Reeds along the lower edge that sway to and fro and come back: the mean of their motion is none."""
    height, width = frame.shape[:2]
    count = 260
    roots = rng.uniform(-0.02, 1.02, count) * width
    order = np.argsort(rng.random(count))
    tall = height * rng.uniform(0.22, 0.62, count)
    green = rng.uniform(0.5, 1.2, count)
    own = rng.uniform(-0.12, 0.12, count)
    lag = roots / width * 5.0 + rng.uniform(-0.4, 0.4, count)
    t = np.linspace(0.0, 1.0, 12)
    for n in order:
        sway = 0.16 * np.sin(2.0 * np.pi * time / 44.0 + lag[n]) + 0.05 * np.sin(
            2.0 * np.pi * time / 17.0 + 3 * lag[n]
        )
        x = roots[n] + tall[n] * (own[n] * t + (own[n] + sway) * t**2)
        y = height + 2.0 - tall[n] * (t - 0.12 * sway * sway * t**2)
        points = np.rint(np.stack([x, y], axis=1) * (1 << _SHIFT)).astype(np.int32)
        shade = green[n]
        colour = (int(58 * shade), int(92 * shade), int(34 * shade))
        cv2.polylines(frame, [points], False, colour, max(1, round(height / 130)), cv2.LINE_AA, _SHIFT)
        if n % 4 == 0:
            _limb(frame, points[-3:], height / 55, (int(96 * shade), int(66 * shade), int(36 * shade)))
