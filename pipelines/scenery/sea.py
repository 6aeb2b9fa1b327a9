"""Sea: swell over open water, along a beach, a cliff coast or between islands."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pipelines.scenery import noise
from pipelines.scenery.land import BIOMES, Land, compose_land
from pipelines.scenery.light import Light, choose_light, smoothstep
from pipelines.scenery.picture import Picture, make_picture
from pipelines.scenery.terrain import Camera, project_ground
from pipelines.scenery.texture import Coordinates, lay_coordinates
from pipelines.scenery.water import WaterLook, lie_flat, make_waves, sample_waves, surface_colours, visible_motion, wash

__all__ = ["draw_sea"]

Floats = NDArray[np.float32]


def _coast(rng: np.random.Generator, camera: Camera, seed: int):  # type: ignore[no-untyped-def]
    """A relief with sea: beach, side cliffs, islands, in random shares."""
    kind = ("beach", "cliffs", "islands", "bay")[int(rng.integers(4))]
    side = -1.0 if rng.random() < 0.5 else 1.0
    lean = float(rng.uniform(-0.5, 0.5))
    tall = float(rng.uniform(25.0, 80.0))
    near = camera.height / max((1.0 - camera.horizon) / camera.focal, 0.05)
    shore = near * float(rng.uniform(1.15, 1.7))
    rocks = float(rng.uniform(-0.40, 0.10))
    reef_tall = float(rng.uniform(3.0, 11.0))

    def relief(x: Floats, z: Floats, foot: Floats) -> Floats:
        wide = noise.fractal(x / 420.0, z / 420.0, seed=seed + 2, octaves=7, footprint=foot / 420.0)
        rough = noise.fractal(x / 14.0, z / 14.0, seed=seed + 3, octaves=7, footprint=foot / 14.0)
        island = noise.erosion(x / 900.0, z / 900.0, seed=seed + 4, footprint=foot / 900.0)
        height = -6.0 + 160.0 * np.clip(island - 0.12, -0.05, None) * smoothstep(250.0, 900.0, z)
        if kind in ("beach", "bay"):
            edge = shore * (1.0 + lean * x / (2.0 * shore)) + 2.5 * wide * near * 0.3
            sand = (edge - z) * 0.09 + 0.12 * rough
            height = np.maximum(height, np.clip(sand, -6.0, 3.0))
        if kind in ("cliffs", "bay"):
            gap = side * x - (0.10 + 0.22 * wide) * z - 1.1 * near
            wall = np.clip(gap * 0.75, -6.0, tall * (0.55 + 0.6 * wide + 0.25 * rough))
            wall = wall + smoothstep(0.0, 12.0, wall) * 5.0 * rough
            height = np.maximum(height, wall)
        stack = noise.fractal(x / 24.0, z / 24.0, seed=seed + 5, octaves=5, footprint=foot / 24.0) + rocks
        crown = np.tanh(np.clip(stack - 0.34, 0.0, None) * 9.0)
        reef = np.where(stack > 0.34, crown * (reef_tall * (1.0 + 0.8 * wide) + 2.5 * rough) - 0.5, -6.0)
        near_reef = smoothstep(2.2 * near, 3.0 * near, z) * smoothstep(380.0, 200.0, z)
        return np.asarray(np.maximum(height, reef * near_reef - 6.0 * (1.0 - near_reef)), np.float32)

    return relief


def _glitter(land: Land, pixels: NDArray[np.bool_]) -> Floats:
    """How strongly each water pixel can flash the sun (a column below it)."""
    light, camera = land.light, land.camera
    py, px = np.nonzero(pixels)
    if light.behind:
        return np.full(py.size, 0.05, np.float32)
    right, up = camera.directions(px, py)
    width = 0.05 + 0.9 * np.abs(up)
    return np.asarray(np.exp(-(((right - light.sun_right) / width) ** 2)), np.float32)


def _sea_light(rng: np.random.Generator) -> Light:
    return choose_light(
        rng, ("noon", "morning", "golden", "sunset", "overcast", "storm", "dusk", "golden", "moonlight")
    )


def fill_sea(land: Land, coordinates: Coordinates, look: WaterLook, *, seed: int, chop: float) -> Picture:
    """Fill a land's water with swell that moves by `coordinates` (a across the view, b into it)."""
    camera = land.camera
    unit = camera.size[0] / 360.0
    pixels, motion = coordinates.pixels, coordinates.motion_2HW
    speed = np.hypot(motion[0], motion[1])[pixels]
    share = visible_motion(speed)
    trough, crest = surface_colours(land, look)
    calm = 0.55 * trough[pixels] + 0.45 * crest[pixels]
    trough_P = calm + (trough[pixels] - calm) * share[:, None]
    crest_P = calm + (crest[pixels] - calm) * share[:, None]
    py, px = np.nonzero(pixels)
    near = np.clip((py - camera.horizon_px) / (camera.size[0] - camera.horizon_px), 0.0, 1.0)
    limit = (0.40 + 0.85 * near).astype(np.float32)
    lengths = lie_flat(camera, py, (76.0, 34.0, 15.0) if unit <= 1.6 else (76.0, 34.0, 15.0, 7.0), limit)
    ripples = make_waves(coordinates, lengths, seed=seed, gain=0.9, crested=True)
    froth = make_waves(
        coordinates, ((60 * unit, 13 * unit), (17 * unit, 7 * unit)), seed=seed + 1, limit=limit
    )
    x, z = project_ground(camera, px.astype(np.float64), py.astype(np.float64))
    patch = noise.fractal(x / 60.0, z / 60.0, seed=seed + 3, octaves=4)
    shallow = np.exp(-land.bed_HW[pixels] / 0.35)
    bias = -1.35 + 0.75 * chop + 0.35 * patch + 1.1 * shallow
    bias = np.where(share > 0.5, bias, -3.0).astype(np.float32)
    sun, ambient = np.array(land.light.sun), np.array(land.light.ambient)
    white = (0.78 * (sun * 0.5 + ambient)).astype(np.float32)
    flash = (sun * 1.6).astype(np.float32)
    glint = (_glitter(land, pixels) * share).astype(np.float32)
    place, cover = np.flatnonzero(pixels), land.water_HW[pixels]

    def paint(image: Floats, time: float) -> None:
        n = sample_waves(ripples, time)
        f = sample_waves(froth, time)
        wash(image.reshape(-1, 3), place, (trough_P, crest_P, n), (white, bias, f), (flash, glint, n), cover)

    moving = np.zeros(pixels.shape, bool)
    moving[pixels] = (share > 0.6) & (cover > 0.5)
    return make_picture(land.still_HW3, land.light, motion, moving, paint, seed=seed)


def draw_sea(size: tuple[int, int], seed: int, speed: float) -> Picture:
    """A sea scene; `speed` scales its default of 1 to 3.5 px/frame (at 360 rows)."""
    rng = np.random.default_rng([seed, 3])
    light = _sea_light(rng)
    biome = BIOMES[("summer", "volcanic", "desert", "boreal", "alpine", "autumn")[int(rng.integers(6))]]
    camera = Camera(
        size=size,
        horizon=float(rng.uniform(0.26, 0.50)),
        focal=float(rng.uniform(0.9, 1.5)),
        height=float(np.exp(rng.uniform(np.log(3.0), np.log(14.0)))),
    )
    land = compose_land(
        camera,
        _coast(rng, camera, seed),
        light,
        biome,
        seed=seed,
        wisps=float(rng.uniform(0.2, 1.0)),
        clear=lambda x, z, _foot: smoothstep(140.0, 260.0, z),
    )
    y = np.mgrid[0 : size[0], 0 : size[1]][0]
    pixels = (land.water_HW > 0.02) & (y > camera.horizon_px + 1)
    bearing = float(rng.uniform(-1.0, 1.0)) * 1.25  # 0 comes straight at the viewer
    rate = (float(np.sin(bearing)), -float(np.cos(bearing)))
    top = speed * float(rng.uniform(1.2, 3.6)) * size[0] / 360.0
    coordinates = lay_coordinates(
        lambda px, py: project_ground(camera, px, py), pixels, rate=rate, top_speed=top
    )
    look = WaterLook(
        deep=((0.012, 0.05, 0.075), (0.01, 0.085, 0.095), (0.02, 0.055, 0.055))[int(rng.integers(3))],
        shallow=(0.09, 0.22, 0.20),
        rough=float(rng.uniform(0.8, 1.8)),
    )
    return fill_sea(land, coordinates, look, seed=seed, chop=float(rng.uniform(0.0, 1.0)))
