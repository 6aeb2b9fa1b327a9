"""What the animator is trained for: to be near the real frame and to have its textures.

L1 + perceptual distance + optional hinge GAN with a patch discriminator. The perceptual distance compares
VGG-16 features where torchvision's weights lie in torch's local cache (nothing is ever downloaded here),
else gradients and structure at several scales. The texture term weighs gradients against their own size, so
that blur costs as much as wrong detail does. Legend: B batch, H, W rows and columns; pictures in [0, 1].
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from models.euler import integrate_motion_torch
from storage.errors import UsageError

__all__ = [
    "ImageLossConfig",
    "PatchDiscriminator",
    "adversarial_loss",
    "animator_training_step",
    "discriminator_loss",
    "masked_l1",
    "multi_scale_distance",
    "perceptual_loss",
    "structure_distance",
    "texture_distance",
    "vgg_distance",
    "vgg_weights_path",
]

PERCEPTUAL = ("auto", "vgg", "gradient")
VGG_FILE = "vgg16-397923af.pth"
# After these layers of torchvision's VGG-16 (relu1_2, relu2_2, relu3_3) features are compared.
VGG_LAYERS = (3, 8, 15)
LUMA = (0.299, 0.587, 0.114)
TEXTURE_NOISE = 2 / 255  # gradients below this are noise, whose pattern need not be met


@dataclass(frozen=True, kw_only=True, slots=True)
class ImageLossConfig:
    """Weights of the terms, and which perceptual distance.

    `l1`: of pixels. `perceptual`: of features. `texture`: of gradients against their own size. `adversarial`:
    of the patch discriminator. `distance`: auto (VGG when its weights are there), vgg or gradient.
    """

    l1: float = 1.0
    perceptual: float = 0.2
    texture: float = 0.0
    adversarial: float = 0.0
    distance: str = "auto"

    def __post_init__(self) -> None:
        if self.distance not in PERCEPTUAL:
            raise UsageError(f"distance must be one of {', '.join(PERCEPTUAL)}, got {self.distance!r}")
        for name in ("l1", "perceptual", "texture", "adversarial"):
            if getattr(self, name) < 0:
                raise UsageError(f"{name} must be zero or more, got {getattr(self, name)}")


def animator_training_step(  # noqa: PLR0913 - three pictures with their moments, and what moves between them
    animator: nn.Module,
    start_B3HW: Tensor,
    middle_B3HW: Tensor,
    end_B3HW: Tensor,
    motion_B2HW: Tensor,
    moving_B1HW: Tensor,
    t_start: Tensor,
    t_mid: Tensor,
    t_end: Tensor,
    config: ImageLossConfig | None = None,
    discriminator: PatchDiscriminator | None = None,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Render the middle frame from start and end, and compare: the prediction (B, 3, H, W) and its losses.

    motion: (B, 2, H, W) in pixels per frame at the pictures' size; moving: (B, 1, H, W) in [0, 1];
    t_start < t_mid < t_end: whole frame numbers (B,). Losses are scalars: l1, perceptual, texture and
    adversarial when asked for, and loss, their weighted sum. Only the moving region counts.
    """
    config = config or ImageLossConfig()
    times = [moment.to(start_B3HW.device).round().long() for moment in (t_start, t_mid, t_end)]
    forward = integrate_motion_torch(motion_B2HW, times[1] - times[0])
    backward = integrate_motion_torch(motion_B2HW, times[1] - times[2])
    alpha = (times[1] - times[0]).float() / (times[2] - times[0]).clamp(min=1).float()
    prediction = animator(start_B3HW, end_B3HW, (forward, backward), alpha, moving_B1HW)
    losses = {"l1": masked_l1(prediction, middle_B3HW, moving_B1HW)}
    losses["perceptual"] = perceptual_loss(prediction, middle_B3HW, moving_B1HW, config.distance)
    loss = config.l1 * losses["l1"] + config.perceptual * losses["perceptual"]
    if config.texture > 0:
        losses["texture"] = texture_distance(prediction, middle_B3HW, moving_B1HW)
        loss = loss + config.texture * losses["texture"]
    if discriminator is not None and config.adversarial > 0:
        losses["adversarial"] = adversarial_loss(discriminator, prediction)
        loss = loss + config.adversarial * losses["adversarial"]
    return prediction, losses | {"loss": loss}


def masked_l1(prediction_B3HW: Tensor, target_B3HW: Tensor, moving_B1HW: Tensor) -> Tensor:
    """Mean |difference| over the moving region, 0 … 1; 0 when nothing moves."""
    difference = (prediction_B3HW.float() - target_B3HW.float()).abs().mean(dim=1, keepdim=True)
    return (difference * moving_B1HW).sum() / moving_B1HW.sum().clamp(min=1.0)


def perceptual_loss(prediction: Tensor, target: Tensor, moving: Tensor, distance: str = "auto") -> Tensor:
    """Perceptual distance of the moving region: what is still is made equal before comparing.

    Raises UsageError when VGG is asked for and its weights are not there.
    """
    # The still part is not the animator's work; equal pixels there leave no gradient and no distance.
    shown = target + moving * (prediction - target)
    if distance == "vgg" or (distance == "auto" and vgg_weights_path() is not None):
        return vgg_distance(shown, target)
    return multi_scale_distance(shown, target, moving) + 0.5 * structure_distance(shown, target, moving)


def multi_scale_distance(prediction: Tensor, target: Tensor, moving: Tensor, scales: int = 3) -> Tensor:
    """Mean |difference| of horizontal and vertical gradients over several halvings of the picture."""
    total = prediction.new_zeros(())
    for _ in range(scales):
        weight = moving.sum().clamp(min=1.0)
        for axis in (-1, -2):
            gradients = [torch.diff(each.float(), dim=axis) for each in (prediction, target)]
            region = moving.narrow(axis, 1, moving.shape[axis] - 1)
            difference = (gradients[0] - gradients[1]).abs().mean(dim=1, keepdim=True)
            total = total + (difference * region).sum() / weight
        if min(prediction.shape[-2:]) < 8:
            break
        prediction, target, moving = (functional.avg_pool2d(each, 2) for each in (prediction, target, moving))
    return total / scales


def texture_distance(prediction: Tensor, target: Tensor, moving: Tensor, scales: int = 3) -> Tensor:
    """Mean |∇a − ∇b| / (|∇a| + |∇b| + noise) over several halvings: a flat patch costs most, 1.

    The differentiable twin of models.metrics.perceptual_distance, on first differences.
    """
    total = prediction.new_zeros(())
    for _ in range(scales):
        for axis in (-1, -2):
            one, other = (torch.diff(each.float(), dim=axis) for each in (prediction, target))
            region = moving.narrow(axis, 1, moving.shape[axis] - 1)
            share = (one - other).abs() / (one.abs() + other.abs() + TEXTURE_NOISE)
            total = total + (share.mean(dim=1, keepdim=True) * region).sum() / region.sum().clamp(min=1.0) / 2
        if min(prediction.shape[-2:]) < 8:
            break
        prediction, target, moving = (functional.avg_pool2d(each, 2) for each in (prediction, target, moving))
    return total / scales


def structure_distance(prediction: Tensor, target: Tensor, moving: Tensor, window: int = 7) -> Tensor:
    """1 − SSIM of the luma in a square window, averaged over the moving region."""
    luma = torch.tensor(LUMA, device=prediction.device).view(1, 3, 1, 1)
    x, y = (
        (prediction.float() * luma).sum(1, keepdim=True),
        (target.float() * luma).sum(1, keepdim=True),
    )

    def mean(plane: Tensor) -> Tensor:
        padded = functional.pad(plane, (window // 2,) * 4, mode="reflect")
        return functional.avg_pool2d(padded, window, stride=1)

    mean_x, mean_y = mean(x), mean(y)
    var_x, var_y = mean(x * x) - mean_x**2, mean(y * y) - mean_y**2
    covariance = mean(x * y) - mean_x * mean_y
    similarity = ((2 * mean_x * mean_y + 1e-4) * (2 * covariance + 9e-4)) / (
        (mean_x**2 + mean_y**2 + 1e-4) * (var_x + var_y + 9e-4)
    )
    return ((1 - similarity) * moving).sum() / moving.sum().clamp(min=1.0)


def vgg_weights_path() -> Path | None:
    """The VGG-16 weights in torch's cache, or None: this never downloads."""
    path = Path(torch.hub.get_dir()) / "checkpoints" / VGG_FILE
    return path if path.is_file() else None


def vgg_distance(prediction: Tensor, target: Tensor) -> Tensor:
    """Mean |difference| of normalised VGG-16 features at three depths (Johnson et al. 2016)."""
    extractor = _vgg(str(prediction.device))
    shift = torch.tensor((0.485, 0.456, 0.406), device=prediction.device).view(1, 3, 1, 1)
    scale = torch.tensor((0.229, 0.224, 0.225), device=prediction.device).view(1, 3, 1, 1)
    both = (torch.cat([prediction, target]).float() - shift) / scale
    total = prediction.new_zeros(())
    for index, layer in enumerate(extractor):
        both = layer(both)
        if index in VGG_LAYERS:
            one, other = functional.normalize(both, dim=1).chunk(2)
            total = total + (one - other).abs().sum(dim=1).mean()
    return total / len(VGG_LAYERS)


@cache
def _vgg(device: str) -> nn.Sequential:
    path = vgg_weights_path()
    if path is None:
        raise UsageError(
            f"the VGG distance expects {VGG_FILE} in {torch.hub.get_dir()}/checkpoints, found none; "
            "place torchvision's file there or set distance to 'gradient'"
        )
    from torchvision.models import vgg16

    network = vgg16(weights=None)
    # weights_only refuses anything but tensors, so that reading the file runs no code.
    network.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    layers = network.features[: VGG_LAYERS[-1] + 1]
    return cast(nn.Sequential, layers.to(device).eval().requires_grad_(False))


class PatchDiscriminator(nn.Module):
    """Judges patches of about 34 pixels: (B, 3, H, W) in [0, 1] to logits (B, 1, H / 8, W / 8)."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        norm = nn.utils.parametrizations.spectral_norm
        self.layers = nn.Sequential(
            norm(nn.Conv2d(3, width, 4, stride=2, padding=1)),
            nn.LeakyReLU(0.2),
            norm(nn.Conv2d(width, 2 * width, 4, stride=2, padding=1)),
            nn.LeakyReLU(0.2),
            norm(nn.Conv2d(2 * width, 4 * width, 4, stride=2, padding=1)),
            nn.LeakyReLU(0.2),
            norm(nn.Conv2d(4 * width, 1, 3, padding=1)),
        )

    def forward(self, picture_B3HW: Tensor) -> Tensor:
        return cast(Tensor, self.layers(2 * picture_B3HW - 1))


def adversarial_loss(discriminator: PatchDiscriminator, prediction_B3HW: Tensor) -> Tensor:
    """The generator's hinge loss: its frames should be judged real."""
    return -cast(Tensor, discriminator(prediction_B3HW)).mean()


def discriminator_loss(
    discriminator: PatchDiscriminator, target_B3HW: Tensor, prediction_B3HW: Tensor
) -> Tensor:
    """The discriminator's hinge loss: real above 1, rendered below −1."""
    real, rendered = discriminator(target_B3HW), discriminator(prediction_B3HW.detach())
    return functional.relu(1 - real).mean() + functional.relu(1 + rendered).mean()
