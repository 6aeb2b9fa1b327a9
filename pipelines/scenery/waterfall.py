"""Waterfall: water falls over a cliff into a pool and leaves it as a stream."""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

from pipelines.scenery import noise
from pipelines.scenery.land import BIOMES, compose_land
from pipelines.scenery.light import choose_light, smoothstep
from pipelines.scenery.picture import Picture, make_picture
from pipelines.scenery.river import Stream, flood, stream_mapping
from pipelines.scenery.terrain import Camera
from pipelines.scenery.texture import lay_coordinates
from pipelines.scenery.water import WaterLook, make_waves, sample_waves

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
    streak, fleck = noises
    bright, dark = colours
    body, cover, mist = shape
    for p in range(place.size):
        n = 0.75 * streak[p] + 0.55 * fleck[p]
        a = min(1.0, max(0.0, body[p] + 0.38 * n)) * cover[p]
        light = min(1.0, max(0.0, 0.52 + 0.30 * n))
        light = light + (0.92 - light) * mist[p]
        q = place[p]
        for c in range(3):
            v = dark[c] + (bright[c] - dark[c]) * light
            image[q, c] += (v - image[q, c]) * a


def draw_waterfall(size: tuple[int, int], seed: int, speed: float) -> Picture:
    """A waterfall scene; `speed` scales its default of 3 to 6 px/frame at the foot (at 360 rows)."""
    rng = np.random.default_rng([seed, 1])
    light = choose_light(
        rng, ("noon", "morning", "golden", "overcast", "storm", "dusk", "morning", "overcast")
    )
    biome = BIOMES[
        ("alpine", "boreal", "summer", "autumn", "volcanic", "winter", "desert")[int(rng.integers(7))]
    ]
    camera = Camera(
        size=size,
        horizon=float(rng.uniform(0.50, 0.66)),
        focal=float(rng.uniform(1.0, 1.35)),
        height=float(rng.uniform(7.0, 12.0)),
    )
    unit = size[0] / 360.0
    distance = camera.height * float(rng.uniform(7.0, 11.0))
    # As tall as leaves some sky above the cliff.
    tall = distance / camera.focal * camera.horizon * float(rng.uniform(0.50, 0.80)) + camera.height
    aside = float(rng.uniform(-0.26, 0.26)) * distance / camera.focal
    half = tall * float(rng.uniform(0.14, 0.34))
    stream = Stream(
        drift=0.0,
        bend=half * float(rng.uniform(-0.5, 0.5)),
        bend_length=distance * 0.5,
        phase=float(rng.uniform(0, 6)),
        start=aside,
        half_width=half * float(rng.uniform(1.3, 2.0)),
        widening=0.1,
        boulders=tuple(
            (
                aside + half * float(rng.uniform(-2.2, 2.2)),
                distance * float(rng.uniform(0.35, 0.97)),
                half * float(rng.uniform(0.10, 0.30)),
            )
            for _ in range(int(rng.integers(3, 12)))
        ),
    )
    foot_x = float(stream.centre(np.array(distance)))
    bow = float(rng.uniform(-0.0006, 0.0022)) * 60.0 / half

    def relief(x: Floats, z: Floats, foot: Floats) -> Floats:
        wide = noise.fractal(x / 60.0, z / 60.0, seed=seed + 1, octaves=8, footprint=2.0 * foot / 60.0)
        crag = noise.fractal(x / 9.0, z / 9.0, seed=seed + 2, octaves=7, style="ridged", footprint=foot / 9.0)
        off = x - foot_x
        beside = smoothstep(0.75 * half, 1.9 * half, np.abs(off))
        wall = distance + 1.0 - 3.0 * bow * off * off + (6.0 * wide + 2.0 * crag) * beside
        wall = wall - 0.12 * np.abs(off) * smoothstep(half, 6 * half, np.abs(off))
        # A steep but leaning face: its ledges and cracks are folds of one height field.
        lean = tall * (0.05 + 0.33 * beside)
        chips = noise.fractal(x / 3.2, z / 1.1, seed=seed + 4, octaves=6, gain=0.6, footprint=foot / 3.0)
        up = np.clip((z - wall) / lean + 0.13 * chips * beside, 0.0, 1.0)
        steps = 4.0 + 3.0 * wide
        rise = np.clip(up + 0.75 * np.sin(2.0 * np.pi * steps * up) / (2.0 * np.pi * steps), 0.0, 1.0)
        top = tall * (1.0 + 0.10 * wide) + 3.0 * crag
        lip = smoothstep(1.5 * half, 0.85 * half, np.abs(off))
        top = top * (1.0 - lip) + (tall + 0.0) * lip + 0.05 * np.clip(z - wall - 20.0, 0.0, 600.0) * (1 - lip)
        banks = 1.5 + 3.0 * (wide + 0.4) + 0.16 * np.clip(np.abs(off) - 2 * half, 0.0, None)
        near = stream.carve(x, z, banks, seed, end=1e6)
        return np.asarray(
            np.where(z < wall, near, np.maximum(near, 0.0) * (1 - rise) + top * rise), np.float32
        )

    def clear(x: Floats, z: Floats, _foot: Floats) -> Floats:
        gap = np.abs(x - stream.centre(z.astype(np.float64))) - stream.half(z.astype(np.float64)) * 1.05
        return np.asarray(smoothstep(0.5, 6.0, gap), np.float32)

    land = compose_land(
        camera,
        relief,
        light,
        biome,
        seed=seed,
        clear=clear,
        wisps=float(rng.uniform(0.2, 0.8)),
        focus=(0.8 * distance, distance + 0.6 * tall),
    )
    y, x = np.mgrid[0 : size[0], 0 : size[1]].astype(np.float64)
    lip_row = float(camera.row_of(tall, distance + 1.0 + 0.05 * tall))
    foot_row = float(camera.row_of(0.0, distance))
    column = float(camera.column_of(foot_x, distance))
    half_px = camera.focal_px * half / distance
    drop = foot_row - lip_row
    flare = float(rng.uniform(0.02, 0.25))

    def width(h: Doubles) -> Doubles:
        return np.asarray(half_px * (0.86 + flare * h / drop), np.float64)

    pool = (land.water_HW > 0.02) & (y > foot_row - 1)
    run = speed * float(rng.uniform(1.5, 3.2)) * unit
    water = lay_coordinates(stream_mapping(camera, stream), pool, rate=(-1.0, 0.0), top_speed=run)
    look = WaterLook(deep=(0.015, 0.07, 0.07), rough=1.2)
    away = np.hypot((x - column) / (1.6 * half_px), (y - foot_row) / (0.10 * size[0]))
    picture = flood(
        land,
        stream,
        water,
        look,
        seed=seed,
        rapids=float(rng.uniform(0.2, 0.7)),
        extra_foam=(1.7 * np.exp(-(away**1.5))).astype(np.float32),
    )

    # v^2 = start^2 + 2 gravity h, in px/frame, so that the foot is reached at `fast`.
    fast = speed * float(rng.uniform(3.2, 6.0)) * unit
    begin = 0.42 * fast
    gravity = (fast**2 - begin**2) / (2.0 * drop)

    def falling(px: Doubles, py: Doubles) -> tuple[Doubles, Doubles]:
        h = py - lip_row
        v = np.sqrt(np.maximum(begin**2 + 2.0 * gravity * h, 1e-6))
        return (v - begin) / gravity, (px - column) / width(h)

    h = y - lip_row
    b = (x - column) / width(h)
    visible = (land.depth_HW == 0.0) | (land.depth_HW > distance * 0.97)
    pixels = (h > 0) & (y < foot_row) & (np.abs(b) < 1.15) & visible
    fall = lay_coordinates(falling, pixels, rate=(1.0, 0.0))
    streaks = make_waves(fall, ((60 * unit, 11 * unit), (34 * unit, 6.5 * unit)), seed=seed + 5, gain=1.0)
    flecks = make_waves(fall, ((20 * unit, 9 * unit), (10 * unit, 6 * unit)), seed=seed + 6, gain=1.0)
    bP = b[pixels]
    strands = noise.fractal(bP * 3.5 + 7.0, h[pixels] / drop * 0.5, seed=seed + 7, octaves=4)
    ragged = noise.fractal(h[pixels] / (16 * unit), np.sign(bP) * 9.0, seed=seed + 8, octaves=4)
    edge = smoothstep(1.0, 0.78, np.abs(bP) + 0.10 * ragged)
    body = (0.80 + 0.30 * strands).astype(np.float32)
    mist = (0.45 * np.exp(-(foot_row - y[pixels]) / (0.10 * drop))).astype(np.float32)
    sun, ambient = np.array(light.sun, np.float32), np.array(light.ambient, np.float32)
    bright = (0.62 * sun * 0.55 + 0.95 * ambient).astype(np.float32)
    dark = (0.10 * sun + 0.42 * ambient).astype(np.float32)
    place = np.flatnonzero(pixels)
    cover = (edge * smoothstep(0.0, 4.0 * unit, h[pixels])).astype(np.float32)
    veil = 0.40 * np.exp(
        -(np.hypot((x - column) / (2.0 * half_px), (y - foot_row) / (0.11 * drop + 6 * unit)) ** 2)
    )
    veil = np.where(picture.moving_HW | pixels, 0.35, 1.0) * veil
    fog = (0.75 * sun * 0.5 + ambient).astype(np.float32)
    still = picture.still_HW3 * (1 - veil[..., None]) + fog * veil[..., None]
    flow = picture.paint

    def paint(image: Floats, time: float) -> None:
        flow(image, time)
        s = sample_waves(streaks, time)
        f = sample_waves(flecks, time)
        _fall(image.reshape(-1, 3), place, (s, f), (bright, dark), (body, cover, mist))

    moving = picture.moving_HW.copy()
    motion = picture.motion_2HW.copy()
    inside = np.zeros(size, bool)
    inside[pixels] = cover > 0.5
    moving |= inside
    motion[:, inside] = fall.motion_2HW[:, inside]
    return make_picture(still, light, motion, moving, paint, seed=seed)
