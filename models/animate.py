"""One photo comes to life: motion → hints → frames. A pure function of the photo, the weights and the style.

Legend: H, W rows and columns of the photo; 2 is (dx, dy) in pixels per frame, x right, y down; 3 is RGB.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray

from models.animator import Animator
from models.checkpoint import find_checkpoint, load_animator, load_motion_network, read_header
from models.hint_motion import apply_hints
from models.hints import MOTION_FPS, Hints
from models.motion import MotionDecoding, coarse_motion, keep_inside, predict_motion
from models.motion_network import MotionNetwork
from models.renderer import LoopConfig, render_loop
from models.warp import resize_motion
from storage.digest import digest_json
from storage.errors import RejectedError, UsageError
from storage.objects import digest_object
from storage.reasons import Reason

__all__ = ["LivingPhoto", "LoopStyle", "Networks", "animate_photo", "load_networks", "networks_digest"]

Floats = NDArray[np.float32]
Bytes = NDArray[np.uint8]

# The deep renderer costs a CPU about a second per megapixel and frame: beyond this, auto takes the plain one.
DEEP_PIXELS_ON_CPU = 1_000_000
LEAST_SPEED = 0.03  # pixels per frame at 30 frames per second; slower than this nothing is seen to move
LEAST_SHARE = 2e-4
BOUNDARY_REACH = 0.02  # share of the longer side within which motion is turned along the moving area's edge
ONE_DIRECTION = 0.55  # |mean v| / mean |v| above which the motion has one direction


@dataclass(frozen=True, kw_only=True, slots=True)
class LoopStyle:
    """A loop's look: frames at fps, speed as a factor, strength (how readily things move), renderer."""

    frames: int = 60
    fps: float = 30.0
    speed: float = 1.0
    strength: float = 1.0
    renderer: str = "auto"

    def __post_init__(self) -> None:
        for name in ("fps", "speed", "strength"):
            if not (math.isfinite(getattr(self, name)) and getattr(self, name) > 0):
                raise UsageError(f"{name} must be above 0, got {getattr(self, name)}")


@dataclass(frozen=True, slots=True, eq=False)
class Networks:
    """The loaded networks; no animator means the plain colour renderer."""

    motion: MotionNetwork
    animator: Animator | None


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class LivingPhoto:
    """A photo's loop and what is known about it.

    frames: (H, W, 3) uint8, rendered as they are asked for; motion_2HW: pixels per output frame, speed
    included, 0 where still; moving_HW: 0 still … 1; confidence: 0…1; mean_speed: of what moves, pixels per
    output frame; category: falling, rising, drifting left, drifting right or mixed.
    """

    frames: Iterator[Bytes]
    motion_2HW: Floats
    moving_HW: Floats
    confidence: float
    moving_share: float
    mean_speed: float
    category: str
    renderer: str


def networks_digest(checkpoint: str | None, renderer: str) -> str:
    """One digest for the weights that `load_networks` would load; a part of every result's identity."""
    motion, animator = _places(checkpoint, renderer)
    return digest_json(
        {"motion": digest_object(motion), "animator": digest_object(animator) if animator else None}
    )


@lru_cache(maxsize=1)
def load_networks(checkpoint: str | None, renderer: str) -> Networks:
    """Load what a renderer needs, once per process, on the GPU when there is one. Raises UsageError."""
    motion, animator = _places(checkpoint, renderer)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    network = load_motion_network(motion).to(device).to(memory_format=torch.channels_last)
    return Networks(network, load_animator(animator).to(device) if animator else None)


def _places(checkpoint: str | None, renderer: str) -> tuple[str, str | None]:
    """Where the weights are: those of the checkpoint, completed by the package's own."""
    motion = _find(checkpoint, "motion")
    if motion is None:
        raise UsageError(
            "no weights for the motion network; train them (stillstream train motion …) "
            "and name them by --checkpoint"
        )
    animator = None if renderer == "splat" else _find(checkpoint, "animator")
    if renderer == "auto" and animator is not None and _is_packaged(animator):
        animator = None  # the package's own is nearer to real frames, but softer to look at
    if renderer == "deep" and animator is None:
        raise UsageError(
            "no weights for the deep renderer; train them (stillstream train animator …) "
            "or use --renderer splat"
        )
    return motion, animator


def _is_packaged(animator: str) -> bool:
    """Whether these are the package's own weights, wherever they lie: a registry keeps copies of them."""
    packaged = find_checkpoint(None, "animator")
    return packaged is not None and (
        animator == packaged or digest_object(animator) == digest_object(packaged)
    )


def _find(checkpoint: str | None, kind: str) -> str | None:
    assert kind in ("motion", "animator")
    place = find_checkpoint(checkpoint, "motion" if kind == "motion" else "animator")
    if place is not None and read_header(place)["kind"] != kind:
        place = None  # one file holds one kind
    if place is None and checkpoint is not None:
        return _find(None, kind)
    return place


def animate_photo(
    photo_HW3: Bytes, networks: Networks, style: LoopStyle, *, hints: Hints | None = None, threads: int = 1
) -> LivingPhoto:
    """Bring a photo to life. Raises RejectedError (nothing_to_animate) when nothing would be seen to move."""
    usual = MotionDecoding()
    decoding = MotionDecoding(
        threshold=usual.threshold**style.strength,
        certain=usual.certain**style.strength,
        least_confidence=min(usual.least_confidence / math.sqrt(style.strength), 0.95),
    )
    if hints is None:
        prediction = predict_motion(photo_HW3, networks.motion, decoding=decoding)
        motion, moving, confidence = prediction.motion_2HW, prediction.moving_HW, prediction.confidence
        if prediction.nothing_to_animate:
            raise _nothing(f"nothing is seen to move (confidence {confidence:.2f})")
    else:
        motion, moving, confidence = _hinted_motion(photo_HW3, networks.motion, hints, decoding)
    if style.fps != MOTION_FPS or style.speed != 1.0:
        motion = motion * np.float32(MOTION_FPS / style.fps * style.speed)
    share, speed = _amount(motion, moving)
    if share < LEAST_SHARE or speed * style.fps < LEAST_SPEED * MOTION_FPS:
        raise _nothing("what could move is too small or too slow to be seen")
    use_deep = _deep_is_affordable(photo_HW3, networks, style.renderer)
    config = LoopConfig(frames=style.frames, fps=style.fps, threads=threads)
    frames = render_loop(photo_HW3, motion, moving, config, networks.animator if use_deep else None)
    return LivingPhoto(
        frames=frames,
        motion_2HW=motion,
        moving_HW=moving,
        confidence=confidence,
        moving_share=share,
        mean_speed=speed,
        category=_category(motion, moving),
        renderer="deep" if use_deep else "splat",
    )


def _hinted_motion(
    photo_HW3: Bytes, network: MotionNetwork, hints: Hints, decoding: MotionDecoding
) -> tuple[Floats, Floats, float]:
    """Motion and moving area with a person's word over the network's."""
    size = photo_HW3.shape[0], photo_HW3.shape[1]
    if hints.says_where:
        # The network's own area does not count here, so its motion must not be cut to it.
        coarse = coarse_motion(photo_HW3, network, hints=hints, decoding=decoding)
        motion, moving = resize_motion(coarse.motion_2hw, size), np.ones(size, np.float32)
        confidence = float((coarse.moving_hw * coarse.certainty_hw).mean())
    else:
        prediction = predict_motion(photo_HW3, network, hints=hints, decoding=decoding)
        motion, moving, confidence = prediction.motion_2HW, prediction.moving_HW, prediction.confidence
        if prediction.nothing_to_animate and not hints.arrows:
            raise _nothing("nothing is seen to move; draw an arrow or a moving area")
    motion, moving = apply_hints(motion, moving, hints, confidence=confidence)
    motion = keep_inside(motion, moving, reach=max(BOUNDARY_REACH * max(size), 2.0))
    motion *= moving > 0
    return motion, moving, confidence


def _nothing(message: str) -> RejectedError:
    return RejectedError(message, reason=Reason.NOTHING_TO_ANIMATE)


def _deep_is_affordable(photo_HW3: Bytes, networks: Networks, renderer: str) -> bool:
    if networks.animator is None or renderer == "splat":
        return False
    on_gpu = next(networks.animator.parameters()).device.type != "cpu"
    return renderer == "deep" or on_gpu or photo_HW3.shape[0] * photo_HW3.shape[1] <= DEEP_PIXELS_ON_CPU


def _amount(motion_2HW: Floats, moving_HW: Floats) -> tuple[float, float]:
    """Share of the photo that moves, and its mean speed."""
    moving = moving_HW > 0
    if not moving.any():
        return 0.0, 0.0
    return float(moving.mean()), float(np.hypot(motion_2HW[0][moving], motion_2HW[1][moving]).mean())


def _category(motion_2HW: Floats, moving_HW: Floats) -> str:
    """One word for where the motion goes, for people who look for all waterfalls."""
    step = max(1, max(moving_HW.shape) // 1024)
    motion_2HW, moving_HW = motion_2HW[:, ::step, ::step], moving_HW[::step, ::step]
    dx, dy = (float((plane * moving_HW).sum()) for plane in motion_2HW)
    total = float((np.hypot(motion_2HW[0], motion_2HW[1]) * moving_HW).sum())
    if math.hypot(dx, dy) < ONE_DIRECTION * total:
        return "mixed"
    if abs(dy) > abs(dx):
        return "falling" if dy > 0 else "rising"
    return "drifting right" if dx > 0 else "drifting left"
