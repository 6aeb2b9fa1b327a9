"""Contact sheets: what they show of loops and datasets, and that nothing to show is no error."""

import base64
import datetime
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from drawn_dataset import write_drawn_dataset
from numpy.typing import NDArray
from PIL import Image

from flows.contact_sheet import COLUMNS, TILE, contact_sheet, sheet_of_clips, sheet_of_loops
from storage.loops import write_poster
from storage.manifest import LEDGER_SCHEMA, write_rows

WIDTH, HEIGHT = TILE


def plain(colour: tuple[int, int, int], size_HW: tuple[int, int] = (40, 30)) -> NDArray[np.uint8]:
    return np.full((*size_HW, 3), colour, np.uint8)


def opened(uri: str | None) -> NDArray[np.uint8]:
    assert uri is not None
    head, _, content = uri.partition(",")
    assert head == "data:image/jpeg;base64"
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(content))).convert("RGB"))


@pytest.mark.parametrize(("count", "rows", "columns"), [(1, 1, 1), (3, 1, 3), (4, 1, 4), (9, 3, 4)])
def test_tiles_of_any_size_make_a_grid(count: int, rows: int, columns: int) -> None:
    sizes = [(300, 200), (20, 500), (90, 90)]
    sheet = opened(contact_sheet([plain((200, 40, 40), sizes[n % 3]) for n in range(count)]))
    assert sheet.shape == (rows * HEIGHT, columns * WIDTH, 3) and columns <= COLUMNS
    last = sheet[(rows - 1) * HEIGHT + 10, ((count - 1) % columns) * WIDTH + 10]
    assert np.abs(last.astype(int) - (200, 40, 40)).max() < 12


def test_nothing_makes_no_sheet(tmp_path: Path) -> None:
    assert contact_sheet([]) is None
    assert sheet_of_loops(str(tmp_path)) is None


def test_the_newest_loops_come_first_and_a_lost_poster_is_left_out(tmp_path: Path) -> None:
    colours = {"old": (30, 30, 220), "new": (220, 30, 30), "lost": (30, 220, 30)}
    rows: list[dict[str, Any]] = [{"photo": "bad.jpg", "source": "bad.jpg", "status": "failed"}]
    rows[0]["reason"] = "unreadable"
    for day, (name, colour) in enumerate(colours.items(), 1):
        poster = f"{name}.poster.jpg"
        if name != "lost":
            write_poster(plain(colour, (64, 96)), str(tmp_path / poster))
        finished = datetime.datetime(2026, 1, day, tzinfo=datetime.UTC)
        rows.append(
            {
                "photo": name,
                "source": name,
                "status": "ok",
                "outputs": [f"{name}.mp4", poster],
                "finished_at": finished,
            }
        )
    write_rows(str(tmp_path / "ledger.parquet"), rows, LEDGER_SCHEMA)
    sheet = opened(sheet_of_loops(str(tmp_path)))
    assert sheet.shape == (HEIGHT, 2 * WIDTH, 3)
    assert sheet[HEIGHT // 2, WIDTH // 2].argmax() == 0 and sheet[HEIGHT // 2, WIDTH * 3 // 2].argmax() == 2


def test_clips_stand_before_their_motion(tmp_path: Path) -> None:
    write_drawn_dataset(str(tmp_path), sources=2, per_source=1)
    sheet = opened(sheet_of_clips(str(tmp_path)))
    assert sheet.shape == (HEIGHT, 4 * WIDTH, 3)
    upper_motion = sheet[5 : HEIGHT // 3, WIDTH + 5 : 2 * WIDTH - 5].astype(int)
    assert upper_motion.min() > 240, "the upper half of a drawn clip is still, which motion shows as white"
