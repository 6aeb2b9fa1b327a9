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
INK_SPREAD = 24  # grey levels
LETTERS = 4  # letters of the shortest word, and strokes that a row of the picture crosses in it
LETTER_HEIGHTS = (0.015, 0.13)  # share of the picture's shorter side
MOST_TOUCHING = 4.0  # heights: so wide are letters that touch
WORD_GAP = 0.05  # of the shorter side, between two letters or words
LONGEST_LETTER = 0.5  # of a line
LINE_HEIGHTS = (0.018, 0.16)  # of a line of text, share of the picture's shorter side


def text_share(grey: list[NDArray[np.uint8]]) -> float:
    """How much lines of still text cover, as a share of the largest square in the picture.

    So a line weighs the same in an upright picture as in a wide one. `grey`: a clip's frames (H, W) uint8.
    """
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
    letters_HW = _letters(strokes_HW, shorter)
    gap = max(5, round(WORD_GAP * shorter))
    kernel = cv2.getStructuringElement(cv2.MORPH_RECT, (gap, 1))
    joined_HW = cv2.morphologyEx(letters_HW, cv2.MORPH_CLOSE, kernel)
    count, _, boxes, _ = _parts(joined_HW)
    covered = 0
    for left, top, wide, high, _ in boxes[1:count]:
        if not LINE_HEIGHTS[0] * shorter <= high <= LINE_HEIGHTS[1] * shorter or wide < 2.5 * high:
            continue
        box = (slice(top, top + high), slice(left, left + wide))
        if _is_line(letters_HW[box]) and _is_ink(frame_HW[box][letters_HW[box] > 0], light):
            covered += int(wide) * int(high)
    return covered / float(shorter * shorter)


def _letters(strokes_HW: NDArray[np.uint8], shorter: int) -> NDArray[np.uint8]:
    """Only the strokes that may be a letter, or a few that touch, by their height and shape."""
    _, labels_HW, boxes, _ = _parts(strokes_HW)
    wide, high, area = (
        boxes[:, index] for index in (cv2.CC_STAT_WIDTH, cv2.CC_STAT_HEIGHT, cv2.CC_STAT_AREA)
    )
    tall = (high >= LETTER_HEIGHTS[0] * shorter) & (high <= LETTER_HEIGHTS[1] * shorter)
    kept = tall & (wide <= MOST_TOUCHING * high) & (area >= 0.15 * wide * high)
    kept[0] = False
    return np.asarray(np.take(kept.astype(np.uint8), labels_HW))


def _parts(mask_HW: Any) -> Any:
    """What hangs together, as OpenCV tells it."""
    # 16 bits are enough for the parts of SIDE x SIDE pixels, and take a third of the time.
    return cv2.connectedComponentsWithStats(mask_HW, connectivity=8, ltype=cv2.CV_16U)


def _is_line(strokes_hw: NDArray[np.uint8]) -> bool:
    """Letters fill their line evenly: many strokes side by side, of about the line's height, and gaps."""
    high, wide = strokes_hw.shape
    count, _, boxes, _ = _parts(strokes_hw)
    heights = boxes[1:count, cv2.CC_STAT_HEIGHT]
    crossings = max(
        int(np.count_nonzero(np.diff(strokes_hw[round(share * high)]) == 1)) for share in (0.35, 0.5, 0.65)
    )
    even = float((strokes_hw.mean(axis=0) > 0.15).mean()) > 0.5
    level = float(np.median(heights)) > 0.5 * high
    thin = 2.0 * float(cv2.distanceTransform(np.pad(strokes_hw, 1), cv2.DIST_L2, 3).max()) < 0.45 * high
    return (
        bool(
            0.15 < strokes_hw.mean() < 0.75
            and count > LETTERS
            and crossings >= LETTERS
            and even
            and level
            and thin
        )
        and int(boxes[1:count, cv2.CC_STAT_WIDTH].max()) < LONGEST_LETTER * wide
    )


def _is_ink(levels: NDArray[np.uint8], light: bool) -> bool:
    """Whether the cores of strokes are all of one colour; their edges are softened."""
    low, high = np.percentile(levels, (75, 95) if light else (5, 25))
    return bool(high - low < INK_SPREAD)
