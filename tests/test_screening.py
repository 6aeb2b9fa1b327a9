"""The cheap first pass: what it throws out, and that it lets ordinary clips pass."""

import moving_pictures as pictures
import numpy as np
import pytest

from pipelines.screening import ScreeningConfig, screen_frames
from storage.errors import RejectedError, UsageError
from storage.reasons import Reason


def grey(frames):
    return [np.ascontiguousarray(frame[..., 0]) for frame in frames]


def reason_of(frames):
    with pytest.raises(RejectedError) as caught:
        screen_frames(grey(frames))
    return caught.value.reason


@pytest.mark.parametrize("velocity", [(0.3, 1.8), (6.0, 0.0), (0.05, 0.0)])
def test_flowing_clips_pass(velocity):
    screening = screen_frames(grey(pictures.flowing(60, velocity=velocity)))
    assert 0.3 < screening.brightness < 0.7


def test_a_cut_is_found_wherever_it_is():
    first, second = pictures.flowing(60, seed=1), pictures.flowing(60, seed=500)
    for place in (3, 30, 57):
        assert reason_of(first[:place] + second[place:]) is Reason.CUT


def test_a_flash_is_no_cut():
    frames = pictures.flowing(60)
    frames[30] = np.full_like(frames[30], 250)
    screen_frames(grey(frames))


@pytest.mark.parametrize("black", [True, False])
def test_fades_and_dissolves(black):
    first, second = pictures.flowing(1, seed=1)[0], pictures.flowing(1, seed=700)[0]
    second = second * 0 if black else second
    shares = np.clip(np.linspace(-0.3, 1.3, 60), 0, 1)
    assert reason_of([(first * (1 - s) + second * s).astype(np.uint8) for s in shares]) is Reason.FADE


def test_a_still_picture_with_noise_is_still():
    frame = pictures.flowing(1)[0]
    assert reason_of([frame] * 60) is Reason.STILL_PICTURE


def test_a_slideshow():
    slides = [pictures.flowing(1, seed=seed)[0] for seed in (1, 900)]
    assert reason_of([slides[0]] * 30 + [slides[1]] * 30) in (Reason.SLIDESHOW, Reason.CUT)


def test_a_slideshow_that_blends():
    slides = [pictures.flowing(1, seed=seed)[0].astype(float) for seed in (1, 900, 901)]
    frames = []
    for index in range(60):
        number, rest = divmod(index, 24)
        share = max(0.0, (rest - 16) / 8)
        blend = slides[number] * (1 - share) + slides[(number + 1) % 3] * share
        frames.append(blend.astype(np.uint8))
    assert reason_of(frames) is Reason.SLIDESHOW


def test_a_fade_in_and_out_within_one_clip():
    film = pictures.flowing(60, velocity=(0.3, 1.8))
    light = np.clip(1.0 - np.abs(np.arange(60) - 40) / 40, 0, 1)
    frames = [(frame * share).astype(np.uint8) for frame, share in zip(film, light, strict=True)]
    assert reason_of(frames) is Reason.FADE


def test_bars():
    frames = [frame.copy() for frame in pictures.flowing(60)]
    for frame in frames:
        frame[:, :24] = frame[:, -24:] = 0
    assert reason_of(frames) is Reason.LETTERBOX


def test_a_night_sky_is_no_bar():
    frames = [frame.copy() for frame in pictures.flowing(60)]
    ramp = np.clip(np.linspace(-0.4, 1.2, frames[0].shape[0]), 0, 1)[:, None, None]
    screen_frames(grey([(frame * ramp).astype(np.uint8) for frame in frames]))


def test_darkness():
    assert reason_of([frame // 12 for frame in pictures.flowing(60)]) is Reason.TOO_DARK


def test_limits_that_cannot_be_are_refused():
    with pytest.raises(UsageError, match="thickest_bar"):
        ScreeningConfig(thickest_bar=0.5)
