"""Training the animator: three frames of a clip, the middle one to be rendered from the outer two.

The start frame comes from the first third of a clip, the end frame from the last, the middle one from
between; the clip's mean motion carries both to the middle. In use the animator meets less: one photo is both
the start and, a period later, the end, and the motion is a network's guess. So a share of the examples has
the start frame at both ends of a loop, and fine-tuning replaces some target motion by what a motion network
predicts for the start frame.

Dimension letters: B batch, H and W rows and columns, 2 = (dx, dy) in pixels per frame at 30 fps, 3 = RGB.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, cast

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torchvision.ops import roi_align

from models.animator import Animator
from models.checkpoint import load_motion_network
from models.dataset import Example
from models.image_losses import PatchDiscriminator, animator_training_step, discriminator_loss
from models.motion_network import MotionNetwork, decode_motion
from models.warp import resize_motion
from storage.errors import FormatError, UsageError
from storage.samples import Sample

if TYPE_CHECKING:
    from models.configs import TrainConfig

__all__ = ["AnimatorRecipe", "CropConfig", "frame_times", "pick_frames", "pick_from_photo"]

MOTION_FPS = 30.0
CROP_TRIES = 8
PERIOD = 60  # frames after which a photo's loop is the photo again, where a photo is both ends
LATEST = 30  # a real frame later than this has little to do with what the photo shows
WHOLE_HW = (192, 320)  # what the motion network sees when predicted motion is trained on

Window = tuple[float, float, float, float]  # left, top, right, bottom in pixels


@dataclass(frozen=True, kw_only=True, slots=True)
class CropConfig:
    """Which part of a clip is an example.

    `size_HW`: of the window. `smallest_scale`: frames are scaled by this … 1 before. `mirror`: how often.
    `predicted`: share of examples whose motion comes from the motion network instead of the clip.
    `from_photo`: share of examples with one frame at both ends of a loop. `motion_checkpoint`: of that
    network (empty: the default weights).
    """

    size_HW: tuple[int, int] = (160, 160)
    smallest_scale: float = 0.6
    mirror: float = 0.5
    predicted: float = 0.0
    from_photo: float = 0.0
    motion_checkpoint: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "size_HW", tuple(self.size_HW))
        if len(self.size_HW) != 2 or any(side % 4 or side < 16 for side in self.size_HW):
            raise UsageError(f"size_HW must be two multiples of 4, at least 16, got {self.size_HW}")
        if not 0.0 < self.smallest_scale <= 1.0:
            raise UsageError(f"smallest_scale must be above 0 and at most 1, got {self.smallest_scale}")
        for name in ("mirror", "predicted", "from_photo"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise UsageError(f"{name} must be a share in 0…1, got {getattr(self, name)}")


@dataclass(frozen=True)
class AnimatorRecipe:
    """See the module's docstring."""

    config: TrainConfig
    networks: dict[torch.device, MotionNetwork] = field(default_factory=dict, repr=False)

    def build(self) -> nn.Module:
        return Animator(self.config.network)

    def example(self, sample: Sample, rng: np.random.Generator, batch_rng: np.random.Generator) -> Example:
        """Three random frames in a random window where something moves, sometimes mirrored."""
        crop = self.config.augment
        picked = pick_frames(len(sample.frames), rng)
        scale = float(np.exp(rng.uniform(np.log(crop.smallest_scale), 0.0)))
        windows = [_random_window(sample, crop.size_HW, scale, rng) for _ in range(CROP_TRIES)]
        window = max(windows, key=lambda each: _moving_share(sample, each))
        mirrored = rng.random() < crop.mirror
        if rng.random() < crop.from_photo:
            picked = pick_from_photo(frame_times(sample), rng)
        return self._cut(sample, picked, window, mirrored=mirrored)

    def validation_example(self, sample: Sample) -> Example:
        """First, middle and last frame, in the best of some windows that are always the same."""
        rng = np.random.default_rng(0)
        count = len(sample.frames)
        windows = [
            _random_window(sample, self.config.augment.size_HW, 1.0, rng) for _ in range(2 * CROP_TRIES)
        ]
        window = max(windows, key=lambda each: _moving_share(sample, each))
        return self._cut(sample, (0, count // 2, count - 1), window, mirrored=False)

    def build_adversary(self) -> nn.Module | None:
        return PatchDiscriminator() if self.config.losses.adversarial > 0 else None

    def adversary_loss(self, adversary: nn.Module, batch: dict[str, Tensor], shown: Tensor) -> Tensor:
        return discriminator_loss(cast(PatchDiscriminator, adversary), batch["middle_B3HW"], shown)

    def losses(
        self, network: nn.Module, batch: dict[str, Tensor], adversary: nn.Module | None
    ) -> tuple[dict[str, Tensor], Tensor | None]:
        motion = batch["motion_B2HW"]
        if network.training and self.config.augment.predicted > 0:
            chosen = (
                (torch.rand(len(motion)) < self.config.augment.predicted).nonzero()[:, 0].to(motion.device)
            )
            if len(chosen) > 0:
                some = {name: values[chosen] for name, values in batch.items()}
                motion = motion.index_copy(0, chosen, self._predict_motion(some).to(motion.dtype))
        frame, losses = _render(network, {**batch, "motion_B2HW": motion}, self.config, adversary)
        return losses, None if adversary is None else frame

    def scores(self, network: nn.Module, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Per sample: the losses, and PSNR over the moving region; "score" is the loss."""
        rows: list[dict[str, Tensor]] = []
        for number in range(len(batch["motion_B2HW"])):
            one = {name: values[number : number + 1] for name, values in batch.items()}
            frame, losses = _render(network, one, self.config)
            moving = one["moving_B1HW"]
            squared = ((frame - one["middle_B3HW"]) ** 2 * moving).sum() / (3 * moving.sum()).clamp(min=1)
            psnr = -10 * torch.log10(squared.clamp(min=1e-8))
            rows.append({"score": losses["loss"], "l1": losses["l1"], "psnr_moving": psnr})
        return {name: torch.stack([row[name] for row in rows]) for name in rows[0]}

    def pictures(self, network: nn.Module, batch: dict[str, Tensor]) -> dict[str, NDArray[np.uint8]]:
        """Rows of start, real middle and rendered middle frame."""
        frame, _ = _render(network, {name: values[:4] for name, values in batch.items()}, self.config)
        columns = [batch["start_B3HW"][:4], batch["middle_B3HW"][:4], frame]
        wall = torch.cat([torch.cat(list(column), 1) for column in columns], 2)
        return {
            "start_real_rendered": (wall.movedim(0, -1).float().cpu().numpy() * 255).round().astype(np.uint8)
        }

    def _cut(
        self, sample: Sample, picked: tuple[int, int, int], window: Window, *, mirrored: bool
    ) -> Example:
        """The frames and the motion inside a window of the frames, at the size of the examples."""
        frames = [sample.frames[number] for number in picked]
        if len({frame.shape for frame in frames}) != 1:
            raise FormatError(f"the frames of sample {sample.key} differ in size; build the dataset again")
        height, width = frames[0].shape[:2]
        size_HW = self.config.augment.size_HW
        zoom = size_HW[1] / (window[2] - window[0])
        motion = resize_motion(sample.motion_2HW.astype(np.float32), (height, width))
        planes = np.stack([*motion, _moving_at(sample, (height, width))], -1)
        cut = _cut_out(planes, window, size_HW)
        times = np.array(frame_times(sample))[list(picked)]
        if picked[2] == picked[0]:
            times[2] = times[0] + PERIOD
        example: Example = {
            "motion_B2HW": np.moveaxis(cut[..., :2], -1, 0) * np.float32(zoom),
            "moving_B1HW": np.clip(cut[None, ..., 2], 0, 1),
            "times_B3": times - times[0],
        }
        for name, frame in zip(("start", "middle", "end"), frames, strict=True):
            example[f"{name}_B3HW"] = np.moveaxis(_cut_out(_unit(frame), window, size_HW), -1, 0)
        if self.config.augment.predicted > 0:
            whole = cv2.resize(frames[0], WHOLE_HW[::-1], interpolation=cv2.INTER_AREA)
            example["whole_B3HW"] = np.moveaxis(_unit(np.asarray(whole)), -1, 0)
            grid = np.array([WHOLE_HW[1] / width, WHOLE_HW[0] / height] * 2)
            example["window_B4"] = (np.array(window) * grid).astype(np.float32)
            # Pixels of the example per pixel of the whole picture, across and down.
            example["zoom_B2"] = (zoom / grid[:2]).astype(np.float32)
        if mirrored:
            example = {name: _mirror(name, values) for name, values in example.items()}
        return {name: np.ascontiguousarray(values) for name, values in example.items()}

    @torch.no_grad()
    def _predict_motion(self, batch: dict[str, Tensor]) -> Tensor:
        """What the motion network says of the whole start frame, cut to the examples' windows."""
        device = batch["whole_B3HW"].device
        if device not in self.networks:
            self.networks[device] = load_motion_network(self.config.augment.motion_checkpoint or None).to(
                device
            )
        whole = batch["whole_B3HW"]
        motion = decode_motion(self.networks[device](whole)).float()
        per_pixel = motion.shape[-1] / whole.shape[-1]
        numbers = torch.arange(len(whole), device=device, dtype=torch.float32)[:, None]
        boxes = torch.cat((numbers, batch["window_B4"]), 1)
        size = (batch["motion_B2HW"].shape[-2], batch["motion_B2HW"].shape[-1])
        cut = cast(Tensor, roi_align(motion, boxes, size, spatial_scale=per_pixel, aligned=True))
        return cut * batch["zoom_B2"][:, :, None, None]


def pick_frames(count: int, rng: np.random.Generator) -> tuple[int, int, int]:
    """Start from the first third, end from the last third, middle between the two."""
    if count < 3:
        raise FormatError(f"the animator learns from samples of 3 frames or more, got {count}")
    start = int(rng.integers(0, max(count // 3, 1)))
    end = int(rng.integers(count - max(count // 3, 1), count))
    return start, int(rng.integers(start + 1, end)), end


def pick_from_photo(times: list[int], rng: np.random.Generator) -> tuple[int, int, int]:
    """A start, a later frame that is still near it, and the start again as the end of its loop."""
    if len(times) < 2:
        raise FormatError(f"the animator learns from samples of 2 frames or more, got {len(times)}")
    start = int(rng.integers(0, len(times) - 1))
    near = [number for number in range(start + 1, len(times)) if times[number] - times[start] <= LATEST]
    return start, near[int(rng.integers(len(near)))] if near else start + 1, start


def frame_times(sample: Sample) -> list[int]:
    """When a sample's frames were taken, in frames at 30 fps since the clip's start."""
    seconds = sample.info.get("frame_seconds")
    if not seconds:
        indices, fps = sample.info.get("frame_indices"), sample.info.get("fps")
        seconds = [index / fps for index in indices] if indices and fps else []
    if len(seconds) != len(sample.frames):
        raise FormatError(
            f"sample {sample.key} must say when its {len(sample.frames)} frames were taken, got {seconds}"
        )
    return [round((second - seconds[0]) * MOTION_FPS) for second in seconds]


def _render(
    network: nn.Module, batch: dict[str, Tensor], config: TrainConfig, adversary: nn.Module | None = None
) -> tuple[Tensor, dict[str, Tensor]]:
    """The rendered middle frame and its losses."""
    start, middle, end = batch["times_B3"].unbind(1)
    return animator_training_step(
        network,
        batch["start_B3HW"],
        batch["middle_B3HW"],
        batch["end_B3HW"],
        batch["motion_B2HW"],
        batch["moving_B1HW"],
        start,
        middle,
        end,
        config.losses,
        cast(PatchDiscriminator | None, adversary),
    )


def _random_window(
    sample: Sample, size_HW: tuple[int, int], scale: float, rng: np.random.Generator
) -> Window:
    """A window of the examples' shape inside the frames: `scale` 1 is the frames' own resolution."""
    height, width = _frame_size(sample)
    reach = min(1 / scale, height / size_HW[0], width / size_HW[1])
    down, across = size_HW[0] * reach, size_HW[1] * reach
    top, left = rng.uniform(0, height - down), rng.uniform(0, width - across)
    return left, top, left + across, top + down


def _moving_share(sample: Sample, window: Window) -> float:
    height, width = _frame_size(sample)
    rows, columns = sample.moving_HW.shape
    left, right = (int(x * columns / width) for x in (window[0], window[2]))
    top, bottom = (int(y * rows / height) for y in (window[1], window[3]))
    return float(sample.moving_HW[top : max(bottom, top + 1), left : max(right, left + 1)].mean())


def _unit(frame_HW3: NDArray[np.generic]) -> NDArray[np.float32]:
    return np.asarray(frame_HW3, np.float32) / np.float32(255)


def _frame_size(sample: Sample) -> tuple[int, int]:
    size = sample.info.get("frame_size")  # said there, so that choosing a window decodes no frame
    return (int(size[0]), int(size[1])) if size else (sample.frames[0].shape[0], sample.frames[0].shape[1])


def _moving_at(sample: Sample, size_HW: tuple[int, int]) -> NDArray[np.float32]:
    resized = cv2.resize(sample.moving_HW.astype(np.float32), size_HW[::-1], interpolation=cv2.INTER_LINEAR)
    return np.asarray(resized, np.float32)


def _cut_out(image: NDArray[np.float32], window: Window, size_HW: tuple[int, int]) -> NDArray[np.float32]:
    """A window of a channels-last image, resized; shrinking is smoothed first, so that nothing aliases."""
    zoom = size_HW[1] / (window[2] - window[0])
    if zoom < 0.8:
        smooth = 0.4 * float(np.sqrt(zoom**-2 - 1))
        image = np.asarray(cv2.GaussianBlur(image, (0, 0), smooth), np.float32)
    offset = [zoom * (0.5 - window[0]) - 0.5, zoom * (0.5 - window[1]) - 0.5]
    matrix = np.array([[zoom, 0, offset[0]], [0, zoom, offset[1]]], np.float64)
    cut = cv2.warpAffine(
        image, matrix, size_HW[::-1], flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    )
    return np.asarray(cut, np.float32)


def _mirror(name: str, values: NDArray[np.float32]) -> NDArray[np.float32]:
    if name == "window_B4":
        left, top, right, bottom = values
        return np.array([WHOLE_HW[1] - right, top, WHOLE_HW[1] - left, bottom], np.float32)
    if not name.endswith("HW"):
        return values
    flipped = values[..., ::-1]
    return flipped * np.array([-1, 1], np.float32)[:, None, None] if name == "motion_B2HW" else flipped
