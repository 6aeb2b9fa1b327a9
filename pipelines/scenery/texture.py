"""Moving texture whose motion is known exactly.

A texture T is laid on two pattern coordinates a(x, y), b(x, y) and slides along them at constant rates:
value(x, y, t) = T(a - rate_a t, b - rate_b t). So it is carried by the one stationary motion field M with
grad a . M = rate_a and grad b . M = rate_b, that is M = J^-1 (rate_a, rate_b): exact, for ever, without
cross-fades. Perspective, falling and widening all come from the shape of a and b alone.
Letters: P pixels that carry texture.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numba import njit
from numpy.typing import NDArray

from pipelines.scenery import noise

__all__ = ["Band", "Coordinates", "Mapping", "lay_coordinates", "make_band", "sample_band"]

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]
Mapping = Callable[[Doubles, Doubles], tuple[Doubles, Doubles]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Coordinates:
    """Pattern coordinates at the P textured pixels, how fast they slide, and the motion that follows."""

    pixels: NDArray[np.bool_]  # (H, W), P of them true
    a_P: Doubles
    b_P: Doubles
    steep_a_P: Floats  # |grad a|, units a pixel
    steep_b_P: Floats
    rate: tuple[float, float]
    motion_2HW: Floats  # px/frame, 0 outside `pixels`


def lay_coordinates(
    mapping: Mapping, pixels: NDArray[np.bool_], *, rate: tuple[float, float], top_speed: float | None = None
) -> Coordinates:
    """Evaluate a mapping at the true pixels and derive the motion it implies.

    `top_speed`: scale the rates so that the 95th percentile of speed is this many px/frame.
    """
    y, x = (v.astype(np.float64) for v in np.nonzero(pixels))
    a, b = mapping(x, y)
    e = 1e-3
    (a_e, b_e), (a_w, b_w) = mapping(x + e, y), mapping(x - e, y)
    (a_s, b_s), (a_n, b_n) = mapping(x, y + e), mapping(x, y - e)
    ax, ay = (a_e - a_w) / (2 * e), (a_s - a_n) / (2 * e)
    bx, by = (b_e - b_w) / (2 * e), (b_s - b_n) / (2 * e)
    det = ax * by - ay * bx
    det = np.where(np.abs(det) < 1e-18, 1e-18, det)
    dx = (by * rate[0] - ay * rate[1]) / det
    dy = (ax * rate[1] - bx * rate[0]) / det
    if top_speed is not None and dx.size:
        scale = top_speed / max(float(np.percentile(np.hypot(dx, dy), 95)), 1e-9)
        dx, dy, rate = dx * scale, dy * scale, (rate[0] * scale, rate[1] * scale)
    motion = np.zeros((2, *pixels.shape), np.float32)
    motion[0][pixels], motion[1][pixels] = dx, dy
    return Coordinates(
        pixels=pixels,
        a_P=a,
        b_P=b,
        steep_a_P=np.hypot(ax, ay).astype(np.float32),
        steep_b_P=np.hypot(bx, by).astype(np.float32),
        rate=rate,
        motion_2HW=motion,
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class Band:
    """One band of texture: at every pixel the four nearest scales and their shares."""

    level_a_P: NDArray[np.int16]
    level_b_P: NDArray[np.int16]
    share_a_P: Floats
    share_b_P: Floats
    seed: int


def make_band(
    coordinates: Coordinates, wavelength_a: Floats | float, wavelength_b: Floats | float, *, seed: int
) -> Band:
    """A band whose features measure about these wavelengths in pixels along a and b, everywhere.

    Scales are powers of two of the pattern's own units, blended: each is carried exactly by the motion.
    """
    level_a = np.log2(np.maximum(wavelength_a * coordinates.steep_a_P, 1e-12))
    level_b = np.log2(np.maximum(wavelength_b * coordinates.steep_b_P, 1e-12))
    floor_a, floor_b = np.floor(level_a), np.floor(level_b)
    return Band(
        level_a_P=floor_a.astype(np.int16),
        level_b_P=floor_b.astype(np.int16),
        share_a_P=(level_a - floor_a).astype(np.float32),
        share_b_P=(level_b - floor_b).astype(np.float32),
        seed=seed,
    )


@njit(cache=True)
def _sample(
    tile: Floats,
    place: tuple[Doubles, Doubles],
    levels: tuple[NDArray[np.int16], NDArray[np.int16], Floats, Floats],
    slide: tuple[float, float, int],
    out: Floats,
) -> None:
    a_P, b_P = place
    level_a, level_b, share_a, share_b = levels
    slide_a, slide_b, salt = slide
    mask = tile.shape[0] - 1
    texels = np.empty(80)
    offset_a = np.empty(80)
    offset_b = np.empty(80)
    for k in range(80):
        texels[k] = 16.0 * 2.0 ** (40 - k)
        h = noise._hash(k, 1, salt)
        offset_a[k] = (h & 0x3FF) + 0.37
        offset_b[k] = ((h >> 10) & 0x3FF) + 0.61
    for p in range(a_P.size):
        total = 0.0
        power = 0.0
        for i in range(2):
            weight_a = share_a[p] if i else 1.0 - share_a[p]
            if weight_a < 0.02:
                continue
            ka = level_a[p] + i + 40
            u = (a_P[p] - slide_a) * texels[ka] + offset_a[ka]
            uf = np.floor(u)
            s = np.float32(u - uf)
            x0 = int(uf) & mask
            x1 = (x0 + 1) & mask
            for j in range(2):
                weight = weight_a * (share_b[p] if j else 1.0 - share_b[p])
                if weight < 0.02:
                    continue
                kb = level_b[p] + j + 40
                v = (b_P[p] - slide_b) * texels[kb] + offset_b[kb]
                vf = np.floor(v)
                t = np.float32(v - vf)
                y0 = int(vf) & mask
                y1 = (y0 + 1) & mask
                top = tile[y0, x0] + s * (tile[y0, x1] - tile[y0, x0])
                low = tile[y1, x0] + s * (tile[y1, x1] - tile[y1, x0])
                total += weight * (top + t * (low - top))
                power += weight * weight
        out[p] = total / np.sqrt(max(power, 1e-6))


def sample_band(
    coordinates: Coordinates, band: Band, time: float, *, shift: tuple[float, float] = (0, 0)
) -> Floats:
    """The band's values (P,), mean 0 and deviation about 1, at a time in frames."""
    out = np.empty(coordinates.a_P.size, np.float32)
    rate_a, rate_b = coordinates.rate
    _sample(
        noise.tile(band.seed),
        (coordinates.a_P, coordinates.b_P),
        (band.level_a_P, band.level_b_P, band.share_a_P, band.share_b_P),
        (rate_a * time + shift[0], rate_b * time + shift[1], band.seed & 0xFFFF),
        out,
    )
    return out
