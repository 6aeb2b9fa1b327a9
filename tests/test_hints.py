"""Hints: reading files with clear complaints, drawing them for the network, laying them over its motion."""

import json
import re
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.hint_motion import apply_hints, draw_area
from models.hints import HINTS_SCHEMA, Arrow, Hints, arrow_samples, hint_channels, parse_hints
from storage.errors import ItemError
from storage.reasons import Reason

SIZE = (60, 90)
GOOD: dict[str, Any] = {
    "arrows": [{"from": [0.2, 0.5], "to": [0.6, 0.5], "seconds": 2}],
    "moving": [[[0, 0.4], [1, 0.4], [1, 1], [0, 1]]],
    "frozen": [[[0.4, 0.5], [0.6, 0.5], [0.5, 0.9]]],
    "speed": 1.5,
}


def parsed(content: Any) -> Hints:
    return parse_hints(json.dumps(content).encode())


def complaint(content: Any) -> str:
    with pytest.raises(ItemError) as caught:
        parsed(content)
    assert caught.value.reason == Reason.BAD_HINTS
    return str(caught.value)


def test_a_full_file_is_read() -> None:
    hints = parsed(GOOD)
    assert hints.arrows == (Arrow(start=(0.2, 0.5), end=(0.6, 0.5), seconds=2.0),)
    assert hints.says_where and len(hints.moving[0]) == 4 and hints.speed == 1.5
    assert not parsed({}).says_where


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"arrows": [GOOD["arrows"][0]] * 2 + [{"from": [0, 0], "to": [1.7, 0]}]},
         "arrows[2].to[0]: expected a number in 0…1, got 1.7"),
        ({"arrows": [{"from": [0, 0]}]}, "arrows[0]: 'to' is missing"),
        ({"arrows": {"from": [0, 0]}}, "arrows: expected a list, got {"),
        ({"arrows": [{"from": [0.5, 0.5], "to": [0.5, 0.5]}]}, "arrows[0]: expected two different points"),
        ({"arrows": [{"from": [0, 0, 0], "to": [1, 1]}]}, "arrows[0].from: expected 2 entries, got 3"),
        ({"moving": [[[0, 0], [1, 1]]]}, "moving[0]: expected 3 to 10000 entries, got 2"),
        ({"frozen": [[[0, 0], [1, "a"], [0, 1]]]}, 'frozen[0][1][1]: expected a number in 0…1, got "a"'),
        ({"speed": True}, "speed: expected a number in 0.05…10, got true"),
        ({"speed": 99}, "speed: expected a number in 0.05…10, got 99"),
        ({"sped": 1}, "unknown name 'sped', expected arrows, moving, frozen, speed"),
        ([], "the file: expected an object, got []"),
    ],
)  # fmt: skip
def test_complaints_name_the_place(content: Any, said: str) -> None:
    assert said in complaint(content)


def test_several_complaints_come_together_and_are_bounded() -> None:
    text = complaint({"arrows": [{"from": [2, 2], "to": [2, 2]}] * 3})
    assert text.count("expected a number") == 5 and "and 7 more" in text


@pytest.mark.parametrize("data", [b"", b"{", b"\xff\xfe", b"[" * 100_000, b"nan"])
def test_what_is_not_json_is_said_so(data: bytes) -> None:
    with pytest.raises(ItemError, match="not JSON"):
        parse_hints(data)


def test_not_a_number_is_no_number() -> None:
    with pytest.raises(ItemError, match="speed: expected a number"):
        parse_hints(b'{"speed": NaN}')


json_values = st.recursive(
    st.none() | st.booleans() | st.floats(-2, 2) | st.integers(-2, 2) | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(["arrows", "moving", "frozen", "speed", "from", "to"]), inner, max_size=4
        )
    ),
    max_leaves=12,
)


@settings(deadline=None)
@given(json_values)
def test_our_reader_and_the_schema_agree(content: Any) -> None:
    allowed = jsonschema.Draft202012Validator(HINTS_SCHEMA).is_valid(content)
    try:
        parsed(content)
    except ItemError as exc:
        assert not allowed or "two different points" in str(exc)
    else:
        assert allowed


def test_the_schema_is_a_valid_schema_and_accepts_the_example() -> None:
    jsonschema.Draft202012Validator.check_schema(HINTS_SCHEMA)
    jsonschema.validate(GOOD, HINTS_SCHEMA)


def test_the_documentation_shows_this_schema_and_hints_that_are_right() -> None:
    docs = Path(__file__).parents[1] / "docs"
    assert json.loads((docs / "hints.schema.json").read_text()) == HINTS_SCHEMA
    shown = re.search(r"```json\n(.*?)```", (docs / "how-to" / "hints.md").read_text(), re.S)
    assert shown is not None and len(parse_hints(shown[1].encode()).arrows) == 2


def test_an_arrow_means_its_length_in_its_time() -> None:
    arrow = Arrow(start=(0.0, 0.5), end=(0.5, 0.0), seconds=3.0)
    dx, dy = arrow.velocity((100, 200))
    assert (dx * 90, dy * 90) == pytest.approx((100.0, -50.0))


def test_channels_show_velocity_and_presence_at_the_hint() -> None:
    channels = hint_channels(np.array([[0.5, 0.5]]), np.array([[3.0, -1.0]]), (33, 65))
    assert channels.shape == (3, 33, 65) and channels.dtype == np.float32
    assert channels[:, 16, 32] == pytest.approx([3.0, -1.0, 1.0])
    assert channels[2].argmax() == 16 * 65 + 32 and channels[2, 0, 0] < 1e-3
    # Everywhere the direction is the hint's own, only fainter.
    near = channels[2] > 0.01
    assert np.allclose(channels[0][near], -3 * channels[1][near], rtol=1e-4)


def test_no_hints_are_zero_channels_and_order_does_not_matter() -> None:
    assert not hint_channels(np.zeros((0, 2)), np.zeros((0, 2)), SIZE).any()
    positions, velocities = np.array([[0.2, 0.3], [0.25, 0.35]]), np.array([[1.0, 0.0], [0.0, 2.0]])
    one = hint_channels(positions, velocities, SIZE)
    other = hint_channels(positions[::-1], velocities[::-1], SIZE)
    assert np.allclose(one, other, atol=1e-6)
    assert one[2].max() <= 1.0 + 1e-6


def test_samples_lie_along_the_arrow() -> None:
    arrows = [Arrow(start=(0.0, 0.0), end=(1.0, 0.5))]
    positions, velocities = arrow_samples(arrows, SIZE, per_arrow=3)
    assert positions.tolist() == [[0, 0], [0.5, 0.25], [1, 0.5]]
    assert np.allclose(velocities, velocities[0])


def still(size: tuple[int, int] = SIZE) -> tuple[Any, Any]:
    return np.zeros((2, *size), np.float32), np.zeros(size, np.float32)


def left_half() -> tuple[Any, Any]:
    motion, moving = still()
    moving[:, :45] = 1
    motion[0, :, :45] = 2
    return motion, moving


def test_empty_hints_change_nothing() -> None:
    motion, moving = left_half()
    again, area = apply_hints(motion, moving, Hints())
    assert again is motion and area is moving


def test_frozen_areas_win_over_everything() -> None:
    everything = ((0.0, 0.0), (1.0, 0.0), (1.0, 1.0), (0.0, 1.0))
    block = ((0.25, 0.25), (0.75, 0.25), (0.75, 0.75), (0.25, 0.75))
    arrow = Arrow(start=(0.3, 0.5), end=(0.7, 0.5))
    motion, area = apply_hints(*still(), Hints(arrows=(arrow,), moving=(everything,), frozen=(block,)))
    assert not area[16:44, 24:66].any() and not motion[:, 16:44, 24:66].any()
    assert area[2, 2] == 1 and motion[0, 2, 2] > 0


def test_a_given_area_replaces_that_of_the_network() -> None:
    motion, moving = left_half()
    right = ((0.6, 0.0), (1.0, 0.0), (1.0, 1.0), (0.6, 1.0))
    motion, area = apply_hints(motion, moving, Hints(moving=(right,)))
    assert not area[:, :50].any() and area[30, 70] == 1
    # The network's motion is continued into the area it did not see.
    assert motion[0, 30, 70] == pytest.approx(2.0, rel=0.05) and abs(motion[1, 30, 70]) < 0.05
    assert not motion[:, :, :50].any()


def test_soft_edges_lie_inside_the_area() -> None:
    polygon = ((0.25, 0.25), (0.75, 0.25), (0.75, 0.75), (0.25, 0.75))
    size = (400, 600)
    _, area = apply_hints(*still(size), Hints(moving=(polygon,)))
    drawn = draw_area((polygon,), None, size) > 127
    assert not area[~drawn].any() and area.max() == 1
    assert 0 < area[200, 150] < 1 == area[200, 170]


def test_an_arrow_bends_the_motion_near_it_and_leaves_the_rest() -> None:
    size = (200, 300)
    motion, moving = still(size)
    moving[:] = 1
    motion[0] = 1.0
    arrow = Arrow(start=(0.1, 0.5), end=(0.1, 0.7))
    bent, area = apply_hints(motion, moving, Hints(arrows=(arrow,)), confidence=1.0)
    dx, dy = arrow.velocity(size)
    assert bent[:, 120, 30] == pytest.approx([dx, dy], abs=0.08)
    assert bent[:, 120, 280] == pytest.approx([1.0, 0.0], abs=0.05)
    assert (area == moving).all()


def test_arrows_alone_fill_the_area_they_lie_in_when_the_network_is_unsure() -> None:
    motion, moving = still()
    moving[10:50, 10:40] = 1
    moving[10:50, 60:80] = 1
    arrow = Arrow(start=(0.15, 0.5), end=(0.35, 0.5))
    bent, _ = apply_hints(motion, moving, Hints(arrows=(arrow,)), confidence=0.0)
    expected = arrow.velocity(SIZE)[0]
    assert np.allclose(bent[0, 12:48, 12:38], expected, atol=0.02 * expected)
    assert not bent[:, :, 60:].any(), "the other area was not touched"


def test_an_arrow_where_nothing_moves_opens_an_area() -> None:
    arrow = Arrow(start=(0.3, 0.5), end=(0.7, 0.5))
    motion, area = apply_hints(*still(), Hints(arrows=(arrow,)), confidence=0.0)
    assert area[30, 45] > 0.9 and motion[0, 30, 45] == pytest.approx(arrow.velocity(SIZE)[0], rel=0.02)
    assert not area[:10].any() and not motion[:, :10].any()


def test_speed_multiplies() -> None:
    motion, moving = left_half()
    faster, _ = apply_hints(motion, moving, Hints(speed=1.5))
    assert faster[0, 30, 20] == pytest.approx(3.0)


def test_mask_pictures_are_fitted_to_the_photo_or_refused() -> None:
    mask = np.zeros((120, 180), np.uint8)
    mask[:, 90:] = 255
    motion, moving = left_half()
    _, area = apply_hints(motion, moving, Hints(moving_mask_HW=mask))
    assert not area[:, :44].any() and (area[:, 50:] == 1).all()
    _, area = apply_hints(motion, moving, Hints(frozen_mask_HW=mask))
    assert not area[:, 45:].any() and (area[:, :40] == 1).all()
    with pytest.raises(ItemError, match="shaped like the photo"):
        apply_hints(motion, moving, Hints(moving_mask_HW=mask[:60]))


def test_hints_are_deterministic() -> None:
    hints = parsed(GOOD)
    one, other = apply_hints(*left_half(), hints), apply_hints(*left_half(), hints)
    assert (one[0] == other[0]).all() and (one[1] == other[1]).all()
