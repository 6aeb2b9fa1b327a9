"""Settings: one TOML file below the environment below the command line, composed of the floors' own configs.

    # stillstream.toml                      the same from the environment
    [animate]                               STILLSTREAM_ANIMATE__SECONDS=4
    seconds = 4

The file is `stillstream.toml` in the working folder, or the one named by STILLSTREAM_CONFIG or `--config`.
Nothing else reads settings from the environment (STILLSTREAM_VERBOSE and STILLSTREAM_LOG_FORMAT only say how
to speak). No setting is a secret: stores find theirs in the environment, flows in Prefect blocks. Each
section becomes the dataclass that its consumer defines, and only when it is asked for: a command that needs
no model does not wait for one to import.
"""

import dataclasses
import difflib
import importlib
import json
import os
import tomllib
import types
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from storage.errors import UsageError

if TYPE_CHECKING:
    from flows.deployments import FlowsConfig
    from flows.gallery import GalleryConfig
    from flows.nightly import NightlyConfig
    from models.evaluate import EvaluationConfig
    from models.promotion import PromotionConfig
    from pipelines.crawl import CrawlConfig
    from pipelines.motion_dataset import DatasetConfig
    from pipelines.photo_animation import AnimationConfig
    from pipelines.runner import RunnerConfig

__all__ = ["SECTIONS", "Settings", "config_from_values", "load_settings"]

DEFAULT_FILE = "stillstream.toml"
PREFIX = "STILLSTREAM_"
FILE_VARIABLE = "STILLSTREAM_CONFIG"
Config = TypeVar("Config")
TRUE_WORDS, FALSE_WORDS = ("true", "1", "yes", "on"), ("false", "0", "no", "off")

SECTIONS: Mapping[str, str] = {
    "crawl": "pipelines.crawl:CrawlConfig",
    "dataset": "pipelines.motion_dataset:DatasetConfig",
    "animate": "pipelines.photo_animation:AnimationConfig",
    "runner": "pipelines.runner:RunnerConfig",
    "evaluate": "models.evaluate:EvaluationConfig",
    "promotion": "models.promotion:PromotionConfig",
    "gallery": "flows.gallery:GalleryConfig",
    "nightly": "flows.nightly:NightlyConfig",
    "flows": "flows.deployments:FlowsConfig",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Settings:
    """The values of every section, as read; a property builds and checks the section's own config.

    `values` is section → key → value; `origin` names the file for messages.
    """

    values: Mapping[str, Mapping[str, object]] = field(default_factory=dict)
    origin: str = "settings"

    def __post_init__(self) -> None:
        for name, section in self.values.items():
            if name not in SECTIONS:
                raise UsageError(f"{self.origin}: {_unknown('section', name, SECTIONS)}")
            if not isinstance(section, Mapping):
                raise UsageError(f"{self.origin}: {name} must be a table [{name}], got {section!r}")

    @property
    def crawl(self) -> "CrawlConfig":
        """How videos are found and fetched."""
        config: CrawlConfig = self.section("crawl")
        return config

    @property
    def dataset(self) -> "DatasetConfig":
        """How videos become a dataset."""
        config: DatasetConfig = self.section("dataset")
        return config

    @property
    def animate(self) -> "AnimationConfig":
        """How photos become loops."""
        config: AnimationConfig = self.section("animate")
        return config

    @property
    def runner(self) -> "RunnerConfig":
        """Which Beam runner does the work, and with how many workers."""
        config: RunnerConfig = self.section("runner")
        return config

    @property
    def evaluate(self) -> "EvaluationConfig":
        """Which clips weights are judged on, and how many of them are rendered whole."""
        config: EvaluationConfig = self.section("evaluate")
        return config

    @property
    def promotion(self) -> "PromotionConfig":
        """What a candidate is judged on before it replaces the current weights."""
        config: PromotionConfig = self.section("promotion")
        return config

    @property
    def gallery(self) -> "GalleryConfig":
        """How the gallery page looks."""
        config: GalleryConfig = self.section("gallery")
        return config

    @property
    def nightly(self) -> "NightlyConfig":
        """Where the nightly flow reads and writes."""
        config: NightlyConfig = self.section("nightly")
        return config

    @property
    def flows(self) -> "FlowsConfig":
        """How the flows run unattended."""
        config: FlowsConfig = self.section("flows")
        return config

    def section(self, name: str) -> Any:
        """Build the config of one section. Raises UsageError that names the key and the cure."""
        module, _, class_name = SECTIONS[name].partition(":")
        config_class = getattr(importlib.import_module(module), class_name)
        return config_from_values(config_class, self.values.get(name, {}), where=f"{self.origin}: {name}")

    def override(self, section: str, /, **values: object) -> "Settings":
        """The same settings with some values of one section replaced; None leaves a value as it is."""
        given = {key: value for key, value in values.items() if value is not None}
        merged = {**self.values, section: _merge(self.values.get(section, {}), given)}
        return dataclasses.replace(self, values=merged)

    def check(self) -> dict[str, Any]:
        """Build every section; returns them by name. Raises UsageError at the first that is wrong."""
        return {name: self.section(name) for name in SECTIONS}

    def as_toml(self) -> str:
        """Every value in force, as a settings file. Raises UsageError at the first section that is wrong."""
        return "\n".join(_toml_table(name, config) for name, config in self.check().items())


def load_settings(file: str | None = None, environ: Mapping[str, str] | None = None) -> Settings:
    """Read the settings file (if any) and lay the environment over it. Raises UsageError."""
    environ = os.environ if environ is None else environ
    path = file or environ.get(FILE_VARIABLE)
    if path is None and Path(DEFAULT_FILE).is_file():
        path = DEFAULT_FILE
    values = _read_file(path) if path else {}
    for name, keys in _environment_values(environ).items():
        section = values.get(name, {})
        if not isinstance(section, Mapping):
            raise UsageError(f"{path}: {name} must be a table [{name}], got {section!r}")
        values[name] = _merge(section, keys)
    return Settings(values=values, origin=path or "settings")


def config_from_values(config: type[Config], values: Mapping[str, object], *, where: str) -> Config:
    """Build a config dataclass from plain values, as TOML, JSON or the environment give them.

    Text is read as the field's type. Raises UsageError for unknown keys and for values that do not fit;
    the dataclass's own checks speak in `__post_init__`.
    """
    hints = get_type_hints(config)
    known = {item.name for item in dataclasses.fields(config) if item.init}  # type: ignore[arg-type]
    arguments = {}
    for key, value in values.items():
        if key not in known:
            raise UsageError(f"{where}: {_unknown('key', key, known)}")
        arguments[key] = _as_type(hints[key], value, f"{where}.{key}")
    try:
        return config(**arguments)
    except UsageError as exc:
        raise UsageError(f"{where}: {exc}") from exc
    except TypeError as exc:
        raise UsageError(f"{where}: {exc}") from exc


def _read_file(path: str) -> dict[str, Any]:
    """The tables of a TOML (or, named .json, JSON) file."""
    try:
        text = Path(path).read_text(encoding="utf-8")
    except OSError as exc:
        raise UsageError(f"no settings file at {path} ({exc.strerror})") from exc
    except UnicodeDecodeError as exc:
        raise UsageError(f"{path} is not text in UTF-8") from exc
    try:
        values = json.loads(text) if path.endswith(".json") else tomllib.loads(text)
    except (tomllib.TOMLDecodeError, json.JSONDecodeError) as exc:
        raise UsageError(f"{path} cannot be read: {exc}") from exc
    if not isinstance(values, dict):
        raise UsageError(f"{path} must hold tables, got {type(values).__name__}")
    return values


def _environment_values(environ: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    """STILLSTREAM_SECTION__KEY[__KEY]=text as nested tables."""
    tables: dict[str, dict[str, Any]] = {}
    for variable, text in environ.items():
        if not variable.startswith(PREFIX):
            continue
        if "__" not in variable:
            _refuse_single_underscore(variable)
            continue
        section, *keys = variable.removeprefix(PREFIX).lower().split("__")
        table = tables.setdefault(section, {})
        for key in keys[:-1]:
            table = table.setdefault(key, {})
        table[keys[-1]] = text
    return tables


def _refuse_single_underscore(variable: str) -> None:
    """A variable that was meant as a setting must not be passed over in silence."""
    section, _, key = variable.removeprefix(PREFIX).partition("_")
    if key and section.lower() in SECTIONS:
        raise UsageError(f"{variable} is no setting; did you mean {PREFIX}{section}__{key}?")


def _merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in over.items():
        both = isinstance(value, Mapping) and isinstance(merged.get(key), Mapping)
        merged[key] = _merge(merged[key], value) if both else value
    return merged


def _toml_table(name: str, config: Any) -> str:
    """A config dataclass as a table; a value that is not set is a comment, since TOML has no word for it."""
    lines, tables = [f"[{name}]"], []
    for item in dataclasses.fields(config):
        value = getattr(config, item.name)
        if dataclasses.is_dataclass(value):
            tables.append("\n" + _toml_table(f"{name}.{item.name}", value))
        elif isinstance(value, Mapping):
            pairs = ", ".join(f"{json.dumps(key)} = {json.dumps(each)}" for key, each in value.items())
            lines.append(f"{item.name} = {{{pairs}}}")
        elif value is None:
            lines.append(f"# {item.name} =")
        else:
            lines.append(f"{item.name} = {json.dumps(value, default=list)}")
    return "\n".join(lines) + "\n" + "".join(tables)


def _unknown(what: str, name: str, known: Mapping[str, object] | set[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {close[0]}?" if close else f"there are {', '.join(sorted(known))}"
    return f"unknown {what} {name!r}; {hint}"


def _as_type(kind: Any, value: object, where: str) -> Any:
    """Read a plain value as a field's type."""
    origin = get_origin(kind)
    if origin in (Union, types.UnionType):
        return _as_union(get_args(kind), value, where)
    if origin is Literal:
        return _as_choice(get_args(kind), value, where)
    if isinstance(kind, type) and dataclasses.is_dataclass(kind) and isinstance(value, Mapping):
        return config_from_values(kind, value, where=where)
    if origin in (tuple, list, frozenset):
        return _as_sequence(origin, get_args(kind), value, where)
    if isinstance(kind, type) and issubclass(kind, Enum):
        return kind(_as_choice(tuple(item.value for item in kind), value, where))
    return _as_scalar(kind, value, where)


def _as_union(kinds: tuple[Any, ...], value: object, where: str) -> Any:
    if type(None) in kinds and (value is None or (isinstance(value, str) and value.lower() in ("", "none"))):
        return None
    kinds = tuple(kind for kind in kinds if kind is not type(None))
    for kind in kinds[:-1]:
        try:
            return _as_type(kind, value, where)
        except UsageError:
            continue
    return _as_type(kinds[-1], value, where)


def _as_choice(choices: tuple[Any, ...], value: object, where: str) -> Any:
    for choice in choices:
        if value == choice or str(value) == str(choice):
            return choice
    raise UsageError(f"{where} must be one of {', '.join(map(str, choices))}, got {value!r}")


def _as_sequence(origin: Any, kinds: tuple[Any, ...], value: object, where: str) -> Any:
    if isinstance(value, str):
        value = [part.strip() for part in value.split(",") if part.strip()]
    if not isinstance(value, (list, tuple, set, frozenset)):
        raise UsageError(f"{where} must be a list, got {value!r}")
    item_kinds = [kinds[0]] * len(value) if len(kinds) < 2 or kinds[1] is Ellipsis else list(kinds)
    if len(item_kinds) != len(value):
        raise UsageError(f"{where} must have {len(item_kinds)} values, got {len(value)}")
    return origin(_as_type(kind, item, where) for kind, item in zip(item_kinds, value, strict=True))


def _as_scalar(kind: Any, value: object, where: str) -> Any:
    if kind is bool:
        word = str(value).lower()
        if word not in TRUE_WORDS + FALSE_WORDS:
            raise UsageError(f"{where} must be true or false, got {value!r}")
        return word in TRUE_WORDS
    if kind in (int, float):
        try:
            if isinstance(value, bool):
                raise ValueError("no number")
            number = float(value)  # type: ignore[arg-type]
            if kind is int and not number.is_integer():
                raise ValueError("a fraction")
            return kind(number)
        except (TypeError, ValueError) as exc:
            name = "a whole number" if kind is int else "a number"
            raise UsageError(f"{where} must be {name}, got {value!r}") from exc
    if isinstance(kind, type) and not isinstance(value, kind):
        raise UsageError(f"{where} must be {kind.__name__}, got {value!r}")
    return value
