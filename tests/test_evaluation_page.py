"""The evaluation page: figures and pictures as they were measured, names as text, nothing from elsewhere."""

import json
from pathlib import Path

import numpy as np
import pytest
from browser import chromium, console_errors

from flows.evaluation_page import publish_evaluation
from models.bootstrap import Estimate, estimate_mean
from models.evaluate import Evaluation, Example

HOSTILE = "<script>window.hurt=1</script><img src=x onerror=window.hurt=1>.mp4"
SIZE_HW = (48, 80)


def estimate(*values: float) -> Estimate:
    return estimate_mean(values, [str(number) for number in range(len(values))])


def example(number: int) -> Example:
    generator = np.random.default_rng(number)
    photo = generator.integers(0, 255, (*SIZE_HW, 3), dtype=np.uint8)
    motion = np.zeros((2, *SIZE_HW), np.float32)
    motion[1, 20:] = 2.0
    return Example(
        key=f"k{number}",
        source=HOSTILE,
        category="waterfall",
        photo_HW3=photo,
        target_2HW=motion,
        predicted_2HW=motion * 0.5,
        hinted_2HW=motion * 0.9,
        frames=(photo, np.roll(photo, 3, axis=0), np.roll(photo, 6, axis=0), photo),
        confidence=0.75,
        nothing_to_animate=False,
        rows={},
    )


@pytest.fixture
def evaluation() -> Evaluation:
    motion = {
        method: {"end_point_error": estimate(error, error), "angular_error": angle, "iou": estimate(0.5, 0.7)}
        for method, error, angle in (
            ("automatic", 0.25, estimate(20.0, 30.0)),
            ("hints_5", 0.125, estimate(10.0, 12.0)),
            ("zero", 0.5, estimate(float("nan"), float("nan"))),
            ("mean", 0.375, estimate(70.0, 80.0)),
        )
    }
    return Evaluation(
        data="data",
        checkpoint="weights",
        weights={"motion": "a" * 64, "animator": None},
        samples=2,
        sources=2,
        categories={"waterfall": 2},
        splits={"val": 2},
        skipped=[],
        tables={"motion": motion},
        ratios={"automatic": {"zero": estimate(0.5), "mean": estimate(0.667)}},
        by_category={},
        nothing_to_animate=estimate(0.0, 0.0),
        seconds=3.0,
        examples=[example(1), example(2)],
    )


def test_both_files_tell_the_same(evaluation: Evaluation, tmp_path: Path) -> None:
    page_url = publish_evaluation(evaluation, str(tmp_path))
    assert page_url == str(tmp_path / "index.html")
    said = json.loads((tmp_path / "evaluation.json").read_text())
    assert said["tables"]["motion"]["automatic"]["end_point_error"]["mean"] == 0.25
    assert said["tables"]["motion"]["zero"]["angular_error"]["mean"] is None
    page = (tmp_path / "index.html").read_text()
    for words in (
        "this network, 5 arrows given",
        "no motion",
        "mean motion of the others",
        "End-point error",
    ):
        assert words in page


def test_the_page_marks_the_best_and_shows_every_picture(evaluation: Evaluation, tmp_path: Path) -> None:
    publish_evaluation(evaluation, str(tmp_path))
    with chromium(tmp_path / "profile") as session:
        session.get((tmp_path / "index.html").as_uri())
        best = session.execute_script(
            "return [...document.querySelectorAll('.best')]"
            ".map(b => [b.closest('tr').children[0].innerText, b.innerText])"
        )
        assert ["this network, 5 arrows given", "0.125\n(best)\n0.125 … 0.125"] in best
        missing = session.execute_script("return document.body.innerText.includes('–')")
        assert missing
        pictures = session.execute_script(
            "return [...document.querySelectorAll('.strip img')].map(i => i.src.slice(0, 16))"
        )
        assert len(pictures) == 2 * 8 and set(pictures) == {"data:image/webp;"}
        assert session.execute_script("return window.hurt") is None
        assert session.execute_script("return document.querySelector('.example h3').innerText").startswith(
            HOSTILE.rsplit("/", 1)[-1]  # a source is shown by the last part of its address
        )
        assert console_errors(session) == []
