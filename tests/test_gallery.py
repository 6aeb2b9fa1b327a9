"""The gallery in a real browser: it plays, filters, compares, and no file name can hurt it."""

import datetime
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from browser import chromium, console_errors, file_server
from PIL import Image

from flows.gallery import GalleryConfig, gallery_items, publish_gallery
from flows.page import json_for_script, link_to
from models.colour_wheel import motion_to_colour
from storage.errors import UsageError
from storage.loops import write_loop
from storage.manifest import LEDGER_SCHEMA, write_rows

HOSTILE = (
    "<script>window.hurt=1</script>.jpg",
    "\"><img src=x onerror='window.hurt=1'>.jpg",
    "100% #1?.jpg",
    "été 滝 водопад.jpg",
    "a&b;c'd.jpg",
    "javascript:window.hurt=1.jpg",
    "</script><script>window.hurt=1</script>.jpg",
)
SIZE_HW = (96, 128)


def loop_frames(seed: int) -> Iterator[np.ndarray]:
    generator = np.random.default_rng(seed)
    texture = generator.integers(40, 220, (*SIZE_HW, 3), dtype=np.uint8)
    for frame in range(30):
        yield np.roll(texture, frame * 2, axis=0)


def ledger_row(name: str, **values: Any) -> dict[str, Any]:
    now = datetime.datetime.now(datetime.UTC)
    return {"photo": name, "source": f"photos/{name}", "status": "ok", "finished_at": now, **values}


def animated(folder: Path, name: str, *, seed: int, category: str = "river") -> dict[str, Any]:
    stem = name.removesuffix(".jpg").replace("/", "_")
    write_loop(loop_frames(seed), str(folder / f"{stem}.mp4"), format="mp4", fps=30)
    Image.fromarray(next(loop_frames(seed))).save(folder / f"{stem}.poster.jpg")
    motion = np.zeros((2, *SIZE_HW), np.float32)
    motion[1] = 2
    Image.fromarray(motion_to_colour(motion)).save(folder / f"{stem}.motion.png")
    return ledger_row(
        name,
        outputs=[f"{stem}.mp4", f"{stem}.poster.jpg", f"{stem}.motion.png"],
        seconds=1.0,
        frames=30,
        width=SIZE_HW[1],
        height=SIZE_HW[0],
        mean_speed=2.0,
        moving_share=0.5,
        category=category,
    )


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("loops")
    rows = [animated(folder, "falls.jpg", seed=1, category="waterfall")]
    rows += [animated(folder, name, seed=2 + index) for index, name in enumerate(HOSTILE)]
    rows.append(
        ledger_row("wall.jpg", status="rejected", reason="nothing_to_animate", message="no fluid <b>here</b>")
    )
    rows.append(ledger_row("broken.jpg", status="failed", reason="unreadable", message="not an image"))
    write_rows(str(folder / "ledger.parquet"), rows, LEDGER_SCHEMA)
    summary = publish_gallery(str(folder))
    assert summary.counts == {"ok": 8, "rejected": 1, "failed": 1}
    return folder


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    with chromium(tmp_path_factory.mktemp("profile")) as driver:
        yield driver


def wait_until(session: Any, script: str, *, seconds: float = 30.0) -> Any:
    """Run a script until its value is true; returns the value."""
    end = time.monotonic() + seconds
    while not (value := session.execute_script(f"return {script}")):
        assert time.monotonic() < end, f"never true: {script}"
        time.sleep(0.05)
    return value


def play_all(session: Any, wanted: bool) -> None:
    """Set the switch: a browser without a mouse starts with it on."""
    session.execute_script(
        "const b = document.getElementById('play');"
        "if ((b.ariaPressed === 'true') !== arguments[0]) b.click()",
        wanted,
    )


def test_links_survive_every_character() -> None:
    assert link_to("a b/50% #1?.mp4") == "./a%20b/50%25%20%231%3F.mp4"
    assert link_to("javascript:x") == "./javascript%3Ax"


def test_data_cannot_close_its_script_element() -> None:
    text = json_for_script({"n": "</script><!-- \u2028 & \udcff"})
    assert "<" not in text and "&" not in text and "\u2028" not in text
    text.encode("utf-8")


def test_a_folder_without_a_ledger_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no ledger"):
        publish_gallery(str(tmp_path))


def test_outputs_are_found_whether_relative_or_whole() -> None:
    row = ledger_row("a.jpg", outputs=["s3://b/loops/x/a.mp4", "s3://b/loops/x/a.poster.jpg", "x/a.json"])
    (item,) = gallery_items([row], "s3://b/loops/")
    assert (item["l"], item["t"], item["p"]) == ("./x/a.mp4", "video", "./x/a.poster.jpg")


@pytest.mark.parametrize(
    ("outputs", "loop", "kind"),
    [
        (["a.gif", "a.mp4", "a.webm"], "./a.mp4", "video"),
        (["a.hevc.mp4", "a.webp"], "./a.webp", "picture"),
        (["a", "a.poster.jpg", "a.motion.npy", "a.json"], "./a", "frames"),
    ],
)
def test_the_loop_that_browsers_play_best_is_shown(outputs: list[str], loop: str, kind: str) -> None:
    (item,) = gallery_items([ledger_row("a.jpg", outputs=outputs)], "loops")
    assert (item["l"], item["t"]) == (loop, kind) and "m" not in item


def test_a_large_library_shows_its_newest(tmp_path: Path) -> None:
    start = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
    rows = [
        ledger_row(f"{n}.jpg", finished_at=start + datetime.timedelta(hours=n), outputs=[f"{n}.mp4"])
        for n in range(50)
    ]
    write_rows(str(tmp_path / "ledger.parquet"), rows, LEDGER_SCHEMA)
    summary = publish_gallery(str(tmp_path), GalleryConfig(max_items=10))
    page = (tmp_path / "index.html").read_text()
    assert (summary.counts["ok"], summary.shown) == (50, 10)
    assert "49.jpg" in page and '"39.jpg"' not in page and "newest 10" in page


@pytest.mark.parametrize("protocol", ["http", "file"])
def test_loops_play_and_nothing_complains(library: Path, session: Any, protocol: str) -> None:
    with file_server(library) as address:
        base = address if protocol == "http" else library.as_uri()
        session.get(f"{base}/index.html")
        wait_until(session, "document.querySelectorAll('.card').length === 8")
        play_all(session, True)
        wait_until(
            session,
            "[...document.querySelectorAll('.card video')].filter(v => v.currentTime > 0.1).length === 8",
        )
        wait_until(
            session,
            "[...document.querySelectorAll('.card img')].every(i => i.complete && i.naturalWidth > 0)",
        )
        assert session.execute_script("return window.hurt") is None
        assert console_errors(session) == []


def test_pointing_at_a_card_plays_it_and_leaving_stops_it(library: Path, session: Any) -> None:
    from selenium.webdriver.common.action_chains import ActionChains
    from selenium.webdriver.common.by import By

    with file_server(library) as address:
        session.get(f"{address}/index.html")
        play_all(session, False)
        card = session.find_element(By.CSS_SELECTOR, ".card button")
        ActionChains(session).move_to_element(card).perform()
        first = wait_until(session, "document.querySelector('.card video')?.currentTime")
        assert wait_until(session, f"document.querySelector('.card video')?.currentTime !== {first}")
        ActionChains(session).move_to_element(session.find_element(By.CSS_SELECTOR, "h1")).perform()
        wait_until(session, "document.querySelectorAll('.card video').length === 0")


def test_filters_by_status_motion_and_name(library: Path, session: Any) -> None:
    with file_server(library) as address:
        session.get(f"{address}/index.html")
        names = "[...document.querySelectorAll('.card .name')].map(n => n.textContent)"
        session.execute_script(
            "const c = document.getElementById('category');"
            "c.value = 'waterfall'; c.dispatchEvent(new Event('change'))"
        )
        assert session.execute_script(f"return {names}") == ["falls.jpg"]
        session.get(f"{address}/index.html")
        session.execute_script(
            "[...document.querySelectorAll('#statuses button')]"
            ".find(b => b.textContent.startsWith('Failed')).click()"
        )
        assert session.execute_script(f"return {names}") == ["broken.jpg"]
        assert "not an image" in session.execute_script("return document.querySelector('.card').innerText")
        session.execute_script(
            "[...document.querySelectorAll('#statuses button')]"
            ".find(b => b.textContent.startsWith('Not')).click()"
        )
        assert "<b>here</b>" in session.execute_script("return document.querySelector('.card').innerText")


def test_keyboard_walks_opens_compares_and_closes(library: Path, session: Any) -> None:
    from selenium.webdriver.common.action_chains import ActionChains
    from selenium.webdriver.common.keys import Keys

    def press(*keys: str) -> None:
        ActionChains(session).send_keys(*keys).perform()

    with file_server(library) as address:
        session.get(f"{address}/index.html")
        session.execute_script("document.querySelector('.card button').focus()")
        press(Keys.ARROW_RIGHT)
        focused = "document.activeElement.closest('.card')?.dataset.index"
        assert session.execute_script(f"return {focused}") == "1"
        press(Keys.ENTER)
        assert session.execute_script("return document.getElementById('viewer').open")
        session.execute_script("document.querySelector('[data-view=compare]').click()")
        before = session.execute_script("return document.querySelector('.stage .loop').style.clipPath")
        session.execute_script("document.querySelector('.stage input').focus()")
        press(Keys.ARROW_RIGHT)
        assert (
            session.execute_script("return document.querySelector('.stage .loop').style.clipPath") != before
        )
        session.execute_script("document.querySelector('[data-view=motion]').click()")
        wait_until(session, "document.querySelector('.stage .motion').naturalWidth > 0")
        assert session.execute_script("return !document.getElementById('legend').hidden")
        press(Keys.ESCAPE)
        wait_until(session, "!document.getElementById('viewer').open")
        assert session.execute_script(f"return {focused}") == "1"
        assert console_errors(session) == []


def test_thousands_of_photos_keep_the_document_small(tmp_path: Path, session: Any) -> None:
    rows = [ledger_row(f"photo {n:04d}.jpg", outputs=[f"{n}.mp4"], category="sea") for n in range(5000)]
    write_rows(str(tmp_path / "ledger.parquet"), rows, LEDGER_SCHEMA)
    publish_gallery(str(tmp_path))
    assert (tmp_path / "index.html").stat().st_size < 1_500_000
    with file_server(tmp_path) as address:
        session.get(f"{address}/index.html")
        wait_until(session, "document.querySelectorAll('.card').length > 0")
        most = session.execute_script(
            """let most = 0;
            for (let step = 0; step < 60; step++) {
              scrollTo(0, step * 900); draw();
              most = Math.max(most, document.querySelectorAll('*').length);
            }
            return most"""
        )
        assert most < 1500, "the document holds what is in view, not five thousand cards"
        assert session.execute_script("return document.querySelectorAll('.card').length") < 120
        assert session.execute_script("return scrollY") > 10_000
        right = "getBoundingClientRect().right"
        assert session.execute_script(
            f"return Math.max(...[...document.querySelectorAll('.card')].map(c => c.{right}))"
            f" <= document.getElementById('grid').{right} + 1"
        )
        names = session.execute_script(
            "return [...document.querySelectorAll('.card .name')].map(n => n.textContent)"
        )
        assert len(set(names)) == len(names)


def test_a_page_that_would_be_the_same_is_left_alone(tmp_path: Path) -> None:
    def publish(title: str = "Waters") -> tuple[bool, int]:
        summary = publish_gallery(str(tmp_path), GalleryConfig(title=title), only_changed=True)
        return summary.changed, summary.counts["ok"]

    rows = [ledger_row(f"{number}.jpg") for number in range(3)]
    write_rows(str(tmp_path / "ledger.parquet"), rows, LEDGER_SCHEMA)
    assert publish() == (True, 3)
    before = (tmp_path / "index.html").stat().st_mtime_ns
    assert publish() == (False, 3)
    assert (tmp_path / "index.html").stat().st_mtime_ns == before
    assert publish("Other waters") == (True, 3)
    write_rows(str(tmp_path / "ledger.parquet"), [*rows, ledger_row("new.jpg")], LEDGER_SCHEMA)
    assert publish("Other waters") == (True, 4)
    (tmp_path / "index.html").unlink()
    assert publish("Other waters") == (True, 4)
