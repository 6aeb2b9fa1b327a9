"""Shards: the same bytes for the same samples, readable by WebDataset, and honest about damage."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

import numpy as np
import pytest
import webdataset
from hypothesis import given, settings
from hypothesis import strategies as st
from samples import draw_sample

from storage.errors import FormatError, UsageError
from storage.objects import read_bytes, write_bytes
from storage.shards import Sample, decode_sample, encode_sample, read_shard, split_of, write_shard


def test_a_sample_comes_back_with_small_loss() -> None:
    sample = draw_sample(1)
    again = decode_sample(encode_sample(sample))
    assert again.key == sample.key
    assert again.info == sample.info
    for before, after in zip(sample.frames, again.frames, strict=True):
        assert np.abs(before.astype(int) - after).mean() < 3
    np.testing.assert_allclose(again.motion_2HW, sample.motion_2HW, atol=2e-3)
    np.testing.assert_allclose(again.confidence_HW, sample.confidence_HW, atol=0.5 / 255 + 1e-6)
    np.testing.assert_array_equal(again.moving_HW, sample.moving_HW)


def test_re_encoding_a_read_sample_loses_nothing() -> None:
    members = encode_sample(draw_sample(1))
    assert encode_sample(decode_sample(members)) == members


def test_the_same_samples_give_the_same_bytes_anywhere(any_url: str, tmp_path: Path) -> None:
    first = write_shard(str(tmp_path / "a.tar"), [draw_sample(seed) for seed in range(3)])
    second = write_shard(f"{any_url}/shards/a.tar", [draw_sample(seed) for seed in range(3)])
    assert first == second
    assert read_bytes(f"{any_url}/shards/a.tar") == (tmp_path / "a.tar").read_bytes()
    keys = [sample.key for sample in read_shard(f"{any_url}/shards/a.tar")]
    assert keys == [draw_sample(seed).key for seed in range(3)]


def test_an_ordinary_tar_reader_agrees(tmp_path: Path) -> None:
    info = write_shard(str(tmp_path / "a.tar"), [draw_sample(seed) for seed in range(3)])
    assert (tmp_path / "a.tar").stat().st_size == info.bytes
    with tarfile.open(tmp_path / "a.tar") as archive:
        members = archive.getmembers()
        assert len(members) == 3 * 7
        assert {(one.mtime, one.uid, one.gid, one.uname, one.mode) for one in members} == {
            (0, 0, 0, "", 0o644)
        }


@pytest.mark.filterwarnings("ignore::ResourceWarning")  # webdataset leaves closing to the garbage collector
def test_webdataset_reads_our_shards(tmp_path: Path) -> None:
    samples = [draw_sample(seed) for seed in range(3)]
    write_shard(str(tmp_path / "a.tar"), samples)
    read = list(webdataset.WebDataset(str(tmp_path / "a.tar"), shardshuffle=False).decode("rgb8"))
    assert [one["__key__"] for one in read] == [sample.key for sample in samples]
    for ours, theirs in zip(read_shard(str(tmp_path / "a.tar")), read, strict=True):
        np.testing.assert_allclose(theirs["02.jpg"].astype(int), ours.frames[2], atol=2)  # two JPEG decoders
        np.testing.assert_array_equal(theirs["motion.npy"], ours.motion_2HW)
        assert theirs["json"]["source"] == ours.info["source"]


def test_reading_goes_on_behind_a_damaged_sample(tmp_path: Path) -> None:
    samples = [draw_sample(seed) for seed in range(4)]
    url = str(tmp_path / "a.tar")
    write_shard(url, samples)
    _damage(Path(url), f"{samples[1].key}.motion.npy", at=300)
    reader = read_shard(url)
    assert next(reader).key == samples[0].key
    with pytest.raises(FormatError, match="do not match their digest") as caught:
        next(reader)
    message = str(caught.value)
    assert url in message and samples[1].key in message and "build the shard again" in message
    assert [sample.key for sample in reader] == [samples[2].key, samples[3].key]


def test_reading_goes_on_behind_a_damaged_header(tmp_path: Path) -> None:
    samples = [draw_sample(seed) for seed in range(3)]
    url = str(tmp_path / "a.tar")
    write_shard(url, samples)
    _damage(Path(url), f"{samples[1].key}.01.jpg", at=-512)
    errors: list[FormatError] = []
    keys = [sample.key for sample in read_shard(url, on_error=errors.append)]
    assert keys == [samples[0].key, samples[2].key]
    assert len(errors) == 1 and samples[1].key in str(errors[0])


@pytest.mark.parametrize("tenth", range(10))
def test_every_truncation_is_noticed(tmp_path: Path, tenth: int) -> None:
    samples = [draw_sample(seed) for seed in range(3)]
    url = str(tmp_path / "a.tar")
    write_shard(url, samples)
    data = Path(url).read_bytes()
    used = len(data.rstrip(b"\0"))
    Path(url).write_bytes(data[: used * tenth // 10])
    errors: list[FormatError] = []
    keys = [sample.key for sample in read_shard(url, on_error=errors.append)]
    assert keys == [sample.key for sample in samples][: len(keys)]
    assert len(keys) < 3
    assert any("truncated" in str(error) for error in errors)


def test_a_truncation_at_a_members_border_is_noticed(tmp_path: Path) -> None:
    """The place where Python's own tar reader sees a whole archive."""
    url = str(tmp_path / "a.tar")
    write_shard(url, [draw_sample(seed) for seed in range(3)])
    with tarfile.open(url) as archive:
        border = archive.getmembers()[7].offset
    Path(url).write_bytes(Path(url).read_bytes()[:border])
    with pytest.raises(FormatError, match="truncated"):
        list(read_shard(url))


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_any_damage_is_noticed_or_harmless(data: st.DataObject) -> None:
    """Whatever bytes change: a sample either comes back exactly, or an error names the shard."""
    samples = [draw_sample(seed, size=(16, 16), frames=1) for seed in range(2)]
    write_shard("memory://damage/good.tar", samples)
    raw = bytearray(read_bytes("memory://damage/good.tar"))
    for _ in range(data.draw(st.integers(1, 4))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    write_bytes("memory://damage/bad.tar", bytes(raw))
    errors: list[FormatError] = []
    expected = {sample.key: encode_sample(sample) for sample in samples}
    for sample in read_shard("memory://damage/bad.tar", on_error=errors.append):
        assert encode_sample(sample) == expected.pop(sample.key)
    assert not expected or errors
    assert all("memory://damage/bad.tar" in str(error) for error in errors)


@pytest.mark.parametrize("missing", ["00.jpg", "motion.npy", "confidence.png", "moving.png", "json"])
def test_a_missing_member_is_named(missing: str) -> None:
    sample = draw_sample(1)
    members = encode_sample(sample)
    del members[f"{sample.key}.{missing}"]
    members = {name: data for name, data in members.items()}
    with pytest.raises(FormatError, match=sample.key):
        decode_sample(members)


def test_pickled_motion_is_refused() -> None:
    sample = draw_sample(1)
    members = encode_sample(sample)
    stream = io.BytesIO()
    np.save(stream, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    members[f"{sample.key}.motion.npy"] = stream.getvalue()
    members[f"{sample.key}.json"] = json.dumps(sample.info).encode()
    with pytest.raises(FormatError, match=r"motion\.npy"):
        decode_sample(members)


def test_a_cut_jpeg_is_noticed_when_its_frame_is_asked_for() -> None:
    sample = draw_sample(1)
    members = encode_sample(sample)
    members[f"{sample.key}.01.jpg"] = members[f"{sample.key}.01.jpg"][:-200]
    members[f"{sample.key}.json"] = json.dumps(sample.info).encode()  # as of a foreign writer, without digest
    again = decode_sample(members)
    assert again.frames[0].shape == (48, 64, 3)
    with pytest.raises(FormatError, match="not a whole JPEG"):
        _ = again.frames[1]


def test_what_cannot_be_a_sample_is_refused() -> None:
    good = draw_sample(1)
    parts = {
        name: getattr(good, name)
        for name in ("key", "frames", "motion_2HW", "confidence_HW", "moving_HW", "info")
    }
    for change in (
        {"key": "a.b"},
        {"key": "a/b"},
        {"frames": []},
        {"motion_2HW": np.zeros((24, 32, 2))},
        {"confidence_HW": np.zeros((48, 64), np.float32)},
    ):
        with pytest.raises(UsageError):
            Sample(**{**parts, **change})
    for change in (
        {"motion_2HW": np.full((2, 24, 32), np.nan)},
        {"motion_2HW": np.full((2, 24, 32), 1e6)},
        {"info": {"a": float("nan")}},
        {"frames": [np.zeros((8, 8), np.uint8)]},
    ):
        with pytest.raises(UsageError), np.errstate(over="ignore"):
            encode_sample(Sample(**{**parts, **change}))


def test_empty_shards_and_repeated_keys_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no sample"):
        write_shard(str(tmp_path / "a.tar"), [])
    with pytest.raises(UsageError, match="twice"):
        write_shard(str(tmp_path / "a.tar"), [draw_sample(1), draw_sample(1)])
    assert list(tmp_path.iterdir()) == []


def test_splits_are_fixed_and_in_proportion() -> None:
    splits = [split_of(f"{number:064x}") for number in range(5000)]
    shares = {name: splits.count(name) / len(splits) for name in ("train", "val", "test")}
    assert shares == pytest.approx({"train": 0.8, "val": 0.1, "test": 0.1}, abs=0.02)
    # Fixed for ever: a dataset built tomorrow must not move today's validation videos.
    assert [split_of(digit * 64) for digit in "0123456789abcdef"] == FIXED_SPLITS


FIXED_SPLITS = (
    "train train train train val train val train train train train test train train val train".split()
)


def _damage(path: Path, member: str, *, at: int) -> None:
    """Turn over some bytes of a member, counted from its data's beginning."""
    with tarfile.open(path) as archive:
        place = archive.getmember(member).offset_data + at
    data = bytearray(path.read_bytes())
    for offset in range(4):
        data[place + offset] ^= 0xFF
    path.write_bytes(data)
