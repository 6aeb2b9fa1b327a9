"""Averaged motion against drawn clips whose motion is known."""

from pathlib import Path

import cv2
import moving_pictures as pictures
import numpy as np
import pytest

from pipelines.motion_refinement import refine_motion
from pipelines.optical_flow import OpticalFlowConfig, average_motion
from pipelines.optical_flow_methods import METHODS, optical_flow_method
from storage.errors import UsageError
from storage.video import decode_frames

SIZE = pictures.SIZE


def error_inside(estimate, velocity):
    inner = cv2.erode(pictures.patch_mask().astype(np.uint8), np.ones((15, 15))) > 0
    return np.hypot(estimate.motion_2HW[0] - velocity[0], estimate.motion_2HW[1] - velocity[1])[inner].mean()


def test_motion_is_found_where_it_is_and_nowhere_else():
    velocity = (0.3, 1.8)
    estimate = average_motion(pictures.flowing(20, velocity=velocity))
    assert error_inside(estimate, velocity) < 0.1
    mask = pictures.patch_mask()
    overlap = (estimate.moving_HW & mask).sum() / (estimate.moving_HW | mask).sum()
    assert overlap > 0.85
    outside = cv2.dilate(mask.astype(np.uint8), np.ones((15, 15))) == 0
    assert not estimate.motion_2HW[:, outside].any()
    assert estimate.confidence_HW[mask].mean() > 0.8


def compressed(frames, path):
    """The frames as H.264 leaves them."""
    pictures.write_clip(path, frames, crf=24)
    return [frame for _, frame in decode_frames(path)]


def test_refinement_removes_the_bias_of_single_pairs(tmp_path):
    """Compression and grain make flow from frame to frame too slow; over four frames it shows."""
    velocity = (0.3, 1.8)
    estimate = average_motion(compressed(pictures.flowing(40, velocity=velocity), tmp_path / "clip.mp4"))
    inner = cv2.erode(pictures.patch_mask().astype(np.uint8), np.ones((15, 15))) > 0
    plain = np.hypot(*(estimate.average_2HW - np.reshape(velocity, (2, 1, 1))))[inner].mean()
    assert plain > 0.05, "else there is nothing to refine"
    assert error_inside(estimate, velocity) < 0.5 * plain


def test_refinement_counts_times_where_the_rate_varies():
    steps = np.array([1, 2, 1, 3, 1, 1, 2, 1, 2, 1, 1, 2, 1, 1, 3, 1, 2, 1])
    whole = pictures.flowing(int(steps.sum()) + 1, velocity=(0.6, 0.5))
    places = np.concatenate([[0], np.cumsum(steps)])
    estimate = average_motion([whole[place] for place in places], seconds=list(places / 30.0))
    assert error_inside(estimate, (0.6, 0.5)) < 0.01


def test_refinement_leaves_alone_what_does_not_flow_steadily():
    """Boiling and swaying: what some pairs of frames suggest is no motion that all share."""
    mask, ground, cloth = pictures.patch_mask(), pictures.texture(1, SIZE), pictures.texture(2, SIZE)
    boiling = [np.where(mask, pictures.texture(100 + t, SIZE), ground) for t in range(30)]
    swaying = [np.where(mask, pictures.shifted(cloth, 2.0 * np.sin(0.7 * t), 0.0), ground) for t in range(40)]
    for frames, most in ((boiling, 0.1), (swaying, 0.02)):  # 0.29 and 0.06 without the halves' agreement
        grey = [np.clip(frame, 0, 255).astype(np.uint8) for frame in frames]
        average_2HW = average_motion(grey).average_2HW
        trust_HW = np.ones(SIZE, dtype=np.float32)
        refined_2HW = refine_motion(average_2HW, mask, trust_HW, grey, np.ones(len(grey) - 1))
        assert np.hypot(*(refined_2HW - average_2HW))[mask].mean() < most


def test_two_frames_are_too_few_to_refine():
    grey = [frame[..., 0] for frame in pictures.flowing(2)]
    average_2HW = np.full((2, *SIZE), 0.5, dtype=np.float32)
    trust_HW = np.ones(SIZE, dtype=np.float32)
    refined_2HW = refine_motion(average_2HW, pictures.patch_mask(), trust_HW, grey, np.ones(1))
    assert np.array_equal(refined_2HW, average_2HW)


@pytest.mark.parametrize(("fps", "scale"), [(60.0, 2.0), (24.0, 0.8), (30.0, 1.0)])
def test_motion_is_per_frame_at_thirty_frames_a_second(fps, scale):
    estimate = average_motion(pictures.flowing(12, velocity=(1.0, 0.0)), fps=fps)
    assert error_inside(estimate, (scale, 0.0)) < 0.1 * scale


def test_times_of_frames_count_where_the_rate_varies():
    steps = np.array([1, 2, 1, 3, 1, 1, 2, 1, 2, 1, 1])
    whole = pictures.flowing(int(steps.sum()) + 1, velocity=(0.8, 0.0))
    places = np.concatenate([[0], np.cumsum(steps)])
    estimate = average_motion([whole[place] for place in places], seconds=list(places / 30.0))
    assert error_inside(estimate, (0.8, 0.0)) < 0.08


def test_doubled_frames_change_nothing():
    doubled = [frame for frame in pictures.flowing(12, velocity=(1.6, 0.0)) for _ in range(2)]
    assert error_inside(average_motion(doubled), (0.8, 0.0)) < 0.08


def test_motion_to_and_fro_cancels():
    def sway(index):
        return 2.0 * np.sin(index / 30 * 2 * np.pi * 2)

    mask = pictures.patch_mask()
    ground, cloth = pictures.texture(1, pictures.SIZE), pictures.texture(2, pictures.SIZE)
    frames = [
        pictures.colour(np.where(mask, pictures.shifted(cloth, sway(t), 0.0), ground)) for t in range(31)
    ]
    estimate = average_motion(frames)
    inner = cv2.erode(mask.astype(np.uint8), np.ones((15, 15))) > 0
    assert estimate.activity_HW[inner].mean() > 0.4
    assert np.hypot(*estimate.average_2HW)[inner].mean() < 0.1
    assert estimate.confidence_HW[inner].mean() < 0.5


def test_a_still_clip_has_no_motion():
    frame = pictures.flowing(1)[0]
    noise = np.random.default_rng(0)
    noisy = [np.clip(frame + noise.normal(0, 1.5, frame.shape), 0, 255).astype(np.uint8) for _ in range(10)]
    estimate = average_motion(noisy)
    assert not estimate.moving_HW.any()
    assert not estimate.motion_2HW.any()


def test_disagreement_of_forward_and_backward_lowers_confidence():
    # A curtain uncovers what was not there before: nothing in the one frame matches the other.
    ground = pictures.texture(3, pictures.SIZE)
    frames = []
    for index in range(12):
        picture = ground.copy()
        picture[:, 60:130] = pictures.texture(50 + index, pictures.SIZE)[:, 60:130]
        frames.append(pictures.colour(picture))
    confidence = average_motion(frames, OpticalFlowConfig(check_every=3)).confidence_HW
    assert confidence[:, 75:115].mean() < 0.5 < confidence[:, :40].mean()


@pytest.mark.parametrize("name", [name for name in METHODS if name not in ("deepflow", "tvl1")])
def test_every_method_finds_a_shift(name):
    first, second = (frame[..., 0].copy() for frame in pictures.flowing(2, velocity=(2.0, -1.0)))
    flow = optical_flow_method(name)(first, second)
    inner = cv2.erode(pictures.patch_mask().astype(np.uint8), np.ones((21, 21))) > 0
    assert flow.shape == (*first.shape, 2)
    assert np.abs(np.median(flow[inner], axis=0) - (2.0, -1.0)).max() < 0.5


@pytest.mark.slow
@pytest.mark.parametrize("name", ["deepflow", "tvl1"])
def test_slow_methods_find_a_shift(name):
    test_every_method_finds_a_shift(name)


def test_wrong_input_says_what_was_expected():
    frames = pictures.flowing(3)
    with pytest.raises(UsageError, match="at least two frames"):
        average_motion(frames[:1])
    with pytest.raises(UsageError, match="uint8"):
        average_motion([frame.astype(np.float32) for frame in frames])
    with pytest.raises(UsageError, match="rising times"):
        average_motion(frames, seconds=[0.0, 0.1, 0.1])
    with pytest.raises(UsageError, match="choose one of"):
        optical_flow_method("raft")
    with pytest.raises(UsageError, match="method must be one of"):
        OpticalFlowConfig(method="raft")


RESULTS = Path(__file__).parent / "benchmarks" / "results" / "flow_methods.md"


def measured_methods():
    """Mean error at both qualities and pairs a second of every method, by the committed results."""
    rows = [
        line.strip("| ").split(" | ") for line in RESULTS.read_text().splitlines() if line.startswith("| ")
    ]
    head = [name.strip() for name in rows[0]]
    values = [dict(zip(head, (cell.strip() for cell in row), strict=True)) for row in rows[1:]]
    return {
        row["method"]: ((float(row["crf 18"]) + float(row["crf 30"])) / 2, float(row["pairs/s"]))
        for row in values
    }


def test_the_default_follows_from_the_measurement():
    measured = measured_methods()
    assert set(measured) == set(METHODS)
    _, farneback = measured["farneback"]
    fast = {name: error for name, (error, pairs) in measured.items() if pairs >= 4 * farneback}
    assert OpticalFlowConfig().method == min(fast, key=fast.__getitem__)


def test_the_documentation_shows_the_measurement():
    page = (Path(__file__).parents[1] / "docs" / "explanation" / "data.md").read_text()
    for line in RESULTS.read_text().splitlines():
        assert not line.startswith("|") or line in page
