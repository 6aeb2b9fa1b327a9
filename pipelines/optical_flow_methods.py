"""Frame-to-frame optical flow by name: every dense method of OpenCV that Stillstream offers.

A method is a function of two grey frames (H, W) uint8 that returns (H, W, 2) float32: for every pixel of the
first, how far (dx, dy) its content moved until the second. What each one is worth, measured: see
`tests/benchmarks/flow_methods.py` and its results.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from storage.errors import UsageError

__all__ = ["METHODS", "OpticalFlowMethod", "half_size_method", "optical_flow_method"]

OpticalFlowMethod = Callable[[NDArray[np.uint8], NDArray[np.uint8]], NDArray[np.float32]]


def optical_flow_method(name: str) -> OpticalFlowMethod:
    """The named method, set up once and reusable for every pair of a clip; not shareable between threads.

    Raises UsageError for an unknown name.
    """
    if name not in METHODS:
        raise UsageError(f"unknown optical flow method {name!r}; choose one of {', '.join(METHODS)}")
    return METHODS[name]()


def _dis(preset: int) -> OpticalFlowMethod:
    """Dense inverse search (Kroeger et al., ECCV 2016)."""
    return _engine(lambda: cv2.DISOpticalFlow.create(preset))


def _dis_average() -> OpticalFlowMethod:
    """Dense inverse search set up for averaging.

    Half resolution at the finest, as the medium preset, but sparser patches and no variational refinement:
    what it would smooth in one pair cancels over sixty. As exact as the medium preset in a quarter of the
    time.
    """
    return _dis_for_averages(finest_scale=1)


def _dis_for_averages(finest_scale: int) -> OpticalFlowMethod:
    engine: Any = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_FAST)
    engine.setFinestScale(finest_scale)
    engine.setPatchStride(5)
    engine.setGradientDescentIterations(12)
    engine.setVariationalRefinementIterations(0)
    return lambda first, second: np.asarray(engine.calc(first, second, None), dtype=np.float32)


def half_size_method(name: str) -> OpticalFlowMethod | None:
    """For a method that looks at no more than half the size: the same on frames of that size, else None.

    It spares enlarging the flow, where half of it is wanted anyway.
    """
    return _dis_for_averages(finest_scale=0) if name == "dis_average" else None


def _farneback() -> OpticalFlowMethod:
    """Polynomial expansion (Farnebäck, SCIA 2003) with the parameters of OpenCV's own example."""
    return lambda first, second: cv2.calcOpticalFlowFarneback(
        first,
        second,
        None,  # type: ignore[call-overload, unused-ignore]
        0.5,
        3,
        15,
        3,
        5,
        1.2,
        0,
    )


def _engine(create: Callable[[], Any]) -> OpticalFlowMethod:
    """One of OpenCV's algorithm objects; its type stubs do not know that the output may be None."""
    engine = create()
    return lambda first, second: np.asarray(engine.calc(first, second, None), dtype=np.float32)


def _rlof() -> OpticalFlowMethod:
    """Robust local optical flow (Senst et al., 2012–2016); it asks for three channels."""
    engine: Any = cv2.optflow.DenseRLOFOpticalFlow.create()

    def calculate(first: NDArray[np.uint8], second: NDArray[np.uint8]) -> NDArray[np.float32]:
        bgr = [cv2.cvtColor(frame, cv2.COLOR_GRAY2BGR) for frame in (first, second)]
        return np.asarray(engine.calc(bgr[0], bgr[1], None), dtype=np.float32)

    return calculate


METHODS: dict[str, Callable[[], OpticalFlowMethod]] = {
    "dis_average": _dis_average,
    "dis_ultrafast": lambda: _dis(cv2.DISOPTICAL_FLOW_PRESET_ULTRAFAST),
    "dis_fast": lambda: _dis(cv2.DISOPTICAL_FLOW_PRESET_FAST),
    "dis_medium": lambda: _dis(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM),
    "farneback": _farneback,
    "deepflow": lambda: _engine(cv2.optflow.createOptFlow_DeepFlow),
    "tvl1": lambda: _engine(cv2.optflow.DualTVL1OpticalFlow.create),
    "pcaflow": lambda: _engine(cv2.optflow.createOptFlow_PCAFlow),
    "rlof": _rlof,
}
