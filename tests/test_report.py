"""The dataset report: its figures are those of the manifest, its page works in a real browser."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from browser import chromium, console_errors, file_server
from drawn_dataset import draw_sample, write_drawn_dataset

from flows.charts import histogram, rose
from flows.report import gather_statistics, publish_report
from flows.report_wall import choose_clips
from storage.dataset_format import DatasetInfo, manifest_url, shard_url, write_dataset_json
from storage.errors import FormatError
from storage.manifest import MANIFEST_SCHEMA, write_rows
from storage.shards import write_shard

HOSTILE_TITLE = "</script><script>window.hurt=1</script><img src=x onerror=window.hurt=1>"


def manifest_row(key: str, **values: Any) -> dict[str, Any]:
    row: dict[str, Any] = dict.fromkeys(MANIFEST_SCHEMA.names)
    return row | {"key": key, "source": f"videos/{key[:1]}.mp4", "status": "ok", "stage": "select"} | values


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    with chromium(tmp_path_factory.mktemp("profile")) as driver:
        yield driver


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six kept clips with known speeds, two rejected at different gates, one failed."""
    folder = tmp_path_factory.mktemp("dataset")
    samples = sorted((draw_sample(n, source=n % 2) for n in range(6)), key=lambda sample: sample.key)
    shard = write_shard(shard_url(str(folder), "00000.tar"), samples)
    rows = [
        manifest_row(
            sample.key,
            source=sample.info["source"],
            shard="00000.tar",
            split="train",
            category=sample.info["category"],
            title=HOSTILE_TITLE,
            licence="CC-BY-4.0",
            mean_speed=1.0 + index,
            direction=90.0,
            moving_share=0.5,
        )
        for index, sample in enumerate(samples)
    ]
    rows.append(manifest_row("b1", status="rejected", reason="camera_motion", stage="stabilise"))
    rows.append(manifest_row("b2", status="rejected", reason="no_motion", stage="screen"))
    rows.append(manifest_row("c1", status="failed", reason="unreadable", stage="read"))
    write_rows(manifest_url(str(folder)), rows, MANIFEST_SCHEMA)
    counts = {"attempted": 9, "ok": 6, "rejected": 2, "failed": 1}
    write_dataset_json(
        str(folder), DatasetInfo(config={}, counts=counts, shards=[shard], splits={"train": 6})
    )
    return folder


def test_every_row_is_counted_once_and_the_funnel_ends_with_what_is_kept() -> None:
    rows = [
        manifest_row("a1"),
        manifest_row("a2", status="rejected", reason="no_motion", stage="screen"),
        manifest_row("b1", status="failed", reason="truncated", stage="read"),
    ]
    statistics = gather_statistics(rows)
    assert statistics.attempted == 3
    assert [step["left"] for step in statistics.funnel()] == [3, 2, 1, 1, 1, 1, 1]
    assert statistics.reasons == {("rejected", "no_motion"): 1, ("failed", "truncated"): 1}
    assert statistics.sources["videos/a.mp4"] == {"ok": 1, "rejected": 1}


def test_a_stage_the_report_does_not_know_is_counted_too() -> None:
    statistics = gather_statistics([manifest_row("a", status="rejected", reason="cut", stage="weave")])
    assert statistics.funnel()[-1] == {"label": "weave", "left": 0, "lost": [("cut", 1)]}


def test_histogram_and_rose_count_everything() -> None:
    spread = histogram([0.1, 0.2, 5.0, 100.0], unit="px/frame")
    assert spread is not None and sum(bar.count for bar in spread.bars) == 4
    directions = rose([359.0, 1.0, 90.0])
    assert directions is not None
    assert [petal.count for petal in directions.petals if petal.count] == [2, 1]
    assert directions.summary.endswith("flow to the right")
    assert histogram([], unit="px") is None and rose([]) is None


def test_few_shards_are_opened_and_the_choice_is_the_same_every_time() -> None:
    rows = [manifest_row(f"k{n}", shard=f"{n // 10:05d}.tar") for n in range(1000)]
    chosen = choose_clips(rows, limit=48)
    assert len(chosen) == 48 and len({clip.shard for clip in chosen}) <= 8
    assert [clip.key for clip in chosen] == [clip.key for clip in choose_clips(rows, limit=48)]


def test_an_unfinished_dataset_has_no_report(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match=r"dataset\.json"):
        publish_report(str(tmp_path))


def test_the_page_says_what_the_manifest_says(dataset: Path, session: Any) -> None:
    publish_report(str(dataset))
    with file_server(dataset) as address:
        session.get(f"{address}/report/index.html")
        text = session.execute_script("return document.body.innerText")
        figures = session.execute_script(
            "return [...document.querySelectorAll('.figures dd')].map(d => d.innerText)"
        )
        assert figures[:5] == ["6", "9", "2", "1", "2 of 4"]
        assert "camera motion 1" in text and "CC-BY-4.0" in text
        assert session.execute_script("return document.querySelectorAll('.clip').length") == 6
        assert session.execute_script("return window.hurt") is None
        assert (
            session.execute_script("return document.querySelector('.clip .name').textContent")
            == HOSTILE_TITLE
        )
        assert console_errors(session) == []


def test_clips_play_while_pointed_at(dataset: Path, session: Any) -> None:
    from selenium.webdriver.common.action_chains import ActionChains
    from selenium.webdriver.common.by import By
    from selenium.webdriver.support.ui import WebDriverWait

    publish_report(str(dataset))
    session.get((dataset / "report" / "index.html").as_uri())
    button = session.find_element(By.CSS_SELECTOR, ".clip button")
    session.execute_script("arguments[0].scrollIntoView({block: 'center'})", button)
    position = "return document.querySelector('.window img').style.transform"
    assert session.execute_script(position) == ""
    ActionChains(session).move_to_element(button).perform()
    seen: set[str] = set()

    def moved(driver: Any) -> bool:
        seen.add(driver.execute_script(position))
        return len(seen) >= 4

    WebDriverWait(session, 20, poll_frequency=0.05).until(moved)
    assert session.execute_script("return document.querySelector('.motion').naturalWidth") > 0
    assert console_errors(session) == []


def test_a_dataset_without_kept_clips_still_has_a_page(tmp_path: Path) -> None:
    write_rows(
        manifest_url(str(tmp_path)),
        [manifest_row("a", status="failed", reason="empty", stage="read")],
        MANIFEST_SCHEMA,
    )
    counts = {"attempted": 1, "ok": 0, "rejected": 0, "failed": 1}
    write_dataset_json(str(tmp_path), DatasetInfo(config={}, counts=counts, shards=[], splits={}))
    publish_report(str(tmp_path))
    assert "No clip was kept" in (tmp_path / "report" / "index.html").read_text()


def test_a_damaged_sample_is_left_out_of_the_wall(tmp_path: Path) -> None:
    write_drawn_dataset(str(tmp_path))
    shard = next((tmp_path / "shards").iterdir())
    data = bytearray(shard.read_bytes())
    data[len(data) // 3 : len(data) // 3 + 4000] = bytes(4000)
    shard.write_bytes(data)
    publish_report(str(tmp_path))
    page = (tmp_path / "report" / "index.html").read_text()
    assert 0 < page.count("data:image/webp") // 2 < 8
