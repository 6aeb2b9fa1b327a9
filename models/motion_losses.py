"""Losses of the motion network: what moves, in which direction, how fast.

Direction is learnt as a distribution over bins (cross-entropy against a target smeared over neighbours)
plus the exact angle in the true bin (1 − cos); speed as a Huber loss of its logarithm; both weighted by the
confidence of the target and normalised per example, so that a picture with little water counts as much as one
full of it. The moving mask takes binary cross-entropy and Dice. See `MotionLossConfig` for the weights.

Dimension letters: B batch, K direction bins, H and W rows and columns of the heads, 2 = (dx, dy).
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from models.motion_network import MotionHeads, MotionNetwork, bin_angles
from storage.errors import UsageError

__all__ = ["MotionLossConfig", "motion_losses", "motion_training_step"]

_PARTS = (
    "moving",
    "dice",
    "direction",
    "angle",
    "speed",
    "still",
    "smooth",
    "endpoint",
)
_SLOWEST = 0.02  # px/frame: slower targets than this have no meaningful logarithm


@dataclass(frozen=True, kw_only=True, slots=True)
class MotionLossConfig:
    """Weights of the losses; 0 leaves one out.

    `moving`, `dice`: cross-entropy and overlap of the moving mask. `direction`, `angle`: of the bins, and of
    the exact angle in the true bin. `speed`: of the log-speed. `still`: of speed where nothing moves.
    `smooth`: of motion, except across the photo's edges. `endpoint`: of the expected motion.
    `smear_bins`: how far the target direction is smeared over neighbours, in bins; no weight.
    """

    moving: float = 1.0
    dice: float = 1.0
    direction: float = 1.0
    angle: float = 1.0
    speed: float = 1.0
    still: float = 0.1
    smooth: float = 0.1
    endpoint: float = 1.0
    smear_bins: float = 0.75

    def __post_init__(self) -> None:
        for name in _PARTS:
            if getattr(self, name) < 0:
                raise UsageError(f"loss weight {name} must not be negative, got {getattr(self, name)}")
        if self.smear_bins <= 0:
            raise UsageError(f"smear_bins must be positive, got {self.smear_bins}")


def motion_training_step(
    network: MotionNetwork, batch: Mapping[str, Tensor], config: MotionLossConfig | None = None
) -> dict[str, Tensor]:
    """Losses of one batch: `loss` is the weighted sum to minimise, the others are its unweighted parts.

    The batch holds photo_B3HW in [0, 1], motion_B2HW in px/frame at that size, confidence_B1HW, moving_B1HW
    and, if hints are to be learnt, hints_B3HW.
    """
    config = config or MotionLossConfig()
    heads = network(batch["photo_B3HW"], batch.get("hints_B3HW"))
    return motion_losses(heads, batch, config)


def motion_losses(
    heads: MotionHeads, batch: Mapping[str, Tensor], config: MotionLossConfig
) -> dict[str, Tensor]:
    """All parts and their weighted sum `loss`, for predicted heads and a batch at the input's size."""
    size = _size(heads)
    moving = functional.adaptive_avg_pool2d(batch["moving_B1HW"].float(), size)
    confidence = functional.adaptive_avg_pool2d(batch["confidence_B1HW"].float(), size)
    motion = _pool_motion(batch["motion_B2HW"].float(), batch["moving_B1HW"].float(), size)
    weight = moving * confidence
    speed = _length(motion)
    parts = {
        "moving": functional.binary_cross_entropy_with_logits(heads.moving_logit_B1HW.float(), moving),
        "dice": _dice(heads.moving_logit_B1HW.float(), moving),
        **_direction_parts(heads, motion, weight, config.smear_bins),
        "speed": _per_example(
            functional.huber_loss(
                heads.log_speed_B1HW.float(), speed.clamp(min=_SLOWEST).log(), reduction="none", delta=0.5
            ),
            weight,
        ),
        "still": _still(heads, moving),
        "smooth": _smoothness(heads, batch["photo_B3HW"].float()),
        "endpoint": _endpoint(heads, motion * moving, batch["motion_B2HW"]),
    }
    total = sum((getattr(config, name) * part for name, part in parts.items()), start=speed.new_zeros(()))
    return {"loss": total, **parts}


def _size(heads: MotionHeads) -> tuple[int, int]:
    return heads.moving_logit_B1HW.shape[-2], heads.moving_logit_B1HW.shape[-1]


def _pool_motion(motion_B2HW: Tensor, moving_B1HW: Tensor, size: tuple[int, int]) -> Tensor:
    """Mean motion of the moving pixels of each head cell; still pixels would only slow them down."""
    share = functional.adaptive_avg_pool2d(moving_B1HW, size)
    return functional.adaptive_avg_pool2d(motion_B2HW * moving_B1HW, size) / share.clamp(min=1e-3)


def _length(motion_B2HW: Tensor) -> Tensor:
    """Speed, (B, 1, H, W): a norm along a short strided axis is slow on CPUs, and has no slope at zero."""
    return (motion_B2HW[:, :1] ** 2 + motion_B2HW[:, 1:] ** 2 + 1e-12).sqrt()


def _per_example(values_B1HW: Tensor, weight_B1HW: Tensor) -> Tensor:
    """Weighted mean inside each example, then over the examples that have anything to say."""
    total = weight_B1HW.sum((1, 2, 3))
    mean = (values_B1HW * weight_B1HW).sum((1, 2, 3)) / total.clamp(min=1e-6)
    # Below one per cent of the picture an example fades out instead of shouting with a few pixels.
    say = (total / (0.01 * weight_B1HW[0].numel())).clamp(max=1.0)
    return (mean * say).sum() / say.sum().clamp(min=1.0)


def _direction_parts(
    heads: MotionHeads, motion_B2HW: Tensor, weight_B1HW: Tensor, smear: float
) -> dict[str, Tensor]:
    """Cross-entropy over bins, and 1 − cos of the angle that the true bin's residual gives."""
    bins = heads.direction_logits_BKHW.shape[1]
    angles = bin_angles(bins, device=motion_B2HW.device).view(1, -1, 1, 1)
    true = torch.atan2(motion_B2HW[:, 1:], motion_B2HW[:, :1])
    width = 2.0 * math.pi / bins * smear
    soft = functional.softmax((torch.cos(angles - true) - 1.0) / width**2, dim=1)
    entropy = -(soft * heads.direction_logits_BKHW.float().log_softmax(1)).sum(1, keepdim=True)
    predicted = angles + heads.direction_residual_BKHW.float()
    near = soft.detach()
    angle = (near * (1.0 - torch.cos(predicted - true))).sum(1, keepdim=True)
    return {"direction": _per_example(entropy, weight_B1HW), "angle": _per_example(angle, weight_B1HW)}


def _dice(logit_B1HW: Tensor, moving_B1HW: Tensor) -> Tensor:
    """1 − Dice over each example, 0 for an empty mask predicted empty."""
    probability = logit_B1HW.sigmoid()
    overlap = (probability * moving_B1HW).sum((1, 2, 3))
    total = probability.sum((1, 2, 3)) + moving_B1HW.sum((1, 2, 3))
    smooth = 0.005 * logit_B1HW[0].numel()
    return (1.0 - (2.0 * overlap + smooth) / (total + smooth)).mean()


def _still(heads: MotionHeads, moving_B1HW: Tensor) -> Tensor:
    """Hinge on the speed where nothing moves: above 0.05 px/frame it costs its logarithm."""
    excess = functional.relu(heads.log_speed_B1HW.float() - math.log(0.05))
    return (excess * (1.0 - moving_B1HW)).mean()


def _smoothness(heads: MotionHeads, photo_B3HW: Tensor) -> Tensor:
    """Neighbouring direction distributions agree, except across edges of the photo."""
    photo = functional.adaptive_avg_pool2d(photo_B3HW, _size(heads))
    probability = heads.direction_logits_BKHW.float().softmax(1)
    total = photo.new_zeros(())
    for axis in (2, 3):
        edge = photo.diff(dim=axis).abs().mean(1, keepdim=True)
        change = probability.diff(dim=axis).abs().sum(1, keepdim=True)
        total = total + (change * torch.exp(-10.0 * edge)).mean()
    return total


def _endpoint(heads: MotionHeads, motion_B2HW: Tensor, full_motion_B2HW: Tensor) -> Tensor:
    """End-point error of the expected motion, relative to the example's mean speed."""
    error = _length(_expected_motion(heads) - motion_B2HW).mean((1, 2, 3))
    scale = _length(full_motion_B2HW.float()).mean((1, 2, 3)).clamp(min=0.05)
    return (error / scale).clamp(max=10.0).mean()


def _expected_motion(heads: MotionHeads) -> Tensor:
    """The mean over all that the heads hold possible: it shrinks where the network is unsure."""
    angles = bin_angles(heads.direction_logits_BKHW.shape[1], device=heads.moving_logit_B1HW.device)
    exact = angles.view(1, -1, 1, 1) + heads.direction_residual_BKHW.float()
    probability = heads.direction_logits_BKHW.float().softmax(1)
    east = (probability * exact.cos()).sum(1, keepdim=True)
    south = (probability * exact.sin()).sum(1, keepdim=True)
    # Only direction and mask answer for this: an unsure direction would make the speed head say "slow" too.
    size = heads.moving_logit_B1HW.float().sigmoid() * heads.log_speed_B1HW.detach().float().exp()
    return torch.cat((east, south), 1) * size
