"""Softmax splatting: push every source pixel along its displacement and average where they land.

    out(y) = Σ b(x → y) exp(Z(x)) I(x) / Σ b(x → y) exp(Z(x))

with b the bilinear weight of source x at destination y (Niklaus and Liu 2020, "Softmax Splatting for Video
Frame Interpolation", equation 7). The largest Z that reaches a destination is subtracted there, not one
global maximum, so that no destination underflows however large Z grows.

`splat_numpy` is a compiled loop on channels-last arrays; `softmax_splat` is its differentiable torch twin,
with coordinates and sums in float32 whatever the features' type. Sources that leave the picture are dropped.
Legend: B batch, C channels, H, W rows and columns; displacement is (dx, dy) in pixels, x right, y down.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from models.compiled import compiled
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

# Importances that differ by less than this cannot underflow float32 under one common maximum (exp(-60) is
# 1e-26), so they need neither the second pass over the destinations nor an exp for every corner.
SAFE_RANGE = 60.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Splat:
    """What landed: the weighted average (0 where nothing did) and the sum of weights beneath it.

    The weights are relative to exp(the largest Z considered there): 0 where nothing landed, true sums of
    bilinear weights when Z is constant.
    """

    features: Floats
    weights_HW: Floats


def splat_numpy(features_HWC: Floats, displacement_2HW: Floats, importance_HW: Floats | None = None) -> Splat:
    """Splat (H, W, C) features along (2, H, W) with importance Z (H, W), zero when absent."""
    sums, weights = splat_sums_numpy([(features_HWC, displacement_2HW, importance_HW, 0.0)])
    return Splat(features=_average(sums, weights), weights_HW=weights)


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
    sums, weights = splat_sums_numpy(
        [(features_HWC, way, importance_HW, math.log(share)) for way, share in ways if share > 0]
    )
    return Splat(features=_average(sums, weights), weights_HW=weights)


def splat_sums_numpy(
    sources: list[tuple[Floats, Floats, Floats | None, float]],
) -> tuple[Floats, Floats]:
    """Numerator (H, W, C) and denominator (H, W) for (features, displacement, Z or None, log weight) sources.

    All sources share each destination's maximum, so their ratio is the joint softmax average.
    """
    checked = [_checked(*source) for source in sources]
    shape = checked[0][0].shape
    lowest = min(float(importance.min()) for _, _, importance in checked)
    highest = max(float(importance.max()) for _, _, importance in checked)
    if shape[2] == 3 and highest - lowest <= SAFE_RANGE:
        return _splat_colour(checked, highest)
    maximum = np.full(shape[:2], -np.inf, np.float32)
    for _, displacement, importance in checked:
        _maximum_into(displacement, importance, maximum)
    sums, weights = np.zeros(shape, np.float32), np.zeros(shape[:2], np.float32)
    for features, displacement, importance in checked:
        _splat_into(features, displacement, importance, maximum, sums, weights)
    return sums, weights


def _splat_colour(checked: list[tuple[Floats, Floats, Floats]], highest: float) -> tuple[Floats, Floats]:
    """The colour path: weight and weighted colour travel as four floats, one vector register."""
    height, width, _ = checked[0][0].shape
    # One spare cell all round takes the corners that fall outside without a test for each.
    sums = np.zeros((height + 2, width + 2, 4), np.float32)
    for features, displacement, importance in checked:
        _add_colour(features, displacement, importance, highest, sums)
    inner = sums[1:-1, 1:-1]
    return inner[..., :3], inner[..., 3]


@compiled
def _add_colour(
    features: Floats, displacement: Floats, importance: Floats, highest: float, sums: Floats
) -> None:
    """Splat colours (H, W, 3) with weight exp(Z − highest) onto `sums`: (H + 2, W + 2, 4)."""
    height, width, _ = features.shape
    flat = sums.reshape(-1)
    # Unsigned flat indices spare the tests for negative ones and let the four channels share a register.
    row = np.uint64(4 * (width + 2) - 8)
    one, two, three, four = np.uint64(1), np.uint64(2), np.uint64(3), np.uint64(4)
    for y in range(height):
        for x in range(width):
            px = np.float32(x) + displacement[0, y, x]
            py = np.float32(y) + displacement[1, y, x]
            # Written so that a NaN or an enormous displacement fails the test and drops the source.
            if not (px > -1 and py > -1 and px < width and py < height):
                continue
            left, top = np.floor(px), np.floor(py)
            fx, fy = px - left, py - top
            weight = np.exp(importance[y, x] - np.float32(highest))
            high, low = weight * (np.float32(1) - fy), weight * fy
            r, g, b = features[y, x, 0], features[y, x, 1], features[y, x, 2]
            j = np.uint64(4 * ((np.int64(top) + 1) * (width + 2) + np.int64(left) + 1))
            for corner in (high * (np.float32(1) - fx), high * fx):
                flat[j] += corner * r
                flat[j + one] += corner * g
                flat[j + two] += corner * b
                flat[j + three] += corner
                j += four
            j += row
            for corner in (low * (np.float32(1) - fx), low * fx):
                flat[j] += corner * r
                flat[j + one] += corner * g
                flat[j + two] += corner * b
                flat[j + three] += corner
                j += four


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
