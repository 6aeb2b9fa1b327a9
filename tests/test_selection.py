"""Judging rows by limits: which clips are kept, and for what reason the others are not."""

import pytest

from pipelines.selection import SelectionConfig, select_row
from storage.errors import UsageError

GOOD = {
    "stage": "measured",
    "status": "ok",
    "moving_share": 0.3,
    "mean_speed": 0.05,
    "camera_drift": 0.0,
    "coherence": 0.8,
    "fluid_score": 0.9,
    "scores": {"text_share": 0.0, "sway": 0.1},
}


def test_a_good_row_is_kept():
    row = select_row(GOOD, SelectionConfig())
    assert (row["status"], row["reason"], row["stage"]) == ("ok", None, "select")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"moving_share": 0.001}, "no_motion"),
        ({"mean_speed": 0.0001}, "no_motion"),
        ({"camera_drift": 0.02}, "camera_motion"),
        ({"coherence": 0.1}, "incoherent_motion"),
        ({"fluid_score": 0.1}, "not_fluid"),
        ({"scores": {"text_share": 0.2, "sway": 0.0}}, "overlay_text"),
        ({"scores": {"text_share": 0.0, "sway": 0.95}}, "not_fluid"),
    ],
)
def test_a_row_past_a_limit_says_which(change, reason):
    row = select_row({**GOOD, **change}, SelectionConfig())
    assert (row["status"], row["reason"]) == ("rejected", reason)
    assert "got" in row["message"]


def test_judging_again_by_other_limits_forgets_the_first():
    strict = select_row(GOOD, SelectionConfig(least_speed=1.0))
    assert strict["reason"] == "no_motion"
    assert select_row(strict, SelectionConfig()) == select_row(GOOD, SelectionConfig())


def test_rows_that_were_never_measured_stay():
    row = {"stage": "screen", "status": "rejected", "reason": "cut", "message": "a cut"}
    assert select_row(row, SelectionConfig()) is row


def test_a_whole_that_reads_a_little_more_than_one_is_no_problem():
    assert select_row({**GOOD, "moving_share": 1.0000001}, SelectionConfig())["status"] == "ok"


def test_limits_that_cannot_be_are_refused():
    with pytest.raises(UsageError, match="least_moving"):
        SelectionConfig(least_moving=0.9, most_moving=0.5)
    with pytest.raises(UsageError, match="least_fluid"):
        SelectionConfig(least_fluid=1.5)
