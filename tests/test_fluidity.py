"""Fluid or not, on drawn clips: streams and clouds of texture against walkers, cars and swaying plants."""

import moving_pictures as pictures
import numpy as np
import pytest

from pipelines.fluidity import measure_fluidity
from pipelines.optical_flow import average_motion
from pipelines.selection import SelectionConfig

SIZE = (216, 288)
LIMITS = SelectionConfig()


def body_crossing(speed, *, width, height, legs=False):
    """A textured body that crosses still ground, legs swinging."""
    ground, skin = pictures.texture(1, SIZE), pictures.texture(2, SIZE)
    frames = []
    for index in range(60):
        picture = ground.copy()
        left = int(15 + speed * index)
        right = min(left + width, SIZE[1])
        picture[60 : 60 + height, left:right] = pictures.shifted(skin, left, 0)[60 : 60 + height, left:right]
        if legs:
            swing = int(10 * np.sin(index / 4))
            for side in (swing, -swing):
                picture[60 + height : 100 + height, left + 8 + side : left + 16 + side] = 35
        frames.append(pictures.colour(picture))
    return frames


def swaying(reach, period):
    """A plant held by its roots: texture that goes to and fro."""
    ground, leaves, mask = pictures.texture(1, SIZE), pictures.texture(2, SIZE), pictures.patch_mask(SIZE)
    return [
        pictures.colour(
            np.where(mask, pictures.shifted(leaves, reach * np.sin(index / period * 2 * np.pi), 0.0), ground)
        )
        for index in range(60)
    ]


@pytest.mark.parametrize(
    "frames",
    [
        pytest.param(lambda: body_crossing(1.5, width=30, height=90, legs=True), id="walker"),
        pytest.param(lambda: body_crossing(0.7, width=30, height=90, legs=True), id="slow walker"),
        pytest.param(lambda: body_crossing(3.0, width=70, height=50), id="car"),
        pytest.param(lambda: body_crossing(1.2, width=110, height=70), id="lorry"),
    ],
)
def test_what_travels_is_not_fluid(frames):
    assert measure_fluidity(average_motion(frames())).score < LIMITS.least_fluid


@pytest.mark.parametrize("velocity", [(0.3, 1.8), (0.4, 0.1), (5.0, 0.0)])
def test_what_flows_is_fluid(velocity):
    fluidity = measure_fluidity(average_motion(pictures.flowing(60, size=SIZE, velocity=velocity)))
    assert fluidity.score > 0.8
    assert fluidity.sway < 0.1


def test_what_sways_is_told_by_its_sway():
    assert measure_fluidity(average_motion(swaying(3.0, 38))).sway > LIMITS.most_sway


@pytest.mark.parametrize(("reach", "period"), [(6.0, 60), (8.0, 90), (16.0, 160)])
def test_slow_sway_is_told_by_its_turning_back(reach, period):
    """Over a clip no longer than its period, a swing looks much like a stream in the average."""
    assert measure_fluidity(average_motion(swaying(reach, period))).reversal > LIMITS.most_reversal


def test_walkers_that_meet_leave_rest_behind():
    """Two bodies that cross in opposite directions: their common centre does not travel."""
    there = body_crossing(2.2, width=40, height=60)
    back = [np.ascontiguousarray(frame[:, ::-1]) for frame in body_crossing(2.2, width=40, height=60)]
    meeting = [np.concatenate([one[:130], other[60:130]]) for one, other in zip(there, back, strict=True)]
    fluidity = measure_fluidity(average_motion(meeting))
    assert fluidity.travelling < 0.3, "else another score would tell them"
    assert fluidity.rest > LIMITS.most_rest


@pytest.mark.parametrize("velocity", [(0.3, 1.8), (5.0, 0.0)])
def test_what_flows_neither_rests_nor_turns_back(velocity):
    fluidity = measure_fluidity(average_motion(pictures.flowing(60, size=SIZE, velocity=velocity)))
    assert fluidity.rest < LIMITS.most_rest / 3 and fluidity.reversal == 0.0


def test_a_still_clip_scores_nothing():
    still = measure_fluidity(average_motion(pictures.flowing(1) * 8))
    assert not any((still.score, still.sway, still.persistence, still.travelling, still.rest, still.reversal))
