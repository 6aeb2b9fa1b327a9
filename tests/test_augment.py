"""Augmentation: the motion follows every change of the picture."""

import cv2
import numpy as np
import pytest

from models.augment import (
    AugmentConfig,
    MotionTarget,
    augment_example,
    jitter_colour,
    plain_example,
    sample_hints,
)
from storage.errors import UsageError

STILL_CAMERA = AugmentConfig(
    shapes_HW=((96, 128),), colour=0.0, grey=0.0, soften=0.0, hint_dropout=1.0, rotation_degrees=8.0
)


def _texture(height: int, width: int, shift: tuple[float, float]) -> np.ndarray:
    """A smooth pattern moved by `shift` pixels (dx, dy)."""
    y, x = np.mgrid[:height, :width].astype(np.float32)
    x, y = x - shift[0], y - shift[1]
    waves = [np.sin(x / 7 + y / 19), np.sin(y / 9 - x / 23 + 1), np.cos((x + y) / 11)]
    return ((np.stack(waves, -1) * 0.4 + 0.5).clip(0, 1) * 255).astype(np.uint8)


def _target(height: int, width: int, velocity: tuple[float, float]) -> MotionTarget:
    motion = np.empty((2, height, width), np.float32)
    motion[0], motion[1] = velocity
    return MotionTarget(motion, np.ones((height, width), np.float32), np.ones((height, width), np.float32))


def test_validation_example_rescales_motion_from_its_grid_to_the_network_size():
    frame = _texture(180, 320, (0, 0))
    example = plain_example(frame, _target(45, 80, (0.5, -0.25)), (96, 128))
    assert example.photo_3HW.shape == (3, 96, 128)
    np.testing.assert_allclose(example.motion_2HW[0], 0.5 * 128 / 80, rtol=1e-5)
    np.testing.assert_allclose(example.motion_2HW[1], -0.25 * 96 / 45, rtol=1e-5)
    assert not example.hints_3HW.any()


@pytest.mark.parametrize("seed", range(4))
def test_augmented_motion_says_how_the_augmented_picture_moves(seed):
    """Two frames go through the same random map; optical flow between them is the augmented motion."""
    velocity = (3.0, -2.0)
    target = _target(120, 160, (velocity[0] / 2, velocity[1] / 2))  # a grid of half the frame's size
    examples = [
        augment_example(
            _texture(240, 320, shift), target, (96, 128), np.random.default_rng(seed), STILL_CAMERA
        )
        for shift in ((0.0, 0.0), velocity)
    ]
    before, after = (
        cv2.cvtColor(np.moveaxis(example.photo_3HW * 255, 0, -1).astype(np.uint8), cv2.COLOR_RGB2GRAY)
        for example in examples
    )
    seen = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM).calc(before, after, None)
    inner = seen[24:-24, 32:-32].reshape(-1, 2)
    told = examples[0].motion_2HW[:, 24:-24, 32:-32].reshape(2, -1).mean(1)
    np.testing.assert_allclose(np.median(inner, 0), told, atol=0.25)


def test_mirror_turns_dx_round():
    config = AugmentConfig(
        shapes_HW=((96, 128),), mirror=1.0, rotation_degrees=0.0, smallest_crop=1.0, stretch=0.0
    )
    example = augment_example(
        _texture(96, 128, (0, 0)), _target(96, 128, (2.0, 1.0)), (96, 128), np.random.default_rng(0), config
    )
    np.testing.assert_allclose(example.motion_2HW[0], -2.0, rtol=1e-4)
    np.testing.assert_allclose(example.motion_2HW[1], 1.0, rtol=1e-4)


def test_a_crop_enlarges_its_speeds():
    config = AugmentConfig(
        shapes_HW=((96, 128),), smallest_crop=0.25, rotation_degrees=0.0, stretch=0.0, mirror=0.0
    )
    speeds = [
        augment_example(
            _texture(96, 128, (0, 0)),
            _target(96, 128, (1.0, 0.0)),
            (96, 128),
            np.random.default_rng(seed),
            config,
        ).motion_2HW[0, 50, 50]
        for seed in range(20)
    ]
    assert min(speeds) >= 0.999
    assert max(speeds) > 1.5


def test_the_same_seed_gives_the_same_example():
    frame, target = _texture(120, 160, (0, 0)), _target(60, 80, (1.0, 0.5))
    first, again = (
        augment_example(frame, target, (96, 128), np.random.default_rng(5), AugmentConfig()) for _ in range(2)
    )
    for name, value in first.as_dict().items():
        np.testing.assert_array_equal(value, again.as_dict()[name])


def test_colour_changes_stay_in_range_and_change_something():
    photo = np.random.default_rng(0).random((3, 32, 32)).astype(np.float32)
    changed = [jitter_colour(photo, np.random.default_rng(seed), AugmentConfig()) for seed in range(10)]
    assert all(each.min() >= 0 and each.max() <= 1 and each.dtype == np.float32 for each in changed)
    assert all(np.abs(each - photo).mean() > 0.005 for each in changed)


def test_hints_show_the_velocity_of_places_that_move():
    frame = _texture(96, 128, (0, 0))
    target = _target(96, 128, (1.5, -0.5))
    target.moving_hw[:, :64] = 0.0
    example = plain_example(frame, target, (96, 128))
    hints = sample_hints(example, 5, np.random.default_rng(0))
    rows, columns = np.nonzero(hints[2] > 0.999)
    assert 1 <= len(rows) <= 5
    assert (columns >= 62).all()
    np.testing.assert_allclose(hints[:2, rows, columns].T, [[1.5, -0.5]] * len(rows), atol=0.02)


def test_no_hints_where_nothing_moves():
    frame = _texture(96, 128, (0, 0))
    target = _target(96, 128, (1.5, -0.5))
    target.moving_hw[:] = 0.0
    assert not sample_hints(plain_example(frame, target, (96, 128)), 5, np.random.default_rng(0)).any()


def test_sizes_that_the_network_cannot_take_are_refused():
    with pytest.raises(UsageError, match="multiples of 32"):
        AugmentConfig(shapes_HW=((100, 128),))
    with pytest.raises(UsageError, match="smallest_crop"):
        AugmentConfig(smallest_crop=0.0)
