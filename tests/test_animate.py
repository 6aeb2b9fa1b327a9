"""One photo comes to life: what moves, how fast, how it listens to hints, and when it stays a photo."""

from pathlib import Path

import numpy as np
import pytest
from animation_world import SIDE, SPEED, draw_photo, write_weights

from models.animate import LivingPhoto, LoopStyle, Networks, animate_photo, load_networks, networks_digest
from models.hints import Arrow, Hints
from models.motion import MotionDecoding, network_size
from storage.errors import RejectedError, UsageError
from storage.reasons import Reason

PHOTO = draw_photo(4, (120, 160))
LEFT = ((0.0, 0.0), (0.5, 0.0), (0.5, 1.0), (0.0, 1.0))
STYLE = LoopStyle(frames=10, fps=30.0)


@pytest.fixture(scope="module")
def networks(tmp_path_factory: pytest.TempPathFactory) -> Networks:
    return load_networks(write_weights(tmp_path_factory.mktemp("weights")), "splat")


def loop(living: LivingPhoto) -> np.ndarray:
    return np.stack(list(living.frames))


def test_the_loop_starts_at_the_photo_and_moves_as_the_network_says(networks: Networks) -> None:
    living = animate_photo(PHOTO, networks, STYLE)
    frames = loop(living)
    assert frames.shape == (10, *PHOTO.shape) and (frames[0] == PHOTO).all()
    assert living.category == "falling" and living.moving_share > 0.95 and living.confidence > 0.9
    # It says the same speed in pixels at whatever width it looks: the geometric mean of its looks.
    widths = [network_size(PHOTO.shape[:2], round(SIDE * scale))[1] for scale in MotionDecoding().scales]
    expected = SPEED * 160 / np.exp(np.mean(np.log(widths)))
    assert living.mean_speed == pytest.approx(expected, rel=0.25)
    assert np.abs(frames[5].astype(int) - PHOTO).mean() > 2


def test_what_does_not_move_is_bit_exact(networks: Networks) -> None:
    living = animate_photo(PHOTO, networks, STYLE, hints=Hints(moving=(LEFT,)))
    still = living.moving_HW == 0
    assert 0.45 < still.mean() < 0.55 and not living.motion_2HW[:, still].any()
    assert all((frame[still] == PHOTO[still]).all() for frame in living.frames)


def test_motion_is_expressed_at_the_output_rate_and_speed(networks: Networks) -> None:
    slow = animate_photo(PHOTO, networks, STYLE)
    fast = animate_photo(PHOTO, networks, LoopStyle(frames=10, fps=15.0, speed=1.5))
    assert np.allclose(fast.motion_2HW, slow.motion_2HW * 2 * 1.5, rtol=1e-5)


def test_arrows_turn_the_motion(networks: Networks) -> None:
    arrow = Arrow(start=(0.2, 0.5), end=(0.8, 0.5))
    living = animate_photo(PHOTO, networks, STYLE, hints=Hints(arrows=(arrow,)))
    assert living.motion_2HW[:, 60, 80] == pytest.approx(arrow.velocity((120, 160)), abs=0.25)


def test_arrows_alone_work_where_the_network_sees_nothing(tmp_path: Path) -> None:
    blind = load_networks(write_weights(tmp_path, moving_logit=-5.0), "splat")
    arrow = Arrow(start=(0.25, 0.5), end=(0.75, 0.5))
    living = animate_photo(PHOTO, blind, STYLE, hints=Hints(arrows=(arrow,)))
    assert living.category == "drifting right" and 0.02 < living.moving_share < 0.5
    frames = loop(living)
    assert np.abs(frames[5].astype(int) - PHOTO)[living.moving_HW > 0.5].mean() > 2


def test_nothing_to_animate_is_a_rejection(tmp_path: Path) -> None:
    blind = load_networks(write_weights(tmp_path, moving_logit=-5.0), "splat")
    with pytest.raises(RejectedError) as caught:
        animate_photo(PHOTO, blind, STYLE)
    assert caught.value.reason == Reason.NOTHING_TO_ANIMATE


def test_a_wholly_frozen_photo_is_a_rejection(networks: Networks) -> None:
    everything = ((0.0, 0.0), (1.0, 0.0), (1.0, 1.0), (0.0, 1.0))
    with pytest.raises(RejectedError, match="too small or too slow"):
        animate_photo(PHOTO, networks, STYLE, hints=Hints(frozen=(everything,)))


def test_results_do_not_depend_on_threads(networks: Networks) -> None:
    one = loop(animate_photo(PHOTO, networks, STYLE, threads=1))
    two = loop(animate_photo(PHOTO, networks, STYLE, threads=2))
    assert (one == two).all()


def test_strength_lets_more_or_less_move(tmp_path: Path) -> None:
    hesitant = load_networks(write_weights(tmp_path, moving_logit=0.0), "splat")
    with pytest.raises(RejectedError):
        animate_photo(PHOTO, hesitant, LoopStyle(frames=10, strength=0.5))
    assert animate_photo(PHOTO, hesitant, LoopStyle(frames=10, strength=2.0)).moving_share > 0.9
    with pytest.raises(UsageError, match="strength must be above 0"):
        LoopStyle(strength=-1.0)


def test_digest_follows_the_weights(tmp_path: Path) -> None:
    first = networks_digest(write_weights(tmp_path, name="a"), "splat")
    second = networks_digest(write_weights(tmp_path, moving_logit=-5.0, name="b"), "splat")
    assert first != second == networks_digest(str(tmp_path / "b.safetensors"), "splat")


def test_missing_weights_say_the_cure(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no checkpoint at"):
        load_networks(str(tmp_path), "splat")
    # What a checkpoint lacks is completed by the package's own weights.
    assert load_networks(write_weights(tmp_path), "deep").animator is not None
    # The package's animator is for those who ask for it.
    assert load_networks(write_weights(tmp_path), "auto").animator is None
