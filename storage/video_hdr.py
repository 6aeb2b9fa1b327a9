"""Mapping HDR and wide-gamut colours to BT.709 by a table: PQ and HLG (BT.2100), BT.2020, P3.

The table holds the whole way: code values → light (BT.2100) → BT.709 primaries → the tone curve of BT.2390
(Hermite spline in PQ space, applied to the largest component so that hues stay) → BT.1886 code values.
Graphics white, 203 nits (BT.2408), is the white the result aims at. FFmpeg applies the table to frames.
"""

from __future__ import annotations

import struct
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["colour_table", "cube_text", "frame_peak"]

Array = NDArray[np.float64]

TABLE_SIZE = 33
WHITE_NITS = 203.0
PQ, HLG = 16, 18
# Peaks in nits to assume where a file does not state its own: HLG's reference display, and a common grade.
USUAL_PEAK = {PQ: 4000.0, HLG: 1000.0}
HLG_SYSTEM_GAMMA = 1.2
BT1886_GAMMA = 2.4

# Linear BT.2020 and Display P3 to BT.709, from their chromaticities and D65 (rows: R, G, B).
TO_BT709: dict[int, Array] = {
    9: np.array([[1.6605, -0.5876, -0.0728], [-0.1246, 1.1329, -0.0083], [-0.0182, -0.1006, 1.1187]]),
    11: np.array([[1.2249, -0.2247, 0.0], [-0.0420, 1.0419, 0.0], [-0.0197, -0.0786, 1.0979]]),
    12: np.array([[1.2249, -0.2247, 0.0], [-0.0420, 1.0419, 0.0], [-0.0197, -0.0786, 1.0979]]),
}


def frame_peak(frame: Any, transfer: int) -> float:
    """The brightest light of a video in nits: its MaxCLL when it states one, else a usual value."""
    usual = USUAL_PEAK.get(transfer, WHITE_NITS)
    if transfer != PQ:
        return usual
    try:
        (stated, _) = struct.unpack("=II", bytes(frame.side_data["CONTENT_LIGHT_LEVEL"])[:8])
    except (KeyError, struct.error):
        return usual
    return float(min(max(stated, 400), 10_000)) if stated else usual


@lru_cache(maxsize=8)
def cube_text(transfer: int, primaries: int, peak: float) -> str:
    """The table as the text of a .cube file, red running fastest."""
    table = colour_table(transfer, primaries, peak)
    rows = table.transpose(2, 1, 0, 3).reshape(-1, 3)
    lines = [f"LUT_3D_SIZE {TABLE_SIZE}", *(f"{red:.6f} {green:.6f} {blue:.6f}" for red, green, blue in rows)]
    return "\n".join(lines) + "\n"


def colour_table(transfer: int, primaries: int, peak: float) -> Array:
    """BT.709 code values in [0, 1] at [red, green, blue] of the source's code values; (33, 33, 33, 3)."""
    steps = np.linspace(0.0, 1.0, TABLE_SIZE)
    codes = np.stack(np.meshgrid(steps, steps, steps, indexing="ij"), axis=-1)
    nits = _to_light(codes, transfer)
    if primaries in TO_BT709:
        nits = nits @ TO_BT709[primaries].T
    nits = np.maximum(nits, 0.0)
    largest = nits.max(axis=-1, keepdims=True)
    mapped = _compress(largest, peak) if peak > WHITE_NITS else np.minimum(largest, WHITE_NITS)
    nits = nits * (mapped / np.maximum(largest, 1e-6))
    return np.asarray(np.clip(nits / WHITE_NITS, 0.0, 1.0) ** (1 / BT1886_GAMMA), dtype=np.float64)


def _to_light(codes: Array, transfer: int) -> Array:
    """Displayed light in nits; standard range is shown with its white at graphics white."""
    if transfer == PQ:
        return _pq_to_nits(codes)
    if transfer == HLG:
        scene = np.where(
            codes <= 0.5, codes**2 / 3, (np.exp((codes - 0.55991073) / 0.17883277) + 0.28466892) / 12
        )
        luminance = scene @ np.array([0.2627, 0.6780, 0.0593])
        gain = np.maximum(luminance, 1e-9) ** (HLG_SYSTEM_GAMMA - 1)
        return np.asarray(USUAL_PEAK[HLG] * gain[..., None] * scene, dtype=np.float64)
    return np.asarray(WHITE_NITS * codes**BT1886_GAMMA, dtype=np.float64)


def _compress(nits: Array, peak: float) -> Array:
    """BT.2390's tone curve from a display of `peak` nits to one of `WHITE_NITS`."""
    source_peak = _nits_to_pq(np.array(peak))
    level = np.minimum(_nits_to_pq(nits) / source_peak, 1.0)
    highest = float(_nits_to_pq(np.array(WHITE_NITS)) / source_peak)
    knee = 1.5 * highest - 0.5
    t = np.clip((level - knee) / (1 - knee), 0.0, 1.0)
    spline = (
        (2 * t**3 - 3 * t**2 + 1) * knee
        + (t**3 - 2 * t**2 + t) * (1 - knee)
        + (-2 * t**3 + 3 * t**2) * highest
    )
    return _pq_to_nits(np.where(level < knee, level, spline) * source_peak)


# SMPTE ST 2084.
_M1, _M2 = 2610 / 16384, 2523 / 4096 * 128
_C1, _C2, _C3 = 3424 / 4096, 2413 / 4096 * 32, 2392 / 4096 * 32


def _pq_to_nits(codes: Array) -> Array:
    root = np.maximum(codes, 0.0) ** (1 / _M2)
    return np.asarray(10_000 * (np.maximum(root - _C1, 0.0) / (_C2 - _C3 * root)) ** (1 / _M1))


def _nits_to_pq(nits: Array) -> Array:
    root = (np.maximum(nits, 0.0) / 10_000) ** _M1
    return np.asarray(((_C1 + _C2 * root) / (1 + _C3 * root)) ** _M2)
