"""The model registry: versions of weights in a folder at any URL, and what was decided about them.

    versions/<version>/motion.safetensors      weights; a version holds all that it animates with
    versions/<version>/animator.safetensors
    versions/<version>/version.json            their digests and lineage; written last, the version's commit
    versions/<version>/evaluations/…           what was measured of it
    history/<time>.<event>.<version>.json      one decision each, with its reasons
    registry.json                              written last of all: the registry is founded

A version is called after its weights, so adding them again is no new version. Nothing is changed or deleted,
and who is current follows from the names in history alone: no two writers can lose each other's words, and a
kill leaves either the whole of a decision or none of it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any

from storage.digest import digest_json
from storage.errors import FormatError, StoreError, UsageError
from storage.objects import (
    Url,
    digest_object,
    exists,
    join_url,
    list_objects,
    local_copy,
    publish_file,
    read_bytes,
    write_bytes,
)

__all__ = [
    "REGISTRY_FILE",
    "Event",
    "EventKind",
    "ModelRegistry",
    "PinnedWeights",
    "Version",
    "is_registry",
    "pin_weights",
]

FORMAT_VERSION = 1
REGISTRY_FILE = "registry.json"
VERSION_FILE = "version.json"
NAME_DIGITS = 12
LEAST_DIGITS = 4
TIME_FORMAT = "%Y%m%dT%H%M%S.%fZ"


class EventKind(StrEnum):
    """What can be decided about a version."""

    PROMOTED = "promoted"
    REFUSED = "refused"
    ROLLED_BACK = "rolled-back"  # the version is current again


@dataclass(frozen=True, kw_only=True, slots=True)
class Version:
    """One set of weights: kind → {"sha256", "bytes", "from"}, where it comes from, when it was added."""

    name: str
    weights: Mapping[str, Mapping[str, Any]]
    lineage: Mapping[str, Any]
    added_at: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Event:
    """A decision: `before` was current until then; `why` is one sentence, `details` its figures."""

    kind: EventKind
    version: str
    at: datetime
    before: str | None = None
    why: str = ""
    details: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class PinnedWeights:
    """Weights that no promotion changes any more; `version` where they are those of a registry."""

    checkpoint: str | None
    version: str | None = None


def is_registry(url: Url) -> bool:
    """Whether there is a founded model registry at a URL."""
    return exists(join_url(url, REGISTRY_FILE))


def pin_weights(checkpoint: str | None) -> PinnedWeights:
    """A registry's URL becomes that of its version current now; other checkpoints stay what they are.

    Raises UsageError for a registry without a current version.
    """
    if checkpoint is None or checkpoint.endswith(".safetensors"):
        return PinnedWeights(checkpoint=checkpoint)
    if is_registry(checkpoint):
        registry = ModelRegistry(checkpoint)
        name = registry.current()
        if name is None:
            raise UsageError(f"{checkpoint} has no current version; name one by `stillstream models promote`")
        return PinnedWeights(checkpoint=registry.version_url(name), version=name)
    if exists(join_url(checkpoint, VERSION_FILE)):
        return PinnedWeights(
            checkpoint=checkpoint, version=_read_version(join_url(checkpoint, VERSION_FILE)).name
        )
    return PinnedWeights(checkpoint=checkpoint)


@dataclass(frozen=True, slots=True)
class ModelRegistry:
    """The registry at `url`; every method asks the store anew."""

    url: str

    def is_founded(self) -> bool:
        """Whether there is a registry yet."""
        return is_registry(self.url)

    def require(self) -> None:
        """Raise UsageError where no registry is, FormatError for one of a newer format."""
        place = join_url(self.url, REGISTRY_FILE)
        if not self.is_founded():
            raise UsageError(
                f"no model registry at {self.url}; `stillstream models add CHECKPOINT --registry {self.url}` "
                "founds one"
            )
        version = _read_json(place).get("format_version")
        if not isinstance(version, int) or version > FORMAT_VERSION:
            raise FormatError(
                f"{place} has format version {version!r}, expected at most {FORMAT_VERSION}; "
                "upgrade stillstream"
            )

    def found(self) -> None:
        """Say that this is a registry; to be called when what it begins with is there."""
        if not self.is_founded():
            plain = {"format_version": FORMAT_VERSION, "what": "model registry"}
            write_bytes(join_url(self.url, REGISTRY_FILE), _json_bytes(plain))

    def version_url(self, name: str) -> str:
        """The folder of a version, which is a checkpoint."""
        return join_url(self.url, "versions", name)

    def add(
        self, places: Mapping[str, str], origins: Mapping[str, str], lineage: Mapping[str, Any]
    ) -> Version:
        """Copy weights (kind → URL of a file) into a version; the one that is there when they are known.

        `origins`: kind → where it was taken from, in words. Raises StoreError for a file that changed
        while it was being copied.
        """
        digests = {kind: digest_object(place) for kind, place in places.items()}
        name = digest_json(digests)[:NAME_DIGITS]
        commit = join_url(self.version_url(name), VERSION_FILE)
        if exists(commit):
            return _read_version(commit)
        weights = {}
        for kind, place in places.items():
            target = join_url(self.version_url(name), f"{kind}.safetensors")
            with local_copy(place) as path:
                size = publish_file(path, target).size
            if digest_object(target) != digests[kind]:
                raise StoreError(f"{place} changed while it was being copied; run again when it is at rest")
            weights[kind] = {"sha256": digests[kind], "bytes": size, "from": origins[kind]}
        now = datetime.now(UTC).isoformat(timespec="seconds")
        version = Version(name=name, weights=weights, lineage=dict(lineage), added_at=now)
        write_bytes(commit, _json_bytes({"format_version": FORMAT_VERSION, **asdict(version)}))
        return version

    def versions(self) -> list[Version]:
        """All versions, oldest first."""
        found: list[Version] = []
        with suppress(UsageError):  # none yet
            for info in list_objects(join_url(self.url, "versions"), suffixes={VERSION_FILE}):
                if info.key.count("/") == 1:
                    found.append(_read_version(info.url))
        return sorted(found, key=lambda version: (version.added_at, version.name))

    def version(self, name: str) -> Version:
        """A version by its name or the first digits of it. Raises UsageError where none or several fit."""
        if exists(commit := join_url(self.version_url(name), VERSION_FILE)):
            return _read_version(commit)
        names = [version.name for version in self.versions()]
        fitting = [each for each in names if each.startswith(name)] if len(name) >= LEAST_DIGITS else []
        if len(fitting) != 1:
            there = f"{', '.join(fitting)} fit" if fitting else f"there are {', '.join(names) or 'none'}"
            raise UsageError(f"no version {name!r} in {self.url}; {there}")
        return self.version(fitting[0])

    def record(
        self, kind: EventKind, version: str, *, why: str, details: Mapping[str, Any] | None = None
    ) -> Event:
        """Write a decision down."""
        stamps = list(self._stamps())
        at = datetime.now(UTC)
        if stamps:  # the order of history must not depend on whose clock is late
            at = max(at, stamps[-1].at + timedelta(microseconds=1))
        event = Event(
            kind=kind, version=version, at=at, before=_current(stamps), why=why, details=dict(details or {})
        )
        name = f"{at.strftime(TIME_FORMAT)}.{kind}.{version}.json"
        plain = {**asdict(event), "at": at.isoformat()}
        write_bytes(join_url(self.url, "history", name), _json_bytes(plain))
        return event

    def history(self) -> Iterator[Event]:
        """Every decision in full, oldest first."""
        for stamp in self._stamps():
            name = f"{stamp.at.strftime(TIME_FORMAT)}.{stamp.kind}.{stamp.version}.json"
            plain = _read_json(join_url(self.url, "history", name))
            yield Event(
                kind=stamp.kind,
                version=stamp.version,
                at=stamp.at,
                before=plain.get("before"),
                why=str(plain.get("why", "")),
                details=plain.get("details") or {},
            )

    def decided(self) -> dict[str, EventKind]:
        """What was decided last about each version that anything was decided about."""
        return {stamp.version: stamp.kind for stamp in self._stamps()}

    def states(self) -> dict[str, str]:
        """Version → current, former (it was current once), refused, or candidate (nothing decided yet)."""
        stamps = list(self._stamps())
        current, last = _current(stamps), {stamp.version: stamp.kind for stamp in stamps}
        found = {}
        for version in self.versions():
            kind = last.get(version.name)
            state = "candidate" if kind is None else "refused" if kind == EventKind.REFUSED else "former"
            found[version.name] = "current" if version.name == current else state
        return found

    def current(self) -> str | None:
        """The version in use."""
        return _current(list(self._stamps()))

    def before_current(self) -> str | None:
        """The version that a rollback returns to."""
        line = _line(list(self._stamps()))
        return line[-2] if len(line) > 1 else None

    def _stamps(self) -> Iterator[Event]:
        """History as far as its names tell, from one listing."""
        with suppress(UsageError):  # nothing decided yet
            names = [info.key for info in list_objects(join_url(self.url, "history"), suffixes={".json"})]
            for name in sorted(names):
                yield _stamp(name)


def _line(stamps: list[Event]) -> list[str]:
    """The versions that were current before the present one, which is last; rollbacks taken back."""
    line: list[str] = []
    for stamp in stamps:
        if stamp.kind == EventKind.ROLLED_BACK and stamp.version in line:
            del line[line.index(stamp.version) + 1 :]
        elif stamp.kind != EventKind.REFUSED and (not line or line[-1] != stamp.version):
            line.append(stamp.version)
    return line


def _current(stamps: list[Event]) -> str | None:
    line = _line(stamps)
    return line[-1] if line else None


def _stamp(name: str) -> Event:
    try:
        day, _, rest = name.removesuffix(".json").partition(".")
        fraction, kind, version = rest.split(".")
        at = datetime.strptime(f"{day}.{fraction}", TIME_FORMAT).replace(tzinfo=UTC)
        return Event(kind=EventKind(kind), version=version, at=at)
    except ValueError as exc:
        raise FormatError(f"history/{name} is no decision of a model registry; move it away") from exc


def _read_version(url: str) -> Version:
    plain = _read_json(url)
    plain.pop("format_version", None)
    try:
        return Version(**plain)
    except TypeError as exc:
        raise FormatError(f"{url} does not describe a version ({exc}); add its checkpoint again") from exc


def _read_json(url: str) -> dict[str, Any]:
    try:
        plain = json.loads(read_bytes(url))
    except ValueError as exc:
        raise FormatError(f"{url} is not JSON ({exc}); restore it") from exc
    if not isinstance(plain, dict):
        raise FormatError(f"{url} must hold a JSON object, got {type(plain).__name__}; restore it")
    return plain


def _json_bytes(plain: Mapping[str, Any]) -> bytes:
    return (json.dumps(plain, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode()
