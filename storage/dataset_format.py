"""The dataset folder: shards/*.tar, manifest.parquet, and dataset.json, whose writing is the commit.

A folder without dataset.json is an unfinished build and is refused. A dataset.json may name the digest of
the version it was made from, which stays readable under `versions/`.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from storage.digest import digest_bytes, digest_json
from storage.errors import FormatError
from storage.objects import Url, exists, join_url, read_bytes, write_bytes
from storage.shards import ShardInfo

__all__ = [
    "DATASET_FILE",
    "FORMAT_VERSION",
    "MANIFEST_FILE",
    "SHARDS_FOLDER",
    "DatasetInfo",
    "archive_dataset_json",
    "manifest_url",
    "read_dataset_json",
    "shard_url",
    "write_dataset_json",
]

FORMAT_VERSION = 1
DATASET_FILE = "dataset.json"
MANIFEST_FILE = "manifest.parquet"
SHARDS_FOLDER = "shards"
VERSIONS_FOLDER = "versions"


@dataclass(frozen=True, kw_only=True, slots=True)
class DatasetInfo:
    """What dataset.json says.

    `config` made the dataset and `config_digest` identifies it (computed when left empty); `counts` holds
    attempted, ok, rejected and failed; `splits` the samples by split; `parent` the digest of the version
    before this one.
    """

    config: dict[str, Any]
    counts: dict[str, int]
    shards: list[ShardInfo]
    splits: dict[str, int]
    config_digest: str = ""
    parent: str | None = None
    format_version: int = FORMAT_VERSION
    extra: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.config_digest:
            object.__setattr__(self, "config_digest", digest_json(self.config))

    @property
    def samples(self) -> int:
        """Samples in all shards."""
        return sum(shard.samples for shard in self.shards)


def shard_url(dataset_url: Url, name: str) -> str:
    """The URL of a shard of a dataset."""
    return join_url(dataset_url, SHARDS_FOLDER, name)


def manifest_url(dataset_url: Url) -> str:
    """The URL of a dataset's manifest."""
    return join_url(dataset_url, MANIFEST_FILE)


def write_dataset_json(url: Url, info: DatasetInfo) -> str:
    """Commit a dataset: to be called last. Returns the digest of what was written."""
    data = _encode(info)
    write_bytes(join_url(url, DATASET_FILE), data)
    return digest_bytes(data)


def archive_dataset_json(url: Url) -> str | None:
    """Keep the present dataset.json under versions/; returns its digest, the next version's `parent`.

    None when the folder holds no dataset yet.
    """
    current = join_url(url, DATASET_FILE)
    if not exists(current):
        return None
    data = read_bytes(current)
    digest = digest_bytes(data)
    write_bytes(_version_url(url, digest), data)
    return digest


def read_dataset_json(url: Url, *, version: str | None = None) -> DatasetInfo:
    """What dataset.json of a folder says, or an archived version by its digest.

    Raises FormatError when it is absent (the build did not finish), malformed or of a newer format.
    """
    where = join_url(url, DATASET_FILE) if version is None else _version_url(url, version)
    if not exists(where):
        raise FormatError(
            f"{url} is no finished dataset: {where} is missing; "
            "run `stillstream dataset` with this --out to finish it"
        )
    return _decode(read_bytes(where), where)


def _version_url(url: Url, digest: str) -> str:
    return join_url(url, VERSIONS_FOLDER, f"{digest}.json")


def _encode(info: DatasetInfo) -> bytes:
    # Readable, sorted and without a time of day: the same dataset has the same dataset.json.
    plain = dataclasses.asdict(info)
    return (json.dumps(plain, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n").encode()


def _decode(data: bytes, where: str) -> DatasetInfo:
    try:
        plain = json.loads(data)
    except ValueError as exc:
        raise FormatError(f"{where} is not JSON ({exc}); restore it or build the dataset again") from exc
    if not isinstance(plain, dict):
        raise FormatError(
            f"{where} must hold a JSON object, got {type(plain).__name__}; build the dataset again"
        )
    version = plain.get("format_version")
    if not isinstance(version, int) or isinstance(version, bool) or version < 1:
        raise FormatError(f"{where} has no valid format_version, got {version!r}; build the dataset again")
    if version > FORMAT_VERSION:
        raise FormatError(
            f"{where} has format version {version}, newer than {FORMAT_VERSION}, "
            "the newest that this stillstream reads; upgrade it"
        )
    _check_types(plain, where)
    try:
        shards = [ShardInfo(**shard) for shard in plain.pop("shards")]
        return DatasetInfo(shards=shards, **plain)
    except TypeError as exc:
        raise FormatError(
            f"{where} lacks fields or has unknown ones ({exc}); build the dataset again"
        ) from exc


def _check_types(plain: Mapping[str, Any], where: str) -> None:
    kinds: dict[str, type] = {
        "config": dict,
        "counts": dict,
        "shards": list,
        "splits": dict,
        "config_digest": str,
    }
    for name, kind in kinds.items():
        if not isinstance(plain.get(name), kind):
            got = type(plain.get(name)).__name__
            raise FormatError(
                f"{name!r} in {where} must be a {kind.__name__}, got {got}; build the dataset again"
            )
    for shard in plain["shards"]:
        if not isinstance(shard, dict) or not isinstance(shard.get("samples"), int):
            raise FormatError(
                f"a shard in {where} must be an object with its samples; build the dataset again"
            )
