"""The gate: what is better for sure passes, what is not is refused with its reason."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from models.evaluation import HINTED, ClipFigures
from models.promotion import PromotionConfig, clip_figures, judge
from storage.errors import UsageError

FEW = PromotionConfig(least_sources=2)


def clips(
    count: int = 20, *, better: float = 0.0, deep: float | None = None, seed: int = 0, **row: float
) -> list[ClipFigures]:
    """A clip of each of `count` sources, easy and hard ones; `better` is taken from every error."""
    rng = np.random.default_rng(7)
    noise = np.random.default_rng(seed)
    made = []
    for number in range(count):
        hardness = float(rng.uniform(0.2, 1.0)) - better + (0.01 * float(noise.normal()) if seed else 0.0)
        found = {"end_point_error": hardness, "angular_error": 90 * hardness, "iou": 1 - hardness, **row}
        rows: dict[str, Any] = {
            "motion": {"automatic": found, HINTED: found, "zero": {"end_point_error": 1.0}}
        }
        if deep is not None:
            rows["rendering"] = {"deep": {"perceptual_moving": hardness * deep, "psnr_moving": 25.0}}
        made.append(
            ClipFigures(
                key=f"clip {number}",
                source=f"video {number}",
                category="river",
                confidence=1.0,
                nothing_to_animate=False,
                rows=rows,
            )
        )
    return made


def test_a_small_gain_on_every_clip_passes_because_clips_are_paired() -> None:
    """Sources differ by 0.8, the candidate by 0.05: without pairing the intervals would overlap."""
    verdict = judge(clips(better=0.05, seed=1), clips())
    assert verdict.promoted and verdict.why.startswith("better for sure")
    figure = verdict.figures["motion"]
    assert figure.difference.mean == pytest.approx(-0.15, abs=0.02) and figure.difference.high < 0
    assert figure.candidate < figure.current and (verdict.clips, verdict.sources) == (20, 20)
    assert json.loads(json.dumps(verdict.as_json(), allow_nan=False))["promoted"] is True


def test_what_is_worse_is_refused_and_told_by_how_much() -> None:
    verdict = judge(clips(better=-0.3), clips())
    assert not verdict.promoted and verdict.why.startswith("worse for sure: motion")
    assert "difference 0.9" in verdict.why


def test_the_same_weights_are_no_gain() -> None:
    verdict = judge(clips(), clips())
    assert not verdict.promoted and verdict.why.startswith("not better for sure")


def test_a_gain_that_may_be_chance_is_refused() -> None:
    mine, theirs = clips(seed=3), clips(seed=4)
    verdict = judge(mine, theirs)
    figure = verdict.figures["motion"].difference
    assert figure.low < 0 < figure.high and not verdict.promoted


def test_a_gain_must_not_cost_another_figure_more_than_is_allowed() -> None:
    mine = clips(better=0.2, iou=0.5)
    theirs = clips(iou=0.6)
    verdict = judge(mine, theirs)
    assert verdict.figures["motion"].is_better and not verdict.promoted
    assert "moving IoU missed" in verdict.why
    assert judge(mine, theirs, PromotionConfig(tolerance=0.3)).promoted


def test_a_new_animator_is_judged_by_what_it_draws() -> None:
    same_motion = clips(deep=1.0)
    assert judge(clips(deep=0.8), same_motion).promoted
    refused = judge(clips(deep=1.3), same_motion)
    assert not refused.promoted and "rendering" in refused.why
    # Where only one side was measured with its animator, drawing says nothing.
    assert "rendering" not in judge(clips(deep=0.1), clips()).figures


def test_many_clips_of_few_videos_are_too_few() -> None:
    def of_one(found: list[ClipFigures]) -> list[ClipFigures]:
        return [
            ClipFigures(**{**_fields(clip), "source": f"video {number % 3}"})
            for number, clip in enumerate(found)
        ]

    verdict = judge(of_one(clips(better=0.3)), of_one(clips()))
    assert not verdict.promoted and "3 sources are too few" in verdict.why
    assert judge(of_one(clips(better=0.3)), of_one(clips()), FEW).promoted


def test_only_clips_that_both_have_count() -> None:
    assert judge(clips(better=0.1)[:12], clips()[4:]).clips == 8
    with pytest.raises(UsageError, match="share no clip"):
        judge(clips()[:4], clips()[10:])


def test_a_still_photo_scores_one_for_each_part() -> None:
    still = clips(1, end_point_error=1.0, angular_error=float("nan"), iou=0.0)[0]
    figures = clip_figures(still)
    assert figures["motion"] == pytest.approx(3.0) and figures["angular error"] == 90.0
    nearly_still = clips(1, end_point_error=50.0)[0]
    assert clip_figures(nearly_still)["end-point error"] == 3.0, "one clip must not outweigh all others"


@pytest.mark.parametrize("wrong", [{"limit": -1}, {"least_sources": 1}, {"tolerance": 1.0}])
def test_wrong_settings_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="at least"):
        PromotionConfig(**wrong)


def _fields(clip: ClipFigures) -> dict[str, Any]:
    return {name: getattr(clip, name) for name in ClipFigures.__dataclass_fields__}
