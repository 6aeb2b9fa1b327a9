"""SHA-256 digests of bytes, files and configurations, all as 64 lower-case hex digits."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from enum import Enum
from pathlib import Path
from typing import Any, BinaryIO

__all__ = ["canonical_json", "digest_bytes", "digest_file", "digest_json", "digest_stream"]

CHUNK_BYTES = 1 << 20


def digest_bytes(data: bytes) -> str:
    """Digest of bytes in memory."""
    return hashlib.sha256(data).hexdigest()


def digest_stream(stream: BinaryIO) -> str:
    """Digest of what is left in an open binary stream, read in chunks of 1 MiB."""
    state = hashlib.sha256()
    while chunk := stream.read(CHUNK_BYTES):
        state.update(chunk)
    return state.hexdigest()


def digest_file(path: Path | str) -> str:
    """Digest of a local file."""
    with open(path, "rb") as stream:
        return digest_stream(stream)


def canonical_json(obj: object) -> str:
    """The one JSON text of a value: keys sorted, no spaces, dataclasses as objects.

    Raises TypeError for what JSON cannot hold, NaN and infinities included: two machines must agree on it.
    """
    plain = _plain(obj)
    try:
        return json.dumps(plain, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    except ValueError as exc:
        raise TypeError(f"a configuration must hold finite numbers only, got {obj!r}") from exc


def digest_json(obj: object) -> str:
    """Digest of a value's canonical JSON; the digest of a configuration."""
    return digest_bytes(canonical_json(obj).encode())


def _plain(obj: object) -> Any:
    if dataclasses.is_dataclass(obj) and not isinstance(obj, type):
        return {field.name: _plain(getattr(obj, field.name)) for field in dataclasses.fields(obj)}
    if isinstance(obj, Enum):
        return _plain(obj.value)
    if isinstance(obj, Path):
        return obj.as_posix()
    if isinstance(obj, Mapping):
        return {str(key): _plain(value) for key, value in obj.items()}
    if isinstance(obj, (set, frozenset)):
        return sorted((_plain(value) for value in obj), key=lambda value: json.dumps(value, sort_keys=True))
    if isinstance(obj, Sequence) and not isinstance(obj, (str, bytes)):
        return [_plain(value) for value in obj]
    return obj
