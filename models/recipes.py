"""What differs between training the motion network and the animator; the trainer asks a recipe for it.

Dimension letters: B batch, H and W rows and columns, h and w those of the motion grid, 2 = (dx, dy), 3 = RGB.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from models.animator_recipe import AnimatorRecipe
from models.augment import MotionTarget, augment_example, plain_example
from models.colour_wheel import motion_to_colour
from models.configs import TrainConfig
from models.dataset import Example
from models.motion_adversary import MotionAdversary, adversary_loss, generator_losses, judged_pictures
from models.motion_losses import motion_losses
from models.motion_network import MotionNetwork, decode_motion
from storage.shards import Sample

__all__ = ["MotionRecipe", "make_recipe"]

SLOWEST_MEAN = 0.05  # px/frame: errors are relative to the mean target speed, but not to less than this


def make_recipe(config: TrainConfig) -> MotionRecipe | AnimatorRecipe:
    """The recipe for a configuration's kind."""
    return MotionRecipe(config) if config.kind == "motion" else AnimatorRecipe(config)


@dataclass(frozen=True, slots=True)
class MotionRecipe:
    """Motion from a photo: any frame of a clip is the photo, the clip's mean motion is the target."""

    config: TrainConfig

    def build(self) -> nn.Module:
        network = MotionNetwork(self.config.network)
        if self.config.network.pretrained and not self.config.start_from:
            network.load_pretrained()
        return network

    def example(self, sample: Sample, rng: np.random.Generator, batch_rng: np.random.Generator) -> Example:
        """A random frame, augmented; `batch_rng` chooses the size that a whole batch shares."""
        shapes = self.config.augment.shapes_HW
        size_HW = shapes[int(batch_rng.integers(len(shapes)))]
        frame_HW3 = sample.frames[int(rng.integers(len(sample.frames)))]
        return augment_example(frame_HW3, _target(sample), size_HW, rng, self.config.augment).as_dict()

    def validation_example(self, sample: Sample) -> Example:
        """The middle frame, whole, without hints."""
        frame_HW3 = sample.frames[len(sample.frames) // 2]
        return plain_example(frame_HW3, _target(sample), self.config.validation_HW).as_dict()

    def build_adversary(self) -> nn.Module | None:
        config = self.config.adversary
        return MotionAdversary(config) if config.weight > 0 else None

    def losses(
        self, network: nn.Module, batch: dict[str, Tensor], adversary: nn.Module | None
    ) -> tuple[dict[str, Tensor], Tensor | None]:
        heads = network(batch["photo_B3HW"], batch.get("hints_B3HW"))
        losses = motion_losses(heads, batch, self.config.losses)
        if adversary is None:
            return losses, None
        real, made = judged_pictures(heads, batch)
        judged = generator_losses(adversary, real, made)
        config = self.config.adversary
        extra = judged["adversarial"] + config.feature_matching * judged["feature_matching"]
        # Both pictures in one tensor: the adversary's own turn needs the same ones.
        return {**losses, **judged, "loss": losses["loss"] + config.weight * extra}, torch.cat(
            (real, made), 1
        )

    def adversary_loss(self, adversary: nn.Module, batch: dict[str, Tensor], shown: Tensor) -> Tensor:
        real, made = shown.chunk(2, 1)
        return adversary_loss(adversary, real, made)

    def scores(self, network: nn.Module, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Per sample: end-point error over that of zero motion, median angle in degrees, IoU, and their sum.

        The sum is "score", lower is better: relative error + angle / 90° + 1 − IoU.
        """
        motion, moving = _predict(network, batch)
        target, truth = batch["motion_B2HW"].float(), batch["moving_B1HW"] > 0.5
        target = target * batch["moving_B1HW"]
        error = (motion - target).norm(dim=1).mean((1, 2))
        relative = error / target.norm(dim=1).mean((1, 2)).clamp(min=SLOWEST_MEAN)
        overlap = (moving & truth).sum((1, 2, 3)) / (moving | truth).sum((1, 2, 3)).clamp(min=1)
        overlap = torch.where((moving | truth).any(3).any(2).any(1), overlap, torch.ones_like(overlap))
        direction = _unmasked(network, batch)
        cosine = functional.cosine_similarity(direction, target, dim=1).clamp(-1, 1)
        degrees = torch.rad2deg(torch.acos(cosine)).masked_fill(~truth[:, 0], torch.nan)
        angle = degrees.flatten(1).nanmedian(1).values
        return {
            "end_point_error": error,
            "relative_error": relative,
            "angle": angle,
            "iou": overlap,
            "score": relative.clamp(max=3) + angle.nan_to_num(90) / 90 + 1 - overlap,
        }

    def pictures(self, network: nn.Module, batch: dict[str, Tensor]) -> dict[str, NDArray[np.uint8]]:
        """A few rows of photo, target motion and predicted motion."""
        motion, _ = _predict(network, batch)
        target = batch["motion_B2HW"].float() * batch["moving_B1HW"]
        rows = []
        for photo, true, predicted in list(zip(batch["photo_B3HW"], target, motion, strict=True))[:4]:
            fastest = max(float(true.norm(dim=0).quantile(0.99)), 0.5)
            photo_HW3 = (photo.movedim(0, -1).float().cpu().numpy() * 255).round().astype(np.uint8)
            fields = [motion_to_colour(each.cpu().numpy(), max_speed=fastest) for each in (true, predicted)]
            rows.append(np.concatenate([photo_HW3, *fields], 1))
        return {"photo_target_prediction": np.concatenate(rows, 0)}


def _target(sample: Sample) -> MotionTarget:
    return MotionTarget(
        sample.motion_2HW.astype(np.float32), sample.confidence_HW, sample.moving_HW.astype(np.float32)
    )


def _unmasked(network: nn.Module, batch: dict[str, Tensor]) -> Tensor:
    photo = batch["photo_B3HW"]
    motion = decode_motion(network(photo, batch.get("hints_B3HW")))
    return functional.interpolate(motion, photo.shape[-2:], mode="bilinear", align_corners=False)


def _predict(network: nn.Module, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    """Predicted motion (zero where still) and the moving mask, at the photo's size."""
    photo = batch["photo_B3HW"]
    heads = network(photo, batch.get("hints_B3HW"))
    size = photo.shape[-2:]
    logit = functional.interpolate(
        heads.moving_logit_B1HW.float(), size, mode="bilinear", align_corners=False
    )
    motion = functional.interpolate(decode_motion(heads), size, mode="bilinear", align_corners=False)
    return motion * (logit > 0), logit > 0
