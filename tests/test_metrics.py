import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.metrics import (
    angular_error,
    end_point_error,
    loop_quality,
    mask_iou,
    perceptual_distance,
    psnr,
    ssim,
)
from storage.errors import UsageError


def picture(height: int = 48, width: int = 64, seed: int = 0) -> np.ndarray:
    noise = np.random.default_rng(seed).random((height, width, 3), np.float32)
    return np.uint8(255 * cv2.GaussianBlur(noise, (0, 0), 1.0))


def field(dx: float, dy: float) -> np.ndarray:
    return np.stack([np.full((6, 8), dx), np.full((6, 8), dy)]).astype(np.float32)


def test_end_point_error_is_the_mean_distance():
    assert end_point_error(field(3, 4), field(0, 0)) == pytest.approx(5)
    region = np.zeros((6, 8), bool)
    region[:3] = True
    half = field(0, 0)
    half[:, 3:] = 100
    assert end_point_error(half, field(0, 0), region) == 0
    assert np.isnan(end_point_error(half, half, np.zeros((6, 8), bool)))


@pytest.mark.parametrize(("dx", "dy", "degrees"), [(2, 0, 0), (0, 5, 90), (-1, 0, 180), (1, 1, 45)])
def test_angular_error_in_degrees(dx, dy, degrees):
    assert angular_error(field(dx, dy), field(1, 0)) == pytest.approx(degrees, abs=1e-3)


def test_a_prediction_without_direction_is_chance():
    assert angular_error(field(0, 0), field(1, 0)) == pytest.approx(90)


def test_angular_error_leaves_out_targets_without_direction():
    target = field(1, 0)
    target[:, 1:] = 0
    predicted = field(0, 1)
    predicted[:, 0] = target[:, 0]
    assert angular_error(predicted, target) == pytest.approx(0, abs=1e-4)
    assert np.isnan(angular_error(predicted, field(0, 0)))


def test_mask_iou():
    one, other = np.zeros((4, 4)), np.zeros((4, 4))
    assert mask_iou(one, other) == 1
    one[:2], other[1:3] = 1, 1
    assert mask_iou(one, other) == pytest.approx(1 / 3)
    assert mask_iou(one > 0, other > 0) == pytest.approx(1 / 3)


def test_psnr_of_a_known_error():
    reference = np.full((8, 8, 3), 100, np.uint8)
    assert psnr(reference + np.uint8(10), reference) == pytest.approx(20 * np.log10(255 / 10), rel=1e-6)
    assert psnr(reference, reference) == float("inf")
    spoiled = reference.copy()
    spoiled[4:] = 0
    top = np.zeros((8, 8), bool)
    top[:4] = True
    assert psnr(spoiled, reference, top) == float("inf") and psnr(spoiled, reference) < 20


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 99))
def test_similarity_of_a_picture_with_itself(seed):
    image = picture(seed=seed)
    assert ssim(image, image) == pytest.approx(1, abs=1e-5)
    assert perceptual_distance(image, image) == 0


def test_ssim_and_perceptual_distance_order_degradations():
    image = picture()
    blurred, more = cv2.GaussianBlur(image, (0, 0), 0.8), cv2.GaussianBlur(image, (0, 0), 2.5)
    other = picture(seed=1)
    assert 1 > ssim(blurred, image) > ssim(more, image) > ssim(other, image)
    assert 0 < perceptual_distance(blurred, image) < perceptual_distance(more, image)
    assert ssim(255 - image, image) < 0


def test_perceptual_distance_punishes_blur_where_psnr_prefers_it():
    """The mean of two textures is nearer to either in PSNR than they are, but it is not like them."""
    image, other = picture(seed=2), picture(seed=3)
    mean = cv2.addWeighted(image, 0.5, other, 0.5, 0)
    flat = np.full_like(image, int(image.mean()))
    assert psnr(flat, image) > psnr(other, image)
    assert perceptual_distance(flat, image) > perceptual_distance(other, image)
    assert perceptual_distance(mean, image) < perceptual_distance(other, image)


def test_only_the_region_counts():
    image, spoiled = picture(), picture()
    spoiled[:, 40:] = 0
    region = np.zeros(image.shape[:2], np.float32)
    region[:, :20] = 1
    assert ssim(spoiled, image, region) == pytest.approx(1, abs=1e-5)
    assert perceptual_distance(spoiled, image, region) == 0


def moving_half() -> np.ndarray:
    moving = np.zeros((48, 64), np.float32)
    moving[:, 32:] = 1
    return moving


def test_a_still_loop_has_a_perfect_seam_and_no_life():
    quality = loop_quality([picture()] * 4, moving_half())
    assert (quality.seam_step, quality.largest_step, quality.vividness, quality.pulsing) == (0, 0, 0, 0)
    assert quality.seam_ssim == pytest.approx(1, abs=1e-5)
    assert (quality.still_largest, quality.still_changed) == (0, 0)


def test_a_lively_loop_is_measured_where_it_moves():
    base = picture()
    frames = []
    for t in range(4):
        frame = base.copy()
        frame[:, 32:] = np.roll(base[:, 32:], 2 * t, axis=0)
        frames.append(frame)
    quality = loop_quality(iter(frames), moving_half())
    assert quality.vividness > 5
    assert quality.mean_step <= quality.largest_step
    # Here every step is a shift by two rows but the last one back, by six.
    assert quality.seam_step > quality.largest_step
    assert quality.still_changed == 0


def test_changes_of_still_pixels_are_found():
    spoiled = picture()
    spoiled[0, :4] ^= 16
    quality = loop_quality([picture(), spoiled, picture()], moving_half())
    assert quality.still_largest == 16
    assert quality.still_changed == pytest.approx(4 / (48 * 32))


def test_fading_texture_pulses():
    base = picture().astype(np.float32)
    frames = [np.uint8(128 + share * (base - 128)) for share in (1.0, 0.7, 0.5, 0.7)]
    assert loop_quality(frames, np.ones((48, 64))).pulsing == pytest.approx(0.5 / 0.725, rel=0.05)


def test_one_frame_is_no_loop():
    with pytest.raises(UsageError, match="at least two"):
        loop_quality([picture()], moving_half())


def test_shapes_that_differ_are_refused():
    with pytest.raises(UsageError, match="one shape"):
        psnr(picture(48, 64), picture(48, 60))
    with pytest.raises(UsageError, match="region"):
        psnr(picture(), picture(), np.ones((4, 4)))
