"""Sea: swell over open water, along a beach, a cliff coast or between islands."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipelines.scenery import noise
from pipelines.scenery.land import Land, choose_biome, compose_land
from pipelines.scenery.light import choose_light, smoothstep
from pipelines.scenery.picture import Picture
from pipelines.scenery.terrain import Camera, project_ground
from pipelines.scenery.texture import Coordinates, lay_coordinates
from pipelines.scenery.water import Surface, WaterLook, fill_water, lie_flat, nearness
from pipelines.scenery.waves import make_waves

__all__ = ["draw_sea", "fill_sea"]

Floats = NDArray[np.float32]


@dataclass(frozen=True, kw_only=True, slots=True)
class _Coast:
    """A coast: beach and side cliffs or not, islands far out, sea stacks nearer; metres."""

    beach: bool
    cliffs: bool
    side: float
    lean: float
    tall: float
    near: float  # distance at which the picture's lower edge meets the water
    shore: float
    rocks: float
    reef_tall: float
    seed: int

    def height(self, x: Floats, z: Floats, foot: Floats) -> Floats:
        seed, near = self.seed, self.near
        wide = noise.fractal(x / 420.0, z / 420.0, seed=seed + 2, octaves=7, footprint=foot / 420.0)
        rough = noise.fractal(x / 14.0, z / 14.0, seed=seed + 3, octaves=7, footprint=foot / 14.0)
        island = noise.erosion(x / 900.0, z / 900.0, seed=seed + 4, footprint=foot / 900.0)
        height = -6.0 + 160.0 * np.clip(island - 0.12, -0.05, None) * smoothstep(250.0, 900.0, z)
        if self.beach:
            edge = self.shore * (1.0 + self.lean * x / (2.0 * self.shore)) + 0.75 * wide * near
            sand = (edge - z) * 0.09 + 0.12 * rough
            height = np.maximum(height, np.clip(sand, -6.0, 3.0))
        if self.cliffs:
            gap = self.side * x - (0.10 + 0.22 * wide) * z - 1.1 * near
            wall = np.clip(gap * 0.75, -6.0, self.tall * (0.55 + 0.6 * wide + 0.25 * rough))
            height = np.maximum(height, wall + smoothstep(0.0, 12.0, wall) * 5.0 * rough)
        return np.asarray(np.maximum(height, self._stacks(x, z, foot, rough, wide)), np.float32)

    def _stacks(self, x: Floats, z: Floats, foot: Floats, rough: Floats, wide: Floats) -> Floats:
        place = noise.fractal(x / 24.0, z / 24.0, seed=self.seed + 5, octaves=5, footprint=foot / 24.0)
        over = place + self.rocks - 0.34
        crown = np.tanh(np.clip(over, 0.0, None) * 9.0)
        stack = np.where(over > 0, crown * (self.reef_tall * (1.0 + 0.8 * wide) + 2.5 * rough) - 0.5, -6.0)
        here = smoothstep(2.2 * self.near, 3.0 * self.near, z) * smoothstep(380.0, 200.0, z)
        return np.asarray(stack * here - 6.0 * (1.0 - here), np.float32)


def _choose_coast(rng: np.random.Generator, camera: Camera, seed: int) -> _Coast:
    kind = ("beach", "cliffs", "islands", "bay")[int(rng.integers(4))]
    near = camera.height / max((1.0 - camera.horizon) / camera.focal, 0.05)
    return _Coast(
        beach=kind in ("beach", "bay"),
        cliffs=kind in ("cliffs", "bay"),
        side=-1.0 if rng.random() < 0.5 else 1.0,
        lean=float(rng.uniform(-0.5, 0.5)),
        tall=float(rng.uniform(25.0, 80.0)),
        near=near,
        shore=near * float(rng.uniform(1.15, 1.7)),
        rocks=float(rng.uniform(-0.70, 0.05)),
        reef_tall=float(rng.uniform(3.0, 11.0)),
        seed=seed,
    )


def _glitter(land: Land, pixels: NDArray[np.bool_]) -> Floats:
    """How strongly each water pixel can flash the sun (a column below it)."""
    py, px = np.nonzero(pixels)
    if land.light.behind:
        return np.full(py.size, 0.05, np.float32)
    right, up = land.camera.directions(px, py)
    width = 0.05 + 0.9 * np.abs(up)
    return np.asarray(np.exp(-(((right - land.light.sun_right) / width) ** 2)), np.float32)


def fill_sea(land: Land, coordinates: Coordinates, look: WaterLook, *, seed: int, chop: float) -> Picture:
    """Fill a land's water with swell that moves by `coordinates` (a across the view, b into it)."""
    camera = land.camera
    py, px = np.nonzero(coordinates.pixels)
    limit = 0.36 + 0.85 * nearness(camera, py)
    spans = (62.0, 27.0, 12.5) if camera.size[0] <= 576 else (62.0, 27.0, 12.5, 6.5)
    x, z = project_ground(camera, px.astype(np.float64), py.astype(np.float64))
    patch = noise.fractal(x / 60.0, z / 60.0, seed=seed + 3, octaves=4)
    shallow = np.exp(-land.bed_HW[coordinates.pixels] / 0.35)
    surface = Surface(
        ripples=make_waves(coordinates, lie_flat(camera, py, spans, limit), seed=seed, gain=0.9, crests=1.0),
        froth=make_waves(coordinates, lie_flat(camera, py, (52.0, 17.0), limit), seed=seed + 1),
        foam_P=(-1.35 + 0.75 * chop + 0.35 * patch + 1.1 * shallow).astype(np.float32),
        glint_P=_glitter(land, coordinates.pixels),
        look=look,
    )
    return fill_water(land, coordinates, surface, seed=seed)


def draw_sea(size: tuple[int, int], seed: int, speed: float) -> Picture:
    """A sea scene; `speed` scales its default of 1 to 3.5 px/frame (at 360 rows)."""
    rng = np.random.default_rng([seed, 3])
    moods = ("noon", "morning", "golden", "sunset", "overcast", "storm", "dusk", "golden", "moonlight")
    light = choose_light(rng, moods)
    biome = choose_biome(rng, ("summer", "volcanic", "desert", "boreal", "alpine", "autumn"))
    camera = Camera(
        size=size,
        horizon=float(rng.uniform(0.26, 0.50)),
        focal=float(rng.uniform(0.9, 1.5)),
        height=float(np.exp(rng.uniform(np.log(3.0), np.log(14.0)))),
    )
    land = compose_land(
        camera,
        _choose_coast(rng, camera, seed).height,
        light,
        biome,
        seed=seed,
        wisps=float(rng.uniform(0.2, 1.0)),
        clear=lambda x, z, _foot: smoothstep(140.0, 260.0, z),
    )
    rows = np.arange(size[0])[:, None]
    pixels = (land.water_HW > 0.02) & (rows > camera.horizon_px + 1)
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
