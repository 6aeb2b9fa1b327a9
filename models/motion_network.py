"""The motion network: a photo and sparse hints in, what moves, where to and how fast out.

A U-Net over a (pretrained) encoder. Instead of one velocity per pixel, which collapses towards zero wherever
a scene could move either way, it predicts a moving logit, a distribution over direction bins with a residual
angle per bin, and a log-speed (px/frame at the network's input size); `decode_motion` takes the main mode.
The heads live at a quarter of the input's resolution; `models.motion` refines them against the photo.

Dimension letters: B batch, C channels, K direction bins, H and W rows and columns, 2 = (dx, dy), y down.
"""

import math
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from models.backbones import BACKBONES, Backbone, build_backbone, convolved
from storage.errors import UsageError

__all__ = [
    "HEAD_STRIDE",
    "MotionHeads",
    "MotionNetwork",
    "MotionNetworkConfig",
    "bin_angles",
    "decode_motion",
    "direction_certainty",
    "spread_hints",
]

HEAD_STRIDE = 4
"""Input pixels per head pixel."""
INPUT_MULTIPLE = 32
SPREAD_HINT_CHANNELS = 5
HINT_WEIGHT = 8.0
"""Log-odds between going along with a fully trusted hint and going across it."""
HINT_MOVES = 6.0
"""Log-odds of moving that a fully trusted hint adds where it lies."""


@dataclass(frozen=True, kw_only=True, slots=True)
class MotionNetworkConfig:
    """Shape of the motion network.

    `backbone`: the encoder, one of `models.backbones`. `pretrained` says where a fresh training starts, not
    how to load one. `frozen_blocks`: how many of a pretrained encoder's blocks stay as they are.
    `plain_width`: channels of the plain encoder's first stage. `decoder_widths`: at strides 32 to 4. `bins`:
    directions. `dropout`: of channels. `input_side`: the longer side that photos are reduced to.
    `speed_gain` multiplies decoded speeds: a log-speed learnt from mixed scenes is too slow for fast ones, so
    trained weights may carry a factor that was chosen on validation clips.
    """

    backbone: str = "efficientnet_lite0"
    pretrained: bool = True
    frozen_blocks: int = 8
    plain_width: int = 32
    decoder_widths: tuple[int, ...] = (160, 96, 48, 32)
    bins: int = 16
    dropout: float = 0.1
    input_side: int = 320
    speed_gain: float = 1.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "decoder_widths", tuple(self.decoder_widths))
        if self.backbone not in BACKBONES:
            raise UsageError(f"backbone must be one of {', '.join(BACKBONES)}, got {self.backbone!r}")
        if len(self.decoder_widths) != 4 or min(self.decoder_widths) < 1:
            raise UsageError(
                f"decoder_widths must be four positive numbers (strides 32 to 4), got {self.decoder_widths}"
            )
        if not 8 <= self.bins <= 64:
            raise UsageError(f"bins must be 8 to 64 directions, got {self.bins}")
        if not 0.0 <= self.dropout < 1.0:
            raise UsageError(f"dropout must be at least 0 and below 1, got {self.dropout}")
        if self.input_side < INPUT_MULTIPLE:
            raise UsageError(f"input_side must be at least {INPUT_MULTIPLE} pixels, got {self.input_side}")
        if not 0.0 < self.speed_gain < 100.0:
            raise UsageError(f"speed_gain must be a factor above 0 and below 100, got {self.speed_gain}")


@dataclass(frozen=True, slots=True)
class MotionHeads:
    """Raw predictions at a quarter of the input size.

    moving_logit_B1HW: logit of "moves". direction_logits_BKHW: unnormalised log-probability per bin.
    direction_residual_BKHW: angle from the bin's centre in radians. log_speed_B1HW: log px/frame, input size.
    """

    moving_logit_B1HW: Tensor
    direction_logits_BKHW: Tensor
    direction_residual_BKHW: Tensor
    log_speed_B1HW: Tensor


class _DecoderLevel(nn.Module):
    """Enlarge the coarse features, join the encoder's at this stride and the hints, mix."""

    def __init__(self, coarse: int, skip: int, width: int, dropout: float) -> None:
        super().__init__()
        # Narrowed before the 3×3 convolution, which is where a decoder's time goes.
        self.narrow_coarse = nn.Conv2d(coarse, width, 1)
        self.narrow_skip = nn.Conv2d(skip, width, 1)
        self.mix = nn.Sequential(
            convolved(2 * width + SPREAD_HINT_CHANNELS, width, 3),
            nn.Dropout2d(dropout),
            convolved(width, width, 3),
        )

    def forward(self, coarse: Tensor, skip: Tensor, hints: Tensor) -> Tensor:
        enlarged = functional.interpolate(self.narrow_coarse(coarse), skip.shape[-2:], mode="nearest")
        return cast(Tensor, self.mix(torch.cat((enlarged, self.narrow_skip(skip), hints), 1)))


class _SceneContext(nn.Module):
    """Where a scene moves is a property of the whole picture: every place hears about all others."""

    def __init__(self, inputs: int, width: int, dropout: float) -> None:
        super().__init__()
        self.narrow = convolved(inputs + SPREAD_HINT_CHANNELS, width, 1)
        self.scene = nn.Sequential(nn.Linear(2 * width, width), nn.ReLU(), nn.Linear(width, width))
        self.mix = nn.Sequential(nn.Dropout2d(dropout), convolved(width, width, 3))

    def forward(self, deepest: Tensor, hints: Tensor) -> Tensor:
        features = self.narrow(torch.cat((deepest, hints), 1))
        pooled = torch.cat((features.mean((2, 3)), features.amax((2, 3))), 1)
        return cast(Tensor, self.mix(features + self.scene(pooled)[:, :, None, None]))


class MotionNetwork(nn.Module):
    """U-Net with moving, direction and speed heads; see the module's docstring."""

    def __init__(self, config: MotionNetworkConfig) -> None:
        super().__init__()
        self.config = config
        backbone = build_backbone(config.backbone, plain_width=config.plain_width)
        self.backbone = cast(nn.Module, backbone)
        channels = backbone.channels
        deepest, *widths = config.decoder_widths
        self.context = _SceneContext(channels[4], deepest, config.dropout)
        levels, coarse = [], deepest
        for skip, width in zip((channels[3], channels[2], channels[1]), widths, strict=True):
            levels.append(_DecoderLevel(coarse, skip, width, config.dropout / 2))
            coarse = width
        self.levels = nn.ModuleList(levels)
        self.heads = nn.Conv2d(coarse, 4 + 2 * config.bins, 1)
        nn.init.normal_(self.heads.weight, std=0.01)
        nn.init.zeros_(cast(Tensor, self.heads.bias))
        if config.pretrained and config.frozen_blocks:
            backbone.freeze(config.frozen_blocks)

    def load_pretrained(self) -> None:
        """Start the encoder from ImageNet weights; UsageError with the cure where they cannot be had."""
        cast(Backbone, self.backbone).load_pretrained()

    def forward(self, photo_B3HW: Tensor, hints_B3HW: Tensor | None = None) -> MotionHeads:
        """Predict heads for photos in [0, 1]; H and W are multiples of 32; no hints means zeros."""
        height, width = photo_B3HW.shape[-2:]
        if height % INPUT_MULTIPLE or width % INPUT_MULTIPLE:
            raise UsageError(
                f"photos must be multiples of {INPUT_MULTIPLE} high and wide, got {height}×{width}; resize"
            )
        if hints_B3HW is None:
            hints_B3HW = torch.zeros_like(photo_B3HW)
        taps = cast(Backbone, self.backbone)(photo_B3HW)
        hints = {n: spread_hints(hints_B3HW, (taps[n].shape[-2], taps[n].shape[-1])) for n in (1, 2, 3, 4)}
        features = self.context(taps[4], hints[4])
        for level, number in zip(self.levels, (3, 2, 1), strict=True):
            features = level(features, taps[number], hints[number])
        return self._read_heads(self.heads(features), hints[1])

    def _read_heads(self, raw: Tensor, hints: Tensor) -> MotionHeads:
        """Split the last layer; where there are hints, lean on them as far as the network trusts them."""
        bins = self.config.bins
        moving, speed, trust, direction, residual = torch.split(raw, [1, 1, 2, bins, bins], 1)
        toward, log_speed, known, near = hints[:, :2], hints[:, 2:3], hints[:, 3:4], hints[:, 4:5]
        angles = bin_angles(bins, device=raw.device).view(1, -1, 1, 1)
        agreement = toward[:, :1] * angles.cos() + toward[:, 1:] * angles.sin()
        trust = torch.sigmoid(trust) * known
        direction = direction + HINT_WEIGHT * trust[:, :1] * agreement
        moving = moving + HINT_MOVES * trust[:, :1] * near
        hinted = torch.log(torch.expm1(log_speed).clamp(min=0.02))
        speed = speed + trust[:, 1:] * (hinted - speed)
        # A residual may cross half-way into the neighbouring bin, so that no angle is out of reach.
        reach = 2.0 * math.pi / bins
        return MotionHeads(moving, direction, torch.tanh(residual) * reach, speed.clamp(-6.0, 4.5))


def spread_hints(hints_B3HW: Tensor, size_HW: tuple[int, int]) -> Tensor:
    """Hand sparse hints on to the whole scene: (B, 5, H, W) for a grid of `size_HW`.

    Channels: unit direction (2) and log(1 + speed) of the hints' velocity, interpolated by inverse squared
    distance (Shepard, 1968); 1 where the picture has any hint; how near the closest hint is. All 0 without.
    """
    cells = (hints_B3HW.shape[-2] // INPUT_MULTIPLE, hints_B3HW.shape[-1] // INPUT_MULTIPLE)
    pooled = functional.adaptive_avg_pool2d(hints_B3HW.float(), cells)
    presence = pooled[:, 2:3]
    velocity = pooled[:, :2] / presence.clamp(min=1e-6)
    closeness = _closeness(cells, hints_B3HW.device)
    # Squared presence: the faint rims of a hint's blob should not stand in for places of their own.
    trusted = presence.flatten(2) ** 2
    total = trusted @ closeness
    spread = (velocity.flatten(2) * trusted) @ closeness / total.clamp(min=1e-9)
    spread = functional.interpolate(spread.view(-1, 2, *cells), size_HW, mode="bilinear", align_corners=False)
    near = functional.adaptive_avg_pool2d(hints_B3HW[:, 2:3].float(), size_HW)
    known = (hints_B3HW[:, 2:3].amax((2, 3), keepdim=True) > 0).float().expand_as(near)
    speed = (spread**2).sum(1, keepdim=True).clamp(min=1e-12).sqrt()
    return torch.cat((spread / speed * known, torch.log1p(speed) * known, known, near), 1)


def _closeness(cells_HW: tuple[int, int], device: torch.device) -> Tensor:
    """Inverse squared distance between all cells of a grid, (N, N); its longer side is 1."""
    rows, columns = cells_HW
    y, x = torch.meshgrid(
        torch.arange(rows, device=device), torch.arange(columns, device=device), indexing="ij"
    )
    places_N2 = torch.stack((y.flatten(), x.flatten()), 1).float() / max(cells_HW)
    squared = (places_N2[:, None] - places_N2[None]).square().sum(2)
    return 1.0 / (squared + 0.5 / max(cells_HW) ** 2)


def bin_angles(bins: int, *, device: torch.device | None = None) -> Tensor:
    """Centre angles of the direction bins in radians, 0 to the right, π/2 down."""
    return torch.arange(bins, device=device, dtype=torch.float32) * (2.0 * math.pi / bins)


def decode_motion(heads: MotionHeads) -> Tensor:
    """Take the dominant direction mode at its speed: (B, 2, H, W) px/frame at the network's input size.

    The mode is the bin whose neighbourhood holds the most probability (one bin alone would jump between
    near-equal neighbours); the angle is the neighbourhood's probability-weighted mean direction.
    The moving logit is not applied here.
    """
    angles = bin_angles(heads.direction_logits_BKHW.shape[1], device=heads.direction_logits_BKHW.device)
    probability = heads.direction_logits_BKHW.float().softmax(1)
    exact = angles.view(1, -1, 1, 1) + heads.direction_residual_BKHW.float()
    around = probability + probability.roll(1, 1) + probability.roll(-1, 1)
    mode = around.argmax(1, keepdim=True)
    east = _gather_around(probability * exact.cos(), mode)
    south = _gather_around(probability * exact.sin(), mode)
    length = torch.sqrt(east**2 + south**2).clamp(min=1e-6)
    return torch.cat((east, south), 1) / length * heads.log_speed_B1HW.float().exp()


def _gather_around(values_BKHW: Tensor, mode_B1HW: Tensor) -> Tensor:
    """Sum of the values in the mode's bin and its two neighbours on the circle."""
    bins = values_BKHW.shape[1]
    return sum(
        (values_BKHW.gather(1, (mode_B1HW + offset) % bins) for offset in (-1, 0, 1)),
        start=torch.zeros_like(mode_B1HW, dtype=values_BKHW.dtype),
    )


def direction_certainty(heads: MotionHeads) -> Tensor:
    """Expected cosine between decoded and true direction if the predicted bins are right: (B, 1, H, W).

    1 where one direction is sure, 0 where all (or two opposite ones) are equally likely.
    """
    angles = bin_angles(heads.direction_logits_BKHW.shape[1], device=heads.direction_logits_BKHW.device)
    probability = heads.direction_logits_BKHW.float().softmax(1)
    unit = functional.normalize(decode_motion(heads), dim=1)
    cosine = unit[:, :1] * angles.cos().view(1, -1, 1, 1) + unit[:, 1:] * angles.sin().view(1, -1, 1, 1)
    return (probability * cosine).sum(1, keepdim=True).clamp(0.0, 1.0)
