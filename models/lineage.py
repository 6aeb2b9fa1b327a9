"""Where weights come from: the code, the dataset's version and the configuration that made them."""

from __future__ import annotations

import json
import subprocess
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from models.checkpoint import read_header
from storage.dataset_format import DATASET_FILE, read_dataset_json
from storage.digest import digest_file, digest_json
from storage.objects import digest_object, exists, join_url, read_bytes
from storage.web_address import public_url

__all__ = ["code_version", "describe_dataset", "training_lineage"]

GIT_SECONDS = 10.0


@lru_cache(maxsize=1)
def code_version() -> dict[str, str | None]:
    """The package's version, a digest of the models' code, and the commit where it runs from a checkout."""
    folder = Path(__file__).parent
    sources = {path.name: digest_file(path) for path in sorted(folder.glob("*.py"))}
    return {
        "version": version("stillstream"),
        "models_digest": digest_json(sources)[:16],
        "commit": _commit(folder.parent),
    }


def _commit(root: Path) -> str | None:
    """`git describe` of a checkout; None for an installed package or without git."""
    if not (root / ".git").exists():
        return None
    command = ["git", "-C", str(root), "describe", "--always", "--dirty"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=GIT_SECONDS)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() or None


def describe_dataset(url: str) -> dict[str, Any]:
    """A dataset's present version: digest of its dataset.json, digest of its configuration, its clips."""
    info = read_dataset_json(url)
    return {
        "url": public_url(url),
        "digest": digest_object(join_url(url, DATASET_FILE)),
        "config_digest": info.config_digest,
        "clips": info.samples,
        "splits": dict(info.splits),
    }


def training_lineage(place: str) -> dict[str, Any]:
    """What a weights file and the training.json beside it say of its training."""
    metadata = read_header(place)["metadata"]
    told = {name: metadata[name] for name in ("step", "metrics", "training") if name in metadata}
    record = join_url(place.rpartition("/")[0], "training.json")
    if exists(record):
        plain = json.loads(read_bytes(record))
        if plain.get("config") == metadata.get("training"):  # else it tells of another run
            told |= {name: plain[name] for name in ("datasets", "code", "summary") if name in plain}
    return told
