"""Waterfall: water falls over a cliff into a pool and leaves it as a stream.

Letters: P falling pixels, H and W of the picture.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numba import njit
from numpy.typing import NDArray

from pipelines.scenery import noise
from pipelines.scenery.land import Land, choose_biome, compose_land
from pipelines.scenery.light import choose_light, smoothstep
from pipelines.scenery.picture import Paint, Picture, make_picture
from pipelines.scenery.stream import Rapids, Stream, fill_stream
from pipelines.scenery.terrain import Camera
from pipelines.scenery.texture import Coordinates, lay_coordinates
from pipelines.scenery.water import WaterLook
from pipelines.scenery.waves import make_waves, sample_waves

__all__ = ["draw_waterfall"]

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]


@njit(cache=True)
def _fall(
    image: Floats,
    place: NDArray[np.int64],
    noises: tuple[Floats, Floats],
    colours: tuple[Floats, Floats],
    shape: tuple[Floats, Floats, Floats],
) -> None:
    """Paint P falling pixels: streaks, flecks; bright, dark; body, cover, mist."""
    streak, fleck = noises
    bright, dark = colours
    body, cover, mist = shape
    for p in range(place.size):
        n = 0.75 * streak[p] + 0.55 * fleck[p]
        a = min(1.0, max(0.0, body[p] + 0.38 * n)) * cover[p]
        light = min(1.1, max(0.0, 0.52 + 0.38 * n))
        light = light + (0.92 - light) * mist[p]
        q = place[p]
        for c in range(3):
            v = dark[c] + (bright[c] - dark[c]) * light
            image[q, c] += (v - image[q, c]) * a


@dataclass(frozen=True, kw_only=True, slots=True)
class _Cliff:
    """A cliff across the view with a notch through which the water comes; metres."""

    distance: float
    tall: float
    half: float  # half width of the fall
    bow: float
    stream: Stream
    seed: int

    @property
    def foot(self) -> float:
        return float(self.stream.centre(np.array(self.distance)))

    def height(self, x: Floats, z: Floats, foot: Floats) -> Floats:
        seed, half, tall = self.seed, self.half, self.tall
        wide = noise.fractal(x / 60.0, z / 60.0, seed=seed + 1, octaves=8, footprint=2.0 * foot / 60.0)
        crag = noise.fractal(x / 9.0, z / 9.0, seed=seed + 2, octaves=7, style="ridged", footprint=foot / 9.0)
        off = np.abs(x - self.foot)
        beside = smoothstep(0.75 * half, 1.9 * half, off)
        wall = self.distance + 1.0 - self.bow * (off / half) ** 2 + (6.0 * wide + 2.0 * crag) * beside
        wall = wall - 0.12 * off * smoothstep(half, 6 * half, off)
        # A steep but leaning face: its ledges and cracks are folds of one height field.
        lean = tall * (0.05 + 0.33 * beside)
        chips = noise.fractal(x / 3.2, z / 1.1, seed=seed + 4, octaves=6, gain=0.6, footprint=foot / 3.0)
        up = np.clip((z - wall) / lean + 0.13 * chips * beside, 0.0, 1.0)
        ledges = 2.0 * np.pi * (4.0 + 3.0 * wide)
        rise = np.clip(up + 0.75 * np.sin(ledges * up) / ledges, 0.0, 1.0)
        lip = smoothstep(1.5 * half, 0.85 * half, off)
        hill = 0.05 * np.clip(z - wall - 20.0, 0.0, 600.0)
        top = (tall * (1.0 + 0.10 * wide) + 3.0 * crag + hill) * (1.0 - lip) + tall * lip
        banks = 1.5 + 3.0 * (wide + 0.4) + 0.16 * np.clip(off - 2 * half, 0.0, None)
        near = self.stream.carve(x, z, banks.astype(np.float32), seed=seed, end=1e6)
        behind = np.maximum(near, 0.0) * (1 - rise) + top * rise
        return np.asarray(np.where(z < wall, near, behind), np.float32)


def _choose_cliff(rng: np.random.Generator, camera: Camera, seed: int) -> _Cliff:
    distance = camera.height * float(rng.uniform(7.0, 11.0))
    # As tall as leaves some sky above the cliff.
    tall = distance / camera.focal * camera.horizon * float(rng.uniform(0.50, 0.80)) + camera.height
    aside = float(rng.uniform(-0.26, 0.26)) * distance / camera.focal
    half = tall * float(rng.uniform(0.25, 0.50))
    stream = Stream(
        drift=0.0,
        bend=half * float(rng.uniform(-0.5, 0.5)),
        bend_length=distance * 0.5,
        phase=float(rng.uniform(0.0, 6.0)),
        start=aside,
        half_width=half * float(rng.uniform(1.15, 1.6)),
        widening=0.1,
    )
    boulders = []
    for _ in range(int(rng.integers(3, 12))):
        x = aside + half * float(rng.uniform(-2.2, 2.2))
        boulders.append((x, distance * float(rng.uniform(0.35, 0.97)), half * float(rng.uniform(0.06, 0.2))))
    return _Cliff(
        distance=distance,
        tall=tall,
        half=half,
        bow=0.06 * half * float(rng.uniform(-0.6, 2.2)),
        stream=replace(stream, boulders=tuple(boulders)),
        seed=seed,
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class _Drop:
    """The fall on the picture, pixels, and its speeds, px/frame: v^2 = begin^2 + 2 gravity h."""

    lip_row: float
    foot_row: float
    column: float
    half_px: float
    flare: float
    begin: float
    gravity: float

    @property
    def drop(self) -> float:
        return self.foot_row - self.lip_row

    def width(self, h: Doubles) -> Doubles:
        return np.asarray(self.half_px * (0.86 + self.flare * h / self.drop), np.float64)

    def mapping(self, px: Doubles, py: Doubles) -> tuple[Doubles, Doubles]:
        """Frames since the lip, and share of the half width."""
        h = py - self.lip_row
        v = np.sqrt(np.maximum(self.begin**2 + 2.0 * self.gravity * h, 1e-6))
        return (v - self.begin) / self.gravity, (px - self.column) / self.width(h)


def _choose_drop(rng: np.random.Generator, camera: Camera, cliff: _Cliff, speed: float) -> _Drop:
    lip = float(camera.row_of(cliff.tall, cliff.distance + 1.0 + 0.05 * cliff.tall))
    foot = float(camera.row_of(0.0, cliff.distance))
    fast = speed * float(rng.uniform(2.6, 5.4)) * camera.size[0] / 360.0
    begin = 0.42 * fast
    return _Drop(
        lip_row=lip,
        foot_row=foot,
        column=float(camera.column_of(cliff.foot, cliff.distance)),
        half_px=camera.focal_px * cliff.half / cliff.distance,
        flare=float(rng.uniform(0.02, 0.25)),
        begin=begin,
        gravity=(fast**2 - begin**2) / (2.0 * (foot - lip)),
    )


def _shape(drop: _Drop, fall: Coordinates, visible: Floats, seed: int) -> tuple[Floats, Floats, Floats]:
    """Body, cover and mist (P,): strands with gaps, ragged edges, spray near the foot."""
    y = np.nonzero(fall.pixels)[0]
    unit = fall.pixels.shape[0] / 360.0
    h, b = y - drop.lip_row, fall.b_P
    strands = noise.fractal(b * 3.5 + 7.0, h / drop.drop * 0.5, seed=seed + 7, octaves=4)
    ragged = noise.fractal(h / (16 * unit), np.sign(b) * 9.0, seed=seed + 8, octaves=4)
    edge = smoothstep(1.0, 0.92, np.abs(b) + 0.08 * ragged)
    cover = edge * smoothstep(-1.0 * unit, 2.0 * unit, h) * visible[fall.pixels]
    mist = 0.25 * np.exp(-(drop.foot_row - y) / (0.05 * drop.drop))
    return (0.80 + 0.30 * strands).astype(np.float32), cover.astype(np.float32), mist.astype(np.float32)


def _falling_painter(land: Land, fall: Coordinates, shape: tuple[Floats, Floats, Floats], seed: int) -> Paint:
    unit = land.camera.size[0] / 360.0
    streaks = make_waves(fall, [(60 * unit, 11 * unit), (34 * unit, 6.5 * unit)], seed=seed + 5, gain=1.0)
    lengths = [(20 * unit, 9 * unit), (10 * unit, 6 * unit)]
    if unit > 1.6:
        lengths += [(14 * unit, 3.2 * unit), (5 * unit, 2.6 * unit)]
    flecks = make_waves(fall, lengths, seed=seed + 6, gain=1.0)
    sun, ambient = np.array(land.light.sun, np.float32), np.array(land.light.ambient, np.float32)
    bright = (0.34 * sun + 0.95 * ambient).astype(np.float32)
    dark = (0.06 * sun + 0.30 * ambient).astype(np.float32)
    place = np.flatnonzero(fall.pixels)

    def paint(image: Floats, time: float) -> None:
        noises = (sample_waves(streaks, time), sample_waves(flecks, time))
        _fall(image.reshape(-1, 3), place, noises, (bright, dark), shape)

    return paint


def _veil(land: Land, drop: _Drop, thin_HW: NDArray[np.bool_]) -> Floats:
    """The still picture with mist hanging around the foot, thinner where water moves behind it."""
    size = land.camera.size
    y, x = np.mgrid[0 : size[0], 0 : size[1]].astype(np.float32)
    high = 0.11 * drop.drop + 6 * size[0] / 360.0
    away = np.hypot((x - drop.column) / (2.0 * drop.half_px), (y - drop.foot_row) / high)
    veil = (np.where(thin_HW, 0.35, 1.0) * 0.40 * np.exp(-(away**2)))[..., None]
    fog = 0.38 * np.array(land.light.sun) + np.array(land.light.ambient)
    return np.asarray(land.still_HW3 * (1 - veil) + fog * veil, np.float32)


def _country(rng: np.random.Generator, size: tuple[int, int], seed: int) -> tuple[Land, _Cliff]:
    moods = ("noon", "morning", "golden", "overcast", "storm", "dusk", "morning", "noon")
    names = ("alpine", "boreal", "summer", "autumn", "volcanic", "winter", "desert")
    light, biome = choose_light(rng, moods), choose_biome(rng, names)
    camera = Camera(
        size=size,
        horizon=float(rng.uniform(0.50, 0.66)),
        focal=float(rng.uniform(1.0, 1.35)),
        height=float(rng.uniform(7.0, 12.0)),
    )
    cliff = _choose_cliff(rng, camera, seed)
    land = compose_land(
        camera,
        cliff.height,
        light,
        replace(biome, tall=0.7 * biome.tall),
        seed=seed,
        wisps=float(rng.uniform(0.2, 0.8)),
        clear=lambda x, z, _foot: smoothstep(0.5, 6.0, cliff.stream.gap(x, z)),
        focus=(0.8 * cliff.distance, cliff.distance + 0.6 * cliff.tall),
    )
    return land, cliff


def draw_waterfall(size: tuple[int, int], seed: int, speed: float) -> Picture:
    """A waterfall scene; `speed` scales its default of 3 to 6 px/frame at the foot (at 360 rows)."""
    rng = np.random.default_rng([seed, 1])
    land, cliff = _country(rng, size, seed)
    camera = land.camera
    drop = _choose_drop(rng, camera, cliff, speed)
    y, x = np.mgrid[0 : size[0], 0 : size[1]].astype(np.float64)
    pool = (land.water_HW > 0.02) & (y > drop.foot_row - 1)
    run = speed * float(rng.uniform(1.5, 3.2)) * size[0] / 360.0
    water = lay_coordinates(cliff.stream.mapping(camera), pool, rate=(-1.0, 0.0), top_speed=run)
    away = np.hypot((x - drop.column) / (1.6 * drop.half_px), (y - drop.foot_row) / (0.10 * size[0]))
    rapids = Rapids(
        level=float(rng.uniform(0.2, 0.7)), extra_HW=(1.7 * np.exp(-(away**1.5))).astype(np.float32)
    )
    look = WaterLook(deep=(0.015, 0.07, 0.07), rough=1.2)
    basin = fill_stream(land, cliff.stream, water, look, rapids, seed=seed)

    visible = land.share_beyond(0.97 * cliff.distance)
    across = drop.mapping(x, y)[1]
    pixels = (y > drop.lip_row) & (y < drop.foot_row) & (np.abs(across) < 1.15) & (visible > 0.02)
    fall = lay_coordinates(drop.mapping, pixels, rate=(1.0, 0.0))
    shape = _shape(drop, fall, visible, seed)
    falling = _falling_painter(land, fall, shape, seed)

    def paint(image: Floats, time: float) -> None:
        basin.paint(image, time)
        falling(image, time)

    inside = np.zeros(size, bool)
    inside[pixels] = shape[1] > 0.5
    motion = np.where(inside, fall.motion_2HW, basin.motion_2HW)
    still = _veil(land, drop, basin.moving_HW | pixels)
    return make_picture(still, land.light, motion, basin.moving_HW | inside, paint, seed=seed)
