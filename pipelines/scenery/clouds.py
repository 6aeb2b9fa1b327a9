"""Clouds: a deck that drifts overhead, or banks that drift past, over still hills.

Letters: P sky pixels, H and W of the picture.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numba import njit
from numpy.typing import NDArray

from pipelines.scenery import noise
from pipelines.scenery.land import Land, choose_biome, compose_land
from pipelines.scenery.light import Light, choose_light, smoothstep
from pipelines.scenery.picture import Paint, Picture, make_picture
from pipelines.scenery.terrain import Camera
from pipelines.scenery.texture import Coordinates, Mapping, lay_coordinates
from pipelines.scenery.waves import Waves, make_waves, sample_waves, split_waves, visible_motion

__all__ = ["draw_clouds"]

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]

_CURVE = 0.32  # the deck sinks behind the horizon instead of running to infinity


@njit(cache=True)
def _puff(
    image: Floats,
    place: NDArray[np.int64],
    noises: tuple[Floats, Floats, Floats],
    colours: tuple[Floats, Floats, Floats],
    cover: tuple[Floats, Floats],
) -> None:
    """Paint P cloud pixels: density, how far it faces the sun, fine wisps; lit, shaded, gap colours."""
    density, facing, wisp = noises
    lit, shaded, gap = colours
    bias, share = cover
    for p in range(place.size):
        d = density[p] + bias[p]
        a = min(1.0, max(0.0, (d + 0.55) / 1.05))
        a = a * a * (3.0 - 2.0 * a)
        thick = min(1.0, max(0.0, d * 0.45 + 0.10))
        light = 0.68 + 0.85 * facing[p] - 0.46 * thick + 0.10 * (density[p] - 0.3) + 0.05 * wisp[p]
        light = min(1.15, max(0.0, light))
        q = place[p]
        w = 1.0 + 0.045 * wisp[p]
        thin = min(1.0, max(0.0, 0.17 + 0.10 * wisp[p] + 0.07 * density[p]))
        for c in range(3):
            cloud = shaded[p, c] + (lit[p, c] - shaded[p, c]) * light
            sky = gap[p, c] + (cloud - gap[p, c]) * thin
            v = (sky + (cloud - sky) * a) * w
            image[q, c] += (v - image[q, c]) * share[p]


@dataclass(frozen=True, kw_only=True, slots=True)
class _Style:
    """How a sky lies: its mapping, its drift, and how much flatter than wide its clouds are by elevation."""

    mapping: Mapping
    rate: tuple[float, float]
    bank: bool
    scale_P: Floats
    flat_P: Floats
    bias_P: Floats


def _choose_style(rng: np.random.Generator, camera: Camera, up: Floats) -> _Style:
    cover = float(rng.uniform(-0.45, 0.75))
    bearing = float(rng.uniform(0.0, 2.0 * np.pi))
    if rng.random() < 0.5:

        def deck(px: Doubles, py: Doubles) -> tuple[Doubles, Doubles]:
            right, rise = camera.directions(px, py)
            depth = 1.0 / (np.maximum(rise, 0.0) + _CURVE)
            return right * depth, depth

        return _Style(
            mapping=deck,
            rate=(float(np.cos(bearing)), 0.6 * float(np.sin(bearing))),
            bank=False,
            scale_P=((up + _CURVE) / (0.5 + _CURVE)).astype(np.float32),
            flat_P=np.clip(0.45 + 1.1 * up, 0.0, 1.0).astype(np.float32),
            bias_P=np.full(up.size, cover, np.float32),
        )
    low = float(rng.uniform(0.25, 0.5))

    def bank(px: Doubles, py: Doubles) -> tuple[Doubles, Doubles]:
        right, rise = camera.directions(px, py)
        # Higher in the picture is nearer: there the bank drifts faster and its clouds are larger.
        return right / (low + np.maximum(rise, 0.0)), np.asarray(rise, np.float64)

    rows = float(rng.uniform(3.0, 8.0))
    wave = np.sin(up * rows * 2.0 + float(rng.uniform(0.0, 6.3)))
    side = 1.0 if np.cos(bearing) > 0 else -1.0
    return _Style(
        mapping=bank,
        rate=(side, 0.0),
        bank=True,
        scale_P=((low + up) / (low + 0.5)).astype(np.float32),
        flat_P=np.clip(0.45 + 0.6 * up, 0.0, 0.75).astype(np.float32),
        bias_P=(cover - 0.15 + 0.45 * wave).astype(np.float32),
    )


def _colours(land: Land, pixels: NDArray[np.bool_]) -> tuple[Floats, Floats, Floats]:
    """Colours (P, 3) of lit cloud, shaded cloud and the gaps between."""
    light = land.light
    py, px = np.nonzero(pixels)
    right, up = land.camera.directions(px, py)
    sun, ambient = np.array(light.sun, np.float32), np.array(light.ambient, np.float32)
    sky = land.sky_HW3[pixels]
    towards = np.hypot(right - light.sun_right, up - light.sun_up)
    near_sun = np.exp(-2.2 * towards)[:, None] * (0.0 if light.behind else 1.0)
    lit = 0.66 * sun * (0.55 + 0.8 * near_sun) + 0.75 * ambient + 0.10 * sky
    shaded = 0.07 * sun + 0.58 * ambient + 0.20 * sky
    haze = np.exp(-5.0 * np.maximum(up, 0.0))[:, None] * 0.7
    lit, shaded = lit * (1 - haze) + sky * haze, shaded * (1 - haze) + sky * haze * 0.85
    return lit.astype(np.float32), shaded.astype(np.float32), (sky * 0.85).astype(np.float32)


def _pile(coordinates: Coordinates, style: _Style, billows: float, unit: float, seed: int) -> Waves:
    """Bands from the largest billow down to what the picture can show."""
    wide = np.maximum(style.scale_P, 0.12)
    lengths: list[tuple[Floats | float, Floats | float]] = []
    while billows > max(9.0 * unit, 12.0):
        lengths.append(
            ((billows * wide).astype(np.float32), (billows * wide * style.flat_P).astype(np.float32))
        )
        billows *= 0.5
    return make_waves(coordinates, lengths, seed=seed, gain=0.62, crests=-1.0)


def _painter(land: Land, coordinates: Coordinates, style: _Style, cover: Floats, seed: int) -> Paint:
    unit = land.camera.size[0] / 360.0
    rng = np.random.default_rng([seed, 41])
    billows = float(rng.uniform(120.0, 240.0)) * unit
    puffs = _pile(coordinates, style, billows, unit, seed)
    coarse, detail = split_waves(puffs, 3)
    fine = (unit * np.maximum(0.6, style.scale_P)).astype(np.float32)
    lengths = [(26 * fine, 17 * fine), (12 * fine, 8 * fine)]
    wisps = make_waves(coordinates, lengths, seed=seed + 9, gain=0.8)
    colours = _colours(land, coordinates.pixels)
    place = np.flatnonzero(coordinates.pixels)
    lean = 0.10 * billows * float(np.median(coordinates.steep_a_P)) * float(np.sign(land.light.sun_right))
    rise = 0.10 * billows * float(np.median(coordinates.steep_b_P))
    # The second lookup lies a little towards the sun: thicker there means this side is shaded.
    shift = (-0.6 * lean, -rise if style.bank else 0.8 * rise)

    def paint(image: Floats, time: float) -> None:
        bulk = sample_waves(coarse, time)
        density = bulk + sample_waves(detail, time)
        facing = bulk - sample_waves(coarse, time, shift=shift)
        wisp = sample_waves(wisps, time)
        _puff(image.reshape(-1, 3), place, (density, facing, wisp), colours, (style.bias_P, cover))

    return paint


def _hills(rng: np.random.Generator, camera: Camera, light: Light, seed: int) -> Land:
    """Low country with lakes under the sky, mountains behind."""
    names = ("alpine", "boreal", "summer", "autumn", "desert", "winter", "volcanic")
    rugged = float(rng.uniform(0.1, 0.8))

    def relief(x: Floats, z: Floats, foot: Floats) -> Floats:
        mountain = noise.erosion(x / 900.0, z / 900.0, seed=seed, footprint=foot / 900.0)
        hills = noise.fractal(x / 160.0, z / 160.0, seed=seed + 1, octaves=8, footprint=foot / 160.0)
        rise = 420.0 * rugged * np.clip(mountain + 0.25, 0.0, None) * smoothstep(300.0, 2200.0, z)
        lake = smoothstep(-0.35, -0.15, hills)
        return np.asarray(-1.0 + lake * (3.0 + 14.0 * (hills + 0.35)) + rise, np.float32)

    return compose_land(camera, relief, light, choose_biome(rng, names), seed=seed, wisps=0.0)


def draw_clouds(size: tuple[int, int], seed: int, speed: float) -> Picture:
    """A cloud scene; `speed` scales its default of 0.8 to 3 px/frame (at 360 rows)."""
    rng = np.random.default_rng([seed, 4])
    moods = ("noon", "morning", "golden", "sunset", "storm", "dusk", "noon", "moonlight")
    light = choose_light(rng, moods)
    r, g, b = light.horizon
    light = replace(light, horizon=(0.85 * r, 0.85 * g, 0.85 * b))
    camera = Camera(
        size=size,
        horizon=float(rng.uniform(0.62, 0.86)),
        focal=float(rng.uniform(0.8, 1.2)),
        height=float(rng.uniform(15.0, 60.0)),
    )
    land = _hills(rng, camera, light, seed)
    lake = land.water_HW[..., None]
    still = land.still_HW3 * (1.0 - lake) + 0.75 * land.mirror_HW3 * lake
    pixels = land.sky_share_HW > 0.02
    py, px = np.nonzero(pixels)
    up = np.maximum(camera.directions(px, py)[1], 0.0).astype(np.float32)
    style = _choose_style(rng, camera, up)
    top = speed * float(rng.uniform(0.9, 3.0)) * size[0] / 360.0
    coordinates = lay_coordinates(style.mapping, pixels, rate=style.rate, top_speed=top)
    cover = land.sky_share_HW[pixels] * visible_motion(coordinates) * smoothstep(0.0, 0.09, up)
    paint = _painter(land, coordinates, style, cover.astype(np.float32), seed)
    moving = np.zeros(size, bool)
    moving[pixels] = cover > 0.15
    return make_picture(still, light, coordinates.motion_2HW, moving, paint, seed=seed)
