"""Light: time of day, sky, haze, and the last step from linear light to an 8-bit picture.

Colours are linear RGB, float32; 1 is a sunlit white wall.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numba import njit
from numpy.typing import NDArray

from pipelines.scenery import noise

__all__ = ["MOODS", "Light", "choose_light", "develop", "mix", "sky_colour", "smoothstep"]

Floats = NDArray[np.float32]
Colour = tuple[float, float, float]


@dataclass(frozen=True, kw_only=True, slots=True)
class Light:
    """One time of day. The sun's place is a direction: (right, up) at one unit of depth."""

    name: str
    sun: Colour
    zenith: Colour
    horizon: Colour
    haze: Colour
    ambient: Colour
    sun_right: float = -0.8
    sun_up: float = 0.6
    behind: bool = True  # the sun is behind the camera: no glow in the sky
    visibility: float = 2500.0  # metres until haze takes 63 % of a colour
    exposure: float = 1.35


MOODS: dict[str, Light] = {
    "noon": Light(
        name="noon",
        sun=(1.9, 1.75, 1.5),
        zenith=(0.09, 0.24, 0.58),
        horizon=(0.50, 0.66, 0.82),
        haze=(0.50, 0.62, 0.76),
        ambient=(0.26, 0.34, 0.46),
        sun_up=1.1,
    ),
    "morning": Light(
        name="morning",
        sun=(1.9, 1.5, 1.05),
        zenith=(0.16, 0.32, 0.60),
        horizon=(0.80, 0.74, 0.66),
        haze=(0.70, 0.68, 0.66),
        ambient=(0.25, 0.30, 0.38),
        sun_up=0.45,
        visibility=1500.0,
    ),
    "golden": Light(
        name="golden",
        sun=(2.3, 1.35, 0.58),
        zenith=(0.15, 0.24, 0.43),
        horizon=(1.05, 0.66, 0.34),
        haze=(0.80, 0.54, 0.36),
        ambient=(0.22, 0.23, 0.30),
        sun_up=0.16,
        behind=False,
        visibility=1700.0,
    ),
    "sunset": Light(
        name="sunset",
        sun=(2.2, 0.85, 0.30),
        zenith=(0.10, 0.12, 0.28),
        horizon=(1.00, 0.40, 0.20),
        haze=(0.52, 0.29, 0.27),
        ambient=(0.17, 0.15, 0.23),
        sun_up=0.06,
        behind=False,
        visibility=1800.0,
    ),
    "dusk": Light(
        name="dusk",
        sun=(0.55, 0.34, 0.42),
        zenith=(0.05, 0.08, 0.22),
        horizon=(0.52, 0.30, 0.36),
        haze=(0.28, 0.22, 0.34),
        ambient=(0.15, 0.16, 0.27),
        sun_up=0.3,
        behind=False,
        visibility=1600.0,
        exposure=1.6,
    ),
    "overcast": Light(
        name="overcast",
        sun=(0.45, 0.45, 0.44),
        zenith=(0.42, 0.47, 0.53),
        horizon=(0.70, 0.72, 0.74),
        haze=(0.62, 0.65, 0.68),
        ambient=(0.46, 0.49, 0.53),
        sun_up=1.6,
        visibility=900.0,
    ),
    "storm": Light(
        name="storm",
        sun=(0.75, 0.68, 0.52),
        zenith=(0.12, 0.15, 0.19),
        horizon=(0.46, 0.48, 0.45),
        haze=(0.34, 0.37, 0.38),
        ambient=(0.22, 0.25, 0.29),
        sun_up=0.5,
        visibility=1100.0,
        exposure=1.5,
    ),
    "moonlight": Light(
        name="moonlight",
        sun=(0.30, 0.36, 0.46),
        zenith=(0.02, 0.035, 0.085),
        horizon=(0.09, 0.13, 0.21),
        haze=(0.08, 0.115, 0.18),
        ambient=(0.06, 0.08, 0.13),
        sun_up=0.55,
        visibility=2000.0,
        exposure=2.6,
    ),
}


def smoothstep(low: float, high: float, x: NDArray[np.floating]) -> Floats:
    t = np.clip((np.asarray(x, np.float32) - low) / (high - low), 0.0, 1.0)
    return np.asarray(t * t * (3.0 - 2.0 * t), np.float32)


def mix(a: NDArray[np.floating], b: NDArray[np.floating], share: NDArray[np.floating]) -> Floats:
    """a where share is 0, b where it is 1; `share` lacks the colour axis."""
    s = np.asarray(share, np.float32)[..., None]
    return np.asarray(np.asarray(a, np.float32) * (1.0 - s) + np.asarray(b, np.float32) * s, np.float32)


def choose_light(rng: np.random.Generator, names: tuple[str, ...]) -> Light:
    """One of the named moods, with its sun, tint and haze varied."""
    light = MOODS[names[int(rng.integers(len(names)))]]
    tint = np.exp(rng.normal(0.0, 0.05, 3))

    def vary(colour: Colour) -> Colour:
        r, g, b = (float(c * t) for c, t in zip(colour, tint, strict=True))
        return (r, g, b)

    side = -1.0 if rng.random() < 0.5 else 1.0
    return replace(
        light,
        sun=vary(light.sun),
        zenith=vary(light.zenith),
        horizon=vary(light.horizon),
        haze=vary(light.haze),
        sun_right=side * float(rng.uniform(0.1, 0.6) if not light.behind else rng.uniform(0.5, 1.4)),
        sun_up=light.sun_up * float(rng.uniform(0.8, 1.25)),
        visibility=light.visibility * float(np.exp(rng.normal(0.0, 0.3))),
    )


def sky_colour(right: Floats, up: Floats, light: Light, *, seed: int, wisps: float = 0.5) -> Floats:
    """The sky in directions (right, up) at one unit of depth, (..., 3); `wisps` of thin high cloud."""
    elevation = np.maximum(up, 0.0) / np.sqrt(1.0 + right * right)
    zenith, horizon = np.array(light.zenith, np.float32), np.array(light.horizon, np.float32)
    share = 1.0 - np.exp(-2.6 * elevation)
    sky = mix(np.broadcast_to(horizon, (*right.shape, 3)), np.broadcast_to(zenith, (*right.shape, 3)), share)
    sun = np.array(light.sun, np.float32)
    if not light.behind:
        distance = np.hypot(right - light.sun_right, (np.maximum(up, 0.0) - light.sun_up) * 1.15)
        glow = 0.30 * np.exp(-distance * 3.2) + 0.45 * np.exp(-distance * 14.0)
        disc = smoothstep(0.030, 0.022, distance)
        sky = sky + sun * (glow + 3.0 * disc)[..., None]
    if wisps > 0.0:
        depth = 1.0 / (elevation + 0.09)
        x, z = right * depth * 0.5, depth * 0.9
        foot = 0.004 * depth * depth
        warp = noise.fractal(x * 0.6, z * 0.6, seed=seed + 5, octaves=3)
        thin = noise.fractal(x * 0.7 + warp, z * 1.6 + 0.7 * warp, seed=seed + 6, octaves=7, footprint=foot)
        cover = wisps * smoothstep(-0.15, 0.85, thin) * smoothstep(0.01, 0.16, elevation)
        bright = 0.62 * sun * 0.45 + 0.9 * horizon + 0.1
        sky = mix(sky, np.broadcast_to(bright, sky.shape), np.clip(cover, 0.0, 0.85))
    return sky.astype(np.float32)


@njit(cache=True)
def _develop(
    image: Floats, curve: NDArray[np.uint8], scale: float, grain: Floats, out: NDArray[np.uint8]
) -> None:
    height, width, _ = image.shape
    last = curve.size - 1
    for y in range(height):
        for x in range(width):
            for c in range(3):
                index = image[y, x, c] * scale + 0.5
                # Grain in curve steps: the same for every frame, so it never flickers.
                index = index * (1.0 + grain[y, x])
                out[y, x, c] = curve[min(last, max(0, int(index)))]


_CURVE_STEPS = 16384
_CURVE_MAX = 4.0


def _curve(exposure: float) -> NDArray[np.uint8]:
    light = (np.arange(_CURVE_STEPS) / (_CURVE_STEPS - 1) * _CURVE_MAX) * exposure
    film = 1.0 - np.exp(-light)
    encoded = np.power(film, 1.0 / 2.2)
    contrast = encoded + 0.10 * np.sin((encoded - 0.5) * 2.0 * np.pi) * 0.5
    return np.asarray(np.clip(np.rint(contrast * 255.0), 0, 255), np.uint8)


def develop(image_HW3: Floats, light: Light, grain_HW: Floats) -> NDArray[np.uint8]:
    """Expose, tone-map and encode a linear picture as sRGB-like 8 bit, with static film grain."""
    out = np.empty(image_HW3.shape, np.uint8)
    scale = (_CURVE_STEPS - 1) / _CURVE_MAX
    _develop(np.ascontiguousarray(image_HW3, np.float32), _curve(light.exposure), scale, grain_HW, out)
    return out
