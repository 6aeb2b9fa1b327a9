"""What a run has to do: the listing against the ledger and against what lies in the output folder.

A photo is done when the ledger says so for the same photo, settings and weights, and its results are there.
That is decided from two listings and the ledger alone, without reading a photo. Names are kept as 64-bit
hashes: about a hundred megabytes for a million photos. What is to do waits in `ledger/pending-*.jsonl`.
"""

import contextlib
import dataclasses
import hashlib
import json
from array import array
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from pipelines.animation_config import AnimationConfig
from pipelines.animation_ledger import PARTS_FOLDER, Row, read_ledger
from pipelines.photo_listing import PhotoRecord, list_photos
from storage.errors import UsageError
from storage.loops import FORMATS
from storage.objects import delete_object, join_url, list_objects, read_bytes, write_bytes
from storage.reasons import Reason, Status

__all__ = ["Plan", "Task", "TaskSlice", "clear_todo", "expected_outputs", "plan_run", "read_slice"]

TASKS_IN_CHUNK = 512
TASKS_IN_SLICE = 16
MAX_ORPHANS = 100_000
PENDING_PREFIX = "pending-"
# Reasons that another try may cure; everything else stays as it is until the photo changes.
PASSING = {
    Reason.STORE_ERROR,
    Reason.TIMEOUT,
    Reason.CRASHED,
    Reason.NETWORK,
    Reason.NOT_FOUND,
    Reason.INTERNAL,
}

Hashes = NDArray[np.uint64]


@dataclass(frozen=True, kw_only=True, slots=True)
class Task:
    """One photo to work on; `missing` are the formats that are not there yet, `known` that a sidecar is."""

    record: PhotoRecord
    missing: tuple[str, ...]
    known: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class TaskSlice:
    """A few dozen tasks of a chunk: all that travels through the pipeline."""

    chunk_url: str
    first: int
    last: int


@dataclass(kw_only=True, slots=True)
class Plan:
    """What to do (slices, orphans) and what is done already (carried: by status and reason)."""

    slices: list[TaskSlice] = field(default_factory=list)
    todo: int = 0
    carried: Counter[Status] = field(default_factory=Counter)
    carried_reasons: Counter[str] = field(default_factory=Counter)
    carried_failures: list[Row] = field(default_factory=list)
    orphans_url: str | None = None


def expected_outputs(name: str, config: AnimationConfig) -> dict[str, str]:
    """The results of one photo by kind: every format, poster, motion picture, motion field when asked for.

    Paths are relative to the output folder; that of "png" is a folder.
    """
    outputs = {format: f"{name}{FORMATS[format].suffix}" for format in config.format}
    outputs |= {"poster": f"{name}.poster.jpg", "motion": f"{name}.motion.png"}
    return outputs | ({"motion_field": f"{name}.motion.npy"} if config.save_motion else {})


def plan_run(photos: str, out: str, config: AnimationConfig, *, weights: str) -> Plan:
    """List the photos and sort out which need work. Raises UsageError when there are none."""
    plan = Plan()
    done = _DoneIndex(out, config, weights)
    chunk: list[Task] = []
    listed = array("Q")
    for record in list_photos(photos, out):
        listed.append(_hash(record.key, record.name))
        row = done.find(record)
        if row is not None:
            plan.carried[Status(row[0])] += 1
            if row[1]:
                plan.carried_reasons[row[1]] += 1
            if row[0] == Status.FAILED and len(plan.carried_failures) < MAX_ORPHANS:
                plan.carried_failures.append({"photo": record.key, "reason": row[1]})
            continue
        chunk.append(done.task(record))
        if len(chunk) == TASKS_IN_CHUNK:
            _write_chunk(out, plan, chunk)
            chunk = []
    _write_chunk(out, plan, chunk)
    if plan.todo:
        plan.orphans_url = _write_orphans(out, np.sort(np.frombuffer(listed, np.uint64)), plan)
    return plan


def read_slice(part: TaskSlice) -> list[Task]:
    """The tasks of a slice."""
    lines = read_bytes(part.chunk_url).splitlines()[part.first : part.last]
    return [
        Task(record=PhotoRecord(**plain.pop("record")), missing=tuple(plain["missing"]), known=plain["known"])
        for plain in map(json.loads, lines)
    ]


def clear_todo(out: str) -> None:
    """Delete the chunks of this run, or of one that was killed."""
    with contextlib.suppress(UsageError):  # no such folder
        for info in list(list_objects(join_url(out, PARTS_FOLDER))):
            if info.key.startswith(PENDING_PREFIX) and info.key.endswith(".jsonl"):
                delete_object(info.url)


def _write_chunk(out: str, plan: Plan, chunk: list[Task]) -> None:
    if not chunk:
        return
    url = join_url(out, PARTS_FOLDER, f"{PENDING_PREFIX}{plan.todo:09d}.jsonl")
    lines = (json.dumps(dataclasses.asdict(task), ensure_ascii=True) + "\n" for task in chunk)
    write_bytes(url, "".join(lines).encode())
    for first in range(0, len(chunk), TASKS_IN_SLICE):
        last = min(first + TASKS_IN_SLICE, len(chunk))
        plan.slices.append(TaskSlice(chunk_url=url, first=first, last=last))
    plan.todo += len(chunk)


def _write_orphans(out: str, listed: Hashes, plan: Plan) -> str | None:
    """Finished photos that are not listed under their name any more: renamed ones are among them."""
    orphans: dict[str, list[str]] = {}
    for row in read_ledger(out):
        if row["status"] != Status.OK or not row["photo_sha256"] or not row["name"]:
            continue
        if not _holds(listed, _hash(row["photo"], row["name"])) and len(orphans) < MAX_ORPHANS:
            orphans[row["photo_sha256"]] = [row["photo"], row["name"], row["source"]]
    if not orphans:
        return None
    url = join_url(out, PARTS_FOLDER, f"{PENDING_PREFIX}orphans.jsonl")
    write_bytes(url, json.dumps(orphans, ensure_ascii=True).encode())
    return url


class _DoneIndex:
    """Finished rows and existing results, as sorted hashes."""

    def __init__(self, out: str, config: AnimationConfig, weights: str) -> None:
        self._config = config
        self._identity = (config.digest(), weights)
        self._outcomes: list[tuple[str, str]] = []
        self._present = _hashes(_hash(key) for key in _result_keys(out))
        pairs = () if config.overwrite else self._rows(out)
        table = np.fromiter(pairs, np.dtype([("row", np.uint64), ("outcome", np.uint16)]))
        self._done = np.sort(table, order="row")

    def find(self, record: PhotoRecord) -> tuple[str, str] | None:
        """Status and reason of a photo that needs no work."""
        key = self._row_hash(record.key, record.name, record.size, record.etag)
        index = int(np.searchsorted(self._done["row"], np.uint64(key)))
        if index == len(self._done) or int(self._done["row"][index]) != key:
            return None
        outcome = self._outcomes[int(self._done["outcome"][index])]
        return None if outcome[0] == Status.OK and self._missing(record) else outcome

    def task(self, record: PhotoRecord) -> Task:
        """What is to be done about a photo."""
        return Task(record=record, missing=self._missing(record), known=self._is_there(f"{record.name}.json"))

    def _missing(self, record: PhotoRecord) -> tuple[str, ...]:
        outputs = expected_outputs(record.name, self._config)
        return tuple(
            kind
            for kind, path in outputs.items()
            if not self._is_there(f"{path}/0000.png" if kind == "png" else path)
        )

    def _is_there(self, path: str) -> bool:
        return _holds(self._present, _hash(path))

    def _row_hash(self, *parts: object) -> int:
        return _hash(*parts, *self._identity)

    def _rows(self, out: str) -> Iterator[tuple[int, int]]:
        """Hash of a finished row, and the place of its status and reason in the short list of outcomes."""
        config_digest, weights = self._identity
        for row in read_ledger(out):
            same = row["config_digest"] == config_digest and (
                row["weights_digest"] == weights or self._config.keep_older
            )
            if not same or (row["status"] == Status.FAILED and row["reason"] in PASSING):
                continue
            outcome = row["status"], row["reason"] or ""
            key = self._row_hash(row["photo"], row["name"], row["source_size"], row["source_etag"])
            if outcome not in self._outcomes:
                self._outcomes.append(outcome)
            yield key, self._outcomes.index(outcome)


def _result_keys(out: str) -> Iterator[str]:
    with contextlib.suppress(UsageError):  # nothing there yet
        for info in list_objects(out):
            yield info.key


def _hash(*parts: object) -> int:
    text = "\0".join(map(str, parts)).encode("utf-8", "surrogateescape")
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little")


def _hashes(values: Iterator[int]) -> Hashes:
    return np.sort(np.fromiter(values, np.uint64))


def _holds(table: Hashes, value: int) -> bool:
    index = int(np.searchsorted(table, np.uint64(value)))
    return index < len(table) and int(table[index]) == value
