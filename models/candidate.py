"""A checkpoint becomes a candidate: a complete version in a model registry, with where it comes from.

A version holds every kind of weights it animates with. What a checkpoint lacks is taken from the current
version, so that a newly trained motion network does not lose the animator beside it. A registry begins with
the package's own weights: they are its first current version, and the first that a candidate must beat.
"""

from __future__ import annotations

from models.checkpoint import KINDS, find_checkpoint, read_header
from models.lineage import code_version, training_lineage
from storage.errors import UsageError
from storage.model_registry import EventKind, ModelRegistry, Version
from storage.web_address import public_url

__all__ = ["add_candidate", "open_registry", "weights_places"]


def open_registry(url: str) -> ModelRegistry:
    """The registry at `url`, founded with the package's weights where there is none yet.

    Raises UsageError when the package has no weights to begin with.
    """
    registry = ModelRegistry(url)
    if registry.is_founded():
        registry.require()
        return registry
    places = weights_places(None)
    if "motion" not in places:
        raise UsageError("the package holds no weights, and a registry begins with them; reinstall it")
    lineage = {"checkpoint": "package", "added_by": code_version(), **_lineage(places)}
    first = registry.add(places, dict.fromkeys(places, "package"), lineage)
    if registry.current() is None:
        registry.record(EventKind.PROMOTED, first.name, why="the weights in the package begin the registry")
    registry.found()
    return registry


def add_candidate(registry: ModelRegistry, checkpoint: str) -> Version:
    """Copy a checkpoint (file, training's folder, or folder of both) into a version of its own.

    Adding the same weights again gives the version that is there. Raises UsageError when there is no
    checkpoint, FormatError for what is none.
    """
    own = weights_places(checkpoint)
    if not own:
        raise UsageError(f"no weights of kind {' or '.join(KINDS)} at {checkpoint}; name trained ones")
    current = registry.current()
    rest = weights_places(registry.version_url(current) if current else None)
    taken = {kind: place for kind, place in rest.items() if kind not in own}
    origins = {**dict.fromkeys(own, "candidate"), **dict.fromkeys(taken, f"version {current}")}
    lineage = {"checkpoint": public_url(checkpoint), "added_by": code_version(), **_lineage(own)}
    return registry.add({**own, **taken}, origins, lineage)


def weights_places(checkpoint: str | None) -> dict[str, str]:
    """Kind → file of the weights that a checkpoint URL itself holds (None: the package's)."""
    found: dict[str, str | None] = {kind: find_checkpoint(checkpoint, kind) for kind in KINDS}
    # A single file is found for either kind: what it holds is in its header.
    return {kind: place for kind, place in found.items() if place and read_header(place)["kind"] == kind}


def _lineage(places: dict[str, str]) -> dict[str, object]:
    return {kind: training_lineage(place) for kind, place in places.items()}
