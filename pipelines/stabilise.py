"""Is the camera still? If it trembles or drifts, every frame is warped back onto the clip's first frame.

Corners of the first frame are followed through the clip. What stays where it was is the still background;
where nothing stays, the background is what all frames agree to have moved like one plane (a homography per
frame).
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from pipelines.clip import Clip
from pipelines.optical_flow import grey_frame
from storage.errors import RejectedError, UsageError
from storage.reasons import Reason

__all__ = ["CameraPath", "StabiliseConfig", "follow_camera", "stabilise_clip"]

Points = NDArray[np.float32]

# Where the background reaches less far, a homography would be guesswork on the other side of the picture.
PLANE_REACH = 0.6
EDGE = 3  # px
STRETCH = 12  # frames
PAN_PIXELS = 10.0  # within a stretch, at 512 px on the longer side; slower pans keep corners in sight
CELLS = 8  # the picture is divided into CELLS x CELLS for asking how far something reaches
FOLLOW = {
    "winSize": (15, 15),
    "maxLevel": 3,
    "criteria": (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, 20, 0.03),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class StabiliseConfig:
    """When a camera counts as still, and how much motion of it is taken out.

    `corners` followed at most. `still_pixels`: a corner that never leaves its place by more (px at 512 px
    on the longer side) is still. `still_cells`: the background must reach over this share of the cells with
    corners. `agreeing_cells`: the share that must move as one plane to be taken for the camera's motion;
    `slow_cells`: the share that is enough when it moves no farther than `slow_drift`, which is too little for
    fluid. `largest_drift`: the farthest the picture's corners may travel and still be brought back; both
    drifts are shares of the diagonal over the whole clip.
    """

    corners: int = 192
    still_pixels: float = 0.8
    still_cells: float = 0.12
    agreeing_cells: float = 0.4
    slow_cells: float = 0.25
    slow_drift: float = 0.015
    largest_drift: float = 0.06

    def __post_init__(self) -> None:
        if self.corners < 16:
            raise UsageError(f"corners must be at least 16, got {self.corners}")
        if min(self.still_pixels, self.slow_drift, self.largest_drift) <= 0:
            raise UsageError("still_pixels, slow_drift and largest_drift must be above 0")
        if not 0 < self.still_cells <= 1 or not 0 < self.slow_cells <= self.agreeing_cells <= 1:
            raise UsageError("expected still_cells in (0, 1] and 0 < slow_cells <= agreeing_cells <= 1")


@dataclass(frozen=True, kw_only=True, slots=True)
class CameraPath:
    """What the camera did: `homographies_T33` lead from each frame to the first (None: it stood still).

    `travel`: how far the picture's corners went at most, share of the diagonal. `residual`: how far the
    background still moves once brought back, share of the diagonal. `verified`: a still background was seen.
    """

    homographies_T33: NDArray[np.float64] | None
    travel: float
    residual: float
    verified: bool


def stabilise_clip(
    clip: Clip, config: StabiliseConfig | None = None, grey: list[NDArray[np.uint8]] | None = None
) -> tuple[Clip, CameraPath]:
    """The clip as a still camera would have seen it, cropped to what every frame shows; the same if it was.

    `grey`: its frames (H, W), where they are at hand.
    Raises RejectedError (camera_motion) when the camera moved too far to be brought back.
    """
    config = config or StabiliseConfig()
    path = follow_camera(grey or [grey_frame(frame) for frame in clip.frames], config)
    if path.travel > config.largest_drift:
        raise RejectedError(
            f"the camera moves by {path.travel:.1%} of the diagonal, at most {config.largest_drift:.1%} "
            "can be brought back",
            reason=Reason.CAMERA_MOTION,
        )
    if path.homographies_T33 is None:
        return clip, path
    return clip.with_frames(_bring_back(clip.frames, path.homographies_T33)), path


def follow_camera(grey: list[NDArray[np.uint8]], config: StabiliseConfig) -> CameraPath:
    """Find the camera's path over grey frames (H, W) uint8."""
    height, width = grey[0].shape
    scale = max(height, width) / 512.0
    diagonal = float(np.hypot(height, width))
    start_N2 = _corners(grey[0], config.corners)
    few = sorted({*range(5, len(grey), 9), len(grey) - 1})
    tracks_TN2, seen_TN = _follow(grey, start_N2, few)
    moved_N = np.where(seen_TN, np.hypot(*np.moveaxis(tracks_TN2 - start_N2, -1, 0)), np.inf).max(axis=0)
    still_N = moved_N <= config.still_pixels * scale
    if _reach(start_N2, still_N, grey[0].shape) >= config.still_cells:
        residual = float(np.median(moved_N[still_N])) / diagonal
        return CameraPath(homographies_T33=None, travel=residual, residual=residual, verified=True)
    background_N = _background(start_N2, tracks_TN2, seen_TN, scale)
    reach = _reach(start_N2, background_N, grey[0].shape)
    farthest = _farthest(start_N2[background_N], tracks_TN2[:, background_N], seen_TN[:, background_N])
    slow = farthest <= config.slow_drift * diagonal
    if reach < (config.slow_cells if slow else config.agreeing_cells):
        # Neither a still background nor one motion of the whole picture: fluid fills the frame, or the camera
        # turned so far that nothing stays in the picture.
        far = 1.0 if _pans(grey, config) else 0.0
        return CameraPath(homographies_T33=None, travel=far, residual=0.0, verified=False)
    return _path(grey, start_N2[background_N], reach)


def _farthest(start_N2: Points, tracks_TN2: NDArray[np.float32], seen_TN: NDArray[np.bool_]) -> float:
    """How far the middle one of the corners went at most, in pixels."""
    far = 0.0
    for track_N2, seen_N in zip(tracks_TN2, seen_TN, strict=True):
        if seen_N.any():
            far = max(far, float(np.median(np.hypot(*(track_N2[seen_N] - start_N2[seen_N]).T))))
    return far


def _corners(grey: NDArray[np.uint8], count: int) -> Points:
    """Corners spread over the picture, (N, 2) float32 (x, y): the best ones of every cell."""
    height, width = grey.shape
    found = cv2.goodFeaturesToTrack(
        grey, maxCorners=4 * count, qualityLevel=0.002, minDistance=max(height, width) / 64, blockSize=5
    )
    if found is None:
        return np.zeros((0, 2), dtype=np.float32)
    points_N2 = np.asarray(found, dtype=np.float32).reshape(-1, 2)
    taken: dict[int, int] = {}
    kept = []
    for index, cell in enumerate(_cells(points_N2, grey.shape)):
        taken[cell] = taken.get(cell, 0) + 1
        if taken[cell] <= max(2, count // (CELLS * CELLS)):
            kept.append(index)
    return np.asarray(points_N2[kept], dtype=np.float32)


def _cells(points_N2: Points, shape: tuple[int, ...]) -> NDArray[np.int64]:
    """The number of the cell each point lies in, (N,)."""
    rows_N = np.clip((points_N2[:, 1] * CELLS / shape[0]).astype(np.int64), 0, CELLS - 1)
    columns_N = np.clip((points_N2[:, 0] * CELLS / shape[1]).astype(np.int64), 0, CELLS - 1)
    return rows_N * CELLS + columns_N


def _reach(points_N2: Points, chosen_N: NDArray[np.bool_], shape: tuple[int, ...]) -> float:
    """The share of the cells with corners in which a chosen corner lies; 0 where corners are too few."""
    if len(points_N2) < 8 or chosen_N.sum() < 6:
        return 0.0
    cells_N = _cells(points_N2, shape)
    return len(np.unique(cells_N[chosen_N])) / len(np.unique(cells_N))


def _follow(
    grey: list[NDArray[np.uint8]], start_N2: Points, frames: list[int]
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Where the first frame's corners are in the given ones, (T, N, 2), and whether found, (T, N)."""
    tracks_TN2 = np.zeros((len(frames), *start_N2.shape), dtype=np.float32)
    seen_TN = np.zeros((len(frames), len(start_N2)), dtype=bool)
    if not len(start_N2):
        return tracks_TN2, seen_TN
    height, width = grey[0].shape
    guess_N2 = start_N2.copy()
    for index, frame in enumerate(frames):
        found_N2, status_N, _ = cv2.calcOpticalFlowPyrLK(  # type: ignore[call-overload, unused-ignore]
            grey[0], grey[frame], start_N2, guess_N2.copy(), flags=cv2.OPTFLOW_USE_INITIAL_FLOW, **FOLLOW
        )
        # Near the border the window looks outside, and what has left the picture seems to stick there.
        inside_N = np.all((found_N2 > EDGE) & (found_N2 < [width - 1 - EDGE, height - 1 - EDGE]), axis=1)
        seen_TN[index] = (status_N.ravel() > 0) & inside_N
        tracks_TN2[index] = found_N2
        guess_N2 = np.where(seen_TN[index][:, None], found_N2, guess_N2)
    return tracks_TN2, seen_TN


def _background(
    start_N2: Points, tracks_TN2: NDArray[np.float32], seen_TN: NDArray[np.bool_], scale: float
) -> NDArray[np.bool_]:
    """The corners that move as one plane in nearly all frames, (N,) bool."""
    if len(start_N2) < 8:
        return np.zeros(len(start_N2), dtype=bool)
    agreeing_N = np.zeros(len(start_N2), dtype=np.int64)
    for track_N2, seen_N in zip(tracks_TN2, seen_TN, strict=True):
        if seen_N.sum() < 8:
            continue
        _, inlier_N1 = cv2.estimateAffinePartial2D(
            start_N2[seen_N], track_N2[seen_N], method=cv2.RANSAC, ransacReprojThreshold=1.0 * scale
        )
        if inlier_N1 is not None:
            agreeing_N[np.flatnonzero(seen_N)] += inlier_N1.ravel()
    # A camera that pans loses the corners on one side: those count as long as they were seen.
    often_N = seen_TN.sum(axis=0)
    return np.asarray((agreeing_N >= 0.8 * often_N) & (often_N >= 0.3 * len(tracks_TN2)))


def _pans(grey: list[NDArray[np.uint8]], config: StabiliseConfig) -> bool:
    """Whether the whole picture moves as one plane within short stretches, and fast.

    Fluid does not, not even clouds that all drift one way: in a few frames their corners already disagree.
    """
    height, width = grey[0].shape
    scale = max(height, width) / 512.0
    votes: list[bool] = []
    for first in range(0, max(1, len(grey) - STRETCH), STRETCH + 4):
        stretch = grey[first : first + STRETCH]
        start_N2 = _corners(stretch[0], config.corners)
        tracks_TN2, seen_TN = _follow(stretch, start_N2, list(range(3, len(stretch), 3)))
        plane_N = _background(start_N2, tracks_TN2, seen_TN, 0.5 * scale)
        speed = _farthest(start_N2[plane_N], tracks_TN2[:, plane_N], seen_TN[:, plane_N])
        votes.append(
            speed > PAN_PIXELS * scale and _reach(start_N2, plane_N, grey[0].shape) >= config.agreeing_cells
        )
    return 2 * sum(votes) > len(votes)


def _fit(moved_N2: Points, reference_N2: Points, *, plane: bool) -> NDArray[np.float64] | None:
    """The homography (3, 3) that brings points back, else only shift, turn and zoom; None if unknown."""
    if len(moved_N2) < 6:
        return None
    if plane and len(moved_N2) >= 12:
        homography_33, _ = cv2.findHomography(moved_N2, reference_N2, cv2.USAC_MAGSAC, 1.0)
        return None if homography_33 is None else np.asarray(homography_33, dtype=np.float64)
    similarity_23, _ = cv2.estimateAffinePartial2D(moved_N2, reference_N2, ransacReprojThreshold=1.0)
    return None if similarity_23 is None else np.vstack([similarity_23, [0.0, 0.0, 1.0]])


def _path(grey: list[NDArray[np.uint8]], background_N2: Points, reach: float) -> CameraPath:
    """Follow the background through every frame and fit one homography each."""
    height, width = grey[0].shape
    diagonal = float(np.hypot(height, width))
    every = list(range(1, len(grey)))
    tracks_TN2, seen_TN = _follow(grey, background_N2, every)
    corners_42 = np.array([[0, 0], [width, 0], [width, height], [0, height]], dtype=np.float32)
    homographies = [np.eye(3)]
    travel, residuals = 0.0, []
    for track_N2, seen_N in zip(tracks_TN2, seen_TN, strict=True):
        fitted = _fit(track_N2[seen_N], background_N2[seen_N], plane=reach >= PLANE_REACH)
        if fitted is None:
            return CameraPath(
                homographies_T33=np.stack(homographies), travel=1.0, residual=1.0, verified=False
            )
        homographies.append(fitted)
        moved_42 = cv2.perspectiveTransform(corners_42[None], fitted)[0] - corners_42
        travel = max(travel, float(np.hypot(*moved_42.T).max()) / diagonal)
        back_N2 = cv2.perspectiveTransform(track_N2[seen_N][None], fitted)[0]
        residuals.append(float(np.median(np.hypot(*(back_N2 - background_N2[seen_N]).T))))
    return CameraPath(
        homographies_T33=np.stack(homographies),
        travel=travel,
        residual=float(np.mean(residuals)) / diagonal,
        verified=True,
    )


def _bring_back(
    frames: list[NDArray[np.uint8]], homographies_T33: NDArray[np.float64]
) -> list[NDArray[np.uint8]]:
    """Warp every frame onto the first and crop all to what each of them shows."""
    height, width = frames[0].shape[:2]
    shown_HW = np.full((height, width), 255, dtype=np.uint8)
    blank_HW = shown_HW.copy()
    for homography_33 in homographies_T33:
        warped = cv2.warpPerspective(blank_HW, homography_33, (width, height), flags=cv2.INTER_NEAREST)
        shown_HW = np.minimum(shown_HW, warped)
    top, bottom = _inset(shown_HW.min(axis=1, where=_middle(shown_HW, 1), initial=255))
    left, right = _inset(shown_HW.min(axis=0, where=_middle(shown_HW, 0), initial=255))
    return [
        np.ascontiguousarray(
            cv2.warpPerspective(
                frame, homography_33, (width, height), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT
            )[top:bottom, left:right]
        )
        for frame, homography_33 in zip(frames, homographies_T33, strict=True)
    ]


def _middle(shown_HW: NDArray[np.uint8], axis: int) -> NDArray[np.bool_]:
    """Leave out the corners, which would crop both sides."""
    length = shown_HW.shape[axis]
    inner = np.zeros(length, dtype=bool)
    inner[length // 8 : length - length // 8] = True
    return inner[None, :] if axis == 1 else inner[:, None]


def _inset(shown: NDArray[np.uint8]) -> tuple[int, int]:
    """First and past-the-last index that are shown, an even number of them."""
    inside = np.flatnonzero(shown)
    if not len(inside):
        return 0, len(shown)
    first, last = int(inside[0]), int(inside[-1]) + 1
    return first, last - (last - first) % 2
