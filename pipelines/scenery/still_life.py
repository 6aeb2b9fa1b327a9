"""Still lifes: pictures in which nothing flows, from which a motion network learns to leave well alone.

House fronts, rooms, boulders, objects on a table, patterns and plain cards: the same surfaces that noise
paints on water and cloud, on things that stand. A seed fixes everything.
"""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
from numpy.typing import NDArray

from pipelines.scenery import noise

__all__ = ["STILL_LIFES", "draw_still_life"]

Frame = NDArray[np.uint8]
Floats = NDArray[np.float32]
Colour = tuple[float, float, float]
_Size = tuple[int, int]


def draw_still_life(kind: str, size: _Size, seed: int) -> Frame:
    """A picture of one of STILL_LIFES at (height, width), uint8 RGB."""
    rng = np.random.default_rng((seed, STILL_LIFES.index(kind)))
    image = _DRAWERS[kind](size, rng)
    image = np.asarray(cv2.GaussianBlur(image, (0, 0), rng.uniform(0.4, 0.9)), np.float32)
    image += rng.normal(0.0, rng.uniform(0.5, 3.0), (*size, 1)).astype(np.float32)
    return np.asarray(np.clip(image * _light(size, rng), 0, 255).round(), np.uint8)


def _light(size: _Size, rng: np.random.Generator) -> Floats:
    """Brightness falling off towards one side."""
    y, x = _grid(size)
    angle = rng.uniform(0, 2 * np.pi)
    slope = rng.uniform(0.0, 0.5) * (np.cos(angle) * (x - x.mean()) + np.sin(angle) * (y - y.mean()))
    return np.asarray(1.0 + slope, np.float32)[..., None]


def _grid(size: _Size) -> tuple[Floats, Floats]:
    """Rows and columns in picture heights."""
    y, x = np.mgrid[0 : size[0], 0 : size[1]].astype(np.float32) / size[0]
    return y, x


def _colour(rng: np.random.Generator, low: float = 20, high: float = 235, cast: float = 35) -> Colour:
    """Mostly greyish, sometimes strong."""
    grey = rng.uniform(low, high)
    if rng.random() < 0.25:
        cast *= 3
    red, green, blue = np.clip(grey + rng.uniform(-cast, cast, 3), 0, 255)
    return float(red), float(green), float(blue)


def _surface(size: _Size, rng: np.random.Generator, colour: Colour) -> Floats:
    """Plaster, stone, wood, cloth: noise stretched one way or neither over a colour."""
    y, x = _grid(size)
    stretch = float(np.exp(rng.normal(0.0, 0.9)))
    grain = noise.fractal(
        x * rng.uniform(2, 30) * stretch,
        y * rng.uniform(2, 30) / stretch,
        seed=int(rng.integers(1 << 20)),
        octaves=6,
        gain=rng.uniform(0.4, 0.75),
        style=str(rng.choice(["plain", "ridged", "billow"])),  # type: ignore[arg-type]
    )
    return np.asarray(
        np.array(colour, np.float32) * (1.0 + rng.uniform(0.0, 0.3) * grain[..., None]), np.float32
    )


def _tilted(image: Floats, rng: np.random.Generator, most: float = 0.2) -> Floats:
    """Seen from the side: a random perspective."""
    height, width = image.shape[:2]
    corners = np.array([[0, 0], [width, 0], [width, height], [0, height]], np.float32)
    moved = corners + rng.uniform(-most, most, (4, 2)).astype(np.float32) * (width, height)
    matrix = cv2.getPerspectiveTransform(corners, moved.astype(np.float32))
    return np.asarray(cv2.warpPerspective(image, matrix, (width, height), borderMode=cv2.BORDER_REFLECT))


def _front(size: _Size, rng: np.random.Generator) -> Floats:
    """A house front: rows of windows, some lit, with frames and sills; or bricks alone."""
    image = _surface(size, rng, _colour(rng))
    if rng.random() < 0.4:
        _bricks(image, rng)
    rows, columns = int(rng.integers(1, 9)), int(rng.integers(1, 12))
    cell_h, cell_w = size[0] / rows, size[1] / columns
    pane_h, pane_w = rng.uniform(0.35, 0.85) * cell_h, rng.uniform(0.3, 0.85) * cell_w
    frame, glass, lit = _colour(rng), _colour(rng, 10, 160), _colour(rng, 150, 255)
    thick = max(int(0.05 * min(pane_h, pane_w)), 1)
    for row in range(rows):
        for column in range(columns):
            left, top = int((column + 0.5) * cell_w - pane_w / 2), int((row + 0.5) * cell_h - pane_h / 2)
            right, bottom = int(left + pane_w), int(top + pane_h)
            pane = lit if rng.random() < 0.15 else glass
            cv2.rectangle(image, (left, top), (right, bottom), pane, -1)
            cv2.rectangle(image, (left, top), (right, bottom), frame, thick)
            cv2.line(image, ((left + right) // 2, top), ((left + right) // 2, bottom), frame, thick)
    return _tilted(image, rng)


def _bricks(image: Floats, rng: np.random.Generator) -> None:
    height, width = image.shape[:2]
    course = max(int(height * rng.uniform(0.02, 0.08)), 3)
    mortar = _colour(rng, 90, 220)
    for row, top in enumerate(range(0, height, course)):
        cv2.line(image, (0, top), (width, top), mortar, 1)
        for left in range((row % 2) * course, width, 2 * course):
            cv2.line(image, (left, top), (left, top + course), mortar, 1)


def _room(size: _Size, rng: np.random.Generator) -> Floats:
    """Walls, floor and ceiling that meet in corners, with furniture and pictures in it."""
    height, width = size
    image = _surface(size, rng, _colour(rng, 90, 230))
    left, right = int(width * rng.uniform(0.1, 0.35)), int(width * rng.uniform(0.65, 0.9))
    top, bottom = int(height * rng.uniform(0.05, 0.25)), int(height * rng.uniform(0.55, 0.8))
    floor = _surface(size, rng, _colour(rng, 40, 180))
    mask = np.zeros(size, np.uint8)
    cv2.fillPoly(mask, [np.array([[0, height], [left, bottom], [right, bottom], [width, height]])], 1)
    image[mask > 0] = floor[mask > 0]
    edge = _colour(rng, 20, 120)
    for corner, end in (((left, top), (0, 0)), ((right, top), (width, 0)), ((left, bottom), (0, height))):
        cv2.line(image, corner, end, edge, 1, cv2.LINE_AA)
    cv2.rectangle(image, (left, top), (right, bottom), edge, 1)
    for _ in range(int(rng.integers(2, 9))):
        x, y = int(rng.uniform(0, width)), int(rng.uniform(top, height))
        far = (x + int(width * rng.uniform(0.04, 0.3)), y + int(height * rng.uniform(0.05, 0.35)))
        cv2.rectangle(image, (x, y), far, _colour(rng), -1)
        cv2.rectangle(image, (x, y), far, edge, 1)
    return image


def _objects(size: _Size, rng: np.random.Generator) -> Floats:
    """Round and angular bodies with shading, and their shadows, on a plain or patterned ground."""
    height, width = size
    image = _surface(size, rng, _colour(rng))
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    for _ in range(int(rng.integers(1, 12))):
        radius = height * np.exp(rng.uniform(np.log(0.04), np.log(0.4)))
        flat, centre = rng.uniform(0.5, 1.8), (rng.uniform(0, width), rng.uniform(0.2, 1.0) * height)
        power = float(rng.choice([2.0, 2.0, 4.0, 12.0]))  # ellipse, cushion, box
        across, down = (x - centre[0]) / radius, (y - centre[1]) / (radius * flat)
        distance = (np.abs(across) ** power + np.abs(down) ** power) ** (1 / power)
        shadow = np.clip(1.4 - distance, 0, 1)[..., None] * rng.uniform(0.1, 0.6)
        image *= 1 - shadow
        inside = np.clip((1 - distance) * radius / 1.5, 0, 1)[..., None]
        shade = 1.0 - rng.uniform(0.1, 0.6) * (0.5 + 0.5 * (across + down))[..., None]
        body = _surface(size, rng, _colour(rng)) * np.clip(shade, 0.2, 1.5)
        image = image * (1 - inside) + body * inside
    return np.asarray(image, np.float32)


def _boulders(size: _Size, rng: np.random.Generator) -> Floats:
    """Stones, gravel or a rock face close up."""
    y, x = _grid(size)
    scale = float(np.exp(rng.uniform(np.log(3), np.log(25))))
    warp = 0.15 * noise.fractal(x * scale / 2, y * scale / 2, seed=int(rng.integers(1 << 20)))
    near, label = noise.cells(x * scale + warp, y * scale + warp, seed=int(rng.integers(1 << 20)))
    shade = np.clip(1.15 - near, 0.15, 1.0) * (0.6 + 0.6 * label)
    return np.asarray(_surface(size, rng, _colour(rng, 60, 200)) * shade[..., None], np.float32)


def _pattern(size: _Size, rng: np.random.Generator) -> Floats:
    """Stripes, checks, tiles, lines of writing."""
    y, x = _grid(size)
    angle, period = rng.uniform(0, np.pi), rng.uniform(0.03, 0.3)
    along = (np.cos(angle) * x + np.sin(angle) * y) / period
    across = (np.cos(angle) * y - np.sin(angle) * x) / period * rng.uniform(0.2, 1.5)
    kind = int(rng.integers(3))
    if kind == 0:
        chosen = (along % 1.0) < rng.uniform(0.2, 0.8)
    elif kind == 1:
        chosen = ((along // 1) + (across // 1)) % 2 == 0
    else:
        words = noise.hash_floats(size, seed=int(rng.integers(1 << 20)))
        ink = words[: size[0] // 6, : size[1] // 10]
        letters = cv2.resize(ink, size[::-1], interpolation=cv2.INTER_NEAREST)
        chosen = ((y / period) % 1.0 < 0.5) & (np.asarray(letters) > 0.35)
    one, other = (_surface(size, rng, _colour(rng)) for _ in range(2))
    return np.asarray(np.where(chosen[..., None], one, other), np.float32)


def _card(size: _Size, rng: np.random.Generator) -> Floats:
    """A plain card, or one colour going over into another."""
    y, x = _grid(size)
    angle = rng.uniform(0, 2 * np.pi)
    share = np.clip(0.5 + (np.cos(angle) * (x - x.mean()) + np.sin(angle) * (y - y.mean())), 0, 1)
    one, other = np.array(_colour(rng), np.float32), np.array(_colour(rng), np.float32)
    if rng.random() < 0.5:
        other = one
    return np.asarray(one + (other - one) * share[..., None], np.float32)


_DRAWERS: dict[str, Callable[[_Size, np.random.Generator], Floats]] = {
    "front": _front,
    "room": _room,
    "objects": _objects,
    "boulders": _boulders,
    "pattern": _pattern,
    "card": _card,
}
STILL_LIFES = tuple(_DRAWERS)
