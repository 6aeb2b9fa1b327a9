"""How good a motion field, a rendered frame and a loop are.

Motion: end-point error, angular error, mask overlap. Frames: PSNR, SSIM, a perceptual distance, each over the
whole picture or a region. Loops: the seam, vividness, pulsing, and what changed where nothing should.
Legend: H, W rows and columns; motion (2, H, W) in pixels per frame; frames (H, W, 3) uint8; regions (H, W),
where values above 0 count.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from storage.errors import UsageError

__all__ = [
    "LoopQuality",
    "angular_error",
    "end_point_error",
    "loop_quality",
    "mask_iou",
    "perceptual_distance",
    "picture_quality",
    "psnr",
    "ssim",
]

Floats = NDArray[np.float32]
Bytes = NDArray[np.uint8]
Region = Floats | NDArray[np.bool_]

# Half-size of the window in which local contrast is measured, in pixels.
CONTRAST_WINDOW = 15
# Of the perceptual distance: how many halvings, and the gradient below which nothing is to be seen.
SCALES = 4
GRADIENT_NOISE = 8.0


def end_point_error(predicted_2HW: Floats, target_2HW: Floats, region_HW: Region | None = None) -> float:
    """Mean length of the difference in pixels per frame; NaN when the region is empty."""
    _check_same(predicted_2HW, target_2HW)
    return _mean_over(np.hypot(*(predicted_2HW.astype(np.float32) - target_2HW)), region_HW)


def angular_error(predicted_2HW: Floats, target_2HW: Floats, region_HW: Region | None = None) -> float:
    """Median angle between the directions in degrees, 0 … 180; a prediction of zero counts as 90°.

    Pixels whose target has no direction are left out; NaN when none remains.
    """
    _check_same(predicted_2HW, target_2HW)
    predicted, target = predicted_2HW.astype(np.float64), target_2HW.astype(np.float64)
    lengths = np.hypot(*predicted) * np.hypot(*target)
    cosine = np.divide(
        (predicted * target).sum(axis=0), lengths, out=np.zeros_like(lengths), where=lengths > 0
    )
    angles = np.degrees(np.arccos(np.clip(cosine, -1.0, 1.0)))
    counted = np.hypot(*target) > 0
    if region_HW is not None:
        counted &= region_HW > 0
    return float(np.median(angles[counted])) if counted.any() else float("nan")


def mask_iou(predicted_HW: Region, target_HW: Region, threshold: float = 0.5) -> float:
    """Intersection over union of two masks; 1 when both are empty."""
    _check_same(predicted_HW, target_HW)
    predicted, target = predicted_HW >= threshold, target_HW >= threshold
    union = np.count_nonzero(predicted | target)
    return float(np.count_nonzero(predicted & target) / union) if union else 1.0


def psnr(frame_HW3: Bytes, reference_HW3: Bytes, region_HW: Region | None = None) -> float:
    """Peak signal-to-noise ratio in dB against a peak of 255; infinite for equal pictures."""
    _check_same(frame_HW3, reference_HW3)
    mask = _mask(region_HW, frame_HW3.shape[:2])
    count = frame_HW3.shape[0] * frame_HW3.shape[1] if mask is None else cv2.countNonZero(mask)
    if count == 0:
        return float("nan")
    error = cv2.norm(frame_HW3, reference_HW3, cv2.NORM_L2SQR, mask) / (3 * count)
    return float("inf") if error == 0 else float(10 * np.log10(255.0**2 / error))


def ssim(frame_HW3: Bytes, reference_HW3: Bytes, region_HW: Region | None = None) -> float:
    """Structural similarity of the luma, 1 for equal pictures (Wang et al. 2004; Gaussian, σ = 1.5)."""
    _check_same(frame_HW3, reference_HW3)
    return _mean_over(_similarity(frame_HW3, reference_HW3), region_HW)


def perceptual_distance(frame_HW3: Bytes, reference_HW3: Bytes, region_HW: Region | None = None) -> float:
    """How different two pictures' edges and textures are, 0 for equal ones; needs no network.

    The mean over four scales and three channels of |∇a − ∇b| / (|∇a| + |∇b| + noise): blur and missing
    texture cost as much as wrong texture does, which PSNR hides.
    """
    _check_same(frame_HW3, reference_HW3)
    return _mean_over_scales(_gradient_distances(frame_HW3, reference_HW3), region_HW)


def picture_quality(
    frame_HW3: Bytes, reference_HW3: Bytes, regions: Sequence[Region | None]
) -> list[tuple[float, float, float]]:
    """PSNR, SSIM and perceptual distance over each region (None: everywhere), at the cost of one."""
    _check_same(frame_HW3, reference_HW3)
    similarity = _similarity(frame_HW3, reference_HW3)
    distances = _gradient_distances(frame_HW3, reference_HW3)
    return [
        (
            psnr(frame_HW3, reference_HW3, region),
            _mean_over(similarity, region),
            _mean_over_scales(distances, region),
        )
        for region in regions
    ]


def _similarity(frame: Bytes, reference: Bytes) -> Floats:
    x, y = _luma(frame), _luma(reference)
    mean_x, mean_y = _window(x), _window(y)
    var_x, var_y = _window(x * x) - mean_x**2, _window(y * y) - mean_y**2
    covariance = _window(x * y) - mean_x * mean_y
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    return np.asarray(
        ((2 * mean_x * mean_y + c1) * (2 * covariance + c2))
        / ((mean_x**2 + mean_y**2 + c1) * (var_x + var_y + c2)),
        np.float32,
    )


def _gradient_distances(frame_HW3: Bytes, reference_HW3: Bytes) -> list[Floats]:
    """The distance of the gradients, place by place, at every scale."""
    frame, reference = frame_HW3.astype(np.float32), reference_HW3.astype(np.float32)
    distances = []
    for _ in range(SCALES):
        distances.append(_gradient_distance(frame, reference))
        if min(frame.shape[:2]) < 16:
            break
        frame, reference = _halved(frame), _halved(reference)
    return distances


def _gradient_distance(frame: Floats, reference: Floats) -> Floats:
    total = np.zeros(frame.shape, np.float32)
    for order in ((1, 0), (0, 1)):
        a = cv2.Sobel(frame, cv2.CV_32F, *order, ksize=3)
        b = cv2.Sobel(reference, cv2.CV_32F, *order, ksize=3)
        sizes = (
            cv2.absdiff(a, np.zeros_like(a)) + cv2.absdiff(b, np.zeros_like(b)) + np.float32(GRADIENT_NOISE)
        )
        total += cv2.divide(cv2.absdiff(a, b), sizes)
    return np.asarray(cv2.transform(total, np.full((1, 3), 1 / 6, np.float32)), np.float32)


def _mean_over_scales(distances: Sequence[Floats], region_HW: Region | None) -> float:
    shown = np.ones(distances[0].shape) if region_HW is None else region_HW > 0
    region = np.asarray(shown, np.float32)
    means = []
    for distance in distances:
        mean = _mean_over(distance, np.asarray(region > 0.5))
        if not np.isnan(mean):
            means.append(mean)
        region = _halved(region)
    return float(np.mean(means)) if means else float("nan")


def _halved(plane: Floats) -> Floats:
    size = max(plane.shape[1] // 2, 1), max(plane.shape[0] // 2, 1)
    return np.asarray(cv2.resize(plane, size, interpolation=cv2.INTER_AREA), np.float32)


@dataclass(frozen=True, kw_only=True, slots=True)
class LoopQuality:
    """A loop in figures.

    seam_step, largest_step, mean_step: mean |Δ| in grey levels over the moving region, from the last frame
    to the first, and largest and mean between neighbours inside; seam_ssim: last against first frame;
    vividness: mean standard deviation over time of a moving pixel, 0 for a still picture (perfect seam);
    pulsing: (largest − smallest) / mean of the moving region's local contrast over time;
    still_largest, still_changed: largest |Δ| from the first frame and share of pixels ever changed outside.
    """

    seam_step: float
    largest_step: float
    mean_step: float
    seam_ssim: float
    vividness: float
    pulsing: float
    still_largest: int
    still_changed: float


def loop_quality(
    frames: Iterable[Bytes], moving_HW: Region, times: Iterable[int] | None = None
) -> LoopQuality:
    """Measure a loop frame by frame, never holding more than three frames; at least two frames.

    `times`: which of the loop's frames these are (None: all), the first and the last among them; only
    neighbours make a step.
    """
    moving: NDArray[np.bool_] = moving_HW > 0
    still = ~moving
    first = last = None
    before = 0
    steps: list[float] = []
    contrasts: list[float] = []
    changed = np.zeros(moving.shape, np.uint8)
    total, squares = np.zeros(moving.shape, np.float64), np.zeros(moving.shape, np.float64)
    for time, frame in enumerate(frames) if times is None else zip(times, frames, strict=True):
        if first is None or last is None:
            first = frame
        else:
            if time == before + 1:
                steps.append(_step(last, frame, moving))
            np.maximum(changed, cv2.absdiff(frame, first).max(axis=-1), out=changed)
        luma = _luma(frame)
        cv2.accumulate(luma, total)
        cv2.accumulateSquare(luma, squares)
        contrasts.append(_mean_over(_local_contrast(luma), moving))
        last, before = frame, time
    if first is None or last is None or not steps:
        raise UsageError("a loop has at least two neighbouring frames; got fewer")
    count = len(contrasts)
    deviation = np.sqrt(np.maximum(squares / count - (total / count) ** 2, 0.0))
    return LoopQuality(
        seam_step=_step(last, first, moving),
        largest_step=max(steps),
        mean_step=float(np.mean(steps)),
        seam_ssim=ssim(last, first, moving if moving.any() else None),
        vividness=_zero_if_empty(_mean_over(deviation, moving)),
        pulsing=_pulsing(contrasts),
        still_largest=int(changed[still].max(initial=0)),
        still_changed=float((changed[still] > 0).mean()) if still.any() else 0.0,
    )


def _step(one: Bytes, other: Bytes, moving: NDArray[np.bool_]) -> float:
    means = cv2.mean(cv2.absdiff(one, other), moving.view(np.uint8))
    return sum(means[:3]) / 3


def _pulsing(contrasts: list[float]) -> float:
    mean = float(np.mean(contrasts))
    return (max(contrasts) - min(contrasts)) / mean if mean > 0 else 0.0


def _local_contrast(luma: Floats) -> Floats:
    size = (CONTRAST_WINDOW, CONTRAST_WINDOW)
    mean, square = cv2.blur(luma, size), cv2.blur(luma * luma, size)
    return np.asarray(np.sqrt(np.maximum(square - mean * mean, 0.0)), np.float32)


def _luma(frame_HW3: Bytes) -> Floats:
    return np.asarray(cv2.cvtColor(frame_HW3.astype(np.float32), cv2.COLOR_RGB2GRAY), np.float32)


def _window(plane: Floats) -> Floats:
    return np.asarray(cv2.GaussianBlur(plane, (11, 11), 1.5), np.float32)


def _mean_over(values: NDArray[np.float32] | NDArray[np.float64], region: Region | None) -> float:
    mask = _mask(region, values.shape)
    if mask is not None and cv2.countNonZero(mask) == 0:
        return float("nan")
    return float(cv2.mean(values, mask)[0])


def _mask(region: Region | None, shape: tuple[int, ...]) -> Bytes | None:
    """A region as OpenCV wants it."""
    if region is not None and region.shape != shape:
        raise UsageError(f"the region must be {shape}, got {region.shape}; resize it to the picture")
    return None if region is None else np.ascontiguousarray(region > 0).view(np.uint8)


def _zero_if_empty(value: float) -> float:
    return 0.0 if np.isnan(value) else value


def _check_same(one: NDArray[np.generic], other: NDArray[np.generic]) -> None:
    if one.shape != other.shape:
        raise UsageError(f"both must have one shape, got {one.shape} and {other.shape}; resize one of them")
