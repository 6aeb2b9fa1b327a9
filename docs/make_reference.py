"""Write docs/reference from the code: `python -m docs.make_reference`.

cli.md            every command, argument and option, from the command line's own definition
configuration.md  every setting and training value: the dataclasses with what their docstrings say
reasons.md        the closed lists of storage.reasons
formats.md        columns and fields of everything at rest

What the code cannot say of itself (a column's meaning) is in meanings.toml, which must fit the code.
"""

import dataclasses
import importlib
import json
import re
import tomllib
import types
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import pyarrow as pa

from docs.field_docs import field_docs, introduction

__all__ = ["main", "pages"]

FOLDER = Path(__file__).parent
WRITTEN = "<!-- Written by `python -m docs.make_reference`; do not edit. -->\n"
PLAIN_TYPES = {
    bool: "true or false",
    int: "whole number",
    float: "number",
    str: "text",
    tuple: "list",
    Mapping: "table",
}
Row = tuple[str, ...]


def main() -> None:
    """Write every page."""
    for name, text in pages().items():
        place = FOLDER / "reference" / name
        place.parent.mkdir(exist_ok=True)
        place.write_text(text, encoding="utf-8")


def pages() -> dict[str, str]:
    """File name → text."""
    return {
        "cli.md": WRITTEN + "\n".join(_cli()),
        "configuration.md": WRITTEN + "\n".join(_configuration()),
        "reasons.md": WRITTEN + "\n".join(_reasons()),
        "formats.md": WRITTEN + "\n".join(_formats()),
    }


def _table(head: Row, rows: Iterable[Row]) -> str:
    lines = [head, tuple("---" for _ in head), *(tuple(_cell(cell) for cell in row) for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def _cli() -> Iterator[str]:
    from typer.main import get_command

    from flows.cli import app

    root = get_command(app)
    yield "# Command line\n"
    yield "Every command tells the same by `--help`. What it ends with:\n"
    codes = {
        "0": "the job completed; failed items are listed and counted",
        "1": "the job itself failed, or items failed under `--strict`, or a promotion was refused",
        "2": "the command was wrong; the message says what was expected and the cure",
        "130": "interrupted; what is finished is kept, and the same command goes on from there",
    }
    yield _table(("exit code", "means"), codes.items())
    yield from _options(root)
    yield from _commands(root, "stillstream")


def _commands(group: Any, path: str) -> Iterator[str]:
    for name, command in group.commands.items():
        title = f"{path} {name}"
        if hasattr(command, "commands"):
            yield from _commands(command, title)
            continue
        yield f"## {title}\n"
        yield from _help(command.help or "")
        yield from _options(command)


def _help(text: str) -> Iterator[str]:
    for paragraph in text.split("\n\n"):
        plain = re.sub(r"\[/?bold\]", "", " ".join(paragraph.split()))
        example = plain.removeprefix("Example:")
        yield f"    {example.strip()}\n" if example != plain else f"{plain}\n"


def _options(command: Any) -> Iterator[str]:
    rows = [_option_row(option) for option in command.params if not getattr(option, "hidden", False)]
    if rows:
        yield _table(("argument or option", "default", "meaning"), rows)


def _option_row(option: Any) -> Row:
    metavar = option.metavar or ""
    if option.param_type_name == "argument":
        name = f"`{metavar or option.name.upper()}`"
    else:
        name = ", ".join(f"`{each}`" for each in [*option.opts, *option.secondary_opts])
        if metavar and not getattr(option, "is_flag", False):
            name += f" `{metavar}`"
    return name, _option_default(option), option.help or ""


def _option_default(option: Any) -> str:
    shown = getattr(option, "show_default", None)
    if isinstance(shown, str):
        return shown
    if option.required:
        return "required"
    if option.default in (None, False, "") or option.multiple:
        return ""
    return str(option.default)


def _configuration() -> Iterator[str]:
    from flows.settings import SECTIONS

    yield (FOLDER / "frames" / "configuration.md").read_text(encoding="utf-8")
    for name, place in SECTIONS.items():
        module, _, class_name = place.partition(":")
        yield from _section(name, getattr(importlib.import_module(module), class_name))
    yield from _training()


def _section(name: str, config: type[Any]) -> Iterator[str]:
    kinds, docs = get_type_hints(config), field_docs(config)
    rows: list[Row] = []
    nested: list[tuple[str, Any]] = []
    for item in dataclasses.fields(config):
        kind = kinds[item.name]
        if dataclasses.is_dataclass(kind):
            nested.append((f"{name}.{item.name}", kind))
            continue
        variable = f"STILLSTREAM_{name}.{item.name}".upper().replace(".", "__")
        default = _value(
            item.default if item.default_factory is dataclasses.MISSING else item.default_factory()
        )
        rows.append((f"`{item.name}`", _kind(kind), default, docs[item.name], f"`{variable}`"))
    yield f"## [{name}]\n"
    yield f"{introduction(config)}\n"
    if rows:
        yield _table(("key", "type", "default", "meaning", "environment variable"), rows)
    for place, kind in nested:
        yield from _section(place, kind)


def _kind(kind: Any) -> str:
    origin, inner = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        return " or ".join(_kind(each) for each in inner if each is not type(None))
    if origin is Literal:
        return ", ".join(f"`{each}`" for each in inner)
    if origin is tuple:
        return f"list of {_kind(inner[0])}"
    return PLAIN_TYPES.get(origin or kind, getattr(kind, "__name__", str(kind)))


def _value(value: object) -> str:
    if value is None or value == "":
        return "not set"
    if isinstance(value, Mapping):
        pairs = ", ".join(f"{key} = {json.dumps(each)}" for key, each in value.items())
        return f"`{{{pairs}}}`"
    return f"`{json.dumps(value, default=list, ensure_ascii=False)}`"


def _training() -> Iterator[str]:
    from models.configs import RUNS

    yield "## Training runs\n"
    yield (
        "`stillstream train --config` takes the name of a run, or a JSON or TOML file with what differs from "
        'one: `{"run": "small", "steps": 1000, "augment": {"mirror": 0}}`.\n'
    )
    for kind in ("motion", "animator"):
        made = {name: run(kind) for name, run in RUNS.items()}
        yield f"### The {kind}\n"
        yield _table(("key", *made, "meaning"), _run_rows(list(made.values()), ""))


def _run_rows(configs: list[Any], prefix: str) -> Iterator[Row]:
    docs = field_docs(type(configs[0]))
    for item in dataclasses.fields(configs[0]):
        values = [getattr(config, item.name) for config in configs]
        if dataclasses.is_dataclass(values[0]):
            yield from _run_rows(values, f"{prefix}{item.name}.")
        elif item.name != "kind":
            yield f"`{prefix}{item.name}`", *(_value(value) for value in values), docs[item.name]


def _reasons() -> Iterator[str]:
    from storage.reasons import Reason, Status

    yield "# Statuses and reasons\n"
    yield (
        "Every item ever attempted is a row with a status: ok + rejected + failed = attempted, always. What "
        "is not ok has a reason from this closed list and a message that says more.\n"
    )
    meanings = _meanings()
    yield _table(("status", "means"), _meant(list(Status), meanings["status"], "status"))
    told = dict(_meant(list(Reason), meanings["reason"], "reason"))
    rows = ((name, *map(str.strip, text.split("|"))) for name, text in told.items())
    yield _table(("reason", "means", "cure"), rows)


def _formats() -> Iterator[str]:
    from pipelines.crawl_manifest import CRAWL_SCHEMA
    from pipelines.sidecar import Sidecar
    from storage.dataset_format import DatasetInfo
    from storage.manifest import LEDGER_SCHEMA, MANIFEST_SCHEMA
    from storage.model_registry import Event, Version
    from storage.shards import ShardInfo

    meanings = _meanings()
    tables = {
        "manifest": _columns(MANIFEST_SCHEMA, meanings["manifest"], "manifest"),
        "dataset_json": _fields(DatasetInfo, meanings["dataset_json"], "dataset_json"),
        "shard": _fields(ShardInfo, meanings["shard"], "shard"),
        "sample": _table(("key", "meaning"), ((f"`{k}`", v) for k, v in meanings["sample"].items())),
        "ledger": _columns(LEDGER_SCHEMA, meanings["ledger"], "ledger"),
        "sidecar": _fields(Sidecar, meanings["sidecar"], "sidecar"),
        "crawl": _columns(CRAWL_SCHEMA, meanings["crawl"], "crawl"),
        "version": _fields(Version, meanings["version"], "version"),
        "event": _fields(Event, meanings["event"], "event"),
    }
    text = (FOLDER / "frames" / "formats.md").read_text(encoding="utf-8")
    for name, table in tables.items():
        assert text.count(f"{{{{{name}}}}}") == 1, name
        text = text.replace(f"{{{{{name}}}}}", table)
    yield text


def _columns(schema: pa.Schema, meanings: Mapping[str, str], where: str) -> str:
    told = dict(_meant(schema.names, meanings, where))
    return _table(("column", "type", "meaning"), ((name, str(schema.field(name.strip("`")).type), text)
                                                  for name, text in told.items()))  # fmt: skip


def _fields(config: type[Any], meanings: Mapping[str, str], where: str) -> str:
    return _table(("field", "meaning"), _meant([i.name for i in dataclasses.fields(config)], meanings, where))


def _meanings() -> dict[str, dict[str, str]]:
    return tomllib.loads((FOLDER / "meanings.toml").read_text(encoding="utf-8"))


def _meant(names: Iterable[str], meanings: Mapping[str, str], where: str) -> Iterator[tuple[str, str]]:
    """(name, meaning) of every name; KeyError when names and meanings are not the same."""
    names = [str(name) for name in names]
    if differing := set(names) ^ set(meanings):
        raise KeyError(f"meanings.toml [{where}] and the code differ in {', '.join(sorted(differing))}")
    return ((f"`{name}`", meanings[name]) for name in names)


if __name__ == "__main__":
    main()
