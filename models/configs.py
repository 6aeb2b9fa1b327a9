"""Training runs by name, and how a file of overrides changes one.

A run is a function: `default("motion")` is the training that made the weights in the package. A configuration
file (JSON or TOML) names what differs from one: {"run": "small", "steps": 400, "augment": {"mirror": 0}}.
"""

from __future__ import annotations

import dataclasses
import json
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar, cast

from models.animator import AnimatorConfig
from models.animator import paper as paper_animator
from models.animator_recipe import CropConfig
from models.augment import AugmentConfig
from models.checkpoint import KINDS, Kind
from models.dataset import DataConfig
from models.image_losses import ImageLossConfig
from models.motion_adversary import AdversaryConfig
from models.motion_losses import MotionLossConfig
from models.motion_network import MotionNetworkConfig
from storage.errors import UsageError
from storage.objects import read_bytes

__all__ = ["RUNS", "TrainConfig", "debug", "default", "load_config", "override", "paper", "small"]

Value = TypeVar("Value")


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainConfig:
    """One training run. Rates and sizes are those of all processes together, whatever their number.

    `validation`: a dataset to validate on (empty: the validation split of the data). `validation_samples`: at
    most so many. `validation_HW`: their size. `start_from`: a checkpoint. `steps`: in all. `batch_size`:
    examples of a step. `learning_rate`: of Adam, its highest. `encoder_rate`: the share of it for a
    pretrained encoder. `warmup_steps`: until it is reached. `final_rate`: the share it ends with.
    `weight_decay`: of AdamW. `clip_norm`: of the gradient. `average_decay`: of the weights' moving average,
    which is what is validated and kept. `seed`: all that is random follows from it. `log_every`,
    `validate_every`, `save_every`: steps. `patience`: validations without a better score (0: train to the
    end). `device`: auto, cpu or cuda. `bf16`, `channels_last`, `compile`: for speed; the first and the last
    on GPUs alone. `tensorboard`: write its files too. `adversary` is the motion network's; the animator has
    its own in its losses.
    """

    kind: Kind
    network: Any
    losses: Any
    augment: Any
    adversary: AdversaryConfig = field(default_factory=AdversaryConfig)
    data: DataConfig = field(default_factory=DataConfig)
    validation: str = ""
    validation_samples: int = 64
    validation_HW: tuple[int, int] = (192, 320)
    start_from: str = ""
    steps: int = 2000
    batch_size: int = 8
    learning_rate: float = 1e-3
    encoder_rate: float = 0.2
    warmup_steps: int = 100
    final_rate: float = 0.01
    weight_decay: float = 0.02
    clip_norm: float = 1.0
    average_decay: float = 0.998
    seed: int = 0
    log_every: int = 20
    validate_every: int = 200
    save_every: int = 200
    patience: int = 0
    device: str = "auto"
    bf16: bool = True
    channels_last: bool = True
    compile: bool = False
    tensorboard: bool = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "validation_HW", tuple(self.validation_HW))
        if self.kind not in KINDS:
            raise UsageError(f"kind must be one of {', '.join(KINDS)}, got {self.kind!r}")
        if self.device not in ("auto", "cpu", "cuda"):
            raise UsageError(f"device must be auto, cpu or cuda, got {self.device!r}")
        for name in ("steps", "batch_size", "log_every", "validate_every", "save_every"):
            if not getattr(self, name) >= 1:
                raise UsageError(f"{name} must be at least 1, got {getattr(self, name)}")
        for name in ("validation_samples", "warmup_steps", "patience", "seed", "weight_decay"):
            if not getattr(self, name) >= 0:
                raise UsageError(f"{name} must be at least 0, got {getattr(self, name)}")
        for name in ("learning_rate", "clip_norm"):
            if not getattr(self, name) > 0:
                raise UsageError(f"{name} must be above 0, got {getattr(self, name)}")
        for name in ("encoder_rate", "final_rate", "average_decay"):
            if not 0 <= getattr(self, name) <= 1:
                raise UsageError(f"{name} must lie in 0…1, got {getattr(self, name)}")

    def to_json(self) -> dict[str, Any]:
        """As plain values, to be kept with checkpoints."""
        return cast(dict[str, Any], json.loads(json.dumps(dataclasses.asdict(self))))


def debug(kind: Kind) -> TrainConfig:
    """A few steps of a tiny network: shows that everything is wired, within seconds."""
    if kind == "animator":
        return _ANIMATOR_RUNS["debug"]
    return TrainConfig(
        kind="motion",
        network=MotionNetworkConfig(
            backbone="plain", pretrained=False, plain_width=8, decoder_widths=(32, 24, 16, 16), input_side=96
        ),
        losses=MotionLossConfig(),
        augment=AugmentConfig(shapes_HW=((64, 96),)),
        validation_samples=4,
        validation_HW=(64, 96),
        steps=30,
        batch_size=4,
        warmup_steps=5,
        log_every=5,
        validate_every=15,
        save_every=15,
        average_decay=0.9,
    )


def small(kind: Kind) -> TrainConfig:
    """A network without a pretrained encoder that learns sample scenes in a minute or so on two cores."""
    if kind == "animator":
        return _ANIMATOR_RUNS["small"]
    return TrainConfig(
        kind="motion",
        network=MotionNetworkConfig(
            backbone="plain",
            pretrained=False,
            plain_width=16,
            decoder_widths=(96, 64, 48, 32),
            input_side=192,
        ),
        losses=MotionLossConfig(),
        augment=AugmentConfig(shapes_HW=((96, 160), (128, 128))),
        validation_samples=16,
        validation_HW=(96, 160),
        steps=300,
        batch_size=8,
        learning_rate=2e-3,
        warmup_steps=20,
        log_every=20,
        validate_every=100,
        save_every=100,
        average_decay=0.98,
    )


def default(kind: Kind) -> TrainConfig:
    """The training that made the weights in the package."""
    if kind == "animator":
        return _ANIMATOR_RUNS["default"]
    return TrainConfig(
        kind="motion",
        network=MotionNetworkConfig(),
        losses=MotionLossConfig(),
        augment=AugmentConfig(),
        data=DataConfig(balance="category", workers=1),
        validation_HW=(160, 256),
        steps=4500,
        average_decay=0.998,
        validate_every=250,
        save_every=250,
    )


def paper(kind: Kind) -> TrainConfig:
    """The recipe of the 2021 paper, for GPUs and a large dataset."""
    if kind == "animator":
        return _ANIMATOR_RUNS["paper"]
    return TrainConfig(
        kind="motion",
        network=MotionNetworkConfig(),
        losses=MotionLossConfig(),
        adversary=AdversaryConfig(weight=0.1),
        augment=AugmentConfig(shapes_HW=((256, 384), (320, 320), (384, 256))),
        data=DataConfig(balance="source", workers=12),
        validation_HW=(256, 416),
        steps=200_000,
        batch_size=16,
        learning_rate=2e-4,
        encoder_rate=1.0,
        warmup_steps=1000,
        final_rate=0.0,
        average_decay=0.9995,
        log_every=100,
        validate_every=2000,
        save_every=2000,
        compile=True,
    )


RUNS: dict[str, Callable[[Kind], TrainConfig]] = {
    "debug": debug,
    "small": small,
    "default": default,
    "paper": paper,
}


def load_config(kind: str, name_or_url: str = "default") -> TrainConfig:
    """A run by name, or by a JSON or TOML file of overrides. Raises UsageError naming what is wrong where."""
    if kind not in KINDS:
        raise UsageError(f"expected {' or '.join(KINDS)}, got {kind!r}")
    if name_or_url in RUNS:
        return RUNS[name_or_url](kind)
    if not name_or_url.endswith((".json", ".toml")):
        raise UsageError(
            f"--config must be one of {', '.join(RUNS)}, or a .json or .toml file, got {name_or_url!r}"
        )
    values = _read_values(name_or_url)
    run = values.pop("run", "default")
    if run not in RUNS:
        raise UsageError(f"{name_or_url}: run must be one of {', '.join(RUNS)}, got {run!r}")
    return override(RUNS[run](kind), values, where=name_or_url)


def override(config: Value, values: Mapping[str, Any], *, where: str) -> Value:
    """Replace fields of nested configuration dataclasses; UsageError for an unknown name or a wrong type."""
    known = {entry.name: getattr(config, entry.name) for entry in dataclasses.fields(cast(Any, config))}
    changed: dict[str, Any] = {}
    for name, value in values.items():
        place = f"{where}: {name}"
        if name not in known:
            raise UsageError(f"{place} is not known; expected one of {', '.join(known)}")
        old = known[name]
        if dataclasses.is_dataclass(old) and not isinstance(old, type):
            if not isinstance(value, Mapping):
                raise UsageError(f"{place} must be a table of values, got {value!r}")
            changed[name] = override(old, value, where=place)
        else:
            changed[name] = _converted(old, value, place)
    return dataclasses.replace(cast(Any, config), **changed)  # type: ignore[no-any-return]


def _converted(old: Any, value: Any, place: str) -> Any:
    """The value as the type of the one it replaces."""
    if isinstance(old, float) and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if isinstance(old, tuple) and isinstance(value, list):
        return _tuples(value)
    if type(old) is not type(value):
        raise UsageError(f"{place} must be of type {type(old).__name__}, got {value!r}")
    return value


def _tuples(value: Any) -> Any:
    return tuple(_tuples(item) for item in value) if isinstance(value, list) else value


def _read_values(url: str) -> dict[str, Any]:
    text = read_bytes(url).decode("utf-8", errors="replace")
    try:
        values = tomllib.loads(text) if url.endswith(".toml") else json.loads(text)
    except ValueError as exc:
        raise UsageError(f"{url} is not valid {url.rpartition('.')[2].upper()}: {exc}") from exc
    if not isinstance(values, dict):
        raise UsageError(f"{url} must hold a table of values, got {type(values).__name__}")
    return values


_ANIMATOR_RUNS = {
    "debug": TrainConfig(
        kind="animator",
        network=AnimatorConfig(features=4, width=8, blocks=1),
        losses=ImageLossConfig(distance="gradient"),
        augment=CropConfig(size_HW=(48, 64)),
        validation_samples=4,
        steps=20,
        batch_size=4,
        learning_rate=1e-3,
        warmup_steps=5,
        log_every=5,
        validate_every=10,
        save_every=10,
        average_decay=0.9,
    ),
    "small": TrainConfig(
        kind="animator",
        network=AnimatorConfig(features=8, width=16, blocks=1),
        losses=ImageLossConfig(distance="gradient"),
        augment=CropConfig(size_HW=(96, 96)),
        validation_samples=12,
        steps=200,
        batch_size=4,
        learning_rate=1e-3,
        warmup_steps=20,
        validate_every=100,
        save_every=100,
        average_decay=0.98,
    ),
    "default": TrainConfig(
        kind="animator",
        network=AnimatorConfig(),
        losses=ImageLossConfig(distance="gradient"),
        augment=CropConfig(),
        steps=4000,
        batch_size=8,
        learning_rate=5e-4,
        average_decay=0.999,
    ),
    "paper": TrainConfig(
        kind="animator",
        network=paper_animator(),
        losses=ImageLossConfig(adversarial=0.05),
        augment=CropConfig(size_HW=(256, 256), smallest_scale=0.5),
        data=DataConfig(workers=12),
        steps=200_000,
        batch_size=16,
        learning_rate=2e-4,
        warmup_steps=1000,
        final_rate=0.0,
        weight_decay=0.0,
        average_decay=0.9995,
        log_every=100,
        validate_every=2000,
        save_every=2000,
    ),
}
