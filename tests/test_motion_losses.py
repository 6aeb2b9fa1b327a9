"""Losses of the motion network: least where predictions are right, and learning brings them down."""

import math

import pytest
import torch

from models.motion_losses import MotionLossConfig, motion_losses, motion_training_step
from models.motion_network import MotionHeads, MotionNetwork, MotionNetworkConfig, bin_angles, decode_motion
from storage.errors import UsageError

BINS = 16


def _batch(dx: float, dy: float, *, batch: int = 1, size: int = 64) -> dict[str, torch.Tensor]:
    """The left half moves with (dx, dy) px/frame, the right half is still."""
    motion = torch.zeros(batch, 2, size, size)
    moving = torch.zeros(batch, 1, size, size)
    moving[..., : size // 2] = 1.0
    motion[:, 0], motion[:, 1] = dx, dy
    return {
        "photo_B3HW": torch.rand(batch, 3, size, size, generator=torch.Generator().manual_seed(0)),
        "motion_B2HW": motion * moving,
        "moving_B1HW": moving,
        "confidence_B1HW": torch.ones(batch, 1, size, size),
    }


def _perfect(batch: dict[str, torch.Tensor]) -> MotionHeads:
    """Heads that say exactly what the batch says."""
    moving = batch["moving_B1HW"][..., ::4, ::4]
    motion = batch["motion_B2HW"][..., ::4, ::4]
    angle = torch.atan2(motion[:, 1:], motion[:, :1])
    distance = 1 - torch.cos(bin_angles(BINS).view(1, -1, 1, 1) - angle)
    residual = torch.remainder(angle - bin_angles(BINS).view(1, -1, 1, 1) + math.pi, 2 * math.pi) - math.pi
    speed = motion.norm(dim=1, keepdim=True)
    return MotionHeads(
        moving * 16 - 8, -distance * 200, residual * (residual.abs() < 0.5), speed.clamp(min=1e-3).log()
    )


def test_right_predictions_cost_little():
    batch = _batch(1.2, -0.7)
    parts = motion_losses(_perfect(batch), batch, MotionLossConfig(smear_bins=0.3))
    for name in ("moving", "dice", "angle", "speed", "still", "endpoint"):
        assert parts[name] < 0.05, name
    assert parts["direction"] < 0.25 * math.log(BINS) + 0.1


@pytest.mark.parametrize(
    ("part", "change"),
    [
        ("moving", lambda h: MotionHeads(-h.moving_logit_B1HW, *_rest(h))),
        ("dice", lambda h: MotionHeads(-h.moving_logit_B1HW, *_rest(h))),
        (
            "direction",
            lambda h: MotionHeads(
                h.moving_logit_B1HW,
                h.direction_logits_BKHW.roll(8, 1),
                h.direction_residual_BKHW,
                h.log_speed_B1HW,
            ),
        ),
        (
            "angle",
            lambda h: MotionHeads(
                h.moving_logit_B1HW,
                h.direction_logits_BKHW,
                h.direction_residual_BKHW + 1.0,
                h.log_speed_B1HW,
            ),
        ),
        (
            "speed",
            lambda h: MotionHeads(
                h.moving_logit_B1HW,
                h.direction_logits_BKHW,
                h.direction_residual_BKHW,
                h.log_speed_B1HW + 1.0,
            ),
        ),
        (
            "still",
            lambda h: MotionHeads(
                h.moving_logit_B1HW,
                h.direction_logits_BKHW,
                h.direction_residual_BKHW,
                h.log_speed_B1HW.clamp(min=0.0),
            ),
        ),
        (
            "endpoint",
            lambda h: MotionHeads(
                h.moving_logit_B1HW,
                h.direction_logits_BKHW.roll(8, 1),
                h.direction_residual_BKHW,
                h.log_speed_B1HW,
            ),
        ),
    ],
)
def test_wrong_predictions_cost_more(part, change):
    batch = _batch(1.2, -0.7)
    right = _perfect(batch)
    config = MotionLossConfig()
    assert motion_losses(change(right), batch, config)[part] > motion_losses(right, batch, config)[part] + 0.1


def _rest(heads: MotionHeads) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    return heads.direction_logits_BKHW, heads.direction_residual_BKHW, heads.log_speed_B1HW


def test_directions_without_confidence_do_not_count():
    batch = _batch(1.2, -0.7)
    batch["confidence_B1HW"] = torch.zeros_like(batch["confidence_B1HW"])
    parts = motion_losses(_perfect(_batch(-1.2, 0.7)), batch, MotionLossConfig())
    assert parts["direction"] == parts["angle"] == parts["speed"] == 0


def test_a_still_picture_has_finite_losses_and_slopes():
    batch = _batch(0.0, 0.0)
    batch["moving_B1HW"] = torch.zeros_like(batch["moving_B1HW"])
    network = MotionNetwork(
        MotionNetworkConfig(backbone="plain", pretrained=False, plain_width=4, decoder_widths=(8, 8, 8, 8))
    )
    losses = motion_training_step(network, batch)
    losses["loss"].backward()
    assert all(torch.isfinite(loss) for loss in losses.values())
    assert all(torch.isfinite(p.grad).all() for p in network.parameters() if p.grad is not None)


def test_the_sum_weighs_its_parts():
    batch = _batch(1.0, 0.0)
    names = ("moving", "dice", "direction", "angle", "speed", "still", "smooth", "endpoint")
    only_speed = MotionLossConfig(**({name: 0.0 for name in names} | {"speed": 2.0}))
    parts = motion_losses(_perfect(_batch(3.0, 0.0)), batch, only_speed)
    torch.testing.assert_close(parts["loss"], 2 * parts["speed"])


def test_a_few_steps_teach_direction_and_place():
    torch.manual_seed(0)
    network = MotionNetwork(
        MotionNetworkConfig(
            backbone="plain", pretrained=False, plain_width=8, decoder_widths=(24, 16, 16, 16), dropout=0.0
        )
    )
    batch = _batch(0.8, 1.1, batch=2)
    batch["photo_B3HW"][..., :32] *= 0.3  # the moving half is the dark one
    optimiser = torch.optim.Adam(network.parameters(), 5e-3)
    for _ in range(80):
        losses = motion_training_step(network, batch)
        optimiser.zero_grad()
        losses["loss"].backward()
        optimiser.step()
    with torch.no_grad():
        heads = network.eval()(batch["photo_B3HW"])
    motion = decode_motion(heads)[0, :, 8, 3]
    assert math.degrees(abs(math.atan2(motion[1], motion[0]) - math.atan2(1.1, 0.8))) < 10
    assert motion.norm().item() == pytest.approx(math.hypot(0.8, 1.1), rel=0.25)
    moving = heads.moving_logit_B1HW[0, 0].sigmoid()
    assert moving[:, :6].mean() > 0.8 and moving[:, 10:].mean() < 0.2


def test_negative_weights_are_refused():
    with pytest.raises(UsageError, match="loss weight angle"):
        MotionLossConfig(angle=-1.0)
