"""Whole libraries: reruns, renames, changed settings, lost ledgers, bad files, stores, watching."""

import json
import logging
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from animation_world import draw_photo, jpeg_bytes, write_photos, write_weights
from corpus_photos import photo_corpus
from PIL import Image

from pipelines import animate_record
from pipelines.animation_ledger import read_ledger
from pipelines.photo_animation import AnimationConfig, AnimationSummary, animate_new, animate_photos
from storage import lease
from storage.errors import StoreError, UsageError
from storage.objects import join_url, list_objects, read_bytes, write_bytes
from storage.progress import Progress

Animate = Callable[..., AnimationSummary]
HALF = ((0.0, 0.0), (0.5, 0.0), (0.5, 1.0), (0.0, 1.0))


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_weights(tmp_path_factory.mktemp("weights"))


@pytest.fixture(scope="module")
def blind_weights(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_weights(tmp_path_factory.mktemp("blind"), moving_logit=-5.0)


@pytest.fixture
def library(tmp_path: Path) -> Path:
    write_photos(tmp_path / "photos", 3)
    return tmp_path / "photos"


@pytest.fixture
def animate(tmp_path: Path, weights: str) -> Animate:
    def run(photos: Path | str, out: Path | str | None = None, **settings: object) -> AnimationSummary:
        config = AnimationConfig(**{"checkpoint": weights, "seconds": 0.4, "fps": 10.0, **settings})  # type: ignore[arg-type]
        return animate_photos(str(photos), str(out or tmp_path / "out"), config)

    return run


def files(out: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(out)): path.read_bytes() for path in sorted(out.rglob("*")) if path.is_file()
    }


def keys(out: Path) -> list[str]:
    return list(files(out))


def results_of(stem: str, *suffixes: str) -> set[str]:
    return {f"{stem}{suffix}" for suffix in (*suffixes, ".json", ".poster.jpg", ".motion.png")}


def test_photos_become_loops_with_everything_beside_them(
    library: Path, tmp_path: Path, animate: Animate
) -> None:
    summary = animate(library, format=("mp4", "png"), save_motion=True)
    out = tmp_path / "out"
    assert summary.counts == {"attempted": 3, "ok": 3, "rejected": 0, "failed": 0}
    for stem in ("photo_0000", "photo_0001", "photo_0002"):
        expected = results_of(stem, ".mp4", ".motion.npy") | {f"{stem}/{t:04d}.png" for t in range(4)}
        assert expected <= set(keys(out))
    assert len(keys(out)) == 3 * 9 + 1
    motion = np.load(out / "photo_0001.motion.npy")
    assert motion.shape == (2, 96, 128) and motion.dtype == np.float32
    sidecar = json.loads((out / "photo_0001.json").read_text())
    assert (
        sidecar["status"] == "ok"
        and sidecar["facts"]["frames"] == 4
        and sidecar["facts"]["category"] == "falling"
    )
    for output in sidecar["outputs"].values():
        size = sum(info.size for info in list_objects(str(out / output["path"])))
        assert size == output["bytes"]
    assert str(tmp_path) not in json.dumps(sidecar)
    rows = list(read_ledger(str(out)))
    assert [row["photo"] for row in rows] == [f"photo_{i:04d}.jpg" for i in range(3)]
    assert rows[0]["outputs"][0] == "photo_0000.mp4" and rows[0]["stage_seconds"]["render"] > 0
    assert rows[0]["finished_at"].tzinfo is not None
    assert summary.photos_per_hour > 0 and abs(sum(summary.stage_shares.values()) - 1) < 0.01
    assert summary.counters == {"ok": 3} and summary.stage_seconds["render"] > 0


def test_still_pixels_of_lossless_frames_are_the_photo(tmp_path: Path, animate: Animate) -> None:
    (tmp_path / "photos").mkdir()
    photo = draw_photo(1, (101, 131))
    Image.fromarray(photo).save(tmp_path / "photos" / "a.png")
    (tmp_path / "photos" / "a.png.hints.json").write_text(json.dumps({"moving": [HALF]}))
    animate(tmp_path / "photos", format=("png",), save_motion=True)
    frames = [np.asarray(Image.open(path)) for path in sorted((tmp_path / "out" / "a").iterdir())]
    motion = np.load(tmp_path / "out" / "a.motion.npy")
    still = ~motion.any(axis=0)
    assert (frames[0] == photo).all() and 0.4 < still.mean() < 0.6
    assert all((frame[still] == photo[still]).all() for frame in frames)
    assert any((frame[~still] != photo[~still]).any() for frame in frames)


def test_a_rerun_does_nothing(library: Path, tmp_path: Path, animate: Animate) -> None:
    animate(library)
    before = files(tmp_path / "out")
    times = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*")}
    again = animate(library)
    assert again.skipped == 3 and again.counts["ok"] == 3 and not again.stage_seconds
    assert files(tmp_path / "out") == before
    assert times == {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*")}


def test_overwrite_renders_again_and_gives_the_same_loops(
    library: Path, tmp_path: Path, animate: Animate
) -> None:
    animate(library)
    loops = {name: data for name, data in files(tmp_path / "out").items() if name.endswith(".mp4")}
    again = animate(library, overwrite=True)
    assert again.skipped == 0 and again.stage_seconds["render"] > 0
    assert loops == {name: data for name, data in files(tmp_path / "out").items() if name.endswith(".mp4")}


def test_changed_settings_redo_and_leave_nothing_stale(
    library: Path, tmp_path: Path, animate: Animate
) -> None:
    animate(library, format=("gif",))
    again = animate(library, format=("mp4",), seconds=0.5)
    assert again.skipped == 0
    assert set(keys(tmp_path / "out")) == {"ledger.parquet"}.union(
        *(results_of(f"photo_{i:04d}", ".mp4") for i in range(3))
    )


def test_another_format_joins_those_there(library: Path, tmp_path: Path, animate: Animate) -> None:
    animate(library)
    mp4 = (tmp_path / "out" / "photo_0000.mp4").stat().st_mtime_ns
    animate(library, format=("gif",))
    sidecar = json.loads((tmp_path / "out" / "photo_0000.json").read_text())
    assert {"mp4", "gif"} <= set(sidecar["outputs"])
    assert (tmp_path / "out" / "photo_0000.mp4").stat().st_mtime_ns == mp4
    assert animate(library, format=("mp4", "gif")).skipped == 3


def test_a_missing_result_is_made_again(library: Path, tmp_path: Path, animate: Animate) -> None:
    animate(library)
    before = (tmp_path / "out" / "photo_0001.mp4").read_bytes()
    (tmp_path / "out" / "photo_0001.mp4").unlink()
    assert animate(library).skipped == 2
    assert (tmp_path / "out" / "photo_0001.mp4").read_bytes() == before


def test_changed_photos_and_changed_hints_are_redone(library: Path, tmp_path: Path, animate: Animate) -> None:
    animate(library)
    before = files(tmp_path / "out")
    (library / "photo_0000.jpg").write_bytes(jpeg_bytes(draw_photo(99)))
    (library / "photo_0001.hints.json").write_text(json.dumps({"moving": [HALF]}))
    assert animate(library).skipped == 1
    after = files(tmp_path / "out")
    changed = {name for name in before if name.endswith(".mp4") and before[name] != after[name]}
    assert changed == {"photo_0000.mp4", "photo_0001.mp4"}
    (library / "photo_0001.hints.json").unlink()
    animate(library)
    assert (tmp_path / "out" / "photo_0001.mp4").read_bytes() == before["photo_0001.mp4"]


def test_renamed_photos_are_recognised(library: Path, tmp_path: Path, animate: Animate) -> None:
    animate(library, format=("mp4", "png"))
    before = files(tmp_path / "out")
    (library / "sub").mkdir()
    (library / "photo_0002.jpg").rename(library / "sub" / "new name.jpg")
    again = animate(library, format=("mp4", "png"))
    assert again.skipped == 2 and "render" not in again.stage_seconds and "decode" not in again.stage_seconds
    after = files(tmp_path / "out")
    assert after["sub/new name.mp4"] == before["photo_0002.mp4"]
    assert after["sub/new name/0003.png"] == before["photo_0002/0003.png"]
    assert not any(name.startswith("photo_0002") for name in after)
    assert [row["photo"] for row in read_ledger(str(tmp_path / "out"))] == [
        "photo_0000.jpg", "photo_0001.jpg", "sub/new name.jpg",
    ]  # fmt: skip


def test_a_copy_is_reused_without_taking_the_original_away(
    tmp_path: Path, library: Path, animate: Animate
) -> None:
    animate(library)
    (tmp_path / "more").mkdir()
    shutil.copy(library / "photo_0001.jpg", tmp_path / "more" / "copy.jpg")
    again = animate(tmp_path / "more")
    assert "render" not in again.stage_seconds and again.counts["attempted"] == 1
    out = files(tmp_path / "out")
    assert out["copy.mp4"] == out["photo_0001.mp4"]
    assert len(list(read_ledger(str(tmp_path / "out")))) == 4


def test_a_lost_ledger_comes_back_from_the_sidecars(library: Path, tmp_path: Path, animate: Animate) -> None:
    animate(library)
    rows = list(read_ledger(str(tmp_path / "out")))
    (tmp_path / "out" / "ledger.parquet").unlink()
    again = animate(library)
    assert "render" not in again.stage_seconds and again.counts["ok"] == 3
    for old, new in zip(rows, read_ledger(str(tmp_path / "out")), strict=True):
        same = (
            "photo",
            "photo_sha256",
            "status",
            "outputs",
            "frames",
            "moving_share",
            "category",
            "config_digest",
        )
        assert [old[name] for name in same] == [new[name] for name in same]


def test_a_touched_photo_is_not_rendered_again(library: Path, animate: Animate) -> None:
    animate(library)
    os.utime(library / "photo_0000.jpg", (1, 1))
    again = animate(library)
    assert again.skipped == 2 and "render" not in again.stage_seconds


def test_colliding_names_get_a_digest_and_only_they(tmp_path: Path, animate: Animate) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    Image.fromarray(draw_photo(1)).save(photos / "a.png")
    Image.fromarray(draw_photo(2)).save(photos / "a.jpg")
    Image.fromarray(draw_photo(3)).save(photos / "b.jpg")
    animate(photos)
    loops = sorted(path.name for path in (tmp_path / "out").glob("*.mp4"))
    assert len(loops) == 3 and loops[2] == "b.mp4"
    assert all(name.startswith("a-") and len(name) == len("a-12345678.mp4") for name in loops[:2])
    # One of the two goes: the other is not rendered again under its plain name.
    (photos / "a.png").unlink()
    again = animate(photos)
    assert "render" not in again.stage_seconds
    assert "a.mp4" in keys(tmp_path / "out")


def test_photos_whose_names_differ_in_case_or_suffix_all_keep_their_loops(
    tmp_path: Path, animate: Animate
) -> None:
    (tmp_path / "photos").mkdir()
    for seed, name in enumerate(("a.jpg", "A.JPG", "a.png", "A.jpeg")):
        Image.fromarray(draw_photo(seed)).save(tmp_path / "photos" / name)
    assert animate(tmp_path / "photos").counts["ok"] == 4
    loops = [path.name.casefold() for path in (tmp_path / "out").glob("*.mp4")]
    assert len(set(loops)) == 4 and len({path.read_bytes() for path in (tmp_path / "out").glob("*.mp4")}) == 4
    assert animate(tmp_path / "photos").skipped == 4


def test_keys_that_leave_the_output_folder_are_refused_and_recorded(animate: Animate) -> None:
    source, out = f"memory://in-{os.getpid()}", f"memory://out-{os.getpid()}"
    write_bytes(f"{source}/good.jpg", jpeg_bytes(draw_photo(1)))
    write_bytes(f"{source}/bad\\..\\..\\evil.jpg", jpeg_bytes(draw_photo(2)))
    summary = animate(source, out)
    assert summary.reasons == {"unsafe_name": 1} and summary.counts["ok"] == 1
    assert not any("evil" in info.key for info in list_objects(out))


def test_results_inside_the_library_are_not_animated_again(library: Path, animate: Animate) -> None:
    first = animate(library, library / "loops", format=("webp",))
    again = animate(library, library / "loops", format=("webp",))
    assert first.counts["attempted"] == again.counts["attempted"] == again.skipped == 3
    with pytest.raises(UsageError, match="folder of their own"):
        animate(library, f"{library}/")


def test_nothing_to_animate_is_said_and_not_an_error(
    library: Path, tmp_path: Path, animate: Animate, blind_weights: str
) -> None:
    summary = animate(library, checkpoint=blind_weights)
    assert summary.counts["rejected"] == 3 and summary.counts["failed"] == 0
    assert summary.reasons == {"nothing_to_animate": 3}
    assert not list((tmp_path / "out").glob("*.mp4"))
    assert json.loads((tmp_path / "out" / "photo_0000.json").read_text())["reason"] == "nothing_to_animate"
    assert animate(library, checkpoint=blind_weights).skipped == 3


def test_stale_loops_go_when_a_photo_stops_moving(
    library: Path, tmp_path: Path, animate: Animate, blind_weights: str
) -> None:
    animate(library)
    animate(library, checkpoint=blind_weights)
    assert not list((tmp_path / "out").glob("*.mp4")) and not list((tmp_path / "out").glob("*.poster.jpg"))


def test_bad_hints_fail_one_photo_and_name_the_place(library: Path, tmp_path: Path, animate: Animate) -> None:
    (library / "photo_0001.jpg.hints.json").write_text('{"arrows": [{"from": [0, 0], "to": [1.7, 0]}]}')
    summary = animate(library)
    assert summary.counts["failed"] == 1 and summary.failed_items[0]["reason"] == "bad_hints"
    assert "arrows[0].to[0]" in summary.failed_items[0]["message"]
    again = animate(library)
    assert again.skipped == 3 and again.failed_items == summary.failed_items


def test_hints_and_masks_for_the_whole_run(library: Path, tmp_path: Path, animate: Animate) -> None:
    mask = np.zeros((96, 128, 4), np.uint8)
    mask[:, :40] = 255
    Image.fromarray(mask).save(tmp_path / "mask.png")
    animate(library, mask=str(tmp_path / "mask.png"), save_motion=True)
    motion = np.load(tmp_path / "out" / "photo_0000.motion.npy")
    assert motion[:, :, 10].any() and not motion[:, :, 41:].any()
    (tmp_path / "wrong.json").write_text("[]")
    with pytest.raises(UsageError, match="expected an object"):
        animate(library, hints=str(tmp_path / "wrong.json"))


def test_metadata_is_stripped_unless_kept(tmp_path: Path, animate: Animate) -> None:
    (tmp_path / "photos").mkdir()
    exif = Image.Exif()
    exif[271] = "Maker of secrets"
    (tmp_path / "photos" / "a.jpg").write_bytes(jpeg_bytes(draw_photo(1), exif=exif))
    animate(tmp_path / "photos", format=("apng", "mp4"))
    assert not any(b"Maker of secrets" in data for data in files(tmp_path / "out").values())
    animate(tmp_path / "photos", format=("apng", "mp4"), keep_metadata=True)
    assert b"Maker of secrets" in (tmp_path / "out" / "a.apng").read_bytes()


def test_max_side_and_formats_of_the_command_line(library: Path, tmp_path: Path, animate: Animate) -> None:
    animate(library / "photo_0000.jpg", max_side=64, format="gif")
    with Image.open(tmp_path / "out" / "photo_0000.gif") as image:
        assert image.size == (64, 48)


def test_a_second_run_into_the_same_folder_is_refused(
    library: Path, tmp_path: Path, animate: Animate, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease, "RENEW_SECONDS", 0.05)
    with lease.hold_lease(str(tmp_path / "out")):
        with pytest.raises(UsageError, match="another run has been working"):
            animate(library)
        assert not list((tmp_path / "out").glob("*.mp4"))
    assert animate(library).counts["ok"] == 3
    assert not (tmp_path / "out" / ".lease").exists()


def test_progress_counts_up_to_the_total(library: Path, tmp_path: Path, weights: str) -> None:
    seen: list[Progress] = []
    config = AnimationConfig(checkpoint=weights, seconds=0.4, fps=10)
    animate_photos(str(library), str(tmp_path / "out"), config, on_progress=seen.append)
    assert seen[-1].done == seen[-1].total == 3 and seen[-1].counts == {"ok": 3}


def test_every_bad_photo_gets_one_row(tmp_path: Path, animate: Animate, blind_weights: str) -> None:
    """The network sees nothing move: a photo that can be read is rejected, any other has its reason."""
    photos = tmp_path / "photos"
    expected = {}
    for name, data, reasons in photo_corpus():
        path = photos / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        expected[name] = reasons
    (photos / "loop.jpg").symlink_to(photos / "loop.jpg")
    (photos / "dangling.jpg").symlink_to(photos / "nowhere.jpg")
    (photos / "circle").symlink_to(photos)
    expected |= {"loop.jpg": {"not_found", "store_error"}, "dangling.jpg": {"not_found", "store_error"}}
    assert len(expected) >= 150
    summary = animate(photos, checkpoint=blind_weights)
    rows = {row["photo"]: row for row in read_ledger(str(tmp_path / "out"))}
    assert rows.keys() == expected.keys() and summary.counts["attempted"] == len(expected)
    for name, row in rows.items():
        reason = "ok" if row["reason"] == "nothing_to_animate" else row["reason"]
        assert reason in expected[name], (name, row["message"])
    assert not list(tmp_path.rglob("*.mp4"))


def test_whole_way_on_object_storage(s3_url: str, tmp_path: Path, animate: Animate) -> None:
    photos, out = join_url(s3_url, "in"), join_url(s3_url, "out")
    for index, name in enumerate(["a.jpg", "sub/Gebäude 滝 'x' \"y\" <z>.jpg", "50%25 #1?.jpg"]):
        write_bytes(join_url(photos, name), jpeg_bytes(draw_photo(index)))
    write_bytes(join_url(photos, "broken.jpg"), b"nothing")
    summary = animate(photos, out)
    assert summary.counts == {"attempted": 4, "ok": 3, "rejected": 0, "failed": 1}
    found = {info.key: info.size for info in list_objects(out)}
    assert {"a.mp4", "sub/Gebäude 滝 'x' \"y\" <z>.mp4", "50%25 #1?.mp4", "ledger.parquet"} <= found.keys()
    assert all(found.values()) and len(found) == 3 * 4 + 1
    assert animate(photos, out).skipped == 4
    secret = os.environ["AWS_SECRET_ACCESS_KEY"]
    assert not any(secret.encode() in read_bytes(info.url) for info in list_objects(out))


def test_no_secret_reaches_a_log_a_row_or_a_sidecar(
    tmp_path: Path, animate: Animate, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "very-secret-indeed")
    caplog.set_level(logging.DEBUG)
    (tmp_path / "photos").mkdir()
    for name in ("a.jpg", "b.jpg"):
        (tmp_path / "photos" / name).write_bytes(jpeg_bytes(draw_photo(1)))

    def leaking(*_: object, **__: object) -> object:
        raise StoreError("signed with very-secret-indeed at https://me:word@host/a.jpg?X-Amz-Signature=feed")

    monkeypatch.setattr(animate_record, "decode_photo_apart", leaking)
    summary = animate(tmp_path / "photos")
    assert summary.counts["failed"] == 2 and "https://host/a.jpg" in summary.failed_items[0]["message"]
    kept = "".join(map(str, read_ledger(str(tmp_path / "out")))) + str(summary) + caplog.text
    for secret in ("very-secret", "word@", "feed"):
        assert secret not in kept
        assert not any(secret.encode() in data for data in files(tmp_path / "out").values())


def test_watching_takes_new_photos_up(library: Path, tmp_path: Path, weights: str) -> None:
    config = AnimationConfig(checkpoint=weights, seconds=0.4, fps=10)
    rounds: list[AnimationSummary] = []
    watch = animate_new(
        str(library), str(tmp_path / "out"), config, interval_s=0.1, stop=lambda: len(rounds) >= 2
    )
    for summary in watch:
        rounds.append(summary)
        (library / "late.jpg").write_bytes(jpeg_bytes(draw_photo(50)))
    assert [summary.counts["attempted"] - summary.skipped for summary in rounds] == [3, 1]


def test_no_photos_is_a_usage_error(tmp_path: Path, animate: Animate) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "notes.txt").write_text("nothing")
    with pytest.raises(UsageError, match=r"\.jpg"):
        animate(tmp_path / "photos")
