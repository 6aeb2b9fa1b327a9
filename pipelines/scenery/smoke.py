"""Smoke: a plume from a volcano or a wooded valley, rising and bending with the wind."""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

from pipelines.scenery import noise
from pipelines.scenery.land import BIOMES, compose_land
from pipelines.scenery.light import choose_light, smoothstep
from pipelines.scenery.picture import Picture, make_picture
from pipelines.scenery.terrain import Camera
from pipelines.scenery.texture import lay_coordinates, make_band
from pipelines.scenery.water import Waves, sample_waves

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
    density, sunward = noises
    lit, shaded = colours
    profile, side, cover = shape
    for p in range(place.size):
        d = profile[p] + 0.36 * density[p]
        a = min(1.0, max(0.0, d / 0.85))
        a = a * a * (3.0 - 2.0 * a) * cover[p]
        if a <= 0.0:
            continue
        light = 0.46 + 0.36 * side[p] + 0.40 * (density[p] - sunward[p]) + 0.09 * density[p]
        light = min(1.1, max(0.0, light))
        q = place[p]
        for c in range(3):
            v = shaded[c] + (lit[c] - shaded[c]) * light
            image[q, c] += (v - image[q, c]) * a


def draw_smoke(size: tuple[int, int], seed: int, speed: float) -> Picture:
    """A smoke scene; `speed` scales its default of 1 to 4 px/frame (at 360 rows)."""
    rng = np.random.default_rng([seed, 5])
    light = choose_light(rng, ("noon", "morning", "golden", "sunset", "storm", "dusk", "overcast"))
    volcano = rng.random() < 0.45
    names = (
        ("volcanic", "desert", "alpine") if volcano else ("boreal", "autumn", "summer", "alpine", "winter")
    )
    biome = BIOMES[names[int(rng.integers(len(names)))]]
    camera = Camera(
        size=size,
        horizon=float(rng.uniform(0.62, 0.78)),
        focal=float(rng.uniform(0.9, 1.3)),
        height=float(rng.uniform(18.0, 45.0)),
    )
    distance = float(rng.uniform(900.0, 1500.0)) if volcano else float(rng.uniform(180.0, 420.0))
    aside = float(rng.uniform(-0.45, 0.45)) * distance / camera.focal
    summit = distance * float(rng.uniform(0.16, 0.30))
    cone_width = summit * float(rng.uniform(2.2, 3.2))
    rugged = float(rng.uniform(0.2, 0.8))

    def relief(x: Floats, z: Floats, foot: Floats) -> Floats:
        mountain = noise.erosion(x / 800.0, z / 800.0, seed=seed, footprint=foot / 800.0)
        hills = noise.fractal(x / 130.0, z / 130.0, seed=seed + 1, octaves=8, footprint=foot / 130.0)
        rise = 380.0 * rugged * np.clip(mountain + 0.25, 0.0, None) * smoothstep(500.0, 2200.0, z)
        height = 2.0 + 16.0 * (hills + 0.45) + rise
        if volcano:
            d = np.hypot(x - aside, z - distance) / cone_width
            gullies = noise.fractal(
                x / 90.0, z / 90.0, seed=seed + 2, octaves=7, style="ridged", footprint=foot / 90.0
            )
            cone = summit * (
                np.exp(-2.6 * d) * 1.10 + 0.05 * gullies * smoothstep(0.05, 0.3, d) * np.exp(-1.8 * d)
            )
            crater = summit * 0.16 * np.exp(-((d / 0.075) ** 2))
            height = np.maximum(height * smoothstep(0.0, 0.5, d), 0.0) + cone - crater
        return np.asarray(height, np.float32)

    land = compose_land(camera, relief, light, biome, seed=seed, wisps=float(rng.uniform(0.0, 0.7)))
    unit = size[0] / 360.0
    top_of_source = float(
        relief(
            np.array([[aside]], np.float32), np.array([[distance]], np.float32), np.ones((1, 1), np.float32)
        )[0, 0]
    )
    x0 = float(camera.column_of(aside, distance))
    y0 = float(camera.row_of(top_of_source * (0.97 if volcano else 1.0), distance))
    wind = float(rng.normal(0.0, 0.55))
    bend = float(rng.uniform(1.2, 1.9))
    width0 = float(rng.uniform(9.0, 16.0)) * unit * (1.2 if volcano else 0.8)
    spread = float(rng.uniform(0.16, 0.30))
    sway = float(rng.uniform(3.0, 9.0)) * unit
    height_px = 360.0 * unit

    def centre(h: Doubles) -> Doubles:
        lean = wind * height_px * np.power(h / height_px, bend)
        return np.asarray(x0 + lean + sway * np.sin(h / (42.0 * unit)) * h / (h + 60.0 * unit), np.float64)

    def width(h: Doubles) -> Doubles:
        return np.asarray(width0 + spread * h, np.float64)

    def mapping(px: Doubles, py: Doubles) -> tuple[Doubles, Doubles]:
        h = np.maximum(y0 - py, 0.0) + 1e-3 * (y0 - py)
        # The plume slows as it widens: dh/dt = 1 / (1 + h / slow).
        slow = 260.0 * unit
        return h + h * h / (2.0 * slow), (px - centre(np.maximum(h, 0.0))) / width(h)

    y, x = np.mgrid[0 : size[0], 0 : size[1]].astype(np.float64)
    h = np.maximum(y0 - y, 0.0)
    across = (x - centre(h)) / width(h)
    free = (land.depth_HW == 0.0) | (land.depth_HW >= distance * 0.985)
    pixels = (y < y0) & (np.abs(across) < 1.9) & free
    top = speed * float(rng.uniform(1.4, 3.6)) * unit
    coordinates = lay_coordinates(mapping, pixels, rate=(1.0, 0.0), top_speed=top)
    wide = width(h)[pixels].astype(np.float32)
    bands = []
    strengths = []
    share = 1.1
    for n in range(6):
        length = np.maximum(wide * share, 6.0)
        bands.append(make_band(coordinates, length * 0.9, length, seed=seed * 31 + 5 * n + 3))
        strengths.append(0.62**n)
        share *= 0.5
    norm = float(np.sqrt(np.sum(np.square(strengths))))
    puffs = Waves(coordinates=coordinates, bands=tuple(bands), strengths=tuple(s / norm for s in strengths))
    b = across[pixels]
    up = h[pixels]
    thin = 1.0 - 0.55 * smoothstep(0.25 * height_px, 0.75 * height_px, up)
    profile = ((1.0 - np.abs(b) ** 2.2) * 0.95 + 0.12 - 0.35 * (1.0 - thin)).astype(np.float32)
    side = (np.clip(b * float(np.sign(light.sun_right)), -1.2, 1.2)).astype(np.float32)
    cover = (smoothstep(0.0, 14.0 * unit, up) * (0.55 + 0.45 * thin)).astype(np.float32)
    sun, ambient = np.array(light.sun, np.float32), np.array(light.ambient, np.float32)
    tone = float(rng.uniform(0.35, 0.85)) if not volcano else float(rng.uniform(0.22, 0.7))
    lit = (tone * (0.75 * sun + ambient)).astype(np.float32)
    shaded = (tone * (0.06 * sun + 0.55 * ambient) + 0.05 * np.array(light.haze, np.float32)).astype(
        np.float32
    )
    place = np.flatnonzero(pixels)
    # Towards the light: across the plume and a little up it.
    shift = (
        0.10 * float(np.median(wide)) * float(np.median(coordinates.steep_a_P)),
        0.22 * float(np.sign(light.sun_right)),
    )

    def paint(image: Floats, time: float) -> None:
        density = sample_waves(puffs, time)
        sunward = sample_waves(puffs, time, shift=(-shift[0], -shift[1]))
        _billow(image.reshape(-1, 3), place, (density, sunward), (lit, shaded), (profile, side, cover))

    moving = np.zeros(size, bool)
    moving[pixels] = (profile > 0.18) & (cover > 0.4)
    return make_picture(land.still_HW3, light, coordinates.motion_2HW, moving, paint, seed=seed)
