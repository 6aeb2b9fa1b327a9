"""The deep animator: encode the photo, splat its features both ways in time, decode a correction.

    photo → encoder → features and Z → symmetric splatting along F → decoder → correction of the colour splat

after Holynski et al. 2021, section 4, with one change: the decoder predicts what to add to the splatted
colours instead of the whole frame. Untrained (its last layer starts at zero) it is therefore the colour
splat; the correction is weighted by √(4α(1 − α)), so frame 0 is the photo and the seam holds; and still
pixels are the photo's. Legend: B batch, H, W the photo, h, w the features' size, 2 is (dx, dy) in pixels.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from models.loop_kernels import LITTLE_WEIGHT
from models.softmax_splatting import softmax_splat, symmetric_splat
from storage.errors import UsageError

__all__ = [
    "ANIMATOR_CONFIGS",
    "Animator",
    "AnimatorConfig",
    "Decoder",
    "Encoder",
    "ResidualBlock",
    "paper",
    "small",
]

# Z stays within ± this, so that a common maximum is safe for the compiled splat at inference.
IMPORTANCE_RANGE = 4.0
# Weight of a source that the mask calls still: as good as nothing, and its logarithm is finite.
STILL_WEIGHT = 1e-6


@dataclass(frozen=True, kw_only=True, slots=True)
class AnimatorConfig:
    """Size of an animator.

    stride: 1 = features at full, 2 = at half resolution; features: channels that are splatted;
    width: channels of encoder and decoder at the features' resolution, twice that below it;
    blocks: residual blocks at the coarse level.
    """

    stride: int = 2
    features: int = 16
    width: int = 32
    blocks: int = 2

    def __post_init__(self) -> None:
        if self.stride not in (1, 2):
            raise UsageError(f"stride must be 1 (full resolution) or 2 (half), got {self.stride}")
        for name in ("features", "width", "blocks"):
            if getattr(self, name) < 1:
                raise UsageError(f"{name} must be at least 1, got {getattr(self, name)}")


def small() -> AnimatorConfig:
    """The default: half resolution, fit for two CPU cores."""
    return AnimatorConfig()


def paper() -> AnimatorConfig:
    """Full resolution and 64 features, as published; wants a GPU."""
    return AnimatorConfig(stride=1, features=64, width=64, blocks=4)


ANIMATOR_CONFIGS: dict[str, Callable[[], AnimatorConfig]] = {"small": small, "paper": paper}


class Animator(nn.Module):
    """Frames between a start picture and an end picture along known displacements.

    A photo's loop has the photo as both; in training they are two frames of one clip.
    """

    def __init__(self, config: AnimatorConfig | None = None) -> None:
        super().__init__()
        self.config = config or small()
        self.encoder = Encoder(self.config)
        self.decoder = Decoder(self.config)

    @classmethod
    def from_config(cls, config: AnimatorConfig | dict[str, Any] | str) -> Animator:
        """From a configuration, its dictionary, or a named size (`small`, `paper`)."""
        if isinstance(config, str):
            if config not in ANIMATOR_CONFIGS:
                raise UsageError(f"no animator is called {config!r}; choose from {sorted(ANIMATOR_CONFIGS)}")
            config = ANIMATOR_CONFIGS[config]()
        return cls(AnimatorConfig(**config) if isinstance(config, dict) else config)

    def config_dict(self) -> dict[str, Any]:
        """The configuration as plain values, for a checkpoint's header."""
        return asdict(self.config)

    @property
    def halo(self) -> int:
        """How many pixels around a region the decoder looks at."""
        return self.decoder.reach * self.config.stride

    def forward(
        self,
        start_B3HW: Tensor,
        end_B3HW: Tensor,
        displacements: tuple[Tensor, Tensor],
        alpha_B: Tensor,
        moving_B1HW: Tensor,
    ) -> Tensor:
        """The frame (B, 3, H, W) at alpha between start and end, pictures in [0, 1].

        displacements: start → frame and end → frame, (B, 2, H, W) in pixels; moving: in [0, 1], 0 = still.
        Differentiable; still pixels are the start's.
        """
        height, width = start_B3HW.shape[-2:]
        start, end, moving = (_padded(each, 4) for each in (start_B3HW, end_B3HW, moving_B1HW))
        forward, backward = (_padded(each, 4) for each in displacements)
        base = _splat_between((start, end), moving, (forward, backward), alpha_B)
        correction = self._correct(base, (start, end), moving, (forward, backward), alpha_B)
        fade = (4 * alpha_B * (1 - alpha_B)).clamp(min=0).sqrt().view(-1, 1, 1, 1)
        frame = (base + moving * fade * correction).clamp(0.0, 1.0)
        return frame[..., :height, :width]

    def _correct(
        self,
        base: Tensor,
        pictures: tuple[Tensor, Tensor],
        moving: Tensor,
        displacements: tuple[Tensor, Tensor],
        alpha: Tensor,
    ) -> Tensor:
        stride = self.config.stride
        share = functional.avg_pool2d(moving, stride)
        fields = tuple(functional.avg_pool2d(each, stride) / stride for each in displacements)
        encoded = [self.encoder(picture, moving) for picture in pictures]
        landed = _splat_features(
            (encoded[0][0], encoded[1][0]),
            (encoded[0][1], encoded[1][1]),
            share,
            (fields[0], fields[1]),
            alpha,
        )
        # Still features are nobody's: the renderer never splats them, so the decoder must not see them.
        return cast(Tensor, self.decoder(base, landed * share, share, alpha))


class Encoder(nn.Module):
    """A picture and its moving mask to features (B, C, h, w) and importance Z (B, 1, h, w)."""

    def __init__(self, config: AnimatorConfig) -> None:
        super().__init__()
        self.stride = config.stride
        self.layers = nn.Sequential(
            nn.Conv2d(4 * config.stride**2, config.width, 3, padding=1),
            nn.LeakyReLU(0.1),
            ResidualBlock(config.width),
            nn.Conv2d(config.width, config.features + 1, 3, padding=1),
        )

    def forward(self, picture_B3HW: Tensor, moving_B1HW: Tensor) -> tuple[Tensor, Tensor]:
        entered = torch.cat([picture_B3HW - 0.5, moving_B1HW], dim=1)
        encoded = self.layers(functional.pixel_unshuffle(entered, self.stride))
        importance = IMPORTANCE_RANGE * torch.tanh(encoded[:, -1:] / IMPORTANCE_RANGE)
        return encoded[:, :-1], importance


class Decoder(nn.Module):
    """Splatted colours and features to a correction of the colours (B, 3, H, W)."""

    def __init__(self, config: AnimatorConfig) -> None:
        super().__init__()
        self.stride, width = config.stride, config.width
        entering = 3 * config.stride**2 + config.features + 2
        self.enter = nn.Sequential(
            nn.Conv2d(entering, width, 3, padding=1), nn.LeakyReLU(0.1), ResidualBlock(width)
        )
        self.coarse = nn.Sequential(
            nn.Conv2d(width, 2 * width, 3, stride=2, padding=1),
            nn.LeakyReLU(0.1),
            *(ResidualBlock(2 * width) for _ in range(config.blocks)),
            nn.Conv2d(2 * width, 4 * width, 1),
            nn.PixelShuffle(2),
        )
        self.leave = nn.Sequential(ResidualBlock(width), nn.LeakyReLU(0.1))
        self.last = nn.Conv2d(width, 3 * config.stride**2, 3, padding=1)
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(cast(Tensor, self.last.bias))
        # In feature pixels: 1 + 2 to enter, 1 + 4 per coarse block and 1 for its grid, 2 + 1 to leave.
        self.reach = 8 + 4 * config.blocks

    def forward(self, base_B3HW: Tensor, landed_BCHW: Tensor, share_B1HW: Tensor, alpha_B: Tensor) -> Tensor:
        base = functional.pixel_unshuffle(base_B3HW - 0.5, self.stride)
        time = (4 * alpha_B * (1 - alpha_B)).view(-1, 1, 1, 1).expand_as(share_B1HW)
        fine = self.enter(torch.cat([base, landed_BCHW, share_B1HW, time], dim=1))
        left = self.leave(fine + self.coarse(fine))
        return functional.pixel_shuffle(self.last(left), self.stride)


class ResidualBlock(nn.Module):
    """Two 3×3 convolutions and the way around them; unnormalised, so that tiling changes nothing."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(width, width, 3, padding=1)
        self.second = nn.Conv2d(width, width, 3, padding=1)
        # Starting near the identity trains steadily without normalisation.
        with torch.no_grad():
            self.second.weight.mul_(0.1)

    def forward(self, features: Tensor) -> Tensor:
        inner = functional.leaky_relu(self.first(features), 0.1)
        return features + cast(Tensor, self.second(functional.leaky_relu(inner, 0.1)))


def _splat_between(
    pictures: tuple[Tensor, Tensor], moving: Tensor, displacements: tuple[Tensor, Tensor], alpha: Tensor
) -> Tensor:
    """The colour splat over the still start, as the renderer's compiled loops make it.

    Both ways are averaged apart and mixed by α as far as each covers a pixel; where neither lands, the two
    pictures cross-fade.
    """
    (forward, first), (backward, second) = (
        _splat_colour(picture, moving, displacement)
        for picture, displacement in zip(pictures, displacements, strict=True)
    )
    time = alpha.float().view(-1, 1, 1, 1)
    share = time * second / ((1 - time) * first + time * second + 1e-9)
    start, end = pictures
    faded = start + time * (end - start)
    colour = faded + torch.maximum(first, second) * (forward + share * (backward - forward) - faded)
    return start + moving * (colour - start)


def _splat_colour(picture: Tensor, moving: Tensor, displacement: Tensor) -> tuple[Tensor, Tensor]:
    """One way's colours, and how far it covers each pixel: 0 … 1."""
    landed, density = softmax_splat(torch.cat([picture * moving, moving], dim=1), displacement)
    sums = landed.float() * density
    weight = sums[:, 3:]
    colour = sums[:, :3] / weight.clamp(min=LITTLE_WEIGHT)
    around = functional.pad(weight.clamp(max=1.0), (2, 2, 2, 2), mode="reflect")
    cover = (4 * functional.avg_pool2d(around, 5, stride=1)).clamp(max=1.0)
    return colour, cover * (weight > LITTLE_WEIGHT)


def _splat_features(
    features: tuple[Tensor, Tensor],
    importances: tuple[Tensor, Tensor],
    share: Tensor,
    displacements: tuple[Tensor, Tensor],
    alpha: Tensor,
) -> Tensor:
    """Symmetric splat of two pictures' features, weighted by exp(Z) and by the moving share."""
    weight = share.float().clamp(min=STILL_WEIGHT).log()
    z = weight + importances[0].float(), weight + importances[1].float()
    return symmetric_splat(features, displacements, z, alpha)[0]


def _padded(plane: Tensor, multiple: int) -> Tensor:
    height, width = plane.shape[-2:]
    below, right = -height % multiple, -width % multiple
    return functional.pad(plane, (0, right, 0, below), mode="replicate") if below or right else plane
