"""River: a stream that winds through a valley, towards the viewer or away."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from pipelines.scenery import noise
from pipelines.scenery.land import Land, choose_biome, compose_land
from pipelines.scenery.light import choose_light, smoothstep
from pipelines.scenery.picture import Picture
from pipelines.scenery.stream import Rapids, Stream, fill_stream
from pipelines.scenery.terrain import Camera
from pipelines.scenery.texture import lay_coordinates
from pipelines.scenery.water import WaterLook

__all__ = ["draw_river"]

Floats = NDArray[np.float32]


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


def _valley(
    rng: np.random.Generator, camera: Camera, stream: Stream, seed: int, moods: tuple[str, ...]
) -> Land:
    """A valley around the stream, hills beside it and mountains at its end."""
    light = choose_light(rng, moods)
    names = ("alpine", "boreal", "summer", "autumn", "desert", "winter", "volcanic")
    biome = choose_biome(rng, names)
    rugged, hilly = float(rng.uniform(0.4, 1.2)), float(rng.uniform(0.4, 1.4))

    def relief(x: Floats, z: Floats, foot: Floats) -> Floats:
        mountain = noise.erosion(x / 750.0, z / 750.0, seed=seed, footprint=foot / 750.0)
        hills = noise.fractal(x / 85.0, z / 85.0, seed=seed + 1, octaves=8, footprint=foot / 85.0)
        rise = 430.0 * rugged * np.clip(mountain + 0.3, 0.0, None) * smoothstep(180.0, 1700.0, z)
        side = 0.06 * hilly * np.abs(x - stream.centre(z.astype(np.float64)))
        land = 3.5 + hilly * 8.0 * (hills + 0.15) * smoothstep(0.0, 120.0, z) + side + rise
        return stream.carve(x, z, land.astype(np.float32), seed=seed)

    wisps = float(rng.uniform(0.0, 0.9))
    return compose_land(
        camera,
        relief,
        light,
        biome,
        seed=seed,
        wisps=wisps,
        clear=lambda x, z, _foot: smoothstep(1.0, 9.0, stream.gap(x, z)),
    )


def draw_river(size: tuple[int, int], seed: int, speed: float, *, moods: tuple[str, ...] = ()) -> Picture:
    """A river scene; `speed` scales its 1 to 5 px/frame (at 360 rows), `moods` limits the light."""
    rng = np.random.default_rng([seed, 2])
    camera = Camera(
        size=size,
        horizon=float(rng.uniform(0.30, 0.50)),
        focal=float(rng.uniform(0.85, 1.35)),
        height=float(rng.uniform(7.0, 13.0)),
    )
    stream = _choose_stream(rng, camera)
    every = ("noon", "morning", "golden", "sunset", "overcast", "storm", "dusk", "noon", "moonlight")
    land = _valley(rng, camera, stream, seed, moods or every)
    rows = np.arange(size[0])[:, None]
    pixels = (land.water_HW > 0.02) & (rows > camera.horizon_px + 2)
    towards = -1.0 if rng.random() < 0.7 else 1.0
    top = speed * float(rng.uniform(1.3, 4.6)) * size[0] / 360.0
    coordinates = lay_coordinates(stream.mapping(camera), pixels, rate=(towards, 0.0), top_speed=top)
    look = WaterLook(
        deep=((0.015, 0.06, 0.06), (0.02, 0.07, 0.10), (0.04, 0.07, 0.03))[int(rng.integers(3))],
        rough=float(rng.uniform(0.6, 1.3)),
    )
    rapids = Rapids(level=float(rng.uniform(0.0, 0.8)))
    return fill_stream(land, stream, coordinates, look, rapids, seed=seed)
