"""Terrain: a relief seen in perspective, with water at height 0 and what mirrors in it.

World axes: X right, Y up, Z forward, metres; the camera stands at (0, height, 0) and looks along Z, so a
column of pixels is a vertical plane and the relief can be swept front to back column by column.
Letters: K depths, I columns of pixels, H and W of the picture.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numba import njit
from numpy.typing import NDArray

from pipelines.scenery.light import Light, mix, smoothstep

__all__ = [
    "Camera",
    "Ground",
    "Relief",
    "View",
    "project_ground",
    "reduce_image",
    "shade",
    "survey",
    "view",
]

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]
Numbers = NDArray[np.floating] | NDArray[np.integer]
Relief = Callable[[Floats, Floats, Floats], Floats]  # X, Z, footprint -> height in metres


@dataclass(frozen=True, kw_only=True, slots=True)
class Camera:
    """A level camera. `horizon` is the horizon's row over the picture height, `focal` in picture heights."""

    size: tuple[int, int]
    horizon: float
    focal: float
    height: float

    @property
    def focal_px(self) -> float:
        return self.focal * self.size[0]

    @property
    def horizon_px(self) -> float:
        return self.horizon * self.size[0]

    def directions(self, x: Numbers, y: Numbers) -> tuple[Doubles, Doubles]:
        """(right, up) at one unit of depth for pixel positions."""
        right = (np.asarray(x) + 0.5 - 0.5 * self.size[1]) / self.focal_px
        up = (self.horizon_px - (np.asarray(y) + 0.5)) / self.focal_px
        return right.astype(np.float64), up.astype(np.float64)

    def larger(self, factor: int) -> Camera:
        h, w = self.size
        return Camera(
            size=(h * factor, w * factor), horizon=self.horizon, focal=self.focal, height=self.height
        )

    def row_of(self, height: NDArray[np.floating] | float, depth: NDArray[np.floating] | float) -> Floats:
        drop = self.focal_px * (self.height - np.asarray(height)) / np.asarray(depth)
        return np.asarray(self.horizon_px + drop - 0.5, np.float32)

    def column_of(self, right: NDArray[np.floating] | float, depth: NDArray[np.floating] | float) -> Floats:
        return np.asarray(0.5 * self.size[1] + self.focal_px * np.asarray(right) / depth - 0.5, np.float32)


def project_ground(
    camera: Camera, x: NDArray[np.floating], y: NDArray[np.floating], *, height: float = 0.0
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """World (X, Z) of the plane Y = height under pixel positions; far beyond the horizon above it."""
    right, up = camera.directions(x, y)
    down = np.maximum(-up if camera.height > height else up, 1e-5)
    depth = abs(camera.height - height) / down
    return np.asarray(right * depth, np.float64), np.asarray(depth, np.float64)


@dataclass(frozen=True, kw_only=True, slots=True)
class Ground:
    """A surveyed relief on the camera's own grid: K depths by I columns."""

    camera: Camera
    depth_K: Floats
    x_KI: Floats
    z_KI: Floats
    raw_KI: Floats  # below 0 under water
    height_KI: Floats  # never below 0
    normal_KI3: Floats
    lit_KI: Floats  # 1 in the sun, 0 in shadow


@njit(cache=True)
def _shadows(
    height: Floats,
    log_depth: NDArray[np.float64],
    lookup: NDArray[np.int64],
    place: tuple[float, float, float, float],
    out: Floats,
) -> None:
    """March from every grid point towards the sun over the same grid (outside it: lit)."""
    right0, right_step, toward_x, toward_z = place[0], place[1], place[2], place[3]
    depths, columns = height.shape
    per_log = (lookup.size - 1) / (log_depth[-1] - log_depth[0])
    for k in range(depths):
        z = np.exp(log_depth[k])
        for i in range(columns):
            x = z * (right0 + right_step * i)
            h = height[k, i]
            light = 1.0
            reach = 0.02 * z + 0.2
            for _ in range(22):
                xs = x + toward_x * reach
                zs = z + toward_z * reach
                if zs <= 0.0:
                    break
                step = int((np.log(zs) - log_depth[0]) * per_log)
                column = (xs / zs - right0) / right_step
                if step < 0 or step >= lookup.size or column < 0.0 or column >= columns - 1:
                    break
                over = height[min(lookup[step], depths - 1), int(column)] - (h + reach)
                soft = 0.06 * reach + 0.05
                light = min(light, 1.0 - min(1.0, max(0.0, over / soft)))
                if light <= 0.0:
                    break
                reach *= 1.33
            out[k, i] = light


def survey(
    camera: Camera,
    relief: Relief,
    light: Light,
    *,
    far: float = 6000.0,
    depths: int = 640,
    focus: tuple[float, float] | None = None,
) -> Ground:
    """Sample the relief over the camera's view, with normals and the sun's shadows.

    `focus`: a stretch of depths to sample half as many times again, for a cliff seen from the front.
    """
    height_px, width = camera.size
    lowest = (height_px - camera.horizon_px) / camera.focal_px
    near = 0.35 * camera.height / max(lowest, 0.05)
    log_depth = np.linspace(np.log(near), np.log(far), depths)
    if focus is not None:
        extra = np.linspace(np.log(focus[0]), np.log(focus[1]), depths // 2)
        log_depth = np.sort(np.concatenate([log_depth, extra]))
        depths = log_depth.size
    right, _ = camera.directions(np.arange(width), np.zeros(width))
    depth = np.exp(log_depth)
    z = np.broadcast_to(depth[:, None], (depths, width)).astype(np.float32)
    x = (depth[:, None] * right[None, :]).astype(np.float32)
    raw = relief(x, z, (1.3 * z / camera.focal_px).astype(np.float32)).astype(np.float32)
    # Ground near the camera stays low enough to be seen from above down to the picture's lower edge.
    ceiling = np.maximum(camera.height - 1.1 * lowest * z, 0.22 * camera.height)
    near_by = smoothstep(6.5 * near, 3.2 * near, z)
    raw = np.where(raw > 0.0, raw + (np.minimum(raw, ceiling) - raw) * near_by, raw)
    height = np.maximum(raw, 0.0)
    slope_right = np.gradient(height, right, axis=1) / z
    slope_deep = np.gradient(height, depth, axis=0) - right[None, :] * slope_right
    normal = np.stack([-slope_right, np.ones_like(height), -slope_deep], axis=-1)
    normal /= np.linalg.norm(normal, axis=-1, keepdims=True)
    # The sun's direction as metres sideways and forward for one metre up.
    toward = _toward_sun(light)
    lit = np.ones_like(height)
    place = (float(right[0]), float(right[1] - right[0]), toward[0] / toward[1], toward[2] / toward[1])
    steps = np.linspace(log_depth[0], log_depth[-1], 4096)
    _shadows(height, log_depth, np.searchsorted(log_depth, steps).astype(np.int64), place, lit)
    return Ground(
        camera=camera,
        depth_K=depth.astype(np.float32),
        x_KI=x,
        z_KI=z,
        raw_KI=raw,
        height_KI=height,
        normal_KI3=normal.astype(np.float32),
        lit_KI=lit,
    )


def _toward_sun(light: Light) -> Floats:
    """Unit vector to the sun; a sun in the picture is raised a little so that land is not all shadow."""
    forward = -0.7 if light.behind else 0.8
    vector = np.array([light.sun_right * (1.0 if light.behind else 2.2), max(light.sun_up, 0.22), forward])
    return np.asarray(vector / np.linalg.norm(vector), np.float32)


def shade(ground: Ground, albedo_KI3: Floats, light: Light, *, haze: float = 1.0) -> Floats:
    """Sunlight, skylight and haze on the surveyed relief, (K, I, 3)."""
    toward = _toward_sun(light)
    facing = np.clip(ground.normal_KI3 @ toward, 0.0, 1.0) * ground.lit_KI
    sky = 0.45 + 0.55 * ground.normal_KI3[..., 1]
    sun, ambient = np.array(light.sun, np.float32), np.array(light.ambient, np.float32)
    colour = albedo_KI3 * (sun * facing[..., None] + ambient * sky[..., None])
    veil = 1.0 - np.exp(-haze * ground.z_KI / light.visibility)
    # Valleys hold more haze than summits.
    veil = np.clip(veil * (0.78 + 0.35 * np.exp(-ground.height_KI / 60.0)), 0.0, 1.0)
    air = np.broadcast_to(np.array(light.haze, np.float32), colour.shape)
    return mix(colour, air, veil)


@njit(cache=True)
def _sweep(row: Floats, height: int, out: Floats) -> None:
    depths, columns = row.shape
    for i in range(columns):
        top = height
        previous = row[0, i]
        for k in range(depths):
            r = row[k, i]
            if r < top:
                first = max(0, int(np.ceil(r)))
                for y in range(first, top):
                    if k == 0 or previous <= r:
                        out[y, i] = k
                    else:
                        out[y, i] = k - 1 + min(1.0, max(0.0, (previous - y) / (previous - r)))
                top = min(top, first)
            if top <= 0:
                break
            previous = r


@njit(cache=True)
def _mirror(low: Floats, high: Floats, raw: Floats, height: int, out: Floats) -> None:
    """Rows whose mirrored ray meets the relief: nearer land paints over farther land."""
    depths, columns = low.shape
    for i in range(columns):
        for k in range(depths - 1, -1, -1):
            if raw[k, i] <= 0.0:
                continue
            for y in range(max(0, int(np.ceil(low[k, i]))), min(height, int(high[k, i]) + 1)):
                out[y, i] = k


@njit(cache=True)
def _gather(values: Floats, index: Floats, out: Floats) -> None:
    height, width = index.shape
    last = values.shape[0] - 2
    for y in range(height):
        for x in range(width):
            f = index[y, x]
            if f < 0.0:
                continue
            k = min(int(f), last)
            s = f - k
            for c in range(values.shape[2]):
                out[y, x, c] = values[k, x, c] * (1.0 - s) + values[k + 1, x, c] * s


@dataclass(frozen=True, kw_only=True, slots=True)
class View:
    """What the camera sees of a ground. Depth is 0 and `land` false where there is sky."""

    index_HW: Floats  # depth index, -1 in the sky
    mirror_HW: Floats  # depth index of what mirrors there, -1 for the sky

    def gather(self, values_KIC: Floats, *, mirrored: bool = False, fill: Floats | None = None) -> Floats:
        index = self.mirror_HW if mirrored else self.index_HW
        out = np.zeros((*index.shape, values_KIC.shape[2]), np.float32) if fill is None else fill.copy()
        _gather(np.ascontiguousarray(values_KIC, np.float32), index, out)
        return out


def view(ground: Ground) -> View:
    """Find for every pixel the relief it sees, and the relief mirrored in a water plane there."""
    camera = ground.camera
    index = np.full(camera.size, -1.0, np.float32)
    _sweep(camera.row_of(ground.height_KI, ground.z_KI), camera.size[0], index)
    mirrored = np.full(camera.size, -1.0, np.float32)
    low = camera.row_of(0.0, ground.z_KI)
    high = (camera.horizon_px - 0.5) + camera.focal_px * (ground.height_KI + camera.height) / ground.z_KI
    _mirror(low, high.astype(np.float32), ground.raw_KI, camera.size[0], mirrored)
    return View(index_HW=index, mirror_HW=mirrored)


def reduce_image(image: Floats, factor: int) -> Floats:
    """Average factor x factor blocks: (H f, W f, ...) -> (H, W, ...)."""
    if factor == 1:
        return image
    h, w = image.shape[0] // factor, image.shape[1] // factor
    blocks = image.reshape(h, factor, w, factor, *image.shape[2:])
    return np.asarray(blocks.mean(axis=(1, 3)), np.float32)
