"""Noise: deterministic fractal noise at any coordinates, and periodic tiles for moving textures.

Everything hangs on a 32-bit integer hash, so a seed gives the same values on every machine.
"""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

__all__ = ["TILE_SIDE", "TILE_WAVELENGTH", "cells", "erosion", "fractal", "hash_floats", "tile"]

Floats = NDArray[np.float32]

TILE_SIDE = 1024  # texels, a power of two so that wrapping is a bit mask
TILE_WAVELENGTH = 16.0  # texels a cycle, about

_ANGLES = np.arange(64) * (2.0 * np.pi / 64.0)
_GRADIENT_X = np.cos(_ANGLES)
_GRADIENT_Y = np.sin(_ANGLES)


@njit(cache=True, inline="always")
def _hash(x: int, y: int, salt: int) -> int:
    h = (x * 0x27D4EB2D + y * 0x165667B1 + salt * 0x9E3779B1) & 0xFFFFFFFF
    h = ((h ^ (h >> 15)) * 0x85EBCA6B) & 0xFFFFFFFF
    h = ((h ^ (h >> 13)) * 0xC2B2AE35) & 0xFFFFFFFF
    return h ^ (h >> 16)


@njit(cache=True)
def _gradient_noise(x: float, y: float, salt: int) -> tuple[float, float, float]:
    """Gradient noise in about [-1, 1] with its two derivatives (quintic fade)."""
    xf = np.floor(x)
    yf = np.floor(y)
    i = int(xf)
    j = int(yf)
    u = x - xf
    v = y - yf
    fu = u * u * u * (u * (u * 6.0 - 15.0) + 10.0)
    fv = v * v * v * (v * (v * 6.0 - 15.0) + 10.0)
    du = 30.0 * u * u * (u * (u - 2.0) + 1.0)
    dv = 30.0 * v * v * (v * (v - 2.0) + 1.0)
    a = _hash(i, j, salt) & 63
    b = _hash(i + 1, j, salt) & 63
    c = _hash(i, j + 1, salt) & 63
    d = _hash(i + 1, j + 1, salt) & 63
    va = _GRADIENT_X[a] * u + _GRADIENT_Y[a] * v
    vb = _GRADIENT_X[b] * (u - 1.0) + _GRADIENT_Y[b] * v
    vc = _GRADIENT_X[c] * u + _GRADIENT_Y[c] * (v - 1.0)
    vd = _GRADIENT_X[d] * (u - 1.0) + _GRADIENT_Y[d] * (v - 1.0)
    k = va - vb - vc + vd
    value = va + fu * (vb - va) + fv * (vc - va) + fu * fv * k
    gx = (
        _GRADIENT_X[a]
        + fu * (_GRADIENT_X[b] - _GRADIENT_X[a])
        + fv * (_GRADIENT_X[c] - _GRADIENT_X[a])
        + fu * fv * (_GRADIENT_X[a] - _GRADIENT_X[b] - _GRADIENT_X[c] + _GRADIENT_X[d])
        + du * (vb - va + fv * k)
    )
    gy = (
        _GRADIENT_Y[a]
        + fu * (_GRADIENT_Y[b] - _GRADIENT_Y[a])
        + fv * (_GRADIENT_Y[c] - _GRADIENT_Y[a])
        + fu * fv * (_GRADIENT_Y[a] - _GRADIENT_Y[b] - _GRADIENT_Y[c] + _GRADIENT_Y[d])
        + dv * (vc - va + fu * k)
    )
    return 1.5 * value, 1.5 * gx, 1.5 * gy


@njit(cache=True)
def _fractal(
    x: Floats, y: Floats, footprint: Floats, shape: tuple[int, float, int, int], out: Floats
) -> None:
    octaves, gain, mode, salt = shape
    for p in range(x.size):
        amplitude = 1.0
        total = 0.0
        px = float(x[p])
        py = float(y[p])
        wavelength = 1.0
        dx = 0.0
        dy = 0.0
        for octave in range(octaves):
            # An octave finer than two pixels would only be noise on the screen: fade it out.
            fade = min(1.0, max(0.0, wavelength / (2.0 * footprint[p]) - 0.5))
            if fade <= 0.0:
                break
            n, gx, gy = _gradient_noise(px, py, salt + octave * 101)
            if mode == 1:
                n = 1.0 - 2.0 * abs(n)
            elif mode == 2:
                n = 2.0 * abs(n) - 1.0
            elif mode == 3:
                dx += gx
                dy += gy
                n = n / (1.0 + dx * dx + dy * dy)
            total += fade * amplitude * n
            amplitude *= gain
            wavelength *= 0.5
            # Turning each octave hides the lattice.
            px, py = 1.6 * px + 1.2 * py + 17.3, -1.2 * px + 1.6 * py + 9.1
        out[p] = total


_MODES = {"plain": 0, "ridged": 1, "billow": 2, "eroded": 3}


def fractal(  # noqa: PLR0913 - the parameters of fractal noise
    x: NDArray[np.floating],
    y: NDArray[np.floating],
    *,
    seed: int,
    octaves: int = 6,
    gain: float = 0.5,
    style: str = "plain",
    footprint: NDArray[np.floating] | float = 1e-6,
) -> Floats:
    """Fractal noise, about [-1, 1], at coordinates x, y (first octave: one lattice cell a unit).

    `footprint` is the size of a pixel in the same units: finer octaves are left out there.
    Styles: plain, ridged (sharp crests), billow (puffs), eroded (valleys smooth, ridges rough).
    """
    shape = np.broadcast_shapes(np.shape(x), np.shape(y))
    xs = np.ascontiguousarray(np.broadcast_to(x, shape), dtype=np.float32).ravel()
    ys = np.ascontiguousarray(np.broadcast_to(y, shape), dtype=np.float32).ravel()
    feet = np.ascontiguousarray(np.broadcast_to(footprint, shape), dtype=np.float32).ravel()
    out = np.empty(xs.size, np.float32)
    _fractal(xs, ys, feet, (octaves, gain, _MODES[style], seed & 0xFFFFFF), out)
    return out.reshape(shape)


def erosion(
    x: NDArray[np.floating], y: NDArray[np.floating], *, seed: int, footprint: NDArray[np.floating] | float
) -> Floats:
    """Mountain-like relief: fractal noise whose slopes damp the finer octaves, about [-1, 1]."""
    return fractal(x, y, seed=seed, octaves=11, gain=0.5, style="eroded", footprint=footprint)


@njit(cache=True)
def _cells(x: Floats, y: Floats, salt: int, near: Floats, label: Floats) -> None:
    for p in range(x.size):
        i = int(np.floor(x[p]))
        j = int(np.floor(y[p]))
        best = 9.0
        for dj in range(-1, 2):
            for di in range(-1, 2):
                h = _hash(i + di, j + dj, salt)
                cx = i + di + (h & 0xFFFF) / 65535.0
                cy = j + dj + (h >> 16) / 65535.0
                d = (cx - x[p]) ** 2 + (cy - y[p]) ** 2
                if d < best:
                    best = d
                    label[p] = (_hash(i + di, j + dj, salt + 7) & 0xFFFF) / 65535.0
        near[p] = np.sqrt(best)


def cells(x: NDArray[np.floating], y: NDArray[np.floating], *, seed: int) -> tuple[Floats, Floats]:
    """Distance to the nearest of one random point a unit cell, and that point's label in [0, 1]."""
    xs = np.ascontiguousarray(x, dtype=np.float32)
    ys = np.ascontiguousarray(np.broadcast_to(y, xs.shape), dtype=np.float32)
    near = np.empty(xs.size, np.float32)
    label = np.empty(xs.size, np.float32)
    _cells(xs.ravel(), ys.ravel(), seed & 0xFFFFFF, near, label)
    return near.reshape(xs.shape), label.reshape(xs.shape)


@njit(cache=True)
def _hash_floats(height: int, width: int, salt: int, out: Floats) -> None:
    for j in range(height):
        for i in range(width):
            out[j, i] = (_hash(i, j, salt) >> 8) / 16777215.0


def hash_floats(shape: tuple[int, int], *, seed: int) -> Floats:
    """White noise in [0, 1] by position: the same pixel has the same value at every call."""
    out = np.empty(shape, np.float32)
    _hash_floats(shape[0], shape[1], seed & 0xFFFFFF, out)
    return out


@njit(cache=True)
def _tile(side: int, cell: int, salt: int, out: Floats) -> None:
    period = side // cell
    for j in range(side):
        for i in range(side):
            x = i / cell
            y = j / cell
            xi = int(x)
            yi = int(y)
            u = x - xi
            v = y - yi
            fu = u * u * u * (u * (u * 6.0 - 15.0) + 10.0)
            fv = v * v * v * (v * (v * 6.0 - 15.0) + 10.0)
            corner = np.zeros(4)
            for c in range(4):
                ci = c & 1
                cj = c >> 1
                g = _hash((xi + ci) % period, (yi + cj) % period, salt) & 63
                corner[c] = _GRADIENT_X[g] * (u - ci) + _GRADIENT_Y[g] * (v - cj)
            top = corner[0] + fu * (corner[1] - corner[0])
            low = corner[2] + fu * (corner[3] - corner[2])
            out[j, i] = top + fv * (low - top)


_tiles: dict[int, Floats] = {}


def tile(seed: int) -> Floats:
    """A periodic tile (TILE_SIDE, TILE_SIDE) of one band of noise: mean 0, deviation 1."""
    key = seed & 7  # eight tiles serve every scene; offsets into them make the difference
    if key not in _tiles:
        out = np.empty((TILE_SIDE, TILE_SIDE), np.float32)
        _tile(TILE_SIDE, int(TILE_WAVELENGTH), 1000 + key, out)
        out -= np.float32(out.mean(dtype=np.float64))
        out /= np.float32(out.std(dtype=np.float64))
        _tiles[key] = out
    return _tiles[key]
