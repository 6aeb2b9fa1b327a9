"""The sidecar `<name>.json` beside a loop: from what, how and when it was made, and which files belong to it.

It is written after the files and is the truth about them; a lost ledger is made again from sidecars. Paths
are relative to the output folder; nothing in it tells of the machine it was made on.
"""

import dataclasses
import json
from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from storage.errors import UsageError
from storage.objects import (
    delete_object,
    join_url,
    list_objects,
    local_copy,
    publish_file,
    read_bytes,
    write_bytes,
)
from storage.reasons import Reason, Status

__all__ = ["Identity", "Sidecar", "adopt_renamed", "delete_outputs", "read_sidecar", "write_sidecar"]

SIDECAR_VERSION = 1
LEDGER_FACTS = (
    "seconds",
    "frames",
    "width",
    "height",
    "moving_share",
    "confidence",
    "mean_speed",
    "category",
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Identity:
    """What a result follows from: equal identities give equal results."""

    photo_sha256: str
    config_digest: str
    weights_digest: str
    hints_sha256: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Sidecar:
    """One photo's results: `outputs` is kind → {path, bytes, frames}, `facts` are measures.

    `model_version` is that of the weights in a model registry; None for weights from elsewhere.
    """

    photo: str
    identity: Identity
    status: Status
    reason: Reason | None = None
    message: str | None = None
    config: Mapping[str, object] = field(default_factory=dict)
    outputs: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    stage_seconds: Mapping[str, float] = field(default_factory=dict)
    model_version: str | None = None

    def paths(self) -> list[str]:
        """Where the results are, relative to the output folder."""
        return [str(output["path"]) for output in self.outputs.values()]

    def row(self) -> dict[str, Any]:
        """The ledger's columns that a sidecar knows."""
        return {
            "photo_sha256": self.identity.photo_sha256,
            "weights_digest": self.identity.weights_digest,
            "model_version": self.model_version,
            "status": self.status,
            "reason": self.reason,
            "message": self.message,
            "outputs": self.paths(),
            "warnings": list(self.warnings),
            **{name: self.facts[name] for name in LEDGER_FACTS if name in self.facts},
        }


def write_sidecar(out: str, name: str, sidecar: Sidecar) -> None:
    """Publish a sidecar."""
    plain = {"format_version": SIDECAR_VERSION, **dataclasses.asdict(sidecar)}
    text = json.dumps(plain, indent=1, ensure_ascii=False, allow_nan=False)
    write_bytes(join_url(out, f"{name}.json"), text.encode("utf-8", "surrogateescape"))


def read_sidecar(out: str, name: str) -> Sidecar | None:
    """The sidecar of a result; None when there is none, or none that this version can read."""
    try:
        plain = json.loads(read_bytes(join_url(out, f"{name}.json")).decode("utf-8", "surrogateescape"))
        if plain.pop("format_version") != SIDECAR_VERSION:
            return None
        reason = plain.pop("reason")
        return Sidecar(
            identity=Identity(**plain.pop("identity")),
            status=Status(plain.pop("status")),
            reason=Reason(reason) if reason else None,
            **plain,
        )
    except (UsageError, ValueError, TypeError, KeyError, AttributeError):
        return None  # gone, or not ours: the photo is made again


def delete_outputs(
    out: str, sidecar: Sidecar, *, keep: Collection[str], sidecar_name: str | None = None
) -> None:
    """Delete the results a sidecar names, except those to keep; and the sidecar of that name, last."""
    for kind, output in sidecar.outputs.items():
        path = str(output["path"])
        if path in keep:
            continue
        if kind == "png":
            _delete_frames(join_url(out, path))
        else:
            delete_object(join_url(out, path))
    if sidecar_name is not None:
        delete_object(join_url(out, f"{sidecar_name}.json"))


def adopt_renamed(
    out: str, names: tuple[str, str], photo: str, identity: Identity, paths: Mapping[str, tuple[str, str]]
) -> Sidecar | None:
    """Copy the results of one name to another when they are what `identity` would give.

    names: (old, new); paths: kind → (old path, new path). None when anything is missing or different.
    """
    old = read_sidecar(out, names[0])
    if old is None or old.status != Status.OK or old.identity != identity or names[0] == names[1]:
        return None
    if any(kind not in old.outputs or old.outputs[kind]["path"] != path[0] for kind, path in paths.items()):
        return None
    try:
        for kind, (source, target) in paths.items():
            if kind == "png":
                _copy_frames(join_url(out, source), join_url(out, target))
            else:
                _copy(join_url(out, source), join_url(out, target))
    except UsageError:
        return None  # a file is gone
    outputs = {kind: {**old.outputs[kind], "path": target} for kind, (_, target) in paths.items()}
    adopted = dataclasses.replace(old, photo=photo, outputs=outputs)
    write_sidecar(out, names[1], adopted)
    return adopted


def _copy(source: str, target: str) -> None:
    with local_copy(source) as path:
        publish_file(path, target)


def _copy_frames(source: str, target: str) -> None:
    for info in list(list_objects(source, suffixes={".png"})):
        _copy(info.url, join_url(target, info.key))


def _delete_frames(folder: str) -> None:
    with suppress(UsageError):  # nothing there
        for info in list(list_objects(folder, suffixes={".png"})):
            if info.key.removesuffix(".png").isdecimal():
                delete_object(info.url)
