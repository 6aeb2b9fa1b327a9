"""Examples for the animator: pictures, motion, mask and predicted motion stay aligned in every window."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch
from drawn_dataset import draw_sample
from torch import Tensor

from models.animator_recipe import (
    PERIOD,
    WHOLE_HW,
    AnimatorRecipe,
    CropConfig,
    frame_times,
    pick_frames,
    pick_from_photo,
)
from models.baselines import splat_between
from models.configs import debug
from models.dataset import collate
from models.euler import displacement_after
from models.metrics import psnr
from models.motion_network import MotionHeads
from storage.errors import FormatError, UsageError

BINS = 16


def recipe(**crop: Any) -> AnimatorRecipe:
    config = debug("animator")
    return AnimatorRecipe(dataclasses.replace(config, augment=dataclasses.replace(config.augment, **crop)))


def frame(example: dict[str, Any], name: str) -> np.ndarray[Any, Any]:
    return np.round(np.moveaxis(example[f"{name}_B3HW"], 0, -1) * 255).astype(np.uint8)


@pytest.mark.parametrize("seed", range(6))
def test_motion_of_an_example_carries_its_start_to_its_middle(seed: int) -> None:
    """Mirrored or not, at any scale: the splat along the example's motion meets the real frame."""
    rng, batch_rng = np.random.default_rng(seed), np.random.default_rng(0)
    sample = draw_sample(seed, source=seed)
    example = recipe(size_HW=(32, 96), smallest_scale=0.5).example(sample, rng, batch_rng)
    motion, moving = example["motion_B2HW"], example["moving_B1HW"][0]
    start, middle, end = (int(time) for time in example["times_B3"])
    assert start == 0 < middle < end and moving.mean() > 0.3
    fields = displacement_after(motion, middle), displacement_after(motion, middle - end)
    drawn = splat_between(frame(example, "start"), frame(example, "end"), fields, moving, middle / end)
    inside = np.zeros_like(moving)
    inside[2:-2, 34:-34] = moving[2:-2, 34:-34]  # what enters from outside the window cannot be known
    still = psnr(frame(example, "start"), frame(example, "middle"), inside)
    assert psnr(drawn, frame(example, "middle"), inside) > max(still + 4, 26)


class RampNetwork:
    """Stands in for the motion network: everything drifts to the right, twice as fast at the right edge."""

    def __call__(self, whole_B3HW: Tensor) -> MotionHeads:
        height, width = whole_B3HW.shape[2] // 4, whole_B3HW.shape[3] // 4
        logits = torch.zeros(len(whole_B3HW), BINS, height, width)
        logits[:, 0] = 20.0
        speed = 1 + (torch.arange(width) + 0.5) / width
        log_speed = speed.log().expand(len(whole_B3HW), 1, height, width)
        return MotionHeads(torch.zeros_like(log_speed), logits, torch.zeros_like(logits), log_speed)


@pytest.mark.parametrize("mirror", [0.0, 1.0])
def test_predicted_motion_is_cut_and_scaled_like_the_pictures(mirror: float) -> None:
    made = recipe(size_HW=(32, 96), smallest_scale=0.5, mirror=mirror, predicted=1.0)
    network: Any = RampNetwork()
    made.networks[torch.device("cpu")] = network
    for seed in range(4):
        sample = draw_sample(seed, source=1, size_HW=(144, 256))
        example = made.example(sample, np.random.default_rng(seed), np.random.default_rng(0))
        predicted = made._predict_motion(collate([example]))[0].numpy()
        left, _, right, _ = example["window_B4"]
        places = left + (right - left) * (np.arange(96) + 0.5) / 96  # columns of the whole picture
        expected = (1 + places / WHOLE_HW[1]) * 96 / (right - left)
        assert predicted[0, 16] == pytest.approx(expected, rel=0.01)
        assert np.abs(predicted[1]).max() < 1e-3


def test_window_of_the_whole_picture_is_mirrored_with_it() -> None:
    """The same draw with and without mirroring shows the same pixels, the other way round."""
    sample = draw_sample(0, source=1)
    plain, mirrored = (
        recipe(size_HW=(32, 48), mirror=mirror, predicted=1.0).example(
            sample, np.random.default_rng(5), np.random.default_rng(0)
        )
        for mirror in (0.0, 1.0)
    )
    assert np.array_equal(plain["start_B3HW"], mirrored["start_B3HW"][..., ::-1])
    assert np.array_equal(plain["motion_B2HW"][0], -mirrored["motion_B2HW"][0, :, ::-1])
    left, _, right, _ = plain["window_B4"]
    assert mirrored["window_B4"][[0, 2]] == pytest.approx([WHOLE_HW[1] - right, WHOLE_HW[1] - left])


def test_frames_are_picked_in_order_from_their_thirds() -> None:
    rng = np.random.default_rng(0)
    for count in (3, 5, 12):
        for _ in range(50):
            start, middle, end = pick_frames(count, rng)
            assert 0 <= start <= count / 3 and count * 2 / 3 - 1 <= end < count and start < middle < end
    with pytest.raises(FormatError, match="3 frames or more, got 2"):
        pick_frames(2, rng)


@pytest.mark.parametrize("seed", range(3))
def test_photo_is_both_ends_of_its_loop(seed: int) -> None:
    rng, batch_rng = np.random.default_rng(seed), np.random.default_rng(0)
    example = recipe(from_photo=1.0).example(draw_sample(seed, source=seed), rng, batch_rng)
    start, middle, end = (int(time) for time in example["times_B3"])
    assert start == 0 < middle <= 30 and end == PERIOD
    assert np.array_equal(example["start_B3HW"], example["end_B3HW"])
    assert not np.array_equal(example["start_B3HW"], example["middle_B3HW"])


def test_frames_of_a_photo_are_near_it() -> None:
    rng = np.random.default_rng(0)
    for _ in range(50):
        start, middle, end = pick_from_photo([0, 10, 20, 30, 40, 50], rng)
        assert end == start < middle <= start + 3
    assert pick_from_photo([0, 90], rng) == (0, 1, 0)
    with pytest.raises(FormatError, match="2 frames or more, got 1"):
        pick_from_photo([0], rng)


def test_times_are_frames_at_thirty_a_second() -> None:
    sample = draw_sample(0, source=0)
    assert frame_times(sample) == [0, 8, 15, 22, 30]
    slow = dataclasses.replace(sample, info={**sample.info, "fps": 15.0})
    assert frame_times(slow) == [0, 16, 30, 44, 60]
    exact = dataclasses.replace(sample, info={**sample.info, "frame_seconds": [1.0, 1.1, 1.2, 1.3, 1.5]})
    assert frame_times(exact) == [0, 3, 6, 9, 15]
    unknown = dataclasses.replace(sample, info={"fps": 30.0})
    with pytest.raises(FormatError, match="must say when its 5 frames were taken"):
        frame_times(unknown)


def test_crop_settings_are_checked() -> None:
    for wrong in ({"size_HW": (30, 32)}, {"smallest_scale": 0.0}, {"mirror": 1.5}, {"from_photo": -0.1}):
        with pytest.raises(UsageError, match=next(iter(wrong))):
            CropConfig(**wrong)  # type: ignore[arg-type]
