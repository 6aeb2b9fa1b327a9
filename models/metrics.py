"""How good a motion field, a rendered frame and a loop are.

Motion: end-point error, angular error, mask overlap. Frames: PSNR, SSIM, a perceptual distance, each over the
whole picture or a region. Loops: the seam, vividness, pulsing, and what changed where nothing should.
Legend: H, W rows and columns; motion (2, H, W) in pixels per frame; frames (H, W, 3) uint8; regions (H, W),
where values above 0 count.
"""

from collections.abc import Iterable
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
    "psnr",
    "ssim",
]

Floats = NDArray[np.float32]
Bytes = NDArray[np.uint8]
Region = Floats | NDArray[np.bool_]

# Half-size of the window in which local contrast is measured, in pixels.
CONTRAST_WINDOW = 15
LUMA = np.array([0.299, 0.587, 0.114], np.float32)


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
    squared = np.square(frame_HW3.astype(np.float32) - reference_HW3).mean(axis=-1)
    error = _mean_over(squared, region_HW)
    return float("inf") if error == 0 else float(10 * np.log10(255.0**2 / error))


def ssim(frame_HW3: Bytes, reference_HW3: Bytes, region_HW: Region | None = None) -> float:
    """Structural similarity of the luma, 1 for equal pictures (Wang et al. 2004; Gaussian, σ = 1.5)."""
    _check_same(frame_HW3, reference_HW3)
    x, y = frame_HW3.astype(np.float32) @ LUMA, reference_HW3.astype(np.float32) @ LUMA
    mean_x, mean_y = _window(x), _window(y)
    var_x, var_y = _window(x * x) - mean_x**2, _window(y * y) - mean_y**2
    covariance = _window(x * y) - mean_x * mean_y
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    similarity = ((2 * mean_x * mean_y + c1) * (2 * covariance + c2)) / (
        (mean_x**2 + mean_y**2 + c1) * (var_x + var_y + c2)
    )
    return _mean_over(similarity, region_HW)


def perceptual_distance(frame_HW3: Bytes, reference_HW3: Bytes, region_HW: Region | None = None) -> float:
    """How different two pictures' edges and textures are, 0 for equal ones; needs no network.

    The mean over four scales and three channels of |∇a − ∇b| / (|∇a| + |∇b| + noise): blur and missing
    texture cost as much as wrong texture does, which PSNR hides.
    """
    _check_same(frame_HW3, reference_HW3)
    frame, reference = frame_HW3.astype(np.float32), reference_HW3.astype(np.float32)
    region = np.ones(frame.shape[:2], np.float32) if region_HW is None else (region_HW > 0).astype(np.float32)
    distances = []
    for _ in range(4):
        distance = _mean_over(_gradient_distance(frame, reference), region > 0.5)
        if not np.isnan(distance):
            distances.append(distance)
        if min(frame.shape[:2]) < 16:
            break
        size = (frame.shape[1] // 2, frame.shape[0] // 2)
        frame, reference, region = (
            np.asarray(cv2.resize(plane, size, interpolation=cv2.INTER_AREA), np.float32)
            for plane in (frame, reference, region)
        )
    return float(np.mean(distances)) if distances else float("nan")


def _gradient_distance(frame: Floats, reference: Floats) -> Floats:
    noise = 8.0
    distance = np.zeros(frame.shape[:2], np.float32)
    for order in ((1, 0), (0, 1)):
        a = cv2.Sobel(frame, cv2.CV_32F, *order, ksize=3)
        b = cv2.Sobel(reference, cv2.CV_32F, *order, ksize=3)
        distance += (np.abs(a - b) / (np.abs(a) + np.abs(b) + noise)).mean(axis=-1) / 2
    return distance


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


def loop_quality(frames: Iterable[Bytes], moving_HW: Region) -> LoopQuality:
    """Measure a loop frame by frame, never holding more than three frames; at least two frames."""
    moving: NDArray[np.bool_] = moving_HW > 0
    still = ~moving
    first = last = None
    steps: list[float] = []
    contrasts: list[float] = []
    changed = np.zeros(moving.shape, np.int16)
    total, squares = np.zeros(moving.shape, np.float64), np.zeros(moving.shape, np.float64)
    for frame in frames:
        if first is None or last is None:
            first = frame
        else:
            steps.append(_step(last, frame, moving))
            difference = np.abs(frame.astype(np.int16) - first.astype(np.int16)).max(axis=-1)
            changed = np.maximum(changed, difference)
        luma = frame.astype(np.float32) @ LUMA
        total += luma
        squares += np.square(luma, dtype=np.float64)
        contrasts.append(_mean_over(_local_contrast(luma), moving))
        last = frame
    if first is None or last is None or not steps:
        raise UsageError("a loop has at least two frames; got fewer")
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
    return _zero_if_empty(_mean_over(cv2.absdiff(one, other).astype(np.float32).mean(axis=-1), moving))


def _pulsing(contrasts: list[float]) -> float:
    mean = float(np.mean(contrasts))
    return (max(contrasts) - min(contrasts)) / mean if mean > 0 else 0.0


def _local_contrast(luma: Floats) -> Floats:
    size = (CONTRAST_WINDOW, CONTRAST_WINDOW)
    mean, square = cv2.blur(luma, size), cv2.blur(luma * luma, size)
    return np.asarray(np.sqrt(np.maximum(square - mean * mean, 0.0)), np.float32)


def _window(plane: Floats) -> Floats:
    return np.asarray(cv2.GaussianBlur(plane, (11, 11), 1.5), np.float32)


def _mean_over(values: NDArray[np.float32] | NDArray[np.float64], region: Region | None) -> float:
    if region is None:
        return float(values.mean(dtype=np.float64))
    if region.shape != values.shape:
        raise UsageError(f"the region must be {values.shape}, got {region.shape}; resize it to the picture")
    counted = values[region > 0]
    return float(counted.mean(dtype=np.float64)) if counted.size else float("nan")


def _zero_if_empty(value: float) -> float:
    return 0.0 if np.isnan(value) else value


def _check_same(one: NDArray[np.generic], other: NDArray[np.generic]) -> None:
    if one.shape != other.shape:
        raise UsageError(f"both must have one shape, got {one.shape} and {other.shape}; resize one of them")
