"""River: a stream that winds through a valley, towards the viewer or away."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from pipelines.scenery import noise
from pipelines.scenery.land import BIOMES, Biome, Land, compose_land
from pipelines.scenery.light import choose_light, smoothstep
from pipelines.scenery.picture import Picture, make_picture
from pipelines.scenery.terrain import Camera, project_ground
from pipelines.scenery.texture import Coordinates, lay_coordinates
from pipelines.scenery.water import WaterLook, lie_flat, make_waves, sample_waves, surface_colours, visible_motion, wash

__all__ = ["Stream", "draw_river", "flood"]

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, slots=True)
class Stream:
    """A winding course: centre and half width at a depth Z, and boulders (X, Z, radius)."""

    drift: float
    bend: float
    bend_length: float
    phase: float
    start: float
    half_width: float
    widening: float
    boulders: tuple[tuple[float, float, float], ...] = ()

    def centre(self, z: Doubles) -> Doubles:
        angle = z / self.bend_length + self.phase
        sway = np.sin(angle) + 0.35 * np.sin(2.3 * angle + 1.0)
        return np.asarray(self.start + self.drift * z + self.bend * sway * (z / (z + 25.0)), np.float64)

    def half(self, z: Doubles) -> Doubles:
        return np.asarray(
            self.half_width * (1.0 + self.widening * np.sin(z / (0.8 * self.bend_length) + 2.0)), np.float64
        )

    def carve(self, x: Floats, z: Floats, land: Floats, seed: int, *, end: float = 420.0) -> Floats:
        """Cut the bed into a height field; beyond `end` the stream is lost in the land."""
        zz = z.astype(np.float64)
        across = np.abs(x - self.centre(zz)) / self.half(zz)
        rough = noise.fractal(x / 6.0, z / 6.0, seed=seed + 31, octaves=5, footprint=z / 2500.0)
        across = across + 0.16 * rough
        bank = np.clip(across - 1.0, -1.0, None)
        bed = np.where(bank < 0, 2.2 * bank, 2.4 * bank * (1.0 + 0.5 * rough))
        gone = smoothstep(0.8 * end, end, z) * 3.0
        valley = smoothstep(0.15, 2.6, bank + gone)
        out = bed * (1.0 - valley) + np.maximum(land, 0.6) * valley
        for bx, bz, radius in self.boulders:
            d = np.hypot(x - bx, (z - bz) * 0.9) / radius
            lump = 0.35 * noise.fractal(x / radius * 1.3, z / radius * 1.3, seed=seed + 35, octaves=5)
            dome = radius * (0.75 - 0.95 * d * d + lump)
            out = np.where(d < 1.6, np.maximum(out, dome), out)
        return np.asarray(out, np.float32)


def _choose_stream(rng: np.random.Generator, camera: Camera) -> Stream:
    half = float(rng.uniform(0.45, 1.1)) * camera.height
    stream = Stream(
        drift=float(rng.normal(0.0, 0.16)),
        bend=half * float(rng.uniform(0.8, 2.2)),
        bend_length=float(rng.uniform(22.0, 48.0)) * camera.height / 8.0,
        phase=float(rng.uniform(0.0, 6.28)),
        start=float(rng.normal(0.0, 0.35)) * camera.height,
        half_width=half,
        widening=float(rng.uniform(0.05, 0.25)),
    )
    boulders = []
    for _ in range(int(rng.integers(0, 9))):
        z = camera.height * float(rng.uniform(1.8, 9.0))
        x = float(stream.centre(np.array(z))) + half * float(rng.uniform(-1.05, 1.05))
        boulders.append((x, z, half * float(rng.uniform(0.06, 0.22))))
    return replace(stream, boulders=tuple(boulders))


def stream_mapping(camera: Camera, stream: Stream):  # type: ignore[no-untyped-def]
    def mapping(px: Doubles, py: Doubles) -> tuple[Doubles, Doubles]:
        x, z = project_ground(camera, px, py)
        return z, (x - stream.centre(z)) / stream.half(z)

    return mapping


def flood(
    land: Land,
    stream: Stream,
    coordinates: Coordinates,
    look: WaterLook,
    *,
    seed: int,
    rapids: float,
    extra_foam: Floats | None = None,
) -> Picture:
    """Fill a land's water with a stream whose ripples move by `coordinates`."""
    camera = land.camera
    unit = camera.size[0] / 360.0
    pixels = coordinates.pixels
    motion = coordinates.motion_2HW
    speed = np.hypot(motion[0], motion[1])[pixels]
    trough, crest = surface_colours(land, look)
    share = visible_motion(speed)
    calm = 0.55 * trough[pixels] + 0.45 * crest[pixels]
    trough_P = calm + (trough[pixels] - calm) * share[:, None]
    crest_P = calm + (crest[pixels] - calm) * share[:, None]
    # Ripples shrink towards the horizon as perspective has it, though never below what a pixel can show.
    py = np.nonzero(pixels)[0]
    near = np.clip((py - camera.horizon_px) / (camera.size[0] - camera.horizon_px), 0.0, 1.0)
    limit = (0.42 + 0.75 * near).astype(np.float32)
    spans = (30.0, 15.0, 8.5) if unit <= 1.6 else (30.0, 15.0, 8.5, 4.5)
    ripples = make_waves(
        coordinates, [(b, a) for a, b in lie_flat(camera, py, spans, limit)], seed=seed, gain=0.95, crested=True
    )
    froth = make_waves(
        coordinates, ((24 * unit, 16 * unit), (9 * unit, 8 * unit)), seed=seed + 1, limit=limit
    )
    x, z = project_ground(camera, *(v.astype(np.float64) for v in np.nonzero(pixels)[::-1]))
    patch = noise.fractal(x / 9.0, z / 9.0, seed=seed + 3, octaves=4)
    across = np.abs((x - stream.centre(z)) / stream.half(z))
    bias = -1.25 + 0.9 * rapids + 0.5 * patch + 0.45 * smoothstep(0.75, 1.0, across)
    towards = -1.0 if coordinates.rate[0] < 0 else 1.0
    for bx, bz, radius in stream.boulders:
        side = np.abs(x - bx - (stream.centre(z) - stream.centre(np.array(bz)))) / radius
        after = (z - bz) * towards / radius
        wake = np.exp(-((side / (1.0 + 0.12 * np.clip(after, 0, 20))) ** 2)) * np.exp(
            -np.clip(after, 0, 99) / 5.0
        )
        bias = bias + 1.35 * wake * smoothstep(-1.6, -0.6, after)
    if extra_foam is not None:
        bias = bias + extra_foam[pixels]
    bias = np.where(share > 0.5, bias, -3.0).astype(np.float32)
    white = (0.80 * (np.array(land.light.sun) * 0.55 + np.array(land.light.ambient))).astype(np.float32)
    glint = np.zeros(py.size, np.float32)
    place = np.flatnonzero(pixels)
    cover = land.water_HW[pixels]

    def paint(image: Floats, time: float) -> None:
        n = sample_waves(ripples, time)
        f = sample_waves(froth, time)
        wash(image.reshape(-1, 3), place, (trough_P, crest_P, n), (white, bias, f), (white, glint, n), cover)

    moving = np.zeros(pixels.shape, bool)
    moving[pixels] = (share > 0.6) & (cover > 0.5)
    return make_picture(land.still_HW3, land.light, motion, moving, paint, seed=seed)


def draw_river(size: tuple[int, int], seed: int, speed: float) -> Picture:
    """A river scene; `speed` scales its default of 1 to 5 px/frame (at 360 rows)."""
    rng = np.random.default_rng([seed, 2])
    light = choose_light(
        rng, ("noon", "morning", "golden", "sunset", "overcast", "storm", "dusk", "noon", "moonlight")
    )
    biome: Biome = BIOMES[
        ("alpine", "boreal", "summer", "autumn", "desert", "winter", "volcanic")[int(rng.integers(7))]
    ]
    camera = Camera(
        size=size,
        horizon=float(rng.uniform(0.30, 0.50)),
        focal=float(rng.uniform(0.85, 1.35)),
        height=float(rng.uniform(7.0, 13.0)),
    )
    stream = _choose_stream(rng, camera)
    rugged = float(rng.uniform(0.4, 1.2))
    hilly = float(rng.uniform(0.4, 1.4))

    def relief(x: Floats, z: Floats, foot: Floats) -> Floats:
        mountain = noise.erosion(x / 750.0, z / 750.0, seed=seed, footprint=foot / 750.0)
        hills = noise.fractal(x / 85.0, z / 85.0, seed=seed + 1, octaves=8, footprint=foot / 85.0)
        rise = 430.0 * rugged * np.clip(mountain + 0.3, 0.0, None) * smoothstep(180.0, 1700.0, z)
        side = 0.06 * hilly * np.abs(x - stream.centre(z.astype(np.float64)))
        land = 3.5 + hilly * 8.0 * (hills + 0.15) * smoothstep(0.0, 120.0, z) + side + rise
        return stream.carve(x, z, land, seed)

    def clear(x: Floats, z: Floats, _foot: Floats) -> Floats:
        gap = np.abs(x - stream.centre(z.astype(np.float64))) - stream.half(z.astype(np.float64))
        return np.asarray(smoothstep(1.0, 9.0, gap), np.float32)

    land = compose_land(
        camera, relief, light, biome, seed=seed, clear=clear, wisps=float(rng.uniform(0.0, 0.9))
    )
    y = np.mgrid[0 : size[0], 0 : size[1]][0]
    pixels = (land.water_HW > 0.02) & (y > camera.horizon_px + 2)
    towards = -1.0 if rng.random() < 0.7 else 1.0
    top = speed * float(rng.uniform(1.3, 4.6)) * size[0] / 360.0
    coordinates = lay_coordinates(stream_mapping(camera, stream), pixels, rate=(towards, 0.0), top_speed=top)
    look = WaterLook(
        deep=((0.015, 0.06, 0.06), (0.02, 0.07, 0.10), (0.04, 0.07, 0.03))[int(rng.integers(3))],
        rough=float(rng.uniform(0.6, 1.3)),
    )
    return flood(land, stream, coordinates, look, seed=seed, rapids=float(rng.uniform(0.0, 0.8)))
