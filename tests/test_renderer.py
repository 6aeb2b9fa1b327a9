import subprocess
import sys
import tracemalloc

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.contrast import local_energy
from models.loop_plan import LoopConfig, loop_periods, prepare_source
from models.metrics import loop_quality, psnr
from models.push_pull import push_pull
from models.renderer import render_loop
from models.seam import even_seam, step_size
from storage.errors import UsageError


def texture(height: int, width: int, seed: int = 0, grain: float = 2.0) -> np.ndarray:
    noise = np.random.default_rng(seed).random((height, width, 3), np.float32)
    smooth = cv2.GaussianBlur(noise, (0, 0), grain)
    return np.uint8(np.clip(128 + (smooth - smooth.mean()) / smooth.std() * 40, 0, 255))


def scene(height: int = 60, width: int = 80, dx: float = 1.0, dy: float = 0.25, soft: bool = True):
    photo = texture(height, width)
    motion = np.stack([np.full((height, width), dx), np.full((height, width), dy)]).astype(np.float32)
    moving = np.zeros((height, width), np.float32)
    moving[height // 5 : height // 5 * 4, width // 6 : width // 6 * 5] = 1
    if soft:
        moving = np.clip(2 * cv2.GaussianBlur(moving, (0, 0), 1.5) - 1, 0, 1)
    return photo, motion, moving


@settings(max_examples=12, deadline=None)
@given(st.integers(2, 9), st.integers(1, 40), st.integers(1, 40), st.integers(0, 99))
def test_any_size_and_any_length(frames, height, width, seed):
    rng = np.random.default_rng(seed)
    photo = texture(height, width, seed)
    motion = rng.normal(0, 3, (2, height, width)).astype(np.float32)
    moving = (rng.random((height, width)) > 0.5).astype(np.float32)
    loop = list(render_loop(photo, motion, moving, LoopConfig(frames=frames)))
    assert len(loop) == frames
    assert all(frame.shape == photo.shape and frame.dtype == np.uint8 for frame in loop)
    assert np.array_equal(loop[0], photo)
    assert all(np.array_equal(frame[moving == 0], photo[moving == 0]) for frame in loop)


def test_moving_pixels_move_and_still_ones_never_do():
    photo, motion, moving = scene()
    quality = loop_quality(render_loop(photo, motion, moving, LoopConfig(frames=20)), moving)
    assert quality.still_largest == 0 and quality.still_changed == 0
    assert quality.vividness > 5


def test_a_texture_is_carried_along_the_motion():
    """Early in the loop a frame is nearly the photo displaced, which here is known exactly."""
    photo = texture(64, 96)
    motion = np.zeros((2, 64, 96), np.float32)
    motion[0] = 1.0
    frames = list(render_loop(photo, motion, np.ones((64, 96), np.float32), LoopConfig(frames=40)))
    for t in (1, 4):
        moved = np.roll(photo, t, axis=1)
        inner = np.zeros((64, 96), bool)
        inner[8:-8, 8:-8] = True
        assert psnr(frames[t], moved, inner) > psnr(photo, moved, inner) + 6


@pytest.mark.parametrize("speed", [0.3, 1.0, 4.0, 12.0])
@pytest.mark.parametrize("frames", [2, 3, 7, 24])
def test_the_seam_is_no_larger_than_the_largest_step_inside(speed, frames):
    photo, motion, moving = scene(dx=speed, dy=-speed / 3)
    loop = list(render_loop(photo, motion, moving, LoopConfig(frames=frames, fps=10)))
    steps = [step_size(one, other) for one, other in zip(loop, loop[1:], strict=False)]
    seam = step_size(loop[-1], loop[0])
    assert seam[0] <= max(step[0] for step in steps)
    assert seam[1] <= max(step[1] for step in steps)


def test_threads_change_nothing():
    photo, motion, moving = scene(90, 120)
    loops = [
        list(render_loop(photo, motion, moving, LoopConfig(frames=11, threads=threads))) for threads in (1, 3)
    ]
    assert all(np.array_equal(one, other) for one, other in zip(*loops, strict=True))


def test_bands_change_nothing(monkeypatch):
    import models.frame_painter as frame_painter

    photo, motion, moving = scene(300, 80, dy=1.5)
    whole = list(render_loop(photo, motion, moving, LoopConfig(frames=5)))
    monkeypatch.setattr(frame_painter, "BAND_PIXELS", 1)
    banded = list(render_loop(photo, motion, moving, LoopConfig(frames=5)))
    # Running sums of the filters start elsewhere, so that the last bit of a float may differ.
    assert max(int(cv2.absdiff(one, other).max()) for one, other in zip(whole, banded, strict=True)) <= 1


def test_preparing_a_loop_copies_nothing_large():
    photo, motion, _ = scene(1000, 1500)
    moving = np.ones((1000, 1500), np.float32)
    tracemalloc.start()
    source = prepare_source(photo, motion, moving, LoopConfig(frames=30))
    kept, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert source.shape[0] > 1000 and source.shape[1] > 1500, "everything moves: reflected on all sides"
    assert kept < 1.5 * moving.size and peak < 24 * moving.size


def test_rock_is_never_dragged_over_water():
    """A white rock in black water, with motion everywhere: no grey may appear around it."""
    photo = np.zeros((60, 80, 3), np.uint8)
    photo[25:35, 30:45] = 255
    moving = np.ones((60, 80), np.float32)
    moving[25:35, 30:45] = 0
    motion = np.full((2, 60, 80), 1.5, np.float32)
    for frame in render_loop(photo, motion, moving, LoopConfig(frames=30)):
        assert frame[moving > 0].max() == 0


def test_water_enters_the_picture_with_content():
    """Uniformly grey texture that moves in from the border leaves neither black nor frozen pixels."""
    photo = texture(60, 80)
    motion = np.full((2, 60, 80), 2.0, np.float32)
    frames = list(render_loop(photo, motion, np.ones((60, 80), np.float32), LoopConfig(frames=30)))
    border = np.stack([frame[:3].astype(np.float32) for frame in frames])
    assert border.std(axis=0).mean() > 8
    assert abs(border.mean() - photo.mean()) < 12


def test_stretched_water_has_no_stripes():
    """Where water accelerates its sources lie apart; a smooth picture must stay smooth."""
    photo = np.tile(np.linspace(60, 200, 80, dtype=np.float32)[None, :, None], (160, 1, 3)).astype(np.uint8)
    motion = np.zeros((2, 160, 80), np.float32)
    motion[1] = np.linspace(0.3, 8, 160, dtype=np.float32)[:, None]
    config = LoopConfig(frames=16, contrast=False, max_displacement=2.0)
    for frame in render_loop(photo, motion, np.ones((160, 80), np.float32), config):
        assert np.abs(np.diff(frame[..., 0].astype(np.int16), axis=0)).max() <= 2


def test_contrast_does_not_pulse():
    photo = texture(120, 160, grain=1.2)
    motion = np.full((2, 120, 160), 1.3, np.float32)
    moving = np.ones((120, 160), np.float32)
    with_it, without = (
        loop_quality(render_loop(photo, motion, moving, LoopConfig(frames=24, contrast=on)), moving).pulsing
        for on in (True, False)
    )
    assert without > 0.2
    assert with_it < 0.6 * without


def test_local_energy_does_not_see_the_shore():
    luma = np.zeros((40, 40), np.float32)
    luma[:, 20:] = 255
    moving = np.zeros((40, 40), np.float32)
    moving[:, :20] = 1
    detail, energy = local_energy(luma, moving, 4)
    assert np.abs(detail[:, :20]).max() < 1e-3 and energy[:, :20].max() < 1e-3


def test_nothing_moving_repeats_the_photo():
    photo, motion, moving = scene()
    for still in ((motion, 0 * moving, 1.0), (motion, moving, 0.0)):
        loop = list(render_loop(photo, still[0], still[1], LoopConfig(frames=4, speed=still[2])))
        assert len(loop) == 4 and all(np.array_equal(frame, photo) for frame in loop)


def test_speed_scales_the_motion():
    photo, motion, moving = scene()
    fast = list(render_loop(photo, motion, moving, LoopConfig(frames=12, speed=2.0)))
    doubled = list(render_loop(photo, 2 * motion, moving, LoopConfig(frames=12)))
    assert all(np.array_equal(one, other) for one, other in zip(fast, doubled, strict=True))


@settings(max_examples=50, deadline=None)
@given(st.integers(2, 400), st.floats(1, 120), st.floats(0, 50), st.floats(5, 300))
def test_periods_fill_the_loop_evenly(frames, fps, speed, limit):
    periods = loop_periods(LoopConfig(frames=frames, fps=fps), speed, limit)
    assert sum(periods) == frames
    assert max(periods) - min(periods) <= 1
    assert len(periods) == 1 or min(periods) >= min(frames, round(0.6 * fps))


def test_fast_water_gets_shorter_periods_and_a_cap():
    photo, motion, moving = scene(dx=20.0, dy=0.0)
    source = prepare_source(photo, motion, moving, LoopConfig(frames=60, fps=30))
    assert source.periods == (20, 20, 20)
    furthest = np.hypot(*source.motion_grid).max() * source.step * max(source.periods)
    assert furthest <= 0.2 * 80 * 1.01
    # Frame 20 starts the second period, so it is the photo again.
    loop = list(render_loop(photo, motion, moving, LoopConfig(frames=60, fps=30)))
    assert np.array_equal(loop[20], photo) and np.array_equal(loop[25], loop[5])


def test_the_motion_reaches_past_the_edge_of_what_moves():
    photo, motion, moving = scene(soft=False)
    motion = motion * moving
    source = prepare_source(photo, motion, moving, LoopConfig(frames=10))
    np.testing.assert_allclose(source.motion_grid[0], 1.0, atol=1e-4)


def test_push_pull_keeps_what_is_sure_and_fills_the_rest():
    values = np.zeros((9, 13, 2), np.float32)
    weights = np.zeros((9, 13), np.float32)
    values[2, 3], weights[2, 3] = (4.0, -1.0), 1.0
    filled = push_pull(values, weights)
    np.testing.assert_allclose(filled, np.broadcast_to([4.0, -1.0], filled.shape), atol=1e-5)
    values[7, 10], weights[7, 10] = (8.0, -1.0), 1.0
    filled = push_pull(values, weights)
    assert filled[2, 3, 0] == pytest.approx(4) and filled[7, 10, 0] == pytest.approx(8)
    assert 3.999 <= filled[..., 0].min() and filled[..., 0].max() <= 8.001


def test_push_pull_of_nothing_is_zero():
    assert not push_pull(np.ones((4, 4, 3), np.float32), np.zeros((4, 4), np.float32)).any()


def test_a_step_is_the_same_both_ways():
    dark, light = np.full((2, 2, 3), 10, np.uint8), np.full((2, 2, 3), 14, np.uint8)
    assert step_size(dark, light) == step_size(light, dark) == (48.0, pytest.approx(np.sqrt(12 * 16)))


def test_even_seam_touches_the_last_frame_only_and_only_when_it_must():
    frames = [np.full((4, 4, 3), value, np.uint8) for value in (100, 101, 102, 140)]
    out = list(even_seam(iter(frames), 4))
    # Steps are 1, 1, 38 and the seam 40: it gives way until it is no larger than the step before it.
    assert all(np.array_equal(one, other) for one, other in zip(out[:3], frames[:3], strict=True))
    assert step_size(out[3], out[0])[0] <= max(step_size(out[2], out[3])[0], step_size(out[0], out[1])[0])
    fine = [np.full((4, 4, 3), value, np.uint8) for value in (100, 110, 105)]
    assert all(one is other for one, other in zip(even_seam(iter(fine), 3), fine, strict=True))


@pytest.mark.parametrize(
    "values",
    [
        {"frames": 1},
        {"fps": 0.0},
        {"speed": -1.0},
        {"speed": float("nan")},
        {"max_displacement": 0.0},
        {"padding": 2.0},
        {"threads": 0},
    ],
)
def test_bad_configurations_are_refused(values):
    with pytest.raises(UsageError, match=next(iter(values))):
        LoopConfig(**values)


def test_arrays_that_do_not_fit_are_refused():
    photo, motion, moving = scene()
    with pytest.raises(UsageError, match="uint8"):
        render_loop(photo.astype(np.float32), motion, moving, LoopConfig())
    with pytest.raises(UsageError, match="motion must be"):
        render_loop(photo, motion[:, 1:], moving, LoopConfig())
    with pytest.raises(UsageError, match="moving must be"):
        render_loop(photo, motion, moving[1:], LoopConfig())
    with pytest.raises(UsageError, match="finite"):
        render_loop(photo, motion * np.float32("nan"), moving, LoopConfig())


def test_splatting_does_not_load_torch():
    """Workers that render colours only start fast and stay small."""
    code = "import sys, models.renderer; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


PEAK = """
import resource, sys
import numpy as np
from models.renderer import LoopConfig, render_loop
height, width = 4000, 6000
rows = np.arange(height, dtype=np.float32)[:, None]
photo = np.empty((height, width, 3), np.uint8)
for channel in range(3):
    photo[..., channel] = 128 + 60 * np.sin(rows / 9) + 40 * np.cos(np.arange(width) / 7 + channel)
motion = np.empty((2, height, width), np.float32)
motion[0], motion[1] = 2.0, 6.0
moving = np.ones((height, width), np.float32)
frames = render_loop(photo, motion, moving, LoopConfig(frames=60, threads=2))
for count, frame in enumerate(frames):
    assert count or (frame == photo).all()
    if count == 3:
        break
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
"""


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_24_megapixels_need_less_than_3_gigabytes():
    done = subprocess.run([sys.executable, "-c", PEAK], check=True, capture_output=True, text=True)
    assert int(done.stdout) < 2.5e9, f"peak {int(done.stdout) / 1e9:.2f} GB"
