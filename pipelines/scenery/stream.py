"""Stream: a winding course with boulders, its bed in the land and its rapids on the water."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipelines.scenery import noise
from pipelines.scenery.land import Land
from pipelines.scenery.light import smoothstep
from pipelines.scenery.picture import Picture
from pipelines.scenery.terrain import Camera, project_ground
from pipelines.scenery.texture import Coordinates, Mapping
from pipelines.scenery.water import Surface, WaterLook, fill_water, lie_flat, nearness
from pipelines.scenery.waves import make_waves

__all__ = ["Rapids", "Stream", "fill_stream"]

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, slots=True)
class Stream:
    """A winding course: centre and half width by depth Z, and boulders (X, Z, radius); metres."""

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
        swell = 1.0 + self.widening * np.sin(z / (0.8 * self.bend_length) + 2.0)
        return np.asarray(self.half_width * swell, np.float64)

    def gap(self, x: Floats, z: Floats) -> Floats:
        """Metres from the bank, negative in the water."""
        zz = z.astype(np.float64)
        return np.asarray(np.abs(x - self.centre(zz)) - self.half(zz), np.float32)

    def mapping(self, camera: Camera) -> Mapping:
        """Pattern coordinates on the water: along by depth, across by share of the half width."""

        def map_pixels(px: Doubles, py: Doubles) -> tuple[Doubles, Doubles]:
            x, z = project_ground(camera, px, py)
            return z, (x - self.centre(z)) / self.half(z)

        return map_pixels

    def carve(self, x: Floats, z: Floats, land: Floats, *, seed: int, end: float = 420.0) -> Floats:
        """Cut the bed into a height field; beyond `end` the stream is lost in the land."""
        zz = z.astype(np.float64)
        rough = noise.fractal(x / 6.0, z / 6.0, seed=seed + 31, octaves=5, footprint=z / 2500.0)
        across = np.abs(x - self.centre(zz)) / self.half(zz) + 0.16 * rough
        bank = np.clip(across - 1.0, -1.0, None)
        bed = np.where(bank < 0, 2.2 * bank, 2.4 * bank * (1.0 + 0.5 * rough))
        gone = smoothstep(0.8 * end, end, z) * 3.0
        valley = smoothstep(0.15, 2.6, bank + gone)
        out = bed * (1.0 - valley) + np.maximum(land, 0.6) * valley
        for bx, bz, radius in self.boulders:
            d = np.hypot(x - bx, (z - bz) * 0.9) / radius
            here = d < 1.6
            at_x, at_z = x[here] / radius * 1.3, z[here] / radius * 1.3
            lump = 0.35 * noise.fractal(at_x, at_z, seed=seed + 35, octaves=5)
            out[here] = np.maximum(out[here], radius * (0.75 - 0.95 * d[here] ** 2 + lump))
        return np.asarray(out, np.float32)

    def wakes(self, x: Doubles, z: Doubles, towards: float) -> Doubles:
        """White water around and behind the boulders, 0 to 1 each; `towards` is the current's sign in Z."""
        total = np.zeros(x.shape)
        for bx, bz, radius in self.boulders:
            side = np.abs(x - bx - (self.centre(z) - self.centre(np.array(bz)))) / radius
            after = (z - bz) * towards / radius
            width = 1.0 + 0.12 * np.clip(after, 0, 20)
            fading = np.exp(-np.clip(after, 0, 99) / 5.0)
            total += np.exp(-((side / width) ** 2)) * fading * smoothstep(-1.6, -0.6, after)
        return total


@dataclass(frozen=True, kw_only=True, slots=True)
class Rapids:
    """How white a stream is: everywhere, and at some pixels more."""

    level: float
    extra_HW: Floats | None = None


def fill_stream(
    land: Land, stream: Stream, coordinates: Coordinates, look: WaterLook, rapids: Rapids, *, seed: int
) -> Picture:
    """Fill a land's water with a stream whose ripples move by `coordinates` (a along, b across)."""
    camera, pixels = land.camera, coordinates.pixels
    py, px = np.nonzero(pixels)
    limit = 0.42 + 0.75 * nearness(camera, py)
    unit = camera.size[0] / 360.0
    spans = (30.0, 15.0, 8.5) if unit <= 1.6 else (30.0, 15.0, 8.5, 4.5)
    ripple_lengths = [(into, across) for across, into in lie_flat(camera, py, spans, limit)]
    froth_lengths = [(24 * unit * limit, 16 * unit * limit), (9 * unit * limit, 8 * unit * limit)]
    if unit > 1.6:
        froth_lengths.append((4 * unit * limit, 3.6 * unit * limit))
    x, z = project_ground(camera, px.astype(np.float64), py.astype(np.float64))
    patch = noise.fractal(x / 9.0, z / 9.0, seed=seed + 3, octaves=4)
    across = np.abs((x - stream.centre(z)) / stream.half(z))
    towards = -1.0 if coordinates.rate[0] < 0 else 1.0
    foam = -1.25 + 0.9 * rapids.level + 0.5 * patch + 0.45 * smoothstep(0.75, 1.0, across)
    foam = foam + 1.35 * stream.wakes(x, z, towards)
    if rapids.extra_HW is not None:
        foam = foam + rapids.extra_HW[pixels]
    surface = Surface(
        ripples=make_waves(coordinates, ripple_lengths, seed=seed, gain=0.95, crests=0.75),
        froth=make_waves(coordinates, froth_lengths, seed=seed + 1),
        foam_P=foam.astype(np.float32),
        glint_P=np.zeros(py.size, np.float32),
        look=look,
    )
    return fill_water(land, coordinates, surface, seed=seed)
