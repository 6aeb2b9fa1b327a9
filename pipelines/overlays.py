"""Burnt-in text: rows of thin, strong strokes that stay exactly where they are whatever the picture does."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

__all__ = ["text_share"]

SIDE = 480  # longer side on which text is looked for
STROKE = 13  # px; letters' strokes are thinner
CONTRAST = 50  # grey levels between a stroke and what is around it
INK_SPREAD = 14  # grey levels
LETTERS = 4  # strokes that a row of the picture crosses in the shortest word
LINE_HEIGHTS = (0.018, 0.16)  # of a line of text, share of the picture's shorter side


def text_share(grey: list[NDArray[np.uint8]]) -> float:
    """The share of the picture that lines of still text cover; `grey` are frames (H, W) uint8 of one clip."""
    chosen = [grey[0], grey[len(grey) // 3], grey[2 * len(grey) // 3], grey[-1]]
    scale = min(1.0, SIDE / max(grey[0].shape))
    small: list[Any] = [
        cv2.resize(frame, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA) for frame in chosen
    ]
    return max(_covered(_still_strokes(small, light), small[0], light) for light in (True, False))


def _still_strokes(frames: list[NDArray[np.uint8]], light: bool) -> NDArray[np.uint8]:
    """1 where a thin stroke, lighter (or darker) than its surroundings, is in all frames."""
    kernel = cv2.getStructuringElement(cv2.MORPH_RECT, (STROKE, STROKE))
    operation = cv2.MORPH_TOPHAT if light else cv2.MORPH_BLACKHAT
    strokes_HW = np.minimum.reduce([cv2.morphologyEx(frame, operation, kernel) for frame in frames])
    spread_HW = np.maximum.reduce(frames) - np.minimum.reduce(frames)
    # Ink is of one colour and stays so; a rock that shines through foam does not.
    return np.asarray((strokes_HW > CONTRAST) & (spread_HW < CONTRAST // 2), dtype=np.uint8)


def _covered(strokes_HW: NDArray[np.uint8], frame_HW: NDArray[np.uint8], light: bool) -> float:
    height, width = strokes_HW.shape
    shorter = min(height, width)
    gap = max(5, round(0.05 * shorter))  # between the letters of a word
    joined_HW = cv2.morphologyEx(
        strokes_HW, cv2.MORPH_CLOSE, cv2.getStructuringElement(cv2.MORPH_RECT, (gap, 1))
    )
    count, _, boxes, _ = cv2.connectedComponentsWithStats(joined_HW, connectivity=8)
    covered = 0
    for left, top, wide, high, _ in boxes[1:count]:
        if not LINE_HEIGHTS[0] * shorter <= high <= LINE_HEIGHTS[1] * shorter or wide < 2.5 * high:
            continue
        box = (slice(top, top + high), slice(left, left + wide))
        if _is_line(strokes_HW[box]) and _is_ink(frame_HW[box][strokes_HW[box] > 0], light):
            covered += int(wide) * int(high)
    return covered / float(height * width)


def _is_line(strokes_hw: NDArray[np.uint8]) -> bool:
    """Letters fill their line evenly: many strokes side by side, of about the line's height, and gaps."""
    fill = float(strokes_hw.mean())
    columns_w = strokes_hw.mean(axis=0) > 0.15
    crossings = np.count_nonzero(np.diff(strokes_hw[strokes_hw.shape[0] // 2]) == 1)
    tall_w = (strokes_hw.argmax(axis=0) < strokes_hw.shape[0] * 0.45) & columns_w
    evenness = float(columns_w.mean())
    lettered = crossings >= LETTERS and evenness > 0.55 and float(tall_w.mean()) > 0.4
    return bool(0.15 < fill < 0.75 and lettered)


def _is_ink(levels: NDArray[np.uint8], light: bool) -> bool:
    """Whether the cores of strokes are all of one colour; their edges are softened."""
    low, high = np.percentile(levels, (65, 95) if light else (5, 35))
    return bool(high - low < INK_SPREAD)
