"""Water: a moving surface between the mirror of the land and its own depth, with foam and glints.

Letters: P water pixels, H and W of the picture.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numba import njit
from numpy.typing import NDArray

from pipelines.scenery.land import Land
from pipelines.scenery.picture import Paint, Picture, make_picture
from pipelines.scenery.terrain import Camera
from pipelines.scenery.texture import Coordinates
from pipelines.scenery.waves import Waves, sample_waves, visible_motion

__all__ = ["Surface", "WaterLook", "fill_water", "lie_flat", "nearness"]

Floats = NDArray[np.float32]


@dataclass(frozen=True, kw_only=True, slots=True)
class WaterLook:
    """Colours of a water body (albedo, linear) and how rough it lies."""

    deep: tuple[float, float, float] = (0.02, 0.07, 0.08)
    shallow: tuple[float, float, float] = (0.10, 0.17, 0.13)
    rough: float = 1.0  # how far ripples throw the mirror image
    contrast: float = 0.42  # least light-dark contrast of ripples


@dataclass(frozen=True, kw_only=True, slots=True)
class Surface:
    """What a painter lays on P water pixels: ripples, foam where its bias is high, flashes of the sun."""

    ripples: Waves
    froth: Waves
    foam_P: Floats  # about -1.3 none .. 0.5 white
    glint_P: Floats  # 0 .. 1
    look: WaterLook


def nearness(camera: Camera, rows_P: NDArray[np.int64]) -> Floats:
    """0 at the horizon, 1 at the picture's lower edge."""
    share = (rows_P - camera.horizon_px) / (camera.size[0] - camera.horizon_px)
    return np.asarray(np.clip(share, 0.0, 1.0), np.float32)


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
    return [(w, np.maximum(w * flat, 6.4 * unit * np.sqrt(limit_P)).astype(np.float32)) for w in wide]


def _throw(mirror: Floats, rows: Floats) -> Floats:
    """The mirror image looked up `rows` further down."""
    h, w = rows.shape
    y, x = np.mgrid[0:h, 0:w].astype(np.float32)
    return np.asarray(
        cv2.remap(mirror, x, y + rows, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT), np.float32
    )


def _fresnel(camera: Camera) -> tuple[Floats, Floats]:
    """Share of light that level water mirrors at each pixel, and how far below the horizon it lies."""
    h, w = camera.size
    y, x = np.mgrid[0:h, 0:w].astype(np.float64)
    right, up = camera.directions(x, y)
    grazing = np.abs(up) / np.sqrt(1.0 + right**2 + up**2)
    share = 0.03 + 0.97 * np.power(1.0 - np.clip(grazing, 0, 1), 5)
    return share.astype(np.float32), np.clip(-up, 0.0, 0.6).astype(np.float32)


def _faces(land: Land, look: WaterLook) -> tuple[Floats, Floats]:
    """What the two faces of a ripple show: (dark trough HW3, bright crest HW3)."""
    light, unit = land.light, land.camera.size[0] / 360.0
    fresnel, below = _fresnel(land.camera)
    reach = (look.rough * (2.0 + 46.0 * below) * unit).astype(np.float32)
    # Running water smears the mirror image; a sharp one would be a still picture inside the moving one.
    blur = max(0.6, 4.0 * unit * look.rough)
    soft = np.asarray(cv2.GaussianBlur(land.mirror_HW3, (0, 0), sigmaX=blur, sigmaY=2.2 * blur), np.float32)
    high, low = _throw(soft, 0.9 * reach), _throw(soft, -0.5 * reach)
    day = np.array(light.ambient) * 1.4 + np.array(light.sun) * 0.35
    clear = np.exp(-land.bed_HW / 1.2)[..., None]
    body = (np.array(look.deep) * (1 - clear) + np.array(look.shallow) * clear) * day
    steep = np.clip(fresnel * 0.75 + 0.05, 0, 1)[..., None]
    flat = np.clip(fresnel * 1.15 + 0.16, 0, 1)[..., None]
    trough = low * steep + body * (1 - steep)
    crest = high * flat + body * 1.25 * (1 - flat)
    mean = 0.5 * (trough + crest)
    # Bright water loses contrast to the film's shoulder, so ripples darken it more than they brighten it.
    trough = np.minimum(trough, mean * (1 - 1.25 * look.contrast))
    sheen = 0.05 * np.array(light.zenith) + 0.05 * np.array(light.horizon)
    crest = np.maximum(crest, mean * (1 + 0.7 * look.contrast) + sheen)
    return trough.astype(np.float32), crest.astype(np.float32)


@njit(cache=True)
def _wash(
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


def _painter(land: Land, coordinates: Coordinates, surface: Surface, share: Floats) -> Paint:
    pixels = coordinates.pixels
    trough, crest = (face[pixels] for face in _faces(land, surface.look))
    calm = 0.55 * trough + 0.45 * crest
    trough = (calm + (trough - calm) * share[:, None]).astype(np.float32)
    crest = (calm + (crest - calm) * share[:, None]).astype(np.float32)
    sun, ambient = np.array(land.light.sun), np.array(land.light.ambient)
    white = (0.80 * (0.52 * sun + ambient)).astype(np.float32)
    flash = (1.6 * sun).astype(np.float32)
    foam = np.where(share > 0.5, surface.foam_P, -3.0).astype(np.float32)
    glint = (surface.glint_P * share).astype(np.float32)
    place, cover = np.flatnonzero(pixels), land.water_HW[pixels]

    def paint(image: Floats, time: float) -> None:
        n = sample_waves(surface.ripples, time)
        f = sample_waves(surface.froth, time)
        _wash(image.reshape(-1, 3), place, (trough, crest, n), (white, foam, f), (flash, glint, n), cover)

    return paint


def fill_water(land: Land, coordinates: Coordinates, surface: Surface, *, seed: int) -> Picture:
    """Fill a land's water with a surface that moves by its coordinates; too slow to see counts as still."""
    share = visible_motion(coordinates)
    paint = _painter(land, coordinates, surface, share)
    moving = np.zeros(coordinates.pixels.shape, bool)
    moving[coordinates.pixels] = (share > 0.6) & (land.water_HW[coordinates.pixels] > 0.5)
    return make_picture(land.still_HW3, land.light, coordinates.motion_2HW, moving, paint, seed=seed)
