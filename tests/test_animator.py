import cv2
import numpy as np
import pytest
import torch

from models.animator import Animator, AnimatorConfig
from models.euler import displacement_after
from models.image_losses import (
    ImageLossConfig,
    PatchDiscriminator,
    animator_training_step,
    discriminator_loss,
    multi_scale_distance,
    structure_distance,
    texture_distance,
    vgg_weights_path,
)
from models.metrics import loop_quality
from models.renderer import LoopConfig, render_loop
from storage.errors import UsageError


def texture(height: int, width: int, seed: int = 0) -> np.ndarray:
    noise = np.random.default_rng(seed).random((height, width, 3), np.float32)
    smooth = cv2.GaussianBlur(noise, (0, 0), 2.0)
    return np.uint8(np.clip(128 + (smooth - smooth.mean()) / smooth.std() * 40, 0, 255))


def lively(config: AnimatorConfig | None = None, seed: int = 0) -> Animator:
    """An animator whose last layer is not zero, as if it had been trained."""
    torch.manual_seed(seed)
    animator = Animator(config or AnimatorConfig(features=4, width=8, blocks=1))
    torch.nn.init.normal_(animator.decoder.last.weight, std=0.05)
    return animator.eval()


def scene(height: int = 96, width: int = 128):
    y, x = np.mgrid[:height, :width].astype(np.float32)
    motion = np.stack([1.0 + 0.2 * np.sin(y / 17), 0.4 * np.cos(x / 23)]).astype(np.float32)
    moving = np.zeros((height, width), np.float32)
    moving[20:-14, 10:-30] = 1
    return texture(height, width), motion, moving


def as_batch(frame: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(frame).permute(2, 0, 1)[None].float() / 255


def test_sizes():
    sizes = {
        name: sum(p.numel() for p in Animator.from_config(name).parameters()) for name in ("small", "paper")
    }
    assert sizes["small"] <= 500_000 < sizes["paper"]
    assert Animator.from_config("paper").config.features == 64
    assert Animator.from_config({"width": 8}).config.width == 8
    assert Animator.from_config(Animator().config_dict()).config == Animator().config


@pytest.mark.parametrize("values", [{"stride": 3}, {"features": 0}, {"blocks": 0}])
def test_bad_configurations_are_refused(values):
    with pytest.raises(UsageError, match=next(iter(values))):
        AnimatorConfig(**values)
    with pytest.raises(UsageError, match="small"):
        Animator.from_config("huge")


@pytest.mark.parametrize("stride", [1, 2])
def test_untrained_it_is_the_colour_splat(stride):
    photo, motion, moving = scene(61, 83)
    config = LoopConfig(frames=5, contrast=False)
    torch.manual_seed(0)
    animator = Animator(AnimatorConfig(stride=stride, features=4, width=8, blocks=1))
    deep, plain = (list(render_loop(photo, motion, moving, config, each)) for each in (animator, None))
    assert all(np.array_equal(one, other) for one, other in zip(deep, plain, strict=True))


@pytest.mark.parametrize("stride", [1, 2])
def test_the_renderer_draws_what_training_saw(stride):
    """The compiled, banded, cropped path against the module's forward, away from the padded border."""
    photo, motion, _ = scene(96, 128)
    animator = lively(AnimatorConfig(stride=stride, features=4, width=8, blocks=1))
    config = LoopConfig(frames=8, padding=0, max_displacement=2, contrast=False)
    frames = list(render_loop(photo, motion, np.ones((96, 128), np.float32), config, animator))
    forward, backward = (torch.from_numpy(displacement_after(motion, steps))[None] for steps in (3, -5))
    with torch.inference_mode():
        expected = animator(
            as_batch(photo),
            as_batch(photo),
            (forward, backward),
            torch.tensor([3 / 8]),
            torch.ones(1, 1, 96, 128),
        )
    difference = np.abs(expected[0].permute(1, 2, 0).numpy() * 255 - frames[3])
    assert difference[16:-16, 16:-16].max() <= 0.51
    plain = list(render_loop(photo, motion, np.ones((96, 128), np.float32), config))
    assert np.abs(frames[3].astype(int) - plain[3]).mean() > 2, "the correction must do something"


def test_still_pixels_the_first_frame_and_the_seam_hold():
    photo, motion, moving = scene()
    frames = list(render_loop(photo, motion, moving, LoopConfig(frames=10), lively()))
    assert np.array_equal(frames[0], photo)
    quality = loop_quality(frames, moving)
    assert quality.still_largest == 0
    assert quality.seam_step <= quality.largest_step
    assert quality.vividness > 3


def test_threads_and_bands_change_nothing(monkeypatch):
    import models.deep_correction as deep_correction
    import models.frame_painter as frame_painter

    photo, motion, moving = scene(200, 96)
    animator = lively()

    def loop(threads: int) -> list[np.ndarray]:
        return list(render_loop(photo, motion, moving, LoopConfig(frames=4, threads=threads), animator))

    first = loop(1)
    assert all(np.array_equal(one, other) for one, other in zip(first, loop(3), strict=True))
    monkeypatch.setattr(frame_painter, "BAND_PIXELS", 1)
    monkeypatch.setattr(deep_correction, "ENCODER_PIXELS", 1)
    monkeypatch.setattr(deep_correction, "LONGEST_RUN", 1)
    banded = loop(1)
    assert max(int(cv2.absdiff(one, other).max()) for one, other in zip(first, banded, strict=True)) <= 1


def training_batch(size: int = 2, height: int = 24, width: int = 48):
    """A texture that moves two pixels a frame, as three frames of a clip."""
    wide = torch.stack([as_batch(texture(height, width + 60, seed))[0] for seed in range(size)])
    frames = [wide[..., 40 - 2 * t : 40 - 2 * t + width].contiguous() for t in (0, 4, 10)]
    motion = torch.zeros(size, 2, height, width)
    motion[:, 0] = 2.0
    times = [torch.full((size,), float(t)) for t in (0, 4, 10)]
    return (*frames, motion, torch.ones(size, 1, height, width), *times)


def test_the_training_step_renders_the_middle_frame():
    batch = training_batch()
    prediction, losses = animator_training_step(
        Animator(AnimatorConfig(features=4, width=8, blocks=1)), *batch
    )
    assert prediction.shape == batch[1].shape
    # Whole-pixel motion, so that the splat is exact but for what comes from beyond the border.
    inner = (prediction - batch[1])[..., 16:-16].abs().max()
    assert float(inner.detach()) < 1e-4
    for name in ("loss", "l1", "perceptual"):
        assert losses[name].ndim == 0 and float(losses[name].detach()) >= -1e-6
    total = losses["l1"] + ImageLossConfig().perceptual * losses["perceptual"]
    assert float(losses["loss"].detach()) == pytest.approx(float(total.detach()))


def test_training_lowers_the_loss():
    torch.manual_seed(0)
    animator = Animator(AnimatorConfig(features=4, width=8, blocks=1))
    batch = list(training_batch())
    batch[1] = (batch[1] * 0.8).contiguous()  # something that a correction can learn
    optimizer = torch.optim.Adam(animator.parameters(), 3e-3)
    values = []
    for _ in range(30):
        _, losses = animator_training_step(animator, *batch, ImageLossConfig(distance="gradient"))
        optimizer.zero_grad()
        losses["loss"].backward()
        optimizer.step()
        values.append(float(losses["loss"].detach()))
    assert values[-1] < 0.6 * values[0]
    for name, parameter in animator.named_parameters():
        assert parameter.grad is not None and float(parameter.grad.abs().sum()) > 0, name


def test_only_the_moving_region_counts():
    batch = list(training_batch())
    moving = torch.zeros_like(batch[4])
    moving[..., :16] = 1
    batch[4] = moving
    animator = lively()
    _, losses = animator_training_step(animator, *batch)
    batch[1] = batch[1].clone()
    batch[1][..., 24:] = 0
    _, spoiled = animator_training_step(animator, *batch)
    assert float(losses["l1"].detach()) == pytest.approx(float(spoiled["l1"].detach()))


def test_distances_of_equal_pictures_are_zero_and_blur_costs():
    image = as_batch(texture(40, 40))
    moving = torch.ones(1, 1, 40, 40)
    blurred = as_batch(cv2.GaussianBlur(texture(40, 40), (0, 0), 2.0))
    for distance in (multi_scale_distance, structure_distance, texture_distance):
        assert float(distance(image, image, moving)) == pytest.approx(0, abs=1e-5)
        assert float(distance(blurred, image, moving)) > 0.01


def test_the_discriminator_learns_to_tell_textures_from_blur():
    torch.manual_seed(0)
    judge = PatchDiscriminator(width=8)
    real = torch.stack([as_batch(texture(32, 32, seed))[0] for seed in range(4)])
    fake = torch.nn.functional.avg_pool2d(real, 5, stride=1, padding=2)
    optimizer = torch.optim.Adam(judge.parameters(), 5e-3)
    before = float(discriminator_loss(judge, real, fake).detach())
    for _ in range(25):
        optimizer.zero_grad()
        discriminator_loss(judge, real, fake).backward()
        optimizer.step()
    assert float(discriminator_loss(judge, real, fake).detach()) < 0.8 * before


def test_the_adversarial_term_joins_when_asked_for():
    batch = training_batch()
    animator = lively()
    config = ImageLossConfig(adversarial=0.1)
    _, losses = animator_training_step(animator, *batch, config, PatchDiscriminator(width=8))
    rest = losses["l1"] + config.perceptual * losses["perceptual"]
    assert float(losses["loss"].detach()) == pytest.approx(
        float((rest + 0.1 * losses["adversarial"]).detach()), rel=1e-5
    )


@pytest.mark.skipif(vgg_weights_path() is not None, reason="VGG weights are there")
def test_asking_for_vgg_without_its_weights_says_what_to_do():
    with pytest.raises(UsageError, match="vgg16"):
        animator_training_step(lively(), *training_batch(), ImageLossConfig(distance="vgg"))


@pytest.mark.parametrize("values", [{"distance": "lpips"}, {"l1": -1.0}])
def test_bad_loss_configurations_are_refused(values):
    with pytest.raises(UsageError, match=next(iter(values))):
        ImageLossConfig(**values)
