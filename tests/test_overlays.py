"""Burnt-in text is found over moving and over still pictures, and ordinary pictures have none."""

import cv2
import moving_pictures as pictures
import numpy as np
import pytest

from pipelines.optical_flow import grey_frame
from pipelines.overlays import text_share
from pipelines.sample_data import draw_scene
from pipelines.selection import SelectionConfig

SIZE = (288, 512)


def written(frames, lines, *, scale=0.8, ink=255):
    marked = []
    for frame in frames:
        copy = np.ascontiguousarray(frame[..., 0])
        for text, place in lines:
            cv2.putText(copy, text, place, cv2.FONT_HERSHEY_SIMPLEX, scale, 255 - ink, 5, cv2.LINE_AA)
            cv2.putText(copy, text, place, cv2.FONT_HERSHEY_SIMPLEX, scale, ink, 2, cv2.LINE_AA)
        marked.append(copy)
    return marked


def pictures_of(seed):
    cloud = pictures.texture(seed, SIZE, grain=9.0)
    return [pictures.colour(pictures.shifted(cloud, 9.0 * index, 5.0 * index)) for index in range(4)]


@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize("ink", [255, 0])
def test_a_caption_is_found(seed, ink):
    lines = [
        ("Waterfall in the north", (40, 90)),
        ("Subscribe to this", (30, 200)),
        ("channel for more", (30, 250)),
    ]
    assert text_share(written(pictures_of(seed), lines, ink=ink)) > SelectionConfig().most_text


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_pictures_without_text_have_none(seed):
    assert text_share([frame[..., 0] for frame in pictures_of(seed)]) < SelectionConfig().most_text / 3


@pytest.mark.parametrize("ink", [255, 0])
def test_a_small_caption_is_found_in_an_upright_picture(ink):
    upright = [np.ascontiguousarray(frame.transpose(1, 0, 2)) for frame in pictures_of(3)]
    lines = [("Waterfalls of the north", (14, 300)), ("more on my channel", (30, 330))]
    assert text_share(written(upright, lines, scale=0.65, ink=ink)) > SelectionConfig().most_text


@pytest.mark.slow
def test_snow_between_dark_trees_is_no_text():
    """A sample scene in which trees divide a strip of snow into strokes, still and of one colour."""
    scene = draw_scene("handheld_river", seed=0, size=(256, 456))
    frames = [grey_frame(scene.frame_at(float(time))) for time in (0, 20, 40, 59)]
    assert text_share(frames) < SelectionConfig().most_text / 2


def test_a_small_mark_in_a_corner_is_let_pass():
    share = text_share(written(pictures_of(1), [("photo.by", (430, 280))], scale=0.45))
    assert share < SelectionConfig().most_text


def test_text_that_moves_belongs_to_the_scene():
    frames = [
        written([frame], [("a boat goes by with its name", (10 + 15 * index, 200))])[0]
        for index, frame in enumerate(pictures_of(2))
    ]
    assert text_share(frames) < SelectionConfig().most_text
