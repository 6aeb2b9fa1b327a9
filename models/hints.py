"""What a person says about the motion of one photo: arrows, moving and frozen areas, speed.

A hints file is JSON in relative coordinates (0…1, x right, y down): one file serves a photo at every size:

    {"arrows": [{"from": [0.2, 0.5], "to": [0.4, 0.6], "seconds": 2}],
     "moving": [[[0, 0.4], [1, 0.4], [1, 1], [0, 1]]],
     "frozen": [[[0.4, 0.5], [0.5, 0.5], [0.45, 0.7]]],
     "speed": 1.0}

An arrow says that what is seen at `from` reaches `to` after `seconds`.
Shape legend: K hints, 2 = (x, y), H rows, W columns.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from storage.errors import ItemError
from storage.reasons import Reason

__all__ = [
    "ARROW_SECONDS",
    "HINTS_SCHEMA",
    "Arrow",
    "Hints",
    "arrow_samples",
    "hint_channels",
    "parse_hints",
]

Point = tuple[float, float]
Polygon = tuple[Point, ...]

MOTION_FPS = 30.0  # the frame rate in which motion fields are expressed
ARROW_SECONDS = 2.0  # an arrow without a time covers its length in two seconds
BLUR_SHARE = 0.03  # standard deviation of a hint's blob, as a share of the longer side
MAX_ARROWS = 100
MAX_POLYGONS = 100
MAX_POINTS = 10_000
MAX_FILE_BYTES = 4_000_000
MAX_COMPLAINTS = 5


@dataclass(frozen=True, kw_only=True, slots=True)
class Arrow:
    """What is seen at `start` reaches `end` after `seconds`; both in relative coordinates (x, y)."""

    start: Point
    end: Point
    seconds: float = ARROW_SECONDS

    def velocity(self, size_HW: tuple[int, int]) -> Point:
        """Velocity (dx, dy) in pixels per frame at 30 frames per second in a picture of `size_HW`."""
        height, width = size_HW
        frames = self.seconds * MOTION_FPS
        return (
            (self.end[0] - self.start[0]) * width / frames,
            (self.end[1] - self.start[1]) * height / frames,
        )


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Hints:
    """Everything a person said about one photo. Masks are uint8 pictures of any size, 255 = yes."""

    arrows: tuple[Arrow, ...] = ()
    moving: tuple[Polygon, ...] = ()
    frozen: tuple[Polygon, ...] = ()
    speed: float = 1.0
    moving_mask_HW: NDArray[np.uint8] | None = None
    frozen_mask_HW: NDArray[np.uint8] | None = None

    @property
    def says_where(self) -> bool:
        """True when the moving area is given by a person, so that the network's own is not used."""
        return bool(self.moving) or self.moving_mask_HW is not None


def arrow_samples(
    arrows: Sequence[Arrow], size_HW: tuple[int, int], *, per_arrow: int = 3
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Points along every arrow: positions_K2 (relative x, y) and velocities_K2 (pixels per frame)."""
    shares = np.linspace(0.0, 1.0, per_arrow) if per_arrow > 1 else np.array([0.5])
    positions = [
        (a.start[0] + s * (a.end[0] - a.start[0]), a.start[1] + s * (a.end[1] - a.start[1]))
        for a in arrows
        for s in shares
    ]
    velocities = [a.velocity(size_HW) for a in arrows for _ in shares]
    return (
        np.array(positions, np.float32).reshape(-1, 2),
        np.array(velocities, np.float32).reshape(-1, 2),
    )


def hint_channels(
    positions_K2: NDArray[Any], velocities_K2: NDArray[Any], size_HW: tuple[int, int]
) -> NDArray[np.float32]:
    """Draw sparse hints as channels for the network: (3, H, W) float32 of dx, dy and presence.

    Positions are relative (x, y) in 0…1, velocities pixels per frame at `size_HW`. Presence is a Gaussian
    blob, 1 at the hint; dx and dy are the mean velocity of the hints near a pixel, times presence.
    All zero without hints.
    """
    height, width = size_HW
    channels = np.zeros((3, height, width), np.float32)
    if len(positions_K2) == 0:
        return channels
    sigma = max(BLUR_SHARE * max(height, width), 1.0)
    rows = np.arange(height, dtype=np.float32)
    columns = np.arange(width, dtype=np.float32)
    weight = np.zeros((height, width), np.float32)
    for (x, y), (dx, dy) in zip(positions_K2, velocities_K2, strict=True):
        across = np.exp(-0.5 * ((columns - x * (width - 1)) / sigma) ** 2)
        down = np.exp(-0.5 * ((rows - y * (height - 1)) / sigma) ** 2)
        blob = np.outer(down, across).astype(np.float32)
        channels[0] += blob * np.float32(dx)
        channels[1] += blob * np.float32(dy)
        weight += blob
        np.maximum(channels[2], blob, out=channels[2])
    channels[:2] *= channels[2] / np.maximum(weight, 1e-12)
    return channels


_POINT = {
    "type": "array",
    "items": {"type": "number", "minimum": 0, "maximum": 1},
    "minItems": 2,
    "maxItems": 2,
    "description": "[x, y] in 0…1, x to the right, y down",
}
_POLYGONS = {
    "type": "array",
    "maxItems": MAX_POLYGONS,
    "items": {"type": "array", "items": _POINT, "minItems": 3, "maxItems": MAX_POINTS},
}
HINTS_SCHEMA: dict[str, Any] = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "title": "Stillstream hints",
    "description": "What a person says about the motion of one photo, in coordinates relative to its size.",
    "type": "object",
    "additionalProperties": False,
    "properties": {
        "arrows": {
            "description": "what is seen at `from` reaches `to` after `seconds`",
            "type": "array",
            "maxItems": MAX_ARROWS,
            "items": {
                "type": "object",
                "additionalProperties": False,
                "required": ["from", "to"],
                "properties": {
                    "from": _POINT,
                    "to": _POINT,
                    "seconds": {"type": "number", "minimum": 0.1, "maximum": 60, "default": ARROW_SECONDS},
                },
            },
        },
        "moving": {**_POLYGONS, "description": "only what lies inside these areas moves"},
        "frozen": {
            **_POLYGONS,
            "description": "what lies inside these areas never moves, whatever else is said",
        },
        "speed": {
            "description": "multiplies every speed",
            "type": "number",
            "minimum": 0.05,
            "maximum": 10,
            "default": 1.0,
        },
    },
}


def parse_hints(data: bytes) -> Hints:
    """Read a hints file. Raises ItemError (bad_hints) that names every wrong place, at most five of them."""
    if len(data) > MAX_FILE_BYTES:
        raise ItemError(
            f"hints file: expected at most {MAX_FILE_BYTES} bytes, got {len(data)}", reason=Reason.BAD_HINTS
        )
    try:
        content = json.loads(data)
    except (ValueError, RecursionError) as exc:
        raise ItemError(f"hints file is not JSON: {exc}", reason=Reason.BAD_HINTS) from exc
    complaints: list[str] = []
    _check(content, HINTS_SCHEMA, "", complaints)
    if not complaints:
        _check_lengths(content, complaints)
    if complaints:
        more = f"; and {len(complaints) - MAX_COMPLAINTS} more" if len(complaints) > MAX_COMPLAINTS else ""
        raise ItemError("hints: " + "; ".join(complaints[:MAX_COMPLAINTS]) + more, reason=Reason.BAD_HINTS)
    return Hints(
        arrows=tuple(_arrow(arrow) for arrow in content.get("arrows", [])),
        moving=tuple(_polygon(points) for points in content.get("moving", [])),
        frozen=tuple(_polygon(points) for points in content.get("frozen", [])),
        speed=float(content.get("speed", 1.0)),
    )


def _arrow(arrow: dict[str, Any]) -> Arrow:
    (x0, y0), (x1, y1) = arrow["from"], arrow["to"]
    seconds = float(arrow.get("seconds", ARROW_SECONDS))
    return Arrow(start=(float(x0), float(y0)), end=(float(x1), float(y1)), seconds=seconds)


def _polygon(points: list[list[float]]) -> Polygon:
    return tuple((float(x), float(y)) for x, y in points)


def _check_lengths(content: dict[str, Any], complaints: list[str]) -> None:
    """An arrow needs a direction: a schema cannot say that its ends differ."""
    for index, arrow in enumerate(content.get("arrows", [])):
        if arrow["from"] == arrow["to"]:
            complaints.append(f"arrows[{index}]: expected two different points, got {arrow['from']} twice")


def _check(value: Any, schema: dict[str, Any], place: str, complaints: list[str]) -> None:
    """The few JSON Schema keywords that HINTS_SCHEMA uses; messages say place, expectation and value."""
    where = place or "the file"
    if schema["type"] == "number":
        _check_number(value, schema, where, complaints)
    elif schema["type"] == "array":
        low, high = schema.get("minItems", 0), schema["maxItems"]
        if not isinstance(value, list):
            complaints.append(f"{where}: expected a list, got {_show(value)}")
        elif not low <= len(value) <= high:
            wanted = str(low) if low == high else f"{low} to {high}"
            complaints.append(f"{where}: expected {wanted} entries, got {len(value)}")
        else:
            for index, item in enumerate(value):
                _check(item, schema["items"], f"{place}[{index}]", complaints)
    elif not isinstance(value, dict):
        complaints.append(f"{where}: expected an object, got {_show(value)}")
    else:
        _check_object(value, schema, place, complaints)


def _check_object(value: dict[str, Any], schema: dict[str, Any], place: str, complaints: list[str]) -> None:
    known = schema["properties"]
    complaints.extend(
        f"{place or 'the file'}: {name!r} is missing"
        for name in schema.get("required", [])
        if name not in value
    )
    for name, item in value.items():
        if name not in known:
            complaints.append(
                f"{place or 'the file'}: unknown name {name[:40]!r}, expected {', '.join(known)}"
            )
        else:
            _check(item, known[name], f"{place}.{name}" if place else name, complaints)


def _check_number(value: Any, schema: dict[str, Any], where: str, complaints: list[str]) -> None:
    low, high = schema["minimum"], schema["maximum"]
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not low <= value <= high:  # a NaN fails the comparison, too
        complaints.append(f"{where}: expected a number in {low:g}…{high:g}, got {_show(value)}")


def _show(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else text[:57] + "…"
