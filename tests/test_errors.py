"""Errors carry their reason everywhere, also across processes; digests do not depend on the machine."""

from __future__ import annotations

import pickle
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import pytest

from storage.digest import canonical_json, digest_bytes, digest_file, digest_json
from storage.errors import (
    FetchError,
    FormatError,
    ItemError,
    MediaError,
    RejectedError,
    StillstreamError,
    StoreError,
    UsageError,
)
from storage.reasons import Reason, Status


@pytest.mark.parametrize("kind", [RejectedError, MediaError, FetchError])
def test_item_errors_keep_their_reason_when_pickled(kind: type[ItemError]) -> None:
    error = kind("a message with 'quotes' and 水", reason=Reason.TRUNCATED)
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is kind
    assert (str(again), again.reason, again.status) == (str(error), Reason.TRUNCATED, error.status)


def test_status_follows_from_the_kind_of_error() -> None:
    assert RejectedError("", reason=Reason.CUT).status is Status.REJECTED
    assert MediaError("", reason=Reason.EMPTY).status is Status.FAILED
    assert FetchError("", reason=Reason.NETWORK).status is Status.FAILED


def test_only_listed_reasons_are_taken() -> None:
    assert MediaError("", reason="empty").reason is Reason.EMPTY  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="whim"):
        MediaError("", reason="whim")  # type: ignore[arg-type]


def test_one_tree_and_items_apart_from_the_rest() -> None:
    for kind in (UsageError, FormatError, StoreError):
        assert issubclass(kind, StillstreamError)
        assert not issubclass(kind, ItemError)


class Preset(StrEnum):
    FAST = "fast"


@dataclass(frozen=True)
class Config:
    name: str
    preset: Preset
    sizes: tuple[int, ...]
    folder: Path


def test_equal_configurations_have_one_digest() -> None:
    config = Config(name="水", preset=Preset.FAST, sizes=(1, 2), folder=Path("a/b"))
    plain = {"sizes": [1, 2], "preset": "fast", "folder": "a/b", "name": "水"}
    assert canonical_json(config) == '{"folder":"a/b","name":"水","preset":"fast","sizes":[1,2]}'
    assert digest_json(config) == digest_json(plain)
    assert digest_json({1, 3, 2}) == digest_json({3, 2, 1})
    assert digest_json(plain) != digest_json({**plain, "sizes": [2, 1]})


def test_what_machines_could_read_differently_is_refused() -> None:
    for value in (float("nan"), float("inf"), object(), b"bytes"):
        with pytest.raises(TypeError):
            digest_json({"value": value})


def test_digests_are_sha256(tmp_path: Path) -> None:
    empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    assert digest_bytes(b"") == empty
    (tmp_path / "x").write_bytes(b"")
    assert digest_file(tmp_path / "x") == empty
