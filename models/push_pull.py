"""Push-pull filling: give every pixel that nothing reached the colour of what lies around it.

Averages are pushed down a pyramid until every cell has weight, then pulled up again wherever a finer level
knows nothing (Gortler et al. 1996, "The Lumigraph", section 3.4). Legend: H, W rows and columns, C channels.
"""

import cv2
import numpy as np
from numpy.typing import NDArray

__all__ = ["push_pull"]

Floats = NDArray[np.float32]


def push_pull(values_HWC: Floats, weights_HW: Floats, *, enough: float = 1.0) -> Floats:
    """Fill (H, W, C) values by their neighbours where the weight is below `enough`: (H, W, C) float32.

    A pixel keeps its own value by the share min(weight / enough, 1). Zero weight everywhere gives zeros.
    """
    share = np.minimum(weights_HW / np.float32(enough), np.float32(1.0)).astype(np.float32)
    return _fill(values_HWC.astype(np.float32), share)


def _fill(values: Floats, share: Floats) -> Floats:
    height, width = share.shape
    if height * width == 1 or share.min() >= 1.0:
        return values * (share > 0)[..., None]
    size = ((width + 1) // 2, (height + 1) // 2)
    mean_share = _resized(share, size, cv2.INTER_AREA)
    weighted = _resized(values * share[..., None], size, cv2.INTER_AREA)
    weighted = weighted.reshape(*mean_share.shape, -1)
    coarse = weighted / np.maximum(mean_share, 1e-12).astype(np.float32)[..., None]
    # A cell that is a quarter full is as sure as its level can be: two by two pixels met one source.
    below = _fill(coarse, np.minimum(4 * mean_share, np.float32(1.0)).astype(np.float32))
    pulled = _resized(below, (width, height), cv2.INTER_LINEAR).reshape(values.shape)
    filled: Floats = pulled + share[..., None] * (values - pulled)
    return filled


def _resized(plane: Floats, size: tuple[int, int], method: int) -> Floats:
    return np.asarray(cv2.resize(plane, size, interpolation=method), np.float32)
