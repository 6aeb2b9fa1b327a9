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


def test_a_still_clip_scores_nothing():
    still = measure_fluidity(average_motion(pictures.flowing(1) * 8))
    assert (still.score, still.sway, still.persistence, still.travelling) == (0.0, 0.0, 0.0, 0.0)
