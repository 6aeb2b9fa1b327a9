"""From a photo to its motion: run the network, agree on directions, refine to the photo's edges.

    photo → network size, as it is and mirrored → heads → coherent directions → speeds
          → moving mask refined by a guided filter, eroded, softened inside
          → motion smoothed inside the mask, turned along its boundary, zero outside

Dimension letters: H and W rows and columns of the photo, h and w those of the heads, K direction bins,
B batch, 2 = (dx, dy) in px/frame at 30 fps, y down, 3 = RGB.
"""

import math
from dataclasses import dataclass, fields, replace
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from models.guided_filter import guided_filter
from models.hints import Hints, arrow_samples, hint_channels
from models.motion_network import HEAD_STRIDE, INPUT_MULTIPLE, MotionHeads, MotionNetwork, bin_angles
from models.warp import resize_motion
from storage.errors import UsageError

__all__ = [
    "CoarseMotion",
    "MotionDecoding",
    "MotionPrediction",
    "coarse_motion",
    "decode_coherently",
    "keep_inside",
    "network_size",
    "predict_motion",
    "refine_mask",
]

Float = NDArray[np.float32]
STRIP_ROWS = 512


@dataclass(frozen=True, kw_only=True, slots=True)
class MotionDecoding:
    """How predictions become motion. Lengths are shares of the photo's longer side.

    `scales`: sizes the network looks at the photo in, as shares of its input size; what it sees is averaged.
    `region`: reach over which directions are agreed. `unity`: weight of the whole picture's choice there, an
    exponent. `leaning`: how far left is preferred, 0…1, where a photo does not tell it from right.
    `least_speed`: share of the predicted speed that is kept where the direction is wholly unsure.
    `threshold`: probability above which a place moves, if it hangs together with one above `certain`: trained
    on few scenes, the network is too sure of stillness. `erosion` and `softness`: rim taken off the moving
    mask, and width of the soft edge inside. Below `smallest_share` and `least_confidence` there is nothing to
    animate. Scales, leaning, speeds and thresholds were chosen on validation clips.
    """

    scales: tuple[float, ...] = (1.0, 0.8, 0.6)
    region: float = 0.12
    unity: float = 1.0
    leaning: float = 0.2
    least_speed: float = 0.3
    threshold: float = 0.05
    certain: float = 0.3
    guide_radius: int = 8
    guide_epsilon: float = 2e-3
    erosion: float = 0.002
    softness: float = 0.006
    smallest_share: float = 0.004
    least_confidence: float = 0.2

    def __post_init__(self) -> None:
        for name in ("threshold", "certain"):
            if not 0.0 < getattr(self, name) < 1.0:
                raise UsageError(f"{name} must be a probability between 0 and 1, got {getattr(self, name)}")
        if not self.scales or not all(0.1 <= scale <= 4.0 for scale in self.scales):
            raise UsageError(f"scales must be one or more factors between 0.1 and 4, got {self.scales}")
        if not 0.0 <= self.least_speed <= 1.0:
            raise UsageError(f"least_speed must be a share between 0 and 1, got {self.least_speed}")
        if not 0.0 <= self.leaning < 1.0:
            raise UsageError(f"leaning must be at least 0 and below 1, got {self.leaning}")
        if min(self.region, self.unity, self.erosion, self.softness) < 0:
            raise UsageError("region, unity, erosion and softness must not be negative")


@dataclass(frozen=True, slots=True, eq=False)
class MotionPrediction:
    """Motion of one photo.

    motion_2HW: float32 px/frame at the photo's size and 30 fps, exactly 0 where moving_HW is 0.
    moving_HW: float32, 0 outside, soft towards the edge inside, 1 within. confidence: 0…1, how sure the
    network is that the moving part moves. nothing_to_animate: nothing found that is worth a loop.
    """

    motion_2HW: Float
    moving_HW: Float
    confidence: float
    nothing_to_animate: bool


@dataclass(frozen=True, slots=True, eq=False)
class CoarseMotion:
    """Decoded predictions at the heads' size; motion_2hw in px/frame at that size, not yet masked.

    moving_hw: probability. certainty_hw: expected cosine of the direction's error, 0…1.
    """

    motion_2hw: Float
    moving_hw: Float
    certainty_hw: Float


def predict_motion(
    photo_HW3: NDArray[np.uint8],
    network: MotionNetwork,
    *,
    hints: Hints | None = None,
    decoding: MotionDecoding | None = None,
) -> MotionPrediction:
    """Predict how a photo moves. Arrows of `hints` steer the network; their masks are not applied here.

    Raises UsageError when the photo is not (H, W, 3) uint8.
    """
    if photo_HW3.ndim != 3 or photo_HW3.shape[2] != 3 or photo_HW3.dtype != np.uint8:
        raise UsageError(f"photo must be (H, W, 3) uint8, got {photo_HW3.shape} {photo_HW3.dtype}")
    decoding = decoding or MotionDecoding()
    coarse = coarse_motion(photo_HW3, network, hints=hints, decoding=decoding)
    moving_HW = refine_mask(photo_HW3, coarse.moving_hw, decoding)
    motion_2HW = resize_motion(_smooth_inside(coarse), photo_HW3.shape[:2])
    motion_2HW = keep_inside(motion_2HW, moving_HW, reach=_pixels(0.02, photo_HW3))
    motion_2HW *= moving_HW > 0
    confidence = _confidence(coarse.moving_hw)
    too_little = float((moving_HW > 0).mean()) < decoding.smallest_share
    steered = hints is not None and bool(hints.arrows)
    unsure = confidence < decoding.least_confidence and not steered
    return MotionPrediction(motion_2HW, moving_HW, confidence, bool(too_little or unsure))


def network_size(photo_HW: tuple[int, int], longer_side: int) -> tuple[int, int]:
    """The network's input size for a photo: about `longer_side`, both sides multiples of 32."""
    scale = longer_side / max(photo_HW)
    height, width = (
        max(INPUT_MULTIPLE, round(side * scale / INPUT_MULTIPLE) * INPUT_MULTIPLE) for side in photo_HW
    )
    return height, width


@torch.inference_mode()
def coarse_motion(
    photo_HW3: NDArray[np.uint8],
    network: MotionNetwork,
    *,
    hints: Hints | None = None,
    decoding: MotionDecoding | None = None,
) -> CoarseMotion:
    """Run the network and decode its heads: one agreed direction mode per region."""
    decoding = decoding or MotionDecoding()
    was_training = network.training
    network.eval()
    seen = [_heads_at(photo_HW3, network, hints, scale) for scale in decoding.scales]
    network.train(was_training)
    coarse = decode_coherently(_mean_heads(seen), decoding)
    return replace(coarse, motion_2hw=coarse.motion_2hw * np.float32(network.config.speed_gain))


def _heads_at(
    photo_HW3: NDArray[np.uint8], network: MotionNetwork, hints: Hints | None, scale: float
) -> MotionHeads:
    """The network's heads for the photo at `scale` times the configured input size."""
    longer_side = round(network.config.input_side * scale)
    size_HW = network_size((photo_HW3.shape[0], photo_HW3.shape[1]), longer_side)
    small = cv2.resize(photo_HW3, (size_HW[1], size_HW[0]), interpolation=cv2.INTER_AREA)
    photo_3HW = np.moveaxis(small, -1, 0).astype(np.float32) / 255.0
    hints_3HW = np.zeros((3, *size_HW), np.float32)
    if hints is not None and hints.arrows:
        hints_3HW = hint_channels(*arrow_samples(hints.arrows, size_HW), size_HW)
    device = next(network.parameters()).device
    photos = torch.from_numpy(photo_3HW)[None].to(device).contiguous(memory_format=torch.channels_last)
    heads: MotionHeads = network(photos, torch.from_numpy(hints_3HW)[None].to(device))
    return heads


def _mean_heads(seen: list[MotionHeads]) -> MotionHeads:
    """What several looks at one photo say together, at the size of the first; speeds in its pixels."""
    first = seen[0]
    if len(seen) == 1:
        return first
    size = first.moving_logit_B1HW.shape[-2:]

    def mean(name: str) -> torch.Tensor:
        planes = [getattr(heads, name).float() for heads in seen]
        if name == "log_speed_B1HW":
            planes = [plane + math.log(size[1] / plane.shape[-1]) for plane in planes]
        enlarged = [
            functional.interpolate(plane, size, mode="bilinear", align_corners=False) for plane in planes
        ]
        return torch.stack(enlarged).mean(0)

    return MotionHeads(**{entry.name: mean(entry.name) for entry in fields(MotionHeads)})


def decode_coherently(heads: MotionHeads, decoding: MotionDecoding) -> CoarseMotion:
    """Settle on one direction mode per region; heads of one photo."""
    probability = heads.direction_logits_BKHW.float().softmax(1)
    bins = probability.shape[1]
    centres = bin_angles(bins, device=probability.device).view(1, -1, 1, 1)
    exact = centres + heads.direction_residual_BKHW.float()
    moving, log_speed = heads.moving_logit_B1HW.float().sigmoid(), heads.log_speed_B1HW.float()
    reach = max(decoding.region * max(probability.shape[2:]), 0.3)
    shared = _blur(torch.cat((probability * moving, moving), 1), reach)
    shared = shared[:, :bins] / shared[:, bins:].clamp(min=1e-6)
    # Where left is as likely as right, every region would toss a coin of its own. The whole picture's choice
    # tips the balance, and where that is even too, a constant leaning: like photos should drift alike.
    share = moving / moving.sum((2, 3), keepdim=True).clamp(min=1e-6)
    whole = (probability * share).sum((2, 3), keepdim=True)
    shared = shared * (whole + 1.0 / bins) ** decoding.unity * (1.0 - decoding.leaning * centres.cos())
    # Half a circle's worth of votes: neighbours of the winning direction support it, opposite ones do not.
    angles = bin_angles(bins, device=probability.device)
    votes = torch.cos(angles[:, None] - angles[None, :]).clamp(min=0.0) ** 2
    mode = torch.einsum("kj,bjhw->bkhw", votes, shared).argmax(1)
    near = torch.cos(angles.view(1, -1, 1, 1) - angles[mode][:, None]).clamp(min=0.0)
    weight = probability * near
    vector = torch.cat(
        ((weight * exact.cos()).sum(1, keepdim=True), (weight * exact.sin()).sum(1, keepdim=True)), 1
    )
    unit = functional.normalize(vector, dim=1, eps=1e-6)
    cosine = unit[:, :1] * exact.cos() + unit[:, 1:] * exact.sin()
    certainty = (probability * cosine).sum(1, keepdim=True).clamp(0.0, 1.0)
    spent = decoding.least_speed + (1.0 - decoding.least_speed) * certainty**2
    # Speeds were learnt at the input's size; the heads' pixels are larger.
    motion = unit * log_speed.exp() * spent / HEAD_STRIDE
    return CoarseMotion(_array(motion[0]), _array(moving[0, 0]), _array(certainty[0, 0]))


def refine_mask(photo_HW3: NDArray[np.uint8], moving_hw: Float, decoding: MotionDecoding) -> Float:
    """Moving mask at the photo's size, along its edges: eroded, 0 outside, rising to 1 inside."""
    height, width = photo_HW3.shape[:2]
    sharp = guided_filter(photo_HW3, moving_hw, radius=decoding.guide_radius, epsilon=decoding.guide_epsilon)
    # The photo may move an edge, but not make something move that the network thought still, nor the reverse.
    coarse = cv2.resize(moving_hw, (width, height), interpolation=cv2.INTER_LINEAR)
    sharp = np.clip(sharp, coarse - 0.35, coarse + 0.35)
    edge = cv2.resize(_edge_level(moving_hw, decoding), (width, height), interpolation=cv2.INTER_LINEAR)
    solid = _hanging_together(sharp > edge, coarse > decoding.certain)
    solid = _without_specks(solid, max(height, width))
    inside = _distance_inside(solid)
    soft = max(decoding.softness * max(height, width), 1.0)
    alpha = (inside - decoding.erosion * max(height, width)) / soft
    return np.asarray(np.clip(alpha, 0.0, 1.0), np.float32)


def keep_inside(motion_2HW: Float, moving_HW: Float, *, reach: float) -> Float:
    """Damp the motion that would push what moves into what is still, within `reach` pixels of the edge.

    Along the edge and away from it motion stays; at the edges of the picture things may leave.
    """
    inside = _distance_inside((moving_HW > 0).astype(np.uint8))
    band = (inside > 0) & (inside < reach)
    if not band.any():
        return motion_2HW
    sigma = max(reach / 4, 1.0)
    margin, height = math.ceil(4 * sigma) + 2, inside.shape[0]
    kept = np.array(motion_2HW, np.float32)
    # Strip by strip, each with the rows its blur looks at: whole planes would add up to gigabytes.
    for top in range(0, height, STRIP_ROWS):
        bottom = min(top + STRIP_ROWS, height)
        if not band[top:bottom].any():
            continue
        first, last = max(top - margin, 0), min(bottom + margin, height)
        smooth = cv2.GaussianBlur(np.minimum(inside[first:last], 2 * reach), (0, 0), sigma)
        strip = slice(top - first, bottom - first)
        normal_x = cv2.Sobel(smooth, cv2.CV_32F, 1, 0)[strip]
        normal_y = cv2.Sobel(smooth, cv2.CV_32F, 0, 1)[strip]
        length = np.maximum(np.sqrt(normal_x**2 + normal_y**2), 1e-6)
        normal_x, normal_y = normal_x / length, normal_y / length
        rows = kept[:, top:bottom]
        outward = np.minimum(rows[0] * normal_x + rows[1] * normal_y, 0.0)
        damping = outward * np.where(band[top:bottom], 1.0 - inside[top:bottom] / reach, 0.0)
        rows[0] -= damping * normal_x
        rows[1] -= damping * normal_y
    return kept


def _blur(values: torch.Tensor, sigma: float) -> torch.Tensor:
    """Gaussian blur of (1, C, h, w) with a replicated border."""
    planes = np.ascontiguousarray(np.moveaxis(values[0].cpu().numpy(), 0, -1))
    blurred = np.stack(
        [
            cv2.GaussianBlur(planes[..., i], (0, 0), sigma, borderType=cv2.BORDER_REPLICATE)
            for i in range(planes.shape[2])
        ]
    )
    return torch.from_numpy(blurred)[None].to(values.device)


def _array(values: torch.Tensor) -> Float:
    return np.asarray(values.cpu().numpy(), np.float32)


def _smooth_inside(coarse: CoarseMotion) -> Float:
    """Motion smoothed among moving places and carried a little beyond them, so that edges keep full speed."""
    weight = coarse.moving_hw**2 + 1e-4
    planes = np.ascontiguousarray(np.stack((*(coarse.motion_2hw * weight), weight), -1))
    blurred = cv2.GaussianBlur(planes, (0, 0), 1.5, borderType=cv2.BORDER_REPLICATE)
    return np.ascontiguousarray(np.moveaxis(blurred[..., :2] / blurred[..., 2:], -1, 0), np.float32)


def _edge_level(moving_hw: Float, decoding: MotionDecoding) -> Float:
    """Probability at which the moving part ends: half of the largest one near by, but not below `threshold`.

    One low level everywhere would carry the edge of what surely moves out into what is still.
    """
    reach = max(1, round(0.02 * max(moving_hw.shape)))
    largest = cv2.dilate(
        moving_hw, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * reach + 1, 2 * reach + 1))
    )
    return np.asarray(np.clip(decoding.certain * largest, decoding.threshold, 1.0), np.float32)


def _hanging_together(possible_HW: NDArray[np.bool_], certain_HW: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """The connected areas of what may move that hold something that certainly does."""
    count, labels = cv2.connectedComponents(possible_HW.astype(np.uint8), connectivity=4)
    kept = np.zeros(count, np.uint8)
    kept[np.unique(labels[certain_HW & possible_HW])] = 1
    kept[0] = 0
    return np.asarray(kept[labels], np.uint8)


def _without_specks(solid_HW: NDArray[np.uint8], longer_side: int) -> NDArray[np.uint8]:
    """Drop small moving islands and fill small still holes: they would flicker rather than flow."""
    smallest = int((0.015 * longer_side) ** 2)
    for value in (1, 0):
        count, labels, stats, _ = cv2.connectedComponentsWithStats(
            (solid_HW == value).astype(np.uint8), connectivity=4
        )
        small = np.zeros(count, bool)
        small[1:] = stats[1:, cv2.CC_STAT_AREA] < smallest
        solid_HW = np.where(small[labels], 1 - value, solid_HW).astype(np.uint8)
    return solid_HW


def _distance_inside(solid_HW: NDArray[np.uint8]) -> Float:
    """Pixels from each moving place to the nearest still one; the picture's own edge is no boundary."""
    return np.asarray(cv2.distanceTransform(solid_HW, cv2.DIST_L2, 5), np.float32)


def _confidence(moving_hw: Float) -> float:
    """Probability of the likeliest hundredth of the picture: high as soon as some part surely moves."""
    return float(np.percentile(moving_hw, 99))


def _pixels(share: float, photo_HW3: NDArray[Any]) -> float:
    return max(share * float(max(photo_HW3.shape[:2])), 2.0)
