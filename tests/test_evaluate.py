"""The protocol's figures on drawn clips whose motion is known, for predictions known to be right or wrong."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from drawn_dataset import draw_sample, write_drawn_dataset

from models.animator import Animator, AnimatorConfig
from models.baselines import cross_fade_loop, mean_motions, splat_between
from models.bootstrap import estimate_mean, estimate_ratio
from models.checkpoint import save_checkpoint
from models.configs import debug
from models.euler import displacement_after
from models.evaluate import Evaluation, EvaluationConfig, evaluate, read_groups
from models.metrics import psnr
from models.motion import MotionPrediction
from models.motion_network import MotionNetwork
from models.protocol import HINTS, Clip, loop_rows, motion_row, rendering_rows, target_arrows
from storage.errors import UsageError
from storage.objects import list_objects, read_bytes, write_bytes
from storage.progress import Progress


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Untrained networks of both kinds; the motion network takes everything for moving."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("weights")
    network, animator = (
        MotionNetwork(debug("motion").network),
        Animator(AnimatorConfig(features=4, width=8, blocks=1)),
    )
    with torch.no_grad():
        network.heads.bias[0] = 6.0
    save_checkpoint(f"{folder}/motion/best.safetensors", network.state_dict(), network.config, "motion")
    save_checkpoint(f"{folder}/animator/best.safetensors", animator.state_dict(), animator.config, "animator")
    return str(folder)


@pytest.fixture(scope="module")
def evaluation(weights: str, tmp_path_factory: pytest.TempPathFactory) -> Evaluation:
    data = str(tmp_path_factory.mktemp("data"))
    write_drawn_dataset(data, sources=3, per_source=2, splits=("val",))
    place = next(iter(list_objects(data, suffixes={".tar"}))).url
    damaged = bytearray(read_bytes(place))
    first_jpeg = damaged.index(b"\xff\xd8\xff") + 500
    damaged[first_jpeg : first_jpeg + 64] = bytes(64)
    write_bytes(place, bytes(damaged))
    seen: list[Progress] = []
    groups = f"{data}/groups.tsv"
    write_bytes(groups, b"file\tsource\nval/drawn_0.mp4\tpond\nval/drawn_2.mp4\tpond\n")
    config = EvaluationConfig(examples=2, loops=3, groups=groups)
    found = evaluate(data, weights, config, on_progress=seen.append)
    assert [each.done for each in seen] == [1, 2, 3, 4, 5, 6]
    return found


def test_every_part_stands_beside_its_baselines(evaluation: Evaluation) -> None:
    assert {part: set(methods) for part, methods in evaluation.tables.items()} == {
        "motion": {"zero", "mean", "automatic", f"hints_{HINTS}"},
        "rendering": {"still", "cross_fade", "splat", "deep"},
        "between": {"still", "cross_fade", "splat", "deep"},
        "loop": {"still", "cross_fade", "splat", "deep"},
    }
    assert set(evaluation.by_category) == set(evaluation.categories) == {"river", "sea"}
    assert evaluation.by_category["sea"]["motion"]["zero"]["iou"].sources == 1


def test_damaged_sample_is_left_out_and_named(evaluation: Evaluation) -> None:
    assert evaluation.samples == 5 and len(evaluation.skipped) == 1
    assert evaluation.sources == 2, "clips of one group count as one source"


def test_result_is_json_and_says_what_was_judged(evaluation: Evaluation) -> None:
    plain = json.loads(json.dumps(evaluation.as_json(), allow_nan=False))
    assert plain["tables"]["motion"]["zero"]["end_point_error"]["sources"] == 2
    assert (
        len(plain["weights"]["motion"]) == 64 and plain["weights"]["motion"] != plain["weights"]["animator"]
    )
    assert plain["ratios"]["automatic"]["zero"]["samples"] == 5
    assert {"moving IoU", "angular error", "end-point error / zero motion"} <= set(evaluation.headline())


def test_every_clip_and_source_keeps_its_figures(evaluation: Evaluation) -> None:
    plain = json.loads(json.dumps(evaluation.as_json(), allow_nan=False))
    assert len(plain["clips"]) == 5 and {clip["source"] for clip in plain["clips"]} == {"pond", "drawn_1.mp4"}
    for source, parts in plain["by_source"].items():
        own = [
            clip["rows"]["motion"]["automatic"]["iou"] for clip in plain["clips"] if clip["source"] == source
        ]
        assert parts["motion"]["automatic"]["iou"] == pytest.approx(np.mean(own))
    means = [parts["motion"]["zero"]["end_point_error"] for parts in plain["by_source"].values()]
    assert plain["tables"]["motion"]["zero"]["end_point_error"]["mean"] == pytest.approx(np.mean(means))


def test_groups_are_read_from_any_table(tmp_path: Path) -> None:
    (tmp_path / "groups.csv").write_text("source,file\none,a.mp4\none,b.mp4\n")
    (tmp_path / "groups.json").write_text('{"folder/a.mp4": "one"}')
    assert read_groups(str(tmp_path / "groups.csv")) == {"a.mp4": "one", "b.mp4": "one"}
    assert read_groups(str(tmp_path / "groups.json")) == {"a.mp4": "one"}
    (tmp_path / "other.csv").write_text("name,source\na.mp4,one\n")
    with pytest.raises(UsageError, match="columns file and source"):
        read_groups(str(tmp_path / "other.csv"))


def test_limit_takes_the_groups_in_turn(weights: str, tmp_path: Path) -> None:
    write_drawn_dataset(str(tmp_path / "data"), sources=3, per_source=1)
    (tmp_path / "groups.json").write_text(
        '{"drawn_0.mp4": "pond", "drawn_1.mp4": "pond", "drawn_2.mp4": "sea"}'
    )
    config = EvaluationConfig(limit=2, loops=1, examples=0, deep=False, groups=str(tmp_path / "groups.json"))
    found = evaluate(str(tmp_path / "data"), weights, config)
    assert found.samples == 2 and {clip.source for clip in found.clips} == {"pond", "sea"}
    assert "deep" not in found.tables["rendering"] and found.weights["animator"] is None


def test_examples_carry_pictures(evaluation: Evaluation) -> None:
    assert len(evaluation.examples) == 2
    assert {example.category for example in evaluation.examples} == {"river", "sea"}
    example = evaluation.examples[0]
    assert example.photo_HW3.shape == (72, 128, 3) and example.target_2HW.shape == (2, 72, 128)
    assert np.array_equal(example.frames[0], example.photo_HW3) and len(example.frames) == 4


def test_baselines_have_the_scores_they_must_have(evaluation: Evaluation) -> None:
    motion = evaluation.tables["motion"]
    assert motion["zero"]["iou"].mean == 0 and motion["zero"]["angular_error"].mean == 90
    assert motion["automatic"]["iou"].mean == pytest.approx(0.5, abs=0.02)  # everything moves, half does
    assert evaluation.tables["loop"]["still"]["vividness"].mean == 0


@pytest.mark.parametrize("number", range(4))
def test_hints_are_the_target_at_moving_places(number: int) -> None:
    clip = Clip(draw_sample(number, source=number))
    arrows = target_arrows(clip)
    assert len(arrows) == HINTS and arrows == target_arrows(clip)
    for arrow in arrows:
        (x, y), (height, width) = arrow.start, clip.size_HW
        assert arrow.velocity(clip.size_HW) == pytest.approx(
            tuple(clip.motion_2HW[:, int(y * height), int(x * width)])
        )
        assert y > 0.5 and all(0 <= place <= 1 for place in arrow.end)


@pytest.fixture
def clip() -> Clip:
    return Clip(draw_sample(0, source=1))


def test_known_motion_scores_as_it_should(clip: Clip) -> None:
    right = motion_row(clip, clip.motion_2HW, clip.moving_HW)
    assert right["iou"] == 1 and right["end_point_error"] < 1e-3 and right["angular_error"] < 0.1
    wrong = motion_row(clip, -clip.motion_2HW, 1 - clip.moving_HW)
    assert wrong["iou"] == 0 and wrong["angular_error"] == pytest.approx(180)
    assert wrong["end_point_error_moving"] == pytest.approx(2 * float(clip.motion_2HW.max()), rel=0.01)


def test_rendering_with_the_true_motion_beats_a_still_picture(clip: Clip) -> None:
    rows = rendering_rows(clip, None)
    assert rows["rendering", "splat"]["psnr_moving"] > rows["rendering", "still"]["psnr_moving"] + 3
    between = {method: row for (part, method), row in rows.items() if part == "between"}
    assert between["splat"]["psnr_moving"] > between["cross_fade"]["psnr_moving"] + 3
    assert between["splat"]["perceptual_moving"] < between["still"]["perceptual_moving"]
    assert clip.compared == [1, 2, 3, 4] and clip.times == [0, 8, 15, 22, 30]


def test_loops_keep_the_still_region_and_a_still_picture_has_no_life(clip: Clip) -> None:
    found = MotionPrediction(clip.motion_2HW * (clip.moving_HW > 0), clip.moving_HW, 1.0, False)
    animator = Animator(AnimatorConfig(features=4, width=8, blocks=1)).eval()
    rows, shown = loop_rows(clip.photo_HW3, found, animator)
    assert len(shown) == 4 and np.array_equal(shown[0], clip.photo_HW3)
    assert {method for _, method in rows} == {"still", "cross_fade", "splat", "deep"}
    assert all(row["still_largest"] == 0 and row["still_changed"] == 0 for row in rows.values())
    assert rows["loop", "still"]["vividness"] == 0 and rows["loop", "still"]["seam_ssim"] == 1
    assert rows["loop", "splat"]["vividness"] > 1
    assert rows["loop", "cross_fade"]["pulsing"] > rows["loop", "still"]["pulsing"] == 0


def test_splat_and_cross_fade_follow_the_motion(clip: Clip) -> None:
    """Half-way to frame 4 along the true displacements shows what frame 2 showed."""
    fields = displacement_after(clip.motion_2HW, 15), displacement_after(clip.motion_2HW, -15)
    middle = splat_between(clip.frames[0], clip.frames[4], fields, clip.moving_HW, 0.5)
    inside = np.zeros_like(clip.moving_HW)
    inside[:, 24:-24] = clip.moving_HW[:, 24:-24]
    assert psnr(middle, clip.frames[2], inside) > 30
    loop = list(cross_fade_loop(clip.photo_HW3, clip.motion_2HW, clip.moving_HW, 400))
    assert np.array_equal(loop[0], clip.photo_HW3) and psnr(loop[8], clip.frames[1], inside) > 30


def test_mean_motion_is_that_of_the_other_sources() -> None:
    clips = [Clip(draw_sample(0, source=source)) for source in (1, 3, 5)]
    motions, movings = [each.motion_2HW for each in clips], [each.moving_HW for each in clips]
    found = mean_motions(motions, movings, ["one", "two", "two"])
    speed = [float(motion[0].max()) for motion in motions]
    assert float(found[0][0][0, -1].mean()) == pytest.approx((speed[1] + speed[2]) / 2, rel=1e-3)
    assert float(found[1][0][0, -1].mean()) == pytest.approx(speed[0], rel=1e-3)
    assert found[0][1][-1].min() == pytest.approx(1) and found[0][1][0].max() == 0


def test_interval_is_over_sources_and_not_over_clips() -> None:
    """Forty clips of two videos know no more than two videos do."""
    values = [1.0] * 20 + [3.0] * 20
    two = estimate_mean(values, ["a"] * 20 + ["b"] * 20)
    assert (two.mean, two.low, two.high, two.sources) == (2.0, 1.0, 3.0, 2)
    many = estimate_mean(values, [str(number) for number in range(40)])
    assert 1.5 < many.low < many.mean < many.high < 2.5
    lopsided = estimate_mean([1.0, 1.0, 1.0, 5.0], ["a", "a", "a", "b"])
    assert lopsided.mean == 3.0 and lopsided.largest == 5.0
    assert estimate_mean([1.0, float("nan")], ["a", "b"]).samples == 1


@pytest.mark.parametrize("count", [5, 30])
def test_interval_covers_the_truth_about_as_often_as_it_says(count: int) -> None:
    rng = np.random.default_rng(1)
    hits = 0
    for _ in range(100):
        found = estimate_mean(rng.normal(2.0, 1.0, count).tolist(), [str(number) for number in range(count)])
        hits += found.low <= 2.0 <= found.high
    assert (70 if count == 5 else 85) <= hits <= 100  # percentile intervals are narrow for few sources


def test_ratio_of_errors_weighs_sources_alike() -> None:
    found = estimate_ratio([1.0, 1.0, 2.0], [2.0, 2.0, 2.0], ["a", "a", "b"])
    assert found.mean == 0.75 and (found.low, found.high) == (0.5, 1.0)
    assert np.isnan(estimate_ratio([1.0], [0.0], ["a"]).mean)


def test_missing_weights_and_empty_splits_are_one_clear_line(weights: str, tmp_path: Path) -> None:
    data = str(tmp_path / "data")
    write_drawn_dataset(data, sources=1)
    with pytest.raises(UsageError, match="no samples"):
        evaluate(data, weights, EvaluationConfig(split="test"))
    with pytest.raises(UsageError, match="no checkpoint at"):
        evaluate(data, str(tmp_path / "nothing"))
    bad: dict[str, Any] = {"limit": -1}
    with pytest.raises(UsageError, match="at least 0"):
        EvaluationConfig(**bad)
