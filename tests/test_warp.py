import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from models.warp import bilinear_warp, bilinear_warp_torch, resize_motion, resize_motion_torch
from storage.errors import UsageError


def noise(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).random(shape, np.float32)


def constant(dx: float, dy: float, height: int, width: int) -> np.ndarray:
    return np.stack([np.full((height, width), dx), np.full((height, width), dy)]).astype(np.float32)


def test_zero_displacement_is_identity():
    image = noise(7, 9, 3)
    assert np.array_equal(bilinear_warp(image, constant(0, 0, 7, 9)), image)


def test_a_whole_pixel_shift_looks_up_the_neighbour():
    image = noise(6, 8)
    warped = bilinear_warp(image, constant(2, -1, 6, 8))
    assert np.array_equal(warped[1:, :-2], image[:-1, 2:])


def test_lookups_beyond_the_border_take_the_border():
    image = noise(5, 5, 2)
    warped = bilinear_warp(image, constant(100, 0, 5, 5))
    assert np.array_equal(warped, np.repeat(image[:, -1:], 5, axis=1))


def test_a_linear_ramp_is_looked_up_exactly_between_pixels():
    ramp = np.tile(np.arange(10, dtype=np.float32), (4, 1))
    warped = bilinear_warp(ramp, constant(0.25, 0.5, 4, 10))
    np.testing.assert_allclose(warped[:, :-1], ramp[:, :-1] + 0.25, atol=1e-6)


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 12), st.integers(1, 12), st.integers(0, 1000), st.floats(0, 8))
def test_numpy_and_torch_agree(height, width, seed, reach):
    image = noise(height, width, 3, seed=seed)
    field = (noise(2, height, width, seed=seed + 1) * 2 - 1) * np.float32(reach)
    expected = bilinear_warp_torch(
        torch.from_numpy(image).permute(2, 0, 1)[None], torch.from_numpy(field)[None]
    )
    np.testing.assert_allclose(bilinear_warp(image, field), expected[0].permute(1, 2, 0).numpy(), atol=1e-4)


def test_the_torch_warp_has_gradients_in_image_and_displacement():
    image = torch.rand(1, 2, 6, 6, dtype=torch.float32, requires_grad=True)
    field = (torch.rand(1, 2, 6, 6) - 0.5).requires_grad_()
    bilinear_warp_torch(image, field).square().sum().backward()
    assert image.grad is not None and float(image.grad.abs().sum()) > 0
    assert field.grad is not None and float(field.grad.abs().sum()) > 0


def test_half_precision_images_keep_exact_coordinates():
    image = torch.arange(2048.0).view(1, 1, 1, 2048) / 2048
    field = torch.zeros(1, 2, 1, 2048)
    field[:, 0] = 0.5
    full = bilinear_warp_torch(image, field)
    half = bilinear_warp_torch(image.bfloat16(), field)
    assert half.dtype == torch.bfloat16
    # bfloat16 coordinates would be off by up to four pixels here, that is 2e-3 beside rounding.
    assert float((half.float() - full.bfloat16().float()).abs().max()) <= 2**-8


@pytest.mark.parametrize("size", [(20, 48), (5, 12), (9, 31)])
def test_resizing_rescales_the_values_with_each_axis(size):
    resized = resize_motion(constant(3, -2, 10, 24), size)
    np.testing.assert_allclose(resized[0], 3 * size[1] / 24, rtol=1e-5)
    np.testing.assert_allclose(resized[1], -2 * size[0] / 10, rtol=1e-5)


def test_resizing_to_the_same_size_copies():
    motion = noise(2, 4, 4)
    resized = resize_motion(motion, (4, 4))
    assert np.array_equal(resized, motion) and resized is not motion


def test_torch_resizes_as_numpy_does():
    smooth = np.stack(np.meshgrid(np.linspace(0, 1, 24), np.linspace(0, 2, 16))).astype(np.float32)
    small = resize_motion_torch(torch.from_numpy(smooth)[None], (8, 12))[0].numpy()
    np.testing.assert_allclose(small[:, 1:-1, 1:-1], resize_motion(smooth, (8, 12))[:, 1:-1, 1:-1], atol=1e-3)


@pytest.mark.parametrize(
    ("image", "field"),
    [(np.zeros((4, 5), np.float32), constant(0, 0, 5, 4)), (np.zeros((4, 5), np.float32), np.zeros((4, 5)))],
)
def test_arrays_that_do_not_fit_are_refused(image, field):
    with pytest.raises(UsageError, match="must be"):
        bilinear_warp(image, field)


def test_a_motion_field_of_the_wrong_shape_is_refused():
    with pytest.raises(UsageError, match=r"\(2, H, W\)"):
        resize_motion(np.zeros((4, 5, 2), np.float32), (8, 8))
    with pytest.raises(UsageError, match="at least one pixel"):
        resize_motion(np.zeros((2, 4, 5), np.float32), (0, 8))
