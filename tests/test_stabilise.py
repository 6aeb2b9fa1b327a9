"""Camera motion: told from fluid motion, taken out, or refused."""

import moving_pictures as pictures
import numpy as np
import pytest

from pipelines.clip import Clip, Window
from pipelines.optical_flow import average_motion
from pipelines.stabilise import StabiliseConfig, stabilise_clip
from storage.errors import RejectedError, UsageError
from storage.reasons import Reason

SIZE = (216, 288)


def clip_of(frames):
    seconds = [index / 30 for index in range(len(frames))]
    window = Window(start_seconds=0.0, start_frame=0, seconds=2.0)
    return Clip(frames=frames, seconds=seconds, fps=30.0, window=window)


def tremble(seed, pixels):
    """A hand's path: smooth and random, about `pixels` to either side, beginning at (0, 0)."""
    steps = np.random.default_rng(seed).standard_normal((90, 2))
    smooth = np.stack([np.convolve(axis, np.hanning(9), "valid") for axis in steps.T], axis=1)
    path = (smooth - smooth[0]) * pixels / smooth.std()
    return lambda index: (float(path[index, 0]), float(path[index, 1]))


def test_a_still_camera_costs_nothing():
    clip = clip_of(pictures.flowing(40, size=SIZE))
    steady, camera = stabilise_clip(clip)
    assert steady is clip
    assert camera.verified and camera.homographies_T33 is None and camera.residual < 0.001


def test_a_trembling_hand_is_taken_out():
    velocity = (0.0, 1.5)
    shaken = clip_of(pictures.flowing(45, velocity=velocity, size=SIZE, place=tremble(1, 2.0)))
    steady, camera = stabilise_clip(shaken)
    assert camera.homographies_T33 is not None and camera.travel > 0.005
    assert camera.residual < 0.001
    before, after = average_motion(shaken.frames), average_motion(steady.frames)
    mask = pictures.patch_mask(SIZE)
    assert np.median(before.activity_HW[~mask]) > 0.3  # the shaken clip moves everywhere
    height, width = steady.size
    trimmed = mask[(SIZE[0] - height) // 2 :][:height, (SIZE[1] - width) // 2 :][:, :width]
    assert np.median(after.activity_HW[~trimmed]) < 0.1
    assert np.abs(np.median(after.motion_2HW[:, after.moving_HW], axis=1) - velocity).max() < 0.15


def test_slow_drift_is_taken_out():
    steady, camera = stabilise_clip(
        clip_of(pictures.flowing(45, size=SIZE, place=lambda t: (0.12 * t, -0.05 * t)))
    )
    assert camera.homographies_T33 is not None
    estimate = average_motion(steady.frames)
    assert estimate.moving_HW.mean() < 0.5


@pytest.mark.parametrize("step", [(1.5, 0.0), (0.8, 0.8), (4.0, 0.0)])
def test_a_panning_camera_is_refused(step):
    panned = clip_of(pictures.flowing(50, size=SIZE, place=lambda t: (step[0] * t, step[1] * t)))
    with pytest.raises(RejectedError) as caught:
        stabilise_clip(panned)
    assert caught.value.reason is Reason.CAMERA_MOTION


def test_fluid_that_fills_the_frame_is_no_camera_motion():
    """Two layers of texture drift apart, as clouds do: no single plane explains them."""
    low, high = pictures.texture(5, SIZE, grain=4), pictures.texture(6, SIZE, grain=4)
    frames = [
        pictures.colour(
            (pictures.shifted(low, 1.2 * t, 0.2 * t) + pictures.shifted(high, 0.4 * t, -0.6 * t)) / 2
        )
        for t in range(45)
    ]
    steady, camera = stabilise_clip(clip_of(frames))
    assert camera.homographies_T33 is None and not camera.verified
    assert steady.frames is frames


def test_a_picture_without_corners_passes():
    flat = [np.full((*SIZE, 3), 90 + index % 2, np.uint8) for index in range(30)]
    steady, camera = stabilise_clip(clip_of(flat))
    assert steady.frames is flat and not camera.verified


def test_wrong_limits_are_refused():
    with pytest.raises(UsageError, match="corners"):
        StabiliseConfig(corners=3)
    with pytest.raises(UsageError, match="still_cells"):
        StabiliseConfig(still_cells=0.0)
