import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from models.euler import displacement_after, euler_step, integrate_motion, integrate_motion_torch
from models.loop_displacements import backward_displacements, loop_displacements
from models.warp import bilinear_warp
from storage.errors import UsageError


def swirl(height: int = 40, width: int = 48, speed: float = 0.02) -> np.ndarray:
    """A slow rotation about the middle: smooth, and it keeps inside."""
    y, x = np.mgrid[:height, :width].astype(np.float32)
    dx, dy = -(y - (height - 1) / 2) * speed, (x - (width - 1) / 2) * speed
    fade = np.exp(-((x - width / 2) ** 2 + (y - height / 2) ** 2) / (0.18 * width) ** 2)
    return np.stack([dx * fade, dy * fade]).astype(np.float32)


def test_constant_motion_adds_up():
    motion = np.stack([np.full((8, 8), 0.5), np.full((8, 8), -0.25)]).astype(np.float32)
    fields = list(integrate_motion(motion, 6))
    assert len(fields) == 7
    assert not fields[0].any()
    np.testing.assert_allclose(fields[6], 6 * motion, rtol=1e-6)


def test_every_step_follows_the_definition():
    motion = swirl()
    fields = list(integrate_motion(motion, 5))
    for before, after in zip(fields, fields[1:], strict=False):
        looked_up = bilinear_warp(np.ascontiguousarray(motion.transpose(1, 2, 0)), before).transpose(2, 0, 1)
        np.testing.assert_allclose(after, before + looked_up, atol=1e-5)


def test_backwards_in_time_uses_the_reversed_motion():
    motion = swirl()
    np.testing.assert_allclose(displacement_after(motion, -7), displacement_after(-motion, 7))


@settings(max_examples=15, deadline=None)
@given(st.integers(1, 20), st.floats(0.001, 0.03))
def test_forward_then_backward_returns(frames, speed):
    motion = swirl(speed=speed)
    forward, backward = displacement_after(motion, frames), displacement_after(motion, -frames)
    back = bilinear_warp(np.ascontiguousarray(backward.transpose(1, 2, 0)), forward).transpose(2, 0, 1)
    # Euler's error grows with the square of the speed and with time.
    assert np.abs(forward + back).max() <= 0.02 + 40 * speed * speed * frames


def test_torch_agrees_with_its_own_time_for_every_sample():
    motion = swirl()
    batch = torch.from_numpy(motion)[None].repeat(4, 1, 1, 1)
    frames = [0, 3, -5, 9]
    together = integrate_motion_torch(batch, torch.tensor(frames))
    for field, steps in zip(together, frames, strict=True):
        np.testing.assert_allclose(field.numpy(), displacement_after(motion, steps), atol=1e-4)


def test_torch_is_differentiable_in_the_motion():
    motion = torch.from_numpy(swirl())[None].requires_grad_()
    integrate_motion_torch(motion, torch.tensor([4])).square().sum().backward()
    assert motion.grad is not None and float(motion.grad.abs().sum()) > 0


@settings(max_examples=20, deadline=None)
@given(st.integers(2, 40))
def test_streamed_displacements_are_those_of_plain_integration(period):
    motion = swirl(12, 14)
    streamed = list(loop_displacements(motion, period))
    forward = list(integrate_motion(motion, period - 1))
    backward = list(integrate_motion(motion, -period))
    assert len(streamed) == period
    for t, (ahead, behind, alpha) in enumerate(streamed):
        assert np.array_equal(ahead, forward[t])
        assert np.array_equal(behind, backward[period - t])
        assert alpha == t / period


def test_backward_displacements_of_one_frame():
    motion = swirl(6, 6)
    (only,) = backward_displacements(motion, 1)
    assert np.array_equal(only, displacement_after(motion, -1))


def test_shapes_that_differ_are_refused():
    with pytest.raises(UsageError, match="must both be"):
        euler_step(np.zeros((2, 4, 4), np.float32), np.zeros((2, 5, 4), np.float32))
