"""Softmax splatting: push every source pixel along its displacement and average where they land.

    out(y) = Σ b(x → y) exp(Z(x)) I(x) / Σ b(x → y) exp(Z(x))

with b the bilinear weight of source x at destination y (Niklaus and Liu 2020, "Softmax Splatting for Video
Frame Interpolation", equation 7). The largest Z that reaches a destination is subtracted there, not one
global maximum, so that no destination underflows however large Z grows.

`splat_numpy` is a compiled loop on channels-last arrays; colours are splatted in bands of destination rows by
several threads, and since every destination adds its sources in their order, the number of threads changes
nothing. `softmax_splat` is its differentiable torch twin, with coordinates and sums in float32 whatever the
features' type. Sources that leave the picture are dropped.
Legend: B batch, C channels, H, W rows and columns; displacement is (dx, dy) in pixels, x right, y down.
"""

from __future__ import annotations

import math
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from models.compiled import add_four, compiled
from storage.errors import UsageError

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    Way = tuple[Tensor, Tensor, Tensor | None, Tensor | None]  # features, displacement, Z, log weight

__all__ = [
    "Splat",
    "softmax_splat",
    "splat_numpy",
    "splat_sums_numpy",
    "symmetric_splat",
    "symmetric_splat_numpy",
]

Floats = NDArray[np.float32]
Source = tuple[Floats, Floats, Floats]  # features, displacement, importance

# Importances that differ by less than this cannot underflow float32 under one common maximum (exp(-60) is
# 1e-26), so they need neither the second pass over the destinations nor an exp for every corner.
SAFE_RANGE = 60.0
# A band of fewer destination rows than this is not worth a thread.
LEAST_BAND = 128


@dataclass(frozen=True, kw_only=True, slots=True)
class Splat:
    """What landed: the weighted average (0 where nothing did) and the sum of weights beneath it.

    The weights are relative to exp(the largest Z considered there): 0 where nothing landed, true sums of
    bilinear weights when Z is constant.
    """

    features: Floats
    weights_HW: Floats


def splat_numpy(
    features_HWC: Floats,
    displacement_2HW: Floats,
    importance_HW: Floats | None = None,
    *,
    threads: int | None = None,
) -> Splat:
    """Splat (H, W, C) features along (2, H, W) with importance Z (H, W), zero when absent.

    `threads`: how many share the work where C is 3; None takes as many as there are cores.
    """
    sources = [_checked(features_HWC, displacement_2HW, importance_HW, 0.0)]
    return _splat(sources, threads=threads)


def symmetric_splat_numpy(
    features_HWC: Floats,
    forward_2HW: Floats,
    backward_2HW: Floats,
    importance_HW: Floats | None,
    alpha: float,
) -> Splat:
    """Splat forward with weight 1 − alpha and backward with weight alpha over one common sum of weights."""
    if not 0.0 <= alpha <= 1.0:
        raise UsageError(f"alpha must lie in [0, 1], got {alpha}; use t / N")
    ways = [(forward_2HW, 1.0 - alpha), (backward_2HW, alpha)]
    return _splat(
        [_checked(features_HWC, way, importance_HW, math.log(share)) for way, share in ways if share > 0]
    )


def splat_sums_numpy(
    sources: list[tuple[Floats, Floats, Floats | None, float]],
) -> tuple[Floats, Floats]:
    """Numerator (H, W, C) and denominator (H, W) for (features, displacement, Z or None, log weight) sources.

    All sources share each destination's maximum, so their ratio is the joint softmax average.
    """
    checked = [_checked(*source) for source in sources]
    highest = _safe_highest(checked)
    return _splat_any(checked) if highest is None else _splat_colour(checked, highest, average=False)


def _splat(checked: list[Source], threads: int | None = None) -> Splat:
    highest = _safe_highest(checked)
    if highest is not None:
        features, weights = _splat_colour(checked, highest, average=True, threads=threads)
        return Splat(features=features, weights_HW=weights)
    sums, weights = _splat_any(checked)
    return Splat(features=_average(sums, weights), weights_HW=weights)


def _safe_highest(checked: list[Source]) -> float | None:
    """The largest importance where sources are colours that may share it as their maximum, else None."""
    lowest = min(float(importance.min()) for _, _, importance in checked)
    highest = max(float(importance.max()) for _, _, importance in checked)
    return highest if checked[0][0].shape[2] == 3 and highest - lowest <= SAFE_RANGE else None


def _splat_any(checked: list[Source]) -> tuple[Floats, Floats]:
    """Any number of channels, any importance: the maximum of every destination first, then the sums."""
    shape = checked[0][0].shape
    maximum = np.full(shape[:2], -np.inf, np.float32)
    for _, displacement, importance in checked:
        _maximum_into(displacement, importance, maximum)
    sums, weights = np.zeros(shape, np.float32), np.zeros(shape[:2], np.float32)
    for features, displacement, importance in checked:
        _splat_into(features, displacement, importance, maximum, sums, weights)
    return sums, weights


def _splat_colour(
    checked: list[Source], highest: float, *, average: bool, threads: int | None = None
) -> tuple[Floats, Floats]:
    """The colour path: colours (H, W, 3), divided by their weights if `average`, and weights (H, W)."""
    height, width, _ = checked[0][0].shape
    colours, weights = np.empty((height, width, 3), np.float32), np.empty((height, width), np.float32)
    # How far a row's sources are carried up and down at most: bands skip the rows that cannot reach them.
    reaches = [
        (np.fmin.reduce(displacement[1], axis=1), np.fmax.reduce(displacement[1], axis=1))
        for _, displacement, _ in checked
    ]

    def splat_band(top: int, bottom: int) -> None:
        # One spare cell all round takes the corners that fall outside without a test for each.
        sums = np.zeros((bottom - top + 2, width + 2, 4), np.float32)
        rows = np.arange(height)
        for (features, displacement, importance), (up, down) in zip(checked, reaches, strict=True):
            reached = np.flatnonzero((rows + down > top - 1) & (rows + up < bottom))
            if reached.size:
                first, last = int(reached[0]), int(reached[-1]) + 1
                weight = np.exp(importance[first:last] - np.float32(highest))
                _add_colour(features[first:last], displacement, weight, first, top, sums)
        _finish_colour(sums, colours[top:bottom], weights[top:bottom], average)

    count = threads or len(os.sched_getaffinity(0))
    edges = np.linspace(0, height, max(min(count, height // LEAST_BAND), 1) + 1).round().astype(int).tolist()
    if len(edges) == 2:
        splat_band(0, height)
    else:
        with ThreadPoolExecutor(len(edges) - 1) as pool:
            list(pool.map(splat_band, edges[:-1], edges[1:]))
    return colours, weights


@compiled
def _add_colour(
    features: Floats, displacement: Floats, weight: Floats, first: int, top: int, sums: Floats
) -> None:
    """Add weighted colours of the source rows from `first` on to the band of destinations from row `top` on.

    features (h, W, 3), weight (h, W), displacement (2, H, W), sums (band + 2, W + 2, 4).
    """
    rows, width, _ = features.shape
    flat, pitch = sums.reshape(-1), np.int32(width + 2)
    upper, lower = np.float32(top - 1), np.float32(top + sums.shape[0] - 2)
    cells = np.empty(width, np.int32)
    along = np.empty((2, width), np.float32)
    weighted = np.empty(4 * width, np.float32)
    one = np.float32(1)
    for row in range(rows):
        y = first + row
        # Two plain loops, which the compiler turns into vectors, prepare what the scattering one needs.
        for x in range(width):
            px = np.float32(x) + displacement[0, y, x]
            py = np.float32(y) + displacement[1, y, x]
            # Written so that a NaN or an enormous displacement fails the test and drops the source.
            inside = (px > -1) & (px < width) & (py > upper) & (py < lower)
            px, py = (px if inside else np.float32(0)), (py if inside else np.float32(0))
            left, above_y = np.floor(px), np.floor(py)
            along[0, x], along[1, x] = px - left, py - above_y
            cell = (np.int32(above_y) - np.int32(top - 1)) * pitch + np.int32(left) + np.int32(1)
            cells[x] = cell if inside else np.int32(-1)
        for x in range(width):
            gain = weight[row, x]
            weighted[4 * x] = features[row, x, 0] * gain
            weighted[4 * x + 1] = features[row, x, 1] * gain
            weighted[4 * x + 2] = features[row, x, 2] * gain
            weighted[4 * x + 3] = gain
        for x in range(width):
            if cells[x] < 0:
                continue
            fx, fy = along[0, x], along[1, x]
            above = 4 * np.int64(cells[x])
            below = above + 4 * pitch
            add_four(flat, above, weighted, 4 * x, (one - fy) * (one - fx))
            add_four(flat, above + 4, weighted, 4 * x, (one - fy) * fx)
            add_four(flat, below, weighted, 4 * x, fy * (one - fx))
            add_four(flat, below + 4, weighted, 4 * x, fy * fx)


@compiled
def _finish_colour(sums: Floats, colours: Floats, weights: Floats, average: bool) -> None:
    """Take a band's sums apart into colours and weights, divided where anything landed if `average`."""
    height, width, _ = colours.shape
    for y in range(height):
        for x in range(width):
            weight = sums[y + 1, x + 1, 3]
            factor = np.float32(1)
            if average:
                factor = np.float32(1) / weight if weight > 0 else np.float32(0)
            colours[y, x, 0] = sums[y + 1, x + 1, 0] * factor
            colours[y, x, 1] = sums[y + 1, x + 1, 1] * factor
            colours[y, x, 2] = sums[y + 1, x + 1, 2] * factor
            weights[y, x] = weight


def _checked(
    features: Floats, displacement: Floats, importance: Floats | None, log_weight: float
) -> tuple[Floats, Floats, Floats]:
    if features.ndim != 3:
        raise UsageError(f"features must be (H, W, C), got {features.shape}; add or move the channels last")
    if displacement.shape != (2, *features.shape[:2]):
        raise UsageError(f"displacement must be (2, {features.shape[:2]}), got {displacement.shape}")
    if importance is None:
        importance = np.zeros(features.shape[:2], np.float32)
    if log_weight != 0.0:
        importance = importance + np.float32(log_weight)
    if importance.shape != features.shape[:2]:
        raise UsageError(f"importance must be {features.shape[:2]}, got {importance.shape}")
    return (
        np.ascontiguousarray(features, dtype=np.float32),
        np.ascontiguousarray(displacement, dtype=np.float32),
        np.ascontiguousarray(importance, dtype=np.float32),
    )


@compiled
def _average(sums: Floats, weights: Floats) -> Floats:
    height, width, channels = sums.shape
    average = np.empty((height, width, channels), np.float32)
    for y in range(height):
        for x in range(width):
            inverse = np.float32(1) / weights[y, x] if weights[y, x] > 0 else np.float32(0)
            for c in range(channels):
                average[y, x, c] = sums[y, x, c] * inverse
    return average


@compiled
def _maximum_into(displacement: Floats, importance: Floats, maximum: Floats) -> None:
    height, width = importance.shape
    for y in range(height):
        for x in range(width):
            px = np.float32(x) + displacement[0, y, x]
            py = np.float32(y) + displacement[1, y, x]
            # Written so that a NaN or an enormous displacement fails the test and drops the source.
            if not (px > -1 and py > -1 and px < width and py < height):
                continue
            x0, y0 = int(np.floor(px)), int(np.floor(py))
            for v in range(y0, y0 + 2):
                for u in range(x0, x0 + 2):
                    if (
                        0 <= u < width
                        and 0 <= v < height
                        and abs(px - np.float32(u)) < 1
                        and abs(py - np.float32(v)) < 1
                    ):
                        maximum[v, u] = max(maximum[v, u], importance[y, x])


@compiled
def _splat_into(
    features: Floats, displacement: Floats, importance: Floats, maximum: Floats, sums: Floats, weights: Floats
) -> None:
    height, width, channels = features.shape
    for y in range(height):
        for x in range(width):
            px = np.float32(x) + displacement[0, y, x]
            py = np.float32(y) + displacement[1, y, x]
            if not (px > -1 and py > -1 and px < width and py < height):
                continue
            x0, y0 = int(np.floor(px)), int(np.floor(py))
            fx, fy = px - np.float32(x0), py - np.float32(y0)
            for v in range(y0, y0 + 2):
                if v < 0 or v >= height:
                    continue
                wy = fy if v > y0 else 1 - fy
                for u in range(x0, x0 + 2):
                    if u < 0 or u >= width:
                        continue
                    bilinear = wy * (fx if u > x0 else 1 - fx)
                    if bilinear <= 0:
                        continue
                    weight = bilinear * np.exp(importance[y, x] - maximum[v, u])
                    weights[v, u] += weight
                    for c in range(channels):
                        sums[v, u, c] += weight * features[y, x, c]


def softmax_splat(
    features_BCHW: Tensor, displacement_B2HW: Tensor, importance_B1HW: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Differentiable splat: average (B, C, H, W) in the features' type, weights (B, 1, H, W) in float32."""
    return _splat_torch([(features_BCHW, displacement_B2HW, importance_B1HW, None)])


def symmetric_splat(
    features_BCHW: tuple[Tensor, Tensor],
    displacements_B2HW: tuple[Tensor, Tensor],
    importances_B1HW: tuple[Tensor, Tensor] | None,
    alpha_B: Tensor,
) -> tuple[Tensor, Tensor]:
    """Splat the first with weight 1 − alpha and the second with alpha, over one sum of weights.

    For a loop both are the photo, displaced forward and backward; in training they are a clip's start and
    end frame. One alpha in [0, 1] per sample. Returns as `softmax_splat` does.
    """
    alpha = alpha_B.float().view(-1, 1, 1, 1)
    first, second = importances_B1HW or (None, None)
    return _splat_torch(
        [
            (features_BCHW[0], displacements_B2HW[0], first, (1 - alpha).log()),
            (features_BCHW[1], displacements_B2HW[1], second, alpha.log()),
        ]
    )


def _splat_torch(ways: list[Way]) -> tuple[Tensor, Tensor]:
    import torch

    batch, channels, height, width = ways[0][0].shape
    # One spare cell per picture takes what falls outside, and is cut off at the end.
    cells = height * width + 1
    maximum = torch.full((batch * cells,), -torch.inf, device=ways[0][0].device)
    plans = []
    for features, displacement, importance, log_weight in ways:
        index, bilinear = _corners(displacement.float(), cells)
        z = features.new_zeros((batch, 1, height, width), dtype=torch.float32)
        z = z if importance is None else importance.float()
        z = z if log_weight is None else z + log_weight
        corner_z = z.reshape(batch, 1, height * width).expand(-1, 4, -1)
        reached = corner_z.detach().masked_fill(bilinear.detach() <= 0, -torch.inf)
        maximum.scatter_reduce_(0, index.reshape(-1), reached.reshape(-1), "amax")
        plans.append((features, index, bilinear, corner_z))
    sums = torch.zeros((batch * cells, channels + 1), device=maximum.device)
    for features, index, bilinear, corner_z in plans:
        flat = features.float().reshape(batch, channels, height * width)
        # The weight travels as one more channel, so numerator and denominator take the same path.
        source = torch.cat([flat, torch.ones_like(flat[:, :1])], dim=1).permute(0, 2, 1)
        highest = maximum[index]
        exponent = (corner_z - highest).masked_fill(highest == -torch.inf, -torch.inf)
        # Only sources without any weight have an exponent above 0; clamped, they add 0 and not NaN.
        weight = bilinear * exponent.clamp(max=0).exp()
        for corner in range(4):
            sums = sums.index_add(
                0,
                index[:, corner].reshape(-1),
                (weight[:, corner].unsqueeze(-1) * source).reshape(-1, channels + 1),
            )
    return _average_torch(sums, (batch, channels, height, width), ways[0][0].dtype)


def _average_torch(
    sums: Tensor, shape: tuple[int, int, int, int], dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    batch, channels, height, width = shape
    landed = sums.view(batch, height * width + 1, channels + 1)[:, :-1].permute(0, 2, 1)
    landed = landed.reshape(batch, channels + 1, height, width)
    weights = landed[:, channels:]
    empty = weights <= 0
    average = (landed[:, :channels] / weights.masked_fill(empty, 1.0)).masked_fill(empty, 0.0)
    return average.to(dtype), weights


def _corners(displacement: Tensor, cells: int) -> tuple[Tensor, Tensor]:
    """Flat destination cell and bilinear weight of the four corners: (B, 4, H·W) each."""
    import torch

    batch, _, height, width = displacement.shape
    rows = torch.arange(height, device=displacement.device, dtype=torch.float32)
    columns = torch.arange(width, device=displacement.device, dtype=torch.float32)
    # Anything further out than one picture is as good as outside; the clamp keeps the indices sane.
    px = (displacement[:, 0] + columns).clamp(-2.0, width + 1.0).reshape(batch, -1)
    py = (displacement[:, 1] + rows[:, None]).clamp(-2.0, height + 1.0).reshape(batch, -1)
    x0, y0 = px.detach().floor(), py.detach().floor()
    fx, fy = px - x0, py - y0
    first = torch.arange(batch, device=displacement.device).view(-1, 1) * cells
    indices, bilinears = [], []
    for dy in (0, 1):
        for dx in (0, 1):
            u, v = x0 + dx, y0 + dy
            inside = (u >= 0) & (u < width) & (v >= 0) & (v < height)
            cell = torch.where(inside, (v * width + u).long(), cells - 1)
            weight = (fx if dx else 1 - fx) * (fy if dy else 1 - fy)
            indices.append(cell + first)
            bilinears.append(weight)
    return torch.stack(indices, dim=1), torch.stack(bilinears, dim=1)
