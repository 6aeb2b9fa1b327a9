"""dataset.json is the commit: refused when absent, malformed or newer; verification finds every damage."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
from samples import draw_sample, write_small_dataset

from storage.dataset_format import (
    FORMAT_VERSION,
    DatasetInfo,
    archive_dataset_json,
    manifest_url,
    read_dataset_json,
    shard_url,
    write_dataset_json,
)
from storage.digest import digest_bytes, digest_json
from storage.errors import FormatError
from storage.manifest import MANIFEST_SCHEMA, read_rows, write_rows
from storage.objects import delete_object, join_url, read_bytes, write_bytes
from storage.shards import write_shard
from storage.verify import verify_dataset


def test_a_dataset_says_what_was_written(any_url: str) -> None:
    info = write_small_dataset(any_url)
    again = read_dataset_json(any_url)
    assert again == info
    assert again.config_digest == digest_json(info.config)
    assert again.samples == 6
    assert verify_dataset(any_url) == []


def test_the_same_dataset_has_the_same_dataset_json(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_small_dataset(str(tmp_path / name))
    assert (tmp_path / "a/dataset.json").read_bytes() == (tmp_path / "b/dataset.json").read_bytes()


def test_an_unfinished_build_is_refused_with_its_cure(any_url: str) -> None:
    write_small_dataset(any_url)
    delete_object(join_url(any_url, "dataset.json"))
    with pytest.raises(FormatError, match="stillstream dataset"):
        read_dataset_json(any_url)
    with pytest.raises(FormatError, match="no finished dataset"):
        verify_dataset(any_url)


def changed(tmp_path: Path, **fields: Any) -> str:
    write_small_dataset(str(tmp_path))
    plain = json.loads((tmp_path / "dataset.json").read_text())
    plain.update(fields)
    plain = {name: value for name, value in plain.items() if value is not ...}
    (tmp_path / "dataset.json").write_text(json.dumps(plain))
    return str(tmp_path)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"format_version": FORMAT_VERSION + 1}, "upgrade"),
        ({"format_version": "1"}, "format_version"),
        ({"format_version": ...}, "format_version"),
        ({"shards": ...}, "'shards'"),
        ({"config": []}, "'config'"),
        ({"shards": [{"name": "x"}]}, "shard"),
        ({"shards": [{"samples": 1, "name": "x"}]}, "lacks fields"),
        ({"colour": "blue"}, "unknown"),
    ],
)
def test_what_cannot_be_understood_is_refused(tmp_path: Path, fields: dict[str, Any], words: str) -> None:
    with pytest.raises(FormatError, match=words):
        read_dataset_json(changed(tmp_path, **fields))


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"\xff\xfe", b"null"])
def test_broken_json_is_refused(tmp_path: Path, data: bytes) -> None:
    write_small_dataset(str(tmp_path))
    (tmp_path / "dataset.json").write_bytes(data)
    with pytest.raises(FormatError, match=r"dataset\.json"):
        read_dataset_json(str(tmp_path))


def test_versions_link_to_their_parent(any_url: str) -> None:
    assert archive_dataset_json(any_url) is None
    first = write_small_dataset(any_url)
    parent = archive_dataset_json(any_url)
    assert parent == digest_bytes(read_bytes(join_url(any_url, "dataset.json")))
    write_dataset_json(
        any_url, dataclasses.replace(first, parent=parent, config={"frames": 90}, config_digest="")
    )
    second = read_dataset_json(any_url)
    assert second.parent == parent
    assert second.config_digest != first.config_digest
    assert read_dataset_json(any_url, version=parent) == first


def test_verification_names_a_damaged_a_lost_and_an_extra_shard(any_url: str) -> None:
    write_small_dataset(any_url)
    url = shard_url(any_url, "train-000000.tar")
    data = bytearray(read_bytes(url))
    data[3000] ^= 1
    write_bytes(url, bytes(data))
    delete_object(shard_url(any_url, "val-000000.tar"))
    write_shard(shard_url(any_url, "train-000001.tar"), [draw_sample(9)])
    problems = "\n".join(verify_dataset(any_url))
    for words in (
        "train-000000.tar has digest",
        "train-000000.tar has 3 readable samples, expected 4",
        "val-000000.tar is missing",
        "train-000001.tar is not listed",
        "no shard holds it",
    ):
        assert words in problems


def test_verification_compares_manifest_and_shards(tmp_path: Path) -> None:
    url = str(tmp_path)
    write_small_dataset(url)
    rows = list(read_rows(manifest_url(url)))
    rows[0]["shard"] = "val-000000.tar"
    rows[1]["status"], rows[1]["reason"] = "rejected", "cut"
    rows.append(rows[2])
    write_rows(manifest_url(url), rows, MANIFEST_SCHEMA)
    problems = "\n".join(verify_dataset(url))
    for words in ("it lies in train-000000.tar", "no ok row", "2 ok rows", "attempted", "rejected"):
        assert words in problems
    delete_object(manifest_url(url))
    assert verify_dataset(url) == ["manifest.parquet is missing"]


def test_verification_finds_a_truncated_shard(tmp_path: Path) -> None:
    write_small_dataset(str(tmp_path))
    path = tmp_path / "shards" / "train-000000.tar"
    path.write_bytes(path.read_bytes()[:-11_000])
    problems = "\n".join(verify_dataset(str(tmp_path)))
    assert "bytes, expected" in problems and "truncated" in problems


def test_a_newer_config_is_a_new_digest() -> None:
    one = DatasetInfo(config={"a": 1}, counts={}, shards=[], splits={})
    two = DatasetInfo(config={"a": 2}, counts={}, shards=[], splits={})
    assert one.config_digest != two.config_digest
