"""From network predictions to a photo's motion: coherent directions, clean edges, no wobbling houses."""

import math
from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch

from models.guided_filter import guided_filter
from models.hints import Arrow, Hints
from models.motion import (
    MotionDecoding,
    coarse_motion,
    decode_coherently,
    keep_inside,
    network_size,
    predict_motion,
    refine_mask,
)
from models.motion_network import MotionHeads, MotionNetwork, MotionNetworkConfig
from storage.errors import UsageError

CONFIG = MotionNetworkConfig(
    backbone="plain", pretrained=False, plain_width=4, decoder_widths=(8, 8, 8, 8), input_side=128
)


PLAIN = MotionDecoding(scales=(1.0,))


class BlueMoves(MotionNetwork):
    """Says that blue places move down at two pixels per frame of the input size, and nothing else moves."""

    def __init__(self, logit: float = 8.0) -> None:
        super().__init__(CONFIG)
        self.logit = logit

    def forward(self, photo_B3HW, hints_B3HW=None):
        photo = torch.nn.functional.avg_pool2d(photo_B3HW, 4)
        blue = (photo[:, 2:] - photo[:, :1]).clamp(0, 1)
        direction = torch.full((len(photo), 16, *photo.shape[2:]), -9.0)
        direction[:, 4] = 9.0
        return MotionHeads(
            self.logit * (2 * blue - 1) if self.logit > 0 else torch.full_like(blue, self.logit),
            direction,
            torch.zeros_like(direction),
            torch.full_like(blue, math.log(2.0)),
        )


def _photo(height: int = 360, width: int = 640) -> np.ndarray:
    """Red land with a blue fall between the columns 240 and 400 that leaves through the lower edge."""
    photo = np.zeros((height, width, 3), np.uint8)
    photo[..., 0] = 200
    photo[height // 4 :, width * 3 // 8 : width * 5 // 8] = (0, 40, 220)
    return photo


def test_what_is_still_stays_exactly_still_and_what_moves_moves_at_the_photo_size():
    prediction = predict_motion(_photo(), BlueMoves(), decoding=PLAIN)
    still = prediction.moving_HW == 0
    assert not prediction.motion_2HW[:, still].any()
    assert still[:80].all() and still[:, :225].all() and still[:, 415:].all()
    middle = prediction.motion_2HW[:, 250, 320]
    # Two pixels per frame at the network's 64 rows are 11.25 at the photo's 360.
    np.testing.assert_allclose(middle, [0.0, 2.0 * 360 / 64], atol=0.3)
    assert prediction.moving_HW[250, 320] == 1.0
    assert prediction.motion_2HW.dtype == prediction.moving_HW.dtype == np.float32
    assert prediction.confidence > 0.9 and not prediction.nothing_to_animate


def test_the_edge_of_the_moving_part_follows_the_photo():
    moving = predict_motion(_photo(), BlueMoves()).moving_HW[250] > 0
    left, right = np.flatnonzero(moving)[[0, -1]]
    # The heads have 4 pixels of 128 for 640: 20 photo pixels each; the guided filter finds the edge inside.
    assert 240 <= left <= 246 and 393 <= right <= 399


def test_the_edge_is_soft_on_the_moving_side_only():
    moving = predict_motion(_photo(), BlueMoves()).moving_HW
    outside = (_photo()[..., 2] < 100) & (cv2.erode(_photo()[..., 0], np.ones((9, 9))) > 100)
    assert not moving[outside].any()
    assert ((moving > 0) & (moving < 1)).any()


@pytest.mark.parametrize("logit", [-6.0, -1.5])
def test_photos_without_anything_that_moves_are_recognised(logit):
    prediction = predict_motion(_photo(), BlueMoves(logit=logit))
    assert prediction.nothing_to_animate
    assert not prediction.motion_2HW.any() and prediction.confidence < 0.5


def test_the_same_photo_gives_the_same_motion():
    torch.manual_seed(3)
    network = MotionNetwork(CONFIG)
    photo = np.random.default_rng(0).integers(0, 255, (90, 160, 3), dtype=np.uint8)
    first, again = predict_motion(photo, network), predict_motion(photo, network)
    np.testing.assert_array_equal(first.motion_2HW, again.motion_2HW)
    np.testing.assert_array_equal(first.moving_HW, again.moving_HW)


class BlueMovesByWidth(BlueMoves):
    """As fast at any input size: a hundredth of the width per frame."""

    def forward(self, photo_B3HW, hints_B3HW=None):
        heads = super().forward(photo_B3HW, hints_B3HW)
        speed = torch.full_like(heads.log_speed_B1HW, math.log(photo_B3HW.shape[-1] / 100))
        return replace(heads, log_speed_B1HW=speed)


def test_several_looks_at_a_photo_agree_on_speed_direction_and_place():
    once = coarse_motion(_photo(), BlueMovesByWidth(), decoding=PLAIN)
    thrice = coarse_motion(_photo(), BlueMovesByWidth(), decoding=MotionDecoding(scales=(1.0, 0.75, 0.5)))
    assert thrice.moving_hw.shape == once.moving_hw.shape
    surely = once.moving_hw > 0.9
    assert surely.any()
    np.testing.assert_allclose(thrice.motion_2hw[:, surely], once.motion_2hw[:, surely], rtol=0.02, atol=1e-3)
    assert (np.abs(thrice.moving_hw - once.moving_hw) < 0.1).mean() > 0.8


def test_arrows_steer_an_untrained_network():
    torch.manual_seed(0)
    arrow = Arrow(start=(0.2, 0.5), end=(0.8, 0.5), seconds=2.0)
    coarse = coarse_motion(_photo(), MotionNetwork(CONFIG), hints=Hints(arrows=(arrow,)))
    direction = coarse.motion_2hw / np.linalg.norm(coarse.motion_2hw, axis=0)
    assert (direction[0] > 0.9).all()


def _heads(probability_bins: dict[int, np.ndarray], moving: np.ndarray) -> MotionHeads:
    bins = torch.full((1, 16, *moving.shape), 1e-4)
    for number, plane in probability_bins.items():
        bins[0, number] = torch.from_numpy(plane)
    return MotionHeads(
        torch.logit(torch.from_numpy(moving)[None, None].float(), eps=1e-4),
        bins.log(),
        torch.zeros_like(bins),
        torch.zeros(1, 1, *moving.shape),
    )


def test_a_region_settles_on_one_of_two_directions():
    """Left and right are nearly as likely, and noise decides per pixel; the region decides once."""
    rng = np.random.default_rng(0)
    right = 0.6 + 0.2 * rng.standard_normal((40, 60)).astype(np.float32).clip(-2, 2)
    heads = _heads({0: right.clip(0.01, 0.99), 8: (1 - right).clip(0.01, 0.99)}, np.ones((40, 60)))
    coarse = decode_coherently(heads, MotionDecoding(unity=0.0, leaning=0.0))
    assert (coarse.motion_2hw[0] > 0).mean() > 0.99


def _two_ponds(left_one: float, right_one: float) -> MotionHeads:
    """The probability of moving right in the two halves of a picture; otherwise left."""
    right = np.repeat([[left_one, right_one]], 30, axis=1).repeat(40, axis=0).astype(np.float32)
    return _heads({0: right, 8: 1 - right}, np.ones((40, 60)))


def test_the_whole_picture_tips_the_balance_of_a_region():
    decoding = MotionDecoding(leaning=0.0)
    drifting = decode_coherently(_two_ponds(0.75, 0.45), decoding).motion_2hw[0]
    assert (drifting > 0).all()
    sure = decode_coherently(_two_ponds(0.75, 0.05), decoding).motion_2hw[0]
    assert (sure[:, :25] > 0).all() and (sure[:, -25:] < 0).all(), "what is sure keeps its own direction"


def test_photos_that_do_not_tell_left_from_right_drift_alike():
    for chance in (0.48, 0.52):
        drifting = decode_coherently(_two_ponds(chance, chance), MotionDecoding()).motion_2hw[0]
        assert (drifting < 0).all()
    assert (decode_coherently(_two_ponds(0.9, 0.9), MotionDecoding()).motion_2hw[0] > 0).all()


def test_unsure_directions_spend_less_speed():
    even = np.full((20, 20), 0.5, np.float32)
    unsure = decode_coherently(_heads({0: even, 8: even}, np.ones((20, 20))), MotionDecoding())
    sure = decode_coherently(_heads({0: even}, np.ones((20, 20))), MotionDecoding())
    ratio = np.linalg.norm(unsure.motion_2hw, axis=0).mean() / np.linalg.norm(sure.motion_2hw, axis=0).mean()
    assert ratio == pytest.approx(MotionDecoding().least_speed, abs=0.05)


def test_motion_does_not_push_through_the_boundary():
    moving = np.zeros((100, 100), np.float32)
    moving[20:80, 20:80] = 1.0
    motion = np.zeros((2, 100, 100), np.float32)
    motion[0], motion[1] = 3.0, 1.0  # to the right and a little down
    kept = keep_inside(motion, moving, reach=10.0)
    assert kept[0, 50, 79] < 0.6  # no push through the right side,
    assert kept[1, 50, 79] == pytest.approx(1.0, abs=0.1)  # but along it;
    assert kept[0, 50, 20] == pytest.approx(3.0, abs=0.1)  # away from the left side as before,
    np.testing.assert_array_equal(kept[:, 50, 50], [3.0, 1.0])  # and so in the middle.


def test_things_may_leave_through_the_edge_of_the_picture():
    moving = np.zeros((100, 100), np.float32)
    moving[:, 50:] = 1.0
    motion = np.zeros((2, 100, 100), np.float32)
    motion[0] = 3.0
    np.testing.assert_array_equal(keep_inside(motion, moving, reach=10.0)[:, :, 97:], motion[:, :, 97:])


def test_specks_do_not_move():
    coarse = np.zeros((90, 160), np.float32)
    coarse[40:80, 20:120] = 1.0
    coarse[5:7, 5:7] = 1.0
    coarse[60, 70] = 0.0
    moving = refine_mask(np.full((360, 640, 3), 128, np.uint8), coarse, MotionDecoding())
    assert not moving[:100, :60].any()
    assert moving[240, 282] == 1.0


def test_guided_filter_moves_a_coarse_edge_to_the_photo_edge():
    guide = np.zeros((96, 128, 3), np.uint8)
    guide[:, 66:] = 255
    coarse = np.zeros((12, 16), np.float32)
    coarse[:, 8:] = 1.0  # an edge at 64, blurred over eight pixels; the photo's is at 66
    sharp = guided_filter(guide, coarse, radius=12, epsilon=1e-3)
    assert sharp[48, 65] < 0.5 < sharp[48, 66]
    assert sharp[48, 66] - sharp[48, 65] > 0.5
    flat = guided_filter(
        np.full((96, 128, 3), 90, np.uint8), np.full((12, 16), 0.3, np.float32), radius=8, epsilon=1e-3
    )
    np.testing.assert_allclose(flat, 0.3, atol=1e-4)


@pytest.mark.parametrize(
    ("photo", "side", "expected"),
    [((720, 1280), 320, (192, 320)), ((1280, 720), 320, (320, 192)), ((50, 4000), 320, (32, 320))],
)
def test_network_sizes_keep_the_shape_in_steps_of_32(photo, side, expected):
    assert network_size(photo, side) == expected


def test_odd_and_tiny_photos_work():
    for size in ((37, 53), (1, 1), (16, 400)):
        prediction = predict_motion(np.zeros((*size, 3), np.uint8), BlueMoves())
        assert prediction.motion_2HW.shape == (2, *size) and prediction.moving_HW.shape == size


def test_other_arrays_are_refused():
    with pytest.raises(UsageError, match=r"\(H, W, 3\) uint8"):
        predict_motion(np.zeros((10, 10, 3), np.float32), BlueMoves())
    with pytest.raises(UsageError, match="guide"):
        guided_filter(np.zeros((10, 10), np.uint8), np.zeros((5, 5), np.float32), radius=2, epsilon=1e-3)


def test_impossible_decodings_are_refused():
    for values in ({"threshold": 1.5}, {"least_speed": 3.0}, {"erosion": -0.1}, {"leaning": 1.0}):
        with pytest.raises(UsageError):
            MotionDecoding(**values)
