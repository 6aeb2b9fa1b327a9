"""Augmentation of motion training samples: every change of the picture is made to its motion as well.

One affine map (crop, scale, slight rotation, mirror) takes the frame to the network's size; the motion field
takes the same map and its vectors the map's linear part. Colours change in the photo alone. No vertical
mirror and no large rotation: what falls should fall down.

Dimension letters: H and W rows and columns, h and w those of the motion grid, 2 = (dx, dy), 3 = RGB.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from models.hints import hint_channels
from storage.errors import UsageError

__all__ = [
    "AugmentConfig",
    "MotionExample",
    "MotionTarget",
    "augment_example",
    "jitter_colour",
    "plain_example",
    "sample_hints",
]

Float = NDArray[np.float32]
STILL_TRIES = 6
STILL_MOST = 0.002
"""Share of a crop that may move in one that is taken for still."""
_LUMA = np.array([0.299, 0.587, 0.114], np.float32)


@dataclass(frozen=True, kw_only=True, slots=True)
class AugmentConfig:
    """How far an example may be changed.

    `shapes_HW`: sizes batches come in, drawn evenly. `smallest_crop`: share of the picture's area.
    `still_crops`: share of examples for which a closer crop is sought in which nothing moves: rocks, walls
    and trees of the very pictures that have water in them. `stretch`: of the sides' ratio, as a logarithm.
    `rotation_degrees`: either way. `mirror`, `grey`, `soften`: how often. `colour`: strength of changes of
    light and colour. `hint_dropout`: how often there are no hints. `most_hints`: otherwise, at most.
    `hint_noise`: error of a hint, as a person would make it.
    """

    shapes_HW: tuple[tuple[int, int], ...] = ((160, 256), (160, 256), (192, 192), (224, 160))
    smallest_crop: float = 0.5
    still_crops: float = 0.08
    stretch: float = 0.12
    rotation_degrees: float = 6.0
    mirror: float = 0.5
    colour: float = 1.0
    grey: float = 0.12
    soften: float = 0.25
    hint_dropout: float = 0.6
    most_hints: int = 5
    hint_noise: float = 0.12

    def __post_init__(self) -> None:
        object.__setattr__(self, "shapes_HW", tuple(tuple(shape) for shape in self.shapes_HW))
        if not self.shapes_HW or any(side % 32 or side < 32 for shape in self.shapes_HW for side in shape):
            raise UsageError(f"shapes_HW must be sizes in multiples of 32, got {self.shapes_HW}")
        if not 0.0 < self.smallest_crop <= 1.0:
            raise UsageError(f"smallest_crop must be above 0 and at most 1, got {self.smallest_crop}")
        for name in ("still_crops", "mirror", "grey", "soften", "hint_dropout"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise UsageError(f"{name} must be a probability, got {getattr(self, name)}")


@dataclass(frozen=True, slots=True, eq=False)
class MotionTarget:
    """A clip's motion_2hw in px/frame at its own grid, its confidence_hw and moving_hw in [0, 1]."""

    motion_2hw: NDArray[np.floating]
    confidence_hw: NDArray[np.floating]
    moving_hw: NDArray[np.floating]


@dataclass(frozen=True, slots=True, eq=False)
class MotionExample:
    """One training example at the network's size; motion in px/frame at that size; all float32."""

    photo_3HW: Float
    motion_2HW: Float
    confidence_1HW: Float
    moving_1HW: Float
    hints_3HW: Float

    def as_dict(self) -> dict[str, Float]:
        """The batch keys of the trainer."""
        return {
            "photo_B3HW": self.photo_3HW,
            "motion_B2HW": self.motion_2HW,
            "confidence_B1HW": self.confidence_1HW,
            "moving_B1HW": self.moving_1HW,
            "hints_B3HW": self.hints_3HW,
        }


def augment_example(
    frame_HW3: NDArray[np.uint8],
    target: MotionTarget,
    size_HW: tuple[int, int],
    rng: np.random.Generator,
    config: AugmentConfig,
) -> MotionExample:
    """Draw one augmented example of a frame and its clip's motion."""
    example = None
    if rng.random() < config.still_crops:
        example = _still_crop(frame_HW3, target, size_HW, rng, config)
    if example is None:
        example = _apply_map(
            frame_HW3, target, _random_map(frame_HW3.shape[:2], size_HW, rng, config), size_HW
        )
    photo = jitter_colour(example.photo_3HW, rng, config)
    hints = np.zeros_like(example.hints_3HW)
    if rng.random() >= config.hint_dropout:
        count = int(rng.integers(1, config.most_hints + 1))
        hints = sample_hints(example, count, rng, noise=config.hint_noise)
    return MotionExample(photo, example.motion_2HW, example.confidence_1HW, example.moving_1HW, hints)


def _still_crop(
    frame_HW3: NDArray[np.uint8],
    target: MotionTarget,
    size_HW: tuple[int, int],
    rng: np.random.Generator,
    config: AugmentConfig,
) -> MotionExample | None:
    """A crop of a sixteenth of the picture or more in which nothing moves, if some tries find one."""
    if float(np.mean(target.moving_hw)) > 0.9:
        return None
    closer = replace(config, smallest_crop=0.06)
    for _ in range(STILL_TRIES):
        matrix = _random_map(frame_HW3.shape[:2], size_HW, rng, closer)
        example = _apply_map(frame_HW3, target, matrix, size_HW)
        if float(example.moving_1HW.mean()) <= STILL_MOST:
            return example
    return None


def plain_example(
    frame_HW3: NDArray[np.uint8], target: MotionTarget, size_HW: tuple[int, int]
) -> MotionExample:
    """The whole frame at the network's size, nothing drawn at random and no hints: for validation."""
    height, width = frame_HW3.shape[:2]
    scale_y, scale_x = size_HW[0] / height, size_HW[1] / width
    matrix = np.array([[scale_x, 0, 0.5 * scale_x - 0.5], [0, scale_y, 0.5 * scale_y - 0.5]], np.float64)
    return _apply_map(frame_HW3, target, matrix, size_HW)


def sample_hints(
    example: MotionExample, count: int, rng: np.random.Generator, *, noise: float = 0.0
) -> Float:
    """Draw up to `count` hints at moving places of the example, trusted ones rather, as hint channels.

    `noise` blurs direction (radians) and speed (log), for people draw arrows by hand.
    """
    size = example.motion_2HW.shape[1:]
    weight = (example.moving_1HW * example.confidence_1HW)[0].ravel().astype(np.float64)
    places = min(count, int(np.count_nonzero(weight)))
    if places == 0:
        return np.zeros_like(example.hints_3HW)
    chosen = rng.choice(weight.size, places, replace=False, p=weight / weight.sum())
    rows, columns = np.unravel_index(chosen, size)
    velocities = example.motion_2HW[:, rows, columns].T
    angle = rng.normal(0.0, noise, places)
    longer = np.exp(rng.normal(0.0, noise, places))
    turned = np.stack(
        (
            velocities[:, 0] * np.cos(angle) - velocities[:, 1] * np.sin(angle),
            velocities[:, 0] * np.sin(angle) + velocities[:, 1] * np.cos(angle),
        ),
        1,
    )
    positions = np.stack((columns / max(size[1] - 1, 1), rows / max(size[0] - 1, 1)), 1)
    return hint_channels(positions, turned * longer[:, None], size)


def jitter_colour(photo_3HW: Float, rng: np.random.Generator, config: AugmentConfig) -> Float:
    """Change light, contrast, colour cast, saturation, and sometimes sharpness or colour altogether."""
    strength = config.colour
    photo = photo_3HW
    if strength > 0:
        grey = np.tensordot(_LUMA, photo, 1)[None]
        photo = grey + (photo - grey) * np.float32(1.0 + strength * rng.uniform(-0.5, 0.5))
        photo = photo * (1.0 + strength * rng.uniform(-0.12, 0.12, (3, 1, 1))).astype(np.float32)
        middle = photo.mean()
        photo = (photo - middle) * np.float32(1.0 + strength * rng.uniform(-0.3, 0.3)) + middle
        photo = photo + np.float32(strength * rng.uniform(-0.12, 0.12))
        photo = np.clip(photo, 0.0, 1.0) ** np.float32(np.exp(strength * rng.uniform(-0.35, 0.35)))
    if rng.random() < config.grey:
        photo = np.repeat(np.tensordot(_LUMA, photo, 1)[None], 3, 0)
    if rng.random() < config.soften:
        blurred = cv2.GaussianBlur(np.moveaxis(photo, 0, -1), (0, 0), rng.uniform(0.4, 1.2))
        grain = rng.normal(0.0, 0.015, photo.shape)
        photo = (np.moveaxis(np.asarray(blurred), -1, 0) + grain).astype(np.float32)
    return np.ascontiguousarray(np.clip(photo, 0.0, 1.0), np.float32)


def _random_map(
    frame_HW: Sequence[int], size_HW: tuple[int, int], rng: np.random.Generator, config: AugmentConfig
) -> NDArray[np.float64]:
    """A 2×3 affine map from frame pixels to the example's: crop, scale, rotation, mirror."""
    height, width = frame_HW
    out_height, out_width = size_HW
    stretch = math.exp(rng.uniform(-config.stretch, config.stretch))
    # The largest window of the example's shape that fits in the frame, then a share of its side.
    fitting = min(width / (out_width * stretch), height * stretch / out_height)
    share = math.sqrt(rng.uniform(config.smallest_crop, 1.0))
    window_width, window_height = (
        out_width * stretch * fitting * share,
        out_height / stretch * fitting * share,
    )
    centre_x = rng.uniform(window_width / 2, max(width - window_width / 2, window_width / 2))
    centre_y = rng.uniform(window_height / 2, max(height - window_height / 2, window_height / 2))
    angle = math.radians(rng.uniform(-config.rotation_degrees, config.rotation_degrees))
    mirrored = -1.0 if rng.random() < config.mirror else 1.0
    rotation = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    scale = np.diag([mirrored * out_width / window_width, out_height / window_height])
    linear = scale @ rotation
    offset = np.array([(out_width - 1) / 2, (out_height - 1) / 2]) - linear @ np.array(
        [centre_x - 0.5, centre_y - 0.5]
    )
    return np.concatenate((linear, offset[:, None]), 1)


def _apply_map(
    frame_HW3: NDArray[np.uint8],
    target: MotionTarget,
    matrix: NDArray[np.float64],
    size_HW: tuple[int, int],
) -> MotionExample:
    """Take frame and target through a map from frame pixels to the example's."""
    frame_height, frame_width = frame_HW3.shape[:2]
    grid_height, grid_width = target.motion_2hw.shape[1:]
    per_grid_x, per_grid_y = frame_width / grid_width, frame_height / grid_height
    linear = matrix[:, :2]
    photo = _warp(frame_HW3.astype(np.float32) / 255.0, matrix, size_HW, cv2.BORDER_REFLECT_101)
    # A grid cell's centre lies at (column + ½)·scale − ½ of the frame.
    grid_linear = linear @ np.diag([per_grid_x, per_grid_y])
    grid_offset = matrix[:, 2] + linear @ np.array([0.5 * per_grid_x - 0.5, 0.5 * per_grid_y - 0.5])
    grid_matrix = np.concatenate((grid_linear, grid_offset[:, None]), 1)
    stacked = np.concatenate(
        (target.motion_2hw, target.confidence_hw[None], target.moving_hw[None]), 0
    ).astype(np.float32)
    warped = _warp(
        np.ascontiguousarray(np.moveaxis(stacked, 0, -1)), grid_matrix, size_HW, cv2.BORDER_REFLECT_101
    )
    motion = np.einsum("ij,hwj->ihw", grid_linear.astype(np.float32), warped[..., :2])
    return MotionExample(
        np.ascontiguousarray(np.moveaxis(np.clip(photo, 0.0, 1.0), -1, 0)),
        np.ascontiguousarray(motion, np.float32),
        np.ascontiguousarray(warped[None, ..., 2]),
        np.ascontiguousarray(warped[None, ..., 3]),
        np.zeros((3, *size_HW), np.float32),
    )


def _warp(image: Float, matrix: NDArray[np.float64], size_HW: tuple[int, int], border: int) -> Float:
    """Warp channels-last float data; shrinking far beyond half blurs first, so that nothing aliases."""
    shrink = 1.0 / max(math.sqrt(abs(np.linalg.det(matrix[:, :2]))), 1e-6)
    if shrink > 1.25:
        image = np.asarray(cv2.GaussianBlur(image, (0, 0), 0.4 * math.sqrt(shrink**2 - 1.0)), np.float32)
    size = (size_HW[1], size_HW[0])
    return np.asarray(
        cv2.warpAffine(image, matrix, size, flags=cv2.INTER_LINEAR, borderMode=border), np.float32
    )
