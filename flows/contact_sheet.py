"""Contact sheets: a few small pictures of what a run made, as one picture in a data: URI.

Prefect's pages show it wherever the run's files lie, since nothing is fetched.
"""

import heapq
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress

import cv2
import numpy as np
from numpy.typing import NDArray

from flows.page import picture_uri
from flows.report_wall import ChosenClip, choose_clips, read_clips
from models.colour_wheel import motion_to_colour
from storage.dataset_format import manifest_url
from storage.errors import StillstreamError
from storage.manifest import read_rows
from storage.objects import exists, join_url
from storage.photo import read_photo
from storage.reasons import Status

__all__ = ["contact_sheet", "sheet_of_clips", "sheet_of_loops"]

Picture = NDArray[np.uint8]

TILE = (192, 128)  # width, height
COLUMNS = 4
TILES = 12


def sheet_of_loops(url: str) -> str | None:
    """The posters of the newest loops in a folder; None when there are none."""
    ledger = join_url(url, "ledger.parquet")
    if not exists(ledger):
        return None
    done = (
        row
        for row in read_rows(ledger, columns=["status", "outputs", "finished_at"])
        if row["status"] == Status.OK and row["finished_at"] is not None
    )
    newest = heapq.nlargest(TILES, done, key=lambda row: row["finished_at"])
    return contact_sheet(_posters(url, [output for row in newest for output in row["outputs"] or ()]))


def sheet_of_clips(dataset_url: str) -> str | None:
    """First frames of a few of a dataset's clips, each before its motion in colour; None without clips."""
    columns = ["key", "status", "shard"]
    chosen = choose_clips(read_rows(manifest_url(dataset_url), columns=columns), limit=TILES // 2)
    return contact_sheet(_frames_and_motions(dataset_url, chosen))


def contact_sheet(pictures_HW3: Iterable[Picture]) -> str | None:
    """Pictures (H, W, 3) uint8 of any size, four in a row, as a data: URI; None when there are none."""
    tiles = [_tile(picture) for picture in pictures_HW3]
    if not tiles:
        return None
    columns = min(COLUMNS, len(tiles))
    tiles += [np.zeros_like(tiles[0])] * (-len(tiles) % columns)
    rows = [np.hstack(tiles[start : start + columns]) for start in range(0, len(tiles), columns)]
    return picture_uri(np.vstack(rows), format="JPEG", quality=75)


def _posters(url: str, outputs: Iterable[str]) -> Iterator[Picture]:
    for output in outputs:
        if ".poster." in output:
            # A sheet is a glance; who deleted a poster or cannot reach it must not fail a run that is done.
            with suppress(StillstreamError):
                yield read_photo(join_url(url, output), max_side=2 * TILE[0]).image_HW3


def _frames_and_motions(dataset_url: str, chosen: Sequence[ChosenClip]) -> Iterator[Picture]:
    for sample, _ in read_clips(dataset_url, chosen):
        with suppress(StillstreamError):
            yield sample.frames[0]
            yield motion_to_colour(np.asarray(sample.motion_2HW, dtype=np.float32))


def _tile(picture_HW3: Picture) -> Picture:
    """The middle of a picture, scaled to fill a tile."""
    height, width = picture_HW3.shape[:2]
    scale = max(TILE[0] / width, TILE[1] / height)
    size = (max(TILE[0], round(width * scale)), max(TILE[1], round(height * scale)))
    scaled = cv2.resize(picture_HW3, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
    left, top = (size[0] - TILE[0]) // 2, (size[1] - TILE[1]) // 2
    return np.asarray(scaled[top : top + TILE[1], left : left + TILE[0]], dtype=np.uint8)
