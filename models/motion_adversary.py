"""The adversary of the motion network: does this motion look like water's, for this photo?

Multi-scale patch discriminators with hinge loss and feature matching, as in pix2pixHD (Wang et al., CVPR
2018, section 3), which the 2021 paper trains its motion with. They see the photo, the motion relative to the
target's mean speed, and the moving mask, at the size of the network's heads. An option: off by default.

Dimension letters: B batch, C channels, H and W rows and columns, 2 = (dx, dy).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from models.motion_network import MotionHeads, decode_motion
from storage.errors import UsageError

__all__ = [
    "AdversaryConfig",
    "MotionAdversary",
    "adversary_loss",
    "generator_losses",
    "judged_pictures",
]

SEEN_CHANNELS = 6  # photo 3, motion 2, moving 1
SLOWEST = 0.05  # pixels per frame: motion is relative to the mean speed, but not to less than this

Judgement = list[list[Tensor]]


@dataclass(frozen=True, kw_only=True, slots=True)
class AdversaryConfig:
    """The discriminators that a motion network may be trained against.

    `weight`: of the adversarial loss (0: no adversary). `feature_matching`: its weight within that. `scales`:
    how many discriminators. `width`: channels of their first layer.
    """

    weight: float = 0.0
    feature_matching: float = 10.0
    scales: int = 3
    width: int = 32

    def __post_init__(self) -> None:
        if self.weight < 0 or self.feature_matching < 0:
            raise UsageError(
                f"adversary weights must be at least 0, got {self.weight} and {self.feature_matching}"
            )
        if self.scales < 1 or self.width < 1:
            raise UsageError(
                f"adversary scales and width must be at least 1, got {self.scales} and {self.width}"
            )


class MotionAdversary(nn.Module):
    """One patch discriminator per scale, each judging a picture of half the size of the one before."""

    def __init__(self, config: AdversaryConfig) -> None:
        super().__init__()
        self.scales = nn.ModuleList(_PatchDiscriminator(config.width) for _ in range(config.scales))

    def forward(self, seen_BCHW: Tensor) -> Judgement:
        """For every scale the features of every layer; the last ones are the logits."""
        judgement = []
        for number, discriminator in enumerate(self.scales):
            if number:
                seen_BCHW = functional.avg_pool2d(seen_BCHW, 3, stride=2, padding=1, count_include_pad=False)
            judgement.append(cast(list[Tensor], discriminator(seen_BCHW)))
        return judgement


class _PatchDiscriminator(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        norm = nn.utils.parametrizations.spectral_norm
        self.layers = nn.ModuleList(
            nn.Sequential(norm(nn.Conv2d(inputs, outputs, 4, stride=stride, padding=2)), nn.LeakyReLU(0.2))
            for inputs, outputs, stride in (
                (SEEN_CHANNELS, width, 2),
                (width, 2 * width, 2),
                (2 * width, 4 * width, 1),
            )
        )
        self.last = norm(nn.Conv2d(4 * width, 1, 4, padding=2))

    def forward(self, seen_BCHW: Tensor) -> list[Tensor]:
        features = [seen_BCHW]
        for layer in self.layers:
            features.append(layer(features[-1]))
        return [*features[1:], self.last(features[-1])]


def judged_pictures(heads: MotionHeads, batch: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
    """What the adversary is shown: the target's and the predicted (B, 6, h, w), the second differentiable."""
    size = (heads.moving_logit_B1HW.shape[-2], heads.moving_logit_B1HW.shape[-1])
    photo = functional.adaptive_avg_pool2d(batch["photo_B3HW"].float(), size)
    moving = functional.adaptive_avg_pool2d(batch["moving_B1HW"].float(), size)
    target = functional.adaptive_avg_pool2d(batch["motion_B2HW"].float() * batch["moving_B1HW"], size)
    scale = target.norm(dim=1, keepdim=True).mean((2, 3), keepdim=True).clamp(min=SLOWEST)
    probability = torch.sigmoid(heads.moving_logit_B1HW.float())
    predicted = decode_motion(heads) * probability
    real = torch.cat((photo, target / scale, moving), 1)
    # A speed beyond all bounds would drown the features; the bound is far above any target.
    return real, torch.cat((photo, (predicted / scale).clamp(-20, 20), probability), 1)


def generator_losses(adversary: nn.Module, real: Tensor, made: Tensor) -> dict[str, Tensor]:
    """What the network wants: to be judged real (hinge), with features like those of the target."""
    judged_made: Judgement = adversary(made)
    with torch.no_grad():
        judged_real: Judgement = adversary(real)
    hinge = torch.stack([-scale[-1].mean() for scale in judged_made]).mean()
    matching = torch.stack(
        [
            functional.l1_loss(one, other)
            for scale, other_scale in zip(judged_made, judged_real, strict=True)
            for one, other in zip(scale[:-1], other_scale[:-1], strict=True)
        ]
    ).mean()
    return {"adversarial": hinge, "feature_matching": matching}


def adversary_loss(adversary: nn.Module, real: Tensor, made: Tensor) -> Tensor:
    """What the adversary wants: targets above 1, predictions below −1 (hinge)."""
    return torch.stack(
        [
            functional.relu(1 - real_scale[-1]).mean() + functional.relu(1 + made_scale[-1]).mean()
            for real_scale, made_scale in zip(adversary(real), adversary(made.detach()), strict=True)
        ]
    ).mean()
