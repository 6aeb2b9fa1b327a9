"""Clouds: a drifting deck over hills, with lit and shaded sides."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numba import njit
from numpy.typing import NDArray

from pipelines.scenery import noise
from pipelines.scenery.land import BIOMES, compose_land
from pipelines.scenery.light import choose_light, smoothstep
from pipelines.scenery.picture import Picture, make_picture
from pipelines.scenery.terrain import Camera
from pipelines.scenery.texture import lay_coordinates
from pipelines.scenery.water import Waves, make_waves, sample_waves, visible_motion

__all__ = ["draw_clouds"]

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]

_CURVE = 0.20  # the deck sinks behind the horizon instead of running to infinity


@njit(cache=True)
def _puff(
    image: Floats,
    place: NDArray[np.int64],
    noises: tuple[Floats, Floats, Floats],
    colours: tuple[Floats, Floats, Floats],
    cover: tuple[Floats, Floats],
) -> None:
    """Paint P cloud pixels: density, density towards the sun, fine wisps; lit, shaded, gap colours."""
    density, sunward, wisp = noises
    lit, shaded, gap = colours
    bias, share = cover
    for p in range(place.size):
        d = density[p] + bias[p]
        a = min(1.0, max(0.0, (d + 0.55) / 1.15))
        a = a * a * (3.0 - 2.0 * a)
        thick = min(1.0, max(0.0, d * 0.45 + 0.15))
        light = 0.66 + 0.55 * (density[p] - sunward[p]) - 0.34 * thick + 0.07 * wisp[p]
        light = min(1.15, max(0.0, light))
        q = place[p]
        w = 1.0 + 0.06 * wisp[p]
        for c in range(3):
            cloud = shaded[p, c] + (lit[p, c] - shaded[p, c]) * light
            sky = gap[p, c] + (cloud - gap[p, c]) * min(1.0, max(0.0, 0.16 + 0.11 * wisp[p]))
            v = (sky + (cloud - sky) * a) * w
            image[q, c] += (v - image[q, c]) * share[p]


def draw_clouds(size: tuple[int, int], seed: int, speed: float) -> Picture:
    """A cloud scene; `speed` scales its default of 0.8 to 3 px/frame (at 360 rows)."""
    rng = np.random.default_rng([seed, 4])
    light = choose_light(rng, ("noon", "morning", "golden", "sunset", "storm", "dusk", "noon", "moonlight"))
    light = replace(light, horizon=tuple(0.85 * c for c in light.horizon))  # type: ignore[arg-type]
    biome = BIOMES[
        ("alpine", "boreal", "summer", "autumn", "desert", "winter", "volcanic")[int(rng.integers(7))]
    ]
    camera = Camera(
        size=size,
        horizon=float(rng.uniform(0.62, 0.86)),
        focal=float(rng.uniform(0.8, 1.2)),
        height=float(rng.uniform(15.0, 60.0)),
    )
    rugged = float(rng.uniform(0.1, 0.8))

    def relief(x: Floats, z: Floats, foot: Floats) -> Floats:
        mountain = noise.erosion(x / 900.0, z / 900.0, seed=seed, footprint=foot / 900.0)
        hills = noise.fractal(x / 160.0, z / 160.0, seed=seed + 1, octaves=8, footprint=foot / 160.0)
        rise = 420.0 * rugged * np.clip(mountain + 0.25, 0.0, None) * smoothstep(300.0, 2200.0, z)
        lake = smoothstep(-0.35, -0.15, hills)
        return np.asarray(-1.0 + lake * (3.0 + 14.0 * (hills + 0.35)) + rise, np.float32)

    land = compose_land(camera, relief, light, biome, seed=seed, wisps=0.0)
    still = (
        land.still_HW3 * (1 - land.water_HW[..., None]) + land.mirror_HW3 * (0.7 * land.water_HW)[..., None]
    )
    unit = size[0] / 360.0

    def mapping(px: Doubles, py: Doubles) -> tuple[Doubles, Doubles]:
        right, up = camera.directions(px, py)
        depth = 1.0 / (np.maximum(up, 0.0) + _CURVE)
        return right * depth, depth

    pixels = land.sky_share_HW > 0.02
    bearing = float(rng.uniform(0.0, 2.0 * np.pi))
    rate = (float(np.cos(bearing)), 0.6 * float(np.sin(bearing)))
    top = speed * float(rng.uniform(0.9, 3.0)) * unit
    coordinates = lay_coordinates(mapping, pixels, rate=rate, top_speed=top)
    motion = coordinates.motion_2HW
    share = visible_motion(np.hypot(motion[0], motion[1])[pixels])
    py, px = np.nonzero(pixels)
    right, up = (v.astype(np.float32) for v in camera.directions(px, py))
    high = smoothstep(0.02, 0.16, up)
    scale = ((up + _CURVE) / (0.5 + _CURVE)).astype(np.float32)
    flat = np.clip(0.45 + 1.1 * up, 0.0, 1.0).astype(np.float32)
    billows = float(rng.uniform(130.0, 260.0)) * unit
    limit = np.maximum(scale, 0.12)
    along, across = limit, limit * flat
    layers: list[tuple[Floats, Floats]] = []
    length = billows
    while length > 9.0 * unit or length > 12.0:
        layers.append((length * along, length * across))
        length *= 0.5
    puffs = _pile(coordinates, layers, seed=seed, gain=0.62)
    wisps = make_waves(
        coordinates,
        ((20.0 * unit, 14.0 * unit), (9.0 * unit, 7.0 * unit)),
        seed=seed + 9,
        gain=0.9,
        limit=np.maximum(0.6, scale).astype(np.float32),
    )
    sun, ambient = np.array(light.sun, np.float32), np.array(light.ambient, np.float32)
    sky = land.sky_HW3[pixels]
    towards = np.hypot(right - light.sun_right, up - light.sun_up)
    near_sun = np.exp(-2.2 * towards)[:, None] * (0.0 if light.behind else 1.0)
    lit = 0.62 * sun * (0.55 + 0.8 * near_sun) + 0.75 * ambient + 0.10 * sky
    shaded = 0.10 * sun + 0.72 * ambient + 0.20 * sky
    haze = np.exp(-5.0 * np.maximum(up, 0.0))[:, None] * 0.75
    lit, shaded = lit * (1 - haze) + sky * haze, shaded * (1 - haze) + sky * haze * 0.9
    bias = np.full(py.size, float(rng.uniform(-0.35, 0.75)), np.float32)
    place = np.flatnonzero(pixels)
    cover = (land.sky_share_HW[pixels] * share * high).astype(np.float32)
    step = 0.11 * billows * float(np.median(coordinates.steep_a_P))
    lean = float(np.sign(light.sun_right)) * step
    shift = (-lean, -0.8 * step)
    colours = (lit.astype(np.float32), shaded.astype(np.float32), (sky * 0.85).astype(np.float32))

    def paint(image: Floats, time: float) -> None:
        density = sample_waves(puffs, time)
        sunward = sample_waves(puffs, time, shift=shift)
        wisp = sample_waves(wisps, time)
        _puff(image.reshape(-1, 3), place, (density, sunward, wisp), colours, (bias, cover))

    moving = np.zeros(size, bool)
    moving[pixels] = cover > 0.5
    return make_picture(still, light, motion, moving, paint, seed=seed)


def _pile(coordinates, layers, *, seed: int, gain: float) -> Waves:  # type: ignore[no-untyped-def]
    """Bands whose wavelengths vary from pixel to pixel."""
    waves = [make_waves(coordinates, ((1.0, 1.0),), seed=seed)] and []
    from pipelines.scenery.texture import make_band

    for n, (along, across) in enumerate(layers):
        waves.append(make_band(coordinates, along, across, seed=seed * 31 + 5 * n + 2))
    strengths = np.array([gain**n for n in range(len(waves))])
    strengths /= np.sqrt((strengths**2).sum())
    return Waves(coordinates=coordinates, bands=tuple(waves), strengths=tuple(float(s) for s in strengths))
