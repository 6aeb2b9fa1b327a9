"""Checkpoints: one .safetensors file whose header carries the configuration as JSON. Loading runs no code.

    save_checkpoint → <anything>.safetensors → load_checkpoint → load_motion_network, load_animator

The header's metadata holds one entry, `stillstream`: {"format_version", "kind", "config", "metadata"}, where
`config` builds the network and `metadata` tells where the weights come from (training, data, metrics). A
checkpoint URL is such a file, the folder of one training run (best.safetensors), or a folder that holds
motion/ and animator/.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import resources
from typing import TYPE_CHECKING, Any, Literal, TypeVar, cast, get_args

import torch
from safetensors import SafetensorError
from safetensors.torch import load as decode_tensors
from safetensors.torch import save as encode_tensors
from torch import Tensor, nn

from storage.digest import digest_bytes, digest_json
from storage.errors import FormatError, UsageError
from storage.objects import exists, join_url, read_bytes, write_bytes

if TYPE_CHECKING:
    from models.animator import Animator
    from models.motion_network import MotionNetwork

__all__ = [
    "CHECKPOINT_VERSION",
    "KINDS",
    "Checkpoint",
    "Kind",
    "config_from_dict",
    "find_checkpoint",
    "find_weights",
    "load_animator",
    "load_checkpoint",
    "load_motion_network",
    "load_weights",
    "read_header",
    "save_checkpoint",
    "weights_digest",
]

CHECKPOINT_VERSION = 1
HEADER_ENTRY = "stillstream"
MAX_HEADER_BYTES = 100_000_000  # the limit of the safetensors format itself
MAX_COMPLAINTS = 4

Kind = Literal["motion", "animator"]
KINDS: tuple[Kind, ...] = get_args(Kind)
Config = TypeVar("Config")


@dataclass(frozen=True, kw_only=True, slots=True)
class Checkpoint:
    """What a checkpoint file holds; `kind` may also be "state" (of a training run)."""

    kind: str
    config: dict[str, Any]
    metadata: dict[str, Any] = field(default_factory=dict)
    tensors: dict[str, Tensor] = field(default_factory=dict)
    url: str = ""


def save_checkpoint(
    url: str,
    tensors: Mapping[str, Tensor],
    config: Any,
    kind: str,
    metadata: Mapping[str, Any] | None = None,
    half: bool = False,
) -> None:
    """Write `tensors` and the configuration (a mapping or a dataclass) to one file, atomically.

    `half` stores float32 tensors as float16: half the bytes for weights that are only used, not trained on.
    """
    header = {
        "format_version": CHECKPOINT_VERSION,
        "kind": kind,
        "config": dataclasses.asdict(config) if dataclasses.is_dataclass(config) else dict(config),  # type: ignore[arg-type]
        "metadata": dict(metadata or {}),
    }
    stored = {name: _storable(tensor, half) for name, tensor in tensors.items()}
    text = json.dumps(header, sort_keys=True)
    write_bytes(url, encode_tensors(stored, metadata={HEADER_ENTRY: text}))


def load_checkpoint(url: str) -> Checkpoint:
    """Read a checkpoint file. Raises FormatError for what is not one, UsageError when nothing is there."""
    data = read_bytes(url)
    header = _parse_header(data, url)
    try:
        tensors = decode_tensors(data)
    except (SafetensorError, ValueError, KeyError) as exc:
        raise FormatError(f"{url} is damaged or truncated: {exc}; copy it again or train again") from exc
    return Checkpoint(
        kind=header["kind"],
        config=header["config"],
        metadata=header["metadata"],
        tensors=tensors,
        url=url,
    )


def read_header(url: str) -> dict[str, Any]:
    """The JSON header of a checkpoint: format_version, kind, config, metadata. Raises FormatError."""
    return _parse_header(read_bytes(url), url)


def load_weights(module: nn.Module, tensors: Mapping[str, Tensor], *, url: str) -> None:
    """Copy tensors into a module after checking names and shapes. Raises FormatError naming what differs."""
    expected = module.state_dict()
    complaints = [f"{name} is missing" for name in expected if name not in tensors]
    complaints += [f"{name} is not expected" for name in tensors if name not in expected]
    complaints += [
        f"{name} must be {tuple(expected[name].shape)}, got {tuple(tensor.shape)}"
        for name, tensor in tensors.items()
        if name in expected and expected[name].shape != tensor.shape
    ]
    if complaints:
        more = f"; and {len(complaints) - MAX_COMPLAINTS} more" if len(complaints) > MAX_COMPLAINTS else ""
        raise FormatError(
            f"{url} does not fit its configuration: {'; '.join(complaints[:MAX_COMPLAINTS])}{more}; "
            "use the file that training wrote"
        )
    module.load_state_dict(dict(tensors))


def find_checkpoint(url: str | None, kind: Kind) -> str | None:
    """The weights of `kind` at a checkpoint URL, or None when a folder has none of that kind.

    None as URL means the weights that come with the package. A file is returned as it is: what it holds shows
    on loading. Raises UsageError when the URL holds no checkpoint at all.
    """
    if url is None:
        return _packaged_weights(kind)
    if url.endswith(".safetensors") or _looks_like_file(url):
        if not exists(url):
            raise UsageError(f"no checkpoint at {url}; expected a .safetensors file or a training's folder")
        return url
    here = [join_url(url, name) for name in ("best.safetensors", "last.safetensors")]
    candidates = {
        each: [join_url(url, each, "best.safetensors"), join_url(url, f"{each}.safetensors")]
        for each in KINDS
    }
    for candidate in candidates[kind]:
        if exists(candidate):
            return candidate
    for candidate in here:
        if exists(candidate):
            return candidate if read_header(candidate)["kind"] == kind else None
    if any(exists(candidate) for other in KINDS for candidate in candidates[other]):
        return None
    raise UsageError(
        f"no checkpoint at {url}; expected a .safetensors file, a training's folder (best.safetensors) "
        "or a folder with motion/ and animator/"
    )


def find_weights(url: str | None, kind: Kind) -> str | None:
    """As `find_checkpoint`, completed by the package's own weights where the URL has none of that kind."""
    place = find_checkpoint(url, kind)
    if place is not None and read_header(place)["kind"] != kind:
        place = None  # a file holds one kind
    return find_checkpoint(None, kind) if place is None and url is not None else place


def load_motion_network(url: str | None = None) -> MotionNetwork:
    """The motion network of a checkpoint URL (None: the default weights), for evaluation, on the CPU."""
    from models.motion_network import MotionNetwork, MotionNetworkConfig

    checkpoint = _load_kind(url, "motion")
    config = config_from_dict(MotionNetworkConfig, _offline(checkpoint.config), where=checkpoint.url)
    network = MotionNetwork(config)
    load_weights(network, checkpoint.tensors, url=checkpoint.url)
    return network.eval()


def load_animator(url: str | None = None) -> Animator:
    """The deep animator of a checkpoint URL (None: the default weights), for evaluation, on the CPU."""
    from models.animator import Animator, AnimatorConfig

    checkpoint = _load_kind(url, "animator")
    config = config_from_dict(AnimatorConfig, _offline(checkpoint.config), where=checkpoint.url)
    animator = Animator(config)
    load_weights(animator, checkpoint.tensors, url=checkpoint.url)
    return animator.eval()


def weights_digest(url: str | None = None) -> str:
    """One digest for all the weights that a checkpoint URL stands for; a part of every output's identity."""
    found = {kind: find_checkpoint(url, kind) for kind in KINDS}
    return digest_json(
        {kind: digest_bytes(read_bytes(place)) if place else None for kind, place in found.items()}
    )


def config_from_dict(cls: type[Config], values: Mapping[str, Any], *, where: str) -> Config:
    """Build a configuration dataclass from JSON values. Raises FormatError for what the class refuses."""
    names = [entry.name for entry in dataclasses.fields(cast(Any, cls))]
    unknown = sorted(set(values) - set(names))
    if unknown:
        raise FormatError(
            f"{where}: {cls.__name__} has no {', '.join(unknown)}; known: {', '.join(names)}; "
            "use the version that wrote the file, or a later one"
        )
    try:
        return cls(**{name: _tuples(value) for name, value in values.items()})
    except (TypeError, UsageError) as exc:
        raise FormatError(f"{where}: {cls.__name__} refuses its values: {exc}") from exc


def _load_kind(url: str | None, kind: Kind) -> Checkpoint:
    place = find_checkpoint(url, kind)
    if place is None:
        other = "default weights" if url is None else f"weights of kind {kind!r} at {url}"
        raise UsageError(f"no {other}; train them (stillstream train {kind} …) or name a checkpoint")
    checkpoint = load_checkpoint(place)
    if checkpoint.kind != kind:
        raise FormatError(
            f"{place} must hold weights of kind {kind!r}, got {checkpoint.kind!r}; name the {kind} checkpoint"
        )
    return checkpoint


def _packaged_weights(kind: Kind) -> str | None:
    place = resources.files("models") / "weights" / f"{kind}.safetensors"
    return str(place) if place.is_file() else None


def _looks_like_file(url: str) -> bool:
    return re.search(r"\.(pt|pth|ckpt|pkl|pickle|bin|onnx|npz|h5)$", url.lower()) is not None


def _parse_header(data: bytes, url: str) -> dict[str, Any]:
    """Check what kind of file this is before anything else reads it; see the module's head for the layout."""
    length = int.from_bytes(data[:8], "little")
    if len(data) < 8 or not 2 <= length <= min(len(data) - 8, MAX_HEADER_BYTES) or data[8:9] != b"{":
        # Only now: the first byte of a good file is a part of its header's length and may be any.
        if data[:4] == b"PK\x03\x04" or data[:1] == b"\x80":
            raise FormatError(
                f"{url} is a pickle (.pt, .pth), expected safetensors: reading a pickle can run code, so it "
                "is refused; use the best.safetensors that training wrote"
            )
        raise FormatError(f"{url} is not a safetensors file, or is cut short ({len(data)} bytes)")
    try:
        entries = json.loads(data[8 : 8 + length])["__metadata__"]
        header = json.loads(entries[HEADER_ENTRY])
        version, kind, config = header["format_version"], header["kind"], header["config"]
    except (ValueError, KeyError, TypeError, RecursionError) as exc:
        raise FormatError(
            f"{url} is not a Stillstream checkpoint: its header has no usable {HEADER_ENTRY!r} entry "
            "(format_version, kind, config); use the file that training wrote"
        ) from exc
    if not isinstance(version, int) or not 1 <= version <= CHECKPOINT_VERSION:
        raise FormatError(
            f"{url} has format version {version}, expected at most {CHECKPOINT_VERSION}; upgrade Stillstream"
        )
    if not isinstance(kind, str) or not isinstance(config, dict):
        raise FormatError(f"{url}: kind must be a text and config an object, got {kind!r} and {config!r}")
    metadata = header.get("metadata")
    return {**header, "metadata": metadata if isinstance(metadata, dict) else {}}


def _storable(tensor: Tensor, half: bool) -> Tensor:
    tensor = tensor.detach().to("cpu")
    if half and tensor.dtype in (torch.float32, torch.bfloat16):
        tensor = tensor.to(torch.float16)
    return tensor.contiguous().clone()  # shared storage is refused by the format


def _offline(config: Mapping[str, Any]) -> dict[str, Any]:
    """The weights are at hand: a pretrained backbone must not be fetched just to be overwritten."""
    return {name: False if name == "pretrained" else value for name, value in config.items()}


def _tuples(value: Any) -> Any:
    return tuple(_tuples(item) for item in value) if isinstance(value, list) else value
