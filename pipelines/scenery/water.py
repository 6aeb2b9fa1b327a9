"""Water: a moving surface between the mirror of the land and its own depth, with foam and glints.

Letters: P moving pixels, H and W of the picture.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numba import njit
from numpy.typing import NDArray

from pipelines.scenery.land import Land
from pipelines.scenery.light import smoothstep
from pipelines.scenery.terrain import Camera
from pipelines.scenery.texture import Band, Coordinates, make_band, sample_band

__all__ = ["Waves", "WaterLook", "calm_water", "lie_flat", "make_waves", "sample_waves", "surface_colours", "wash"]

Floats = NDArray[np.float32]


@dataclass(frozen=True, kw_only=True, slots=True)
class WaterLook:
    """Colours of a water body (albedo, linear) and how rough it lies."""

    deep: tuple[float, float, float] = (0.02, 0.07, 0.08)
    shallow: tuple[float, float, float] = (0.10, 0.17, 0.13)
    rough: float = 1.0  # how far ripples throw the mirror image
    contrast: float = 0.42  # least light-dark contrast of ripples


@dataclass(frozen=True, kw_only=True, slots=True)
class Waves:
    """Several bands of one moving texture and their strengths."""

    coordinates: Coordinates
    bands: tuple[Band, ...]
    strengths: tuple[float, ...]
    crested: bool = False  # finer bands as sharp crests instead of soft lumps


def make_waves(
    coordinates: Coordinates,
    wavelengths: Sequence[tuple[Floats | float, Floats | float]],
    *,
    seed: int,
    gain: float = 0.75,
    limit: Floats | float = 1.0,
    crested: bool = False,
) -> Waves:
    """Bands with the given (along, across) wavelengths in pixels, `limit` scaling them pixel by pixel."""
    bands = tuple(
        make_band(coordinates, along * limit, across * limit, seed=seed * 31 + 7 * n + 1)
        for n, (along, across) in enumerate(wavelengths)
    )
    strengths = np.array([gain**n for n in range(len(bands))])
    strengths /= np.sqrt((strengths**2).sum())
    return Waves(coordinates=coordinates, bands=bands, strengths=tuple(float(s) for s in strengths), crested=crested)


def lie_flat(
    camera: Camera, rows_P: NDArray[np.int64], spans: Sequence[float], limit_P: Floats
) -> list[tuple[Floats, Floats]]:
    """Wavelengths (across the view, into it) in pixels of ripples that lie on level water.

    `spans` are widths at 360 rows. Perspective flattens them towards the horizon, down to what a pixel shows.
    """
    unit = camera.size[0] / 360.0
    _, up = camera.directions(np.zeros(rows_P.size), rows_P)
    flat = np.clip(1.7 * np.abs(up), 0.0, 0.9)
    wide = [np.asarray(span * unit * limit_P, np.float32) for span in spans]
    return [(w, np.maximum(w * flat, 5.2 * unit * np.sqrt(limit_P)).astype(np.float32)) for w in wide]


def sample_waves(waves: Waves, time: float, *, shift: tuple[float, float] = (0.0, 0.0)) -> Floats:
    """The summed bands (P,), mean 0 and deviation about 1."""
    total = np.zeros(waves.coordinates.a_P.size, np.float32)
    for n, (band, strength) in enumerate(zip(waves.bands, waves.strengths, strict=True)):
        value = sample_band(waves.coordinates, band, time, shift=shift)
        if waves.crested and n:
            value = np.float32(1.7) * (np.float32(0.8) - np.abs(value))
        total += np.float32(strength) * value
    return total


def _throw(mirror: Floats, rows: Floats) -> Floats:
    """The mirror image looked up `rows` further down, softened as ripples do."""
    h, w = rows.shape
    y, x = np.mgrid[0:h, 0:w].astype(np.float32)
    return np.asarray(
        cv2.remap(mirror, x, y + rows, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT), np.float32
    )


def surface_colours(land: Land, look: WaterLook) -> tuple[Floats, Floats]:
    """What the two faces of a ripple show: (dark trough HW3, bright crest HW3)."""
    camera, light = land.camera, land.light
    h, w = camera.size
    y, x = np.mgrid[0:h, 0:w].astype(np.float64)
    right, up = camera.directions(x, y)
    grazing = np.abs(up) / np.sqrt(1.0 + right**2 + up**2)
    fresnel = 0.03 + 0.97 * np.power(1.0 - np.clip(grazing, 0, 1), 5)
    unit = h / 360.0
    reach = (look.rough * (2.0 + 46.0 * np.clip(-up, 0, 0.6)) * unit).astype(np.float32)
    # Running water smears the mirror image; a sharp one would be a still picture inside the moving one.
    blur = max(0.6, 4.0 * unit * look.rough)
    soft = cv2.GaussianBlur(land.mirror_HW3, (0, 0), sigmaX=blur, sigmaY=2.2 * blur)
    high, low = _throw(soft, 0.9 * reach), _throw(soft, -0.5 * reach)
    day = np.array(light.ambient) * 1.4 + np.array(light.sun) * 0.35
    clear = np.exp(-land.bed_HW / 1.2)[..., None]
    body = (np.array(look.deep) * (1 - clear) + np.array(look.shallow) * clear) * day
    steep = np.clip(fresnel * 0.75 + 0.05, 0, 1)[..., None]
    flat = np.clip(fresnel * 1.15 + 0.16, 0, 1)[..., None]
    trough = low * steep + body * (1 - steep)
    crest = high * flat + body * 1.25 * (1 - flat)
    mean = 0.5 * (trough + crest)
    c = look.contrast
    trough = np.minimum(trough, mean * (1 - c))
    sheen = 0.05 * np.array(light.zenith) + 0.05 * np.array(light.horizon)
    crest = np.maximum(crest, mean * (1 + c) + sheen)
    return trough.astype(np.float32), crest.astype(np.float32)


def calm_water(land: Land, look: WaterLook) -> Floats:
    """Still water for where motion is too slow to see: the average of the ripple's faces."""
    trough, crest = surface_colours(land, look)
    return np.asarray(0.55 * trough + 0.45 * crest, np.float32)


@njit(cache=True)
def wash(
    image: Floats,
    place: NDArray[np.int64],
    faces: tuple[Floats, Floats, Floats],
    foam: tuple[Floats, Floats, Floats],
    glint: tuple[Floats, Floats, Floats],
    cover: Floats,
) -> None:
    """Paint P water pixels: faces (trough P3, crest P3, ripple P), foam (colour 3, bias P, texture P),
    glint (colour 3, strength P, texture P), over what is there by `cover` P. `image` is (H * W, 3)."""
    trough, crest, ripple = faces
    foam_colour, foam_bias, foam_texture = foam
    glint_colour, glint_strength, glint_texture = glint
    for p in range(place.size):
        n = ripple[p]
        s = 0.46 + 0.30 * n + 0.05 * n * abs(n)
        s = min(1.25, max(-0.1, s))
        f = (foam_texture[p] * 0.5 + foam_bias[p]) * 1.2
        f = min(1.0, max(0.0, f))
        f = f * f * (3.0 - 2.0 * f)
        g = 0.0
        if glint_strength[p] > 0.001:
            g = min(1.0, max(0.0, (glint_texture[p] - 0.75) * 1.3))
            g = g * g * glint_strength[p]
        q = place[p]
        k = cover[p]
        for c in range(3):
            v = trough[p, c] + (crest[p, c] - trough[p, c]) * s
            v = max(v, 0.0) + g * glint_colour[c]
            v = v + (foam_colour[c] * (0.85 + 0.10 * n) - v) * f
            image[q, c] = image[q, c] * (1.0 - k) + v * k


def visible_motion(speed: Floats) -> Floats:
    """Share of the ripples' contrast at a speed in px/frame: motion too slow to see is drawn still."""
    return smoothstep(0.10, 0.22, speed)
