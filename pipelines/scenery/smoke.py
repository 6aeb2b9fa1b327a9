"""Smoke: a plume from a volcano or a wooded valley, rising, widening and bending with the wind.

Letters: P plume pixels, H and W of the picture.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numba import njit
from numpy.typing import NDArray

from pipelines.scenery import noise
from pipelines.scenery.land import Land, choose_biome, compose_land
from pipelines.scenery.light import Light, choose_light, smoothstep
from pipelines.scenery.picture import Paint, Picture, make_picture
from pipelines.scenery.terrain import Camera, Relief
from pipelines.scenery.texture import Coordinates, lay_coordinates
from pipelines.scenery.waves import make_waves, sample_waves, split_waves

__all__ = ["draw_smoke"]

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]


@njit(cache=True)
def _billow(
    image: Floats,
    place: NDArray[np.int64],
    noises: tuple[Floats, Floats],
    colours: tuple[Floats, Floats],
    shape: tuple[Floats, Floats, Floats],
) -> None:
    """Paint P plume pixels: density, how far it faces the sun; lit, shaded; profile, sunny side, cover."""
    density, facing = noises
    lit, shaded = colours
    profile, side, cover = shape
    for p in range(place.size):
        d = profile[p] + 0.36 * density[p]
        a = min(1.0, max(0.0, d / 0.85))
        a = a * a * (3.0 - 2.0 * a) * cover[p]
        if a <= 0.0:
            continue
        light = 0.46 + 0.36 * side[p] + 0.42 * facing[p] + 0.12 * density[p]
        light = min(1.1, max(0.0, light))
        q = place[p]
        for c in range(3):
            v = shaded[c] + (lit[c] - shaded[c]) * light
            image[q, c] += (v - image[q, c]) * a


@dataclass(frozen=True, kw_only=True, slots=True)
class _Source:
    """Where smoke leaves the ground: metres aside, ahead and up; a volcano or a fire in a valley."""

    aside: float
    distance: float
    volcano: bool
    summit: float
    rugged: float

    def relief(self, seed: int) -> Relief:
        def height(x: Floats, z: Floats, foot: Floats) -> Floats:
            mountain = noise.erosion(x / 800.0, z / 800.0, seed=seed, footprint=foot / 800.0)
            hills = noise.fractal(x / 130.0, z / 130.0, seed=seed + 1, octaves=8, footprint=foot / 130.0)
            rise = 380.0 * self.rugged * np.clip(mountain + 0.25, 0.0, None) * smoothstep(500.0, 2200.0, z)
            land = 2.0 + 16.0 * (hills + 0.45) + rise
            if self.volcano:
                d = np.hypot(x - self.aside, z - self.distance) / (2.7 * self.summit)
                gully = noise.fractal(
                    x / 90.0, z / 90.0, seed=seed + 2, octaves=7, style="ridged", footprint=foot / 90.0
                )
                cone = np.exp(-2.6 * d) * 1.1 + 0.06 * gully * smoothstep(0.05, 0.3, d) * np.exp(-1.8 * d)
                cone = cone - 0.16 * np.exp(-((d / 0.075) ** 2))
                land = np.maximum(land * smoothstep(0.0, 0.5, d), 0.0) + self.summit * cone
            return np.asarray(land, np.float32)

        return height


@dataclass(frozen=True, kw_only=True, slots=True)
class _Plume:
    """The plume's axis and half width by height h above its foot, pixels."""

    x0: float
    y0: float
    reach: float  # the picture's height
    wind: float
    bend: float
    width0: float
    spread: float
    sway: float

    def centre(self, h: Doubles) -> Doubles:
        unit = self.reach / 360.0
        lean = self.wind * self.reach * np.power(h / self.reach, self.bend)
        wobble = self.sway * np.sin(h / (42.0 * unit)) * h / (h + 60.0 * unit)
        return np.asarray(self.x0 + lean + wobble, np.float64)

    def width(self, h: Doubles) -> Doubles:
        return np.asarray(self.width0 + self.spread * h, np.float64)

    def mapping(self, px: Doubles, py: Doubles) -> tuple[Doubles, Doubles]:
        h = np.maximum(self.y0 - py, 1e-6)
        # It slows as it widens: dh/dt = 1 / (1 + h / slow).
        slow = 0.72 * self.reach
        return h + h * h / (2.0 * slow), (px - self.centre(h)) / self.width(h)


def _choose_source(rng: np.random.Generator, camera: Camera, volcano: bool) -> _Source:
    distance = float(rng.uniform(900.0, 1500.0)) if volcano else float(rng.uniform(180.0, 420.0))
    return _Source(
        aside=float(rng.uniform(-0.45, 0.45)) * distance / camera.focal,
        distance=distance,
        volcano=volcano,
        summit=distance * float(rng.uniform(0.16, 0.30)),
        rugged=float(rng.uniform(0.2, 0.8)),
    )


def _choose_plume(rng: np.random.Generator, camera: Camera, source: _Source, seed: int) -> _Plume:
    place = (np.full((1, 1), v, np.float32) for v in (source.aside, source.distance, 1.0))
    foot = float(source.relief(seed)(*place)[0, 0]) * (0.93 if source.volcano else 1.0)
    unit = camera.size[0] / 360.0
    return _Plume(
        x0=float(camera.column_of(source.aside, source.distance)),
        y0=float(camera.row_of(foot, source.distance)),
        reach=float(camera.size[0]),
        wind=float(rng.uniform(-1.1, 1.1)),
        bend=float(rng.uniform(1.2, 1.9)),
        width0=float(rng.uniform(10.0, 22.0)) * unit * (1.2 if source.volcano else 0.8),
        spread=float(rng.uniform(0.17, 0.36)),
        sway=float(rng.uniform(3.0, 9.0)) * unit,
    )


def _colours(rng: np.random.Generator, light: Light, volcano: bool) -> tuple[Floats, Floats]:
    """Lit and shaded smoke: from ash to steam."""
    sun, ambient, haze = (np.array(c) for c in (light.sun, light.ambient, light.haze))
    tone = float(rng.uniform(0.22, 0.7)) if volcano else float(rng.uniform(0.35, 0.85))
    lit = tone * (0.75 * sun + ambient)
    shaded = tone * (0.06 * sun + 0.55 * ambient) + 0.05 * haze
    return lit.astype(np.float32), shaded.astype(np.float32)


def _shape(
    plume: _Plume, coordinates: Coordinates, free_P: Floats, side: float
) -> tuple[Floats, Floats, Floats]:
    """Density profile, sunny side and cover (P,): dense in the middle and low down, thin above."""
    y = np.nonzero(coordinates.pixels)[0]
    h = np.maximum(plume.y0 - y, 0.0)
    b = coordinates.b_P
    thin = smoothstep(0.25 * plume.reach, 0.75 * plume.reach, h)
    profile = (1.0 - np.abs(b) ** 2.2) * 0.95 + 0.12 - 0.19 * thin
    cover = smoothstep(0.0, 0.018 * plume.reach, h) * (1.0 - 0.25 * thin) * free_P
    sunny = np.clip(b * side, -1.2, 1.2)
    return profile.astype(np.float32), sunny.astype(np.float32), cover.astype(np.float32)


def _painter(
    coordinates: Coordinates,
    wide_P: Floats,
    colours: tuple[Floats, Floats],
    shape: tuple[Floats, Floats, Floats],
    *,
    side: float,
    seed: int,
) -> Paint:
    lengths = []
    for n in range(6):
        length = np.maximum(wide_P * 1.1 * 0.5**n, 6.0)
        lengths.append((0.9 * length, length))
    puffs = make_waves(coordinates, lengths, seed=seed, gain=0.62, crests=-1.0)
    coarse, fine = split_waves(puffs, 4)
    place = np.flatnonzero(coordinates.pixels)
    # The second lookup lies towards the light: across the plume and a little up it.
    shift = (-0.10 * float(np.median(wide_P)) * float(np.median(coordinates.steep_a_P)), -0.22 * side)

    def paint(image: Floats, time: float) -> None:
        bulk = sample_waves(coarse, time)
        density = bulk + sample_waves(fine, time)
        facing = bulk - sample_waves(coarse, time, shift=shift)
        _billow(image.reshape(-1, 3), place, (density, facing), colours, shape)

    return paint


def _country(rng: np.random.Generator, size: tuple[int, int], seed: int) -> tuple[Land, _Source]:
    moods = ("noon", "morning", "golden", "sunset", "storm", "dusk", "overcast")
    light = choose_light(rng, moods)
    volcano = bool(rng.random() < 0.45)
    countries = ("volcanic", "desert", "alpine")
    if not volcano:
        countries = ("boreal", "autumn", "summer", "alpine", "winter")  # type: ignore[assignment]
    camera = Camera(
        size=size,
        horizon=float(rng.uniform(0.68, 0.86)),
        focal=float(rng.uniform(0.9, 1.3)),
        height=float(rng.uniform(18.0, 45.0)),
    )
    source = _choose_source(rng, camera, volcano)
    wisps = float(rng.uniform(0.0, 0.7))
    biome = choose_biome(rng, countries)
    return compose_land(camera, source.relief(seed), light, biome, seed=seed, wisps=wisps), source


def draw_smoke(size: tuple[int, int], seed: int, speed: float) -> Picture:
    """A smoke scene; `speed` scales its default of 1 to 4 px/frame (at 360 rows)."""
    rng = np.random.default_rng([seed, 5])
    land, source = _country(rng, size, seed)
    plume = _choose_plume(rng, land.camera, source, seed)
    y, x = np.mgrid[0 : size[0], 0 : size[1]].astype(np.float64)
    free = land.share_beyond(0.985 * source.distance)
    across = plume.mapping(x, y)[1]
    pixels = (y < plume.y0) & (np.abs(across) < 1.9) & (free > 0.02)
    top = speed * float(rng.uniform(1.4, 3.6)) * size[0] / 360.0
    coordinates = lay_coordinates(plume.mapping, pixels, rate=(1.0, 0.0), top_speed=top)
    side = float(np.sign(land.light.sun_right))
    shape = _shape(plume, coordinates, free[pixels], side)
    wide = plume.width(np.maximum(plume.y0 - y, 0.0))[pixels].astype(np.float32)
    colours = _colours(rng, land.light, source.volcano)
    paint = _painter(coordinates, wide, colours, shape, side=side, seed=seed)
    moving = np.zeros(size, bool)
    moving[pixels] = (shape[0] > 0.22) & (shape[2] > 0.4)
    return make_picture(land.still_HW3, land.light, coordinates.motion_2HW, moving, paint, seed=seed)
