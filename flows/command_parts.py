"""What the commands of several modules share: their common options, the settings, and how they end."""

import json
import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from flows.console import note, show_items, show_summary

if TYPE_CHECKING:
    from flows.jobs import Outcome

__all__ = [
    "INTERRUPTED",
    "AsJson",
    "BeamOption",
    "ConfigFile",
    "FlinkMaster",
    "JobEndpoint",
    "LogFormat",
    "Out",
    "Runner",
    "Strict",
    "WorkerPool",
    "Workers",
    "finish",
    "is_verbose",
    "log_format_first",
    "settings_of",
]

INTERRUPTED = 130
LOG_FORMAT = "--log-format"

Out = Annotated[
    str, typer.Option("--out", metavar="URL", help="Where the results go: any folder or fsspec URL.")
]
ConfigFile = Annotated[
    str | None,
    typer.Option("--config", metavar="FILE", help="Settings file (TOML) instead of stillstream.toml."),
]
Runner = Annotated[
    str | None,
    typer.Option(
        metavar="NAME", help="Beam runner: local, flink, spark, dataflow or portable.", show_default="local"
    ),
]
Workers = Annotated[int | None, typer.Option(min=1, metavar="N", help="Worker processes.", show_default="1")]
FlinkMaster = Annotated[
    str | None, typer.Option(metavar="HOST:PORT", help="The Flink cluster, for --runner flink.")
]
JobEndpoint = Annotated[
    str | None, typer.Option(metavar="HOST:PORT", help="A Beam job service that runs already.")
]
WorkerPool = Annotated[
    str | None, typer.Option(metavar="HOST:PORT", help="The pool of workers, as the cluster sees it.")
]
BeamOption = Annotated[
    list[str] | None,
    typer.Option(metavar="--NAME=VALUE", help="Any other option of the Beam runner; repeatable."),
]
Strict = Annotated[bool, typer.Option("--strict", help="Exit with 1 when an item failed.")]
AsJson = Annotated[
    bool, typer.Option("--json", help="Print one JSON object with the summary on standard output.")
]

LogFormat = Annotated[
    Literal["text", "json"] | None,
    typer.Option(
        LOG_FORMAT,
        metavar="text|json",
        help="Messages on standard error for people, or one JSON object a line; goes anywhere.",
        show_default="text",
    ),
]


def is_verbose() -> bool:
    """Whether everything that libraries say is wanted."""
    return bool(os.environ.get("STILLSTREAM_VERBOSE"))


def log_format_first(arguments: Sequence[str]) -> list[str]:
    """The option of all commands may stand anywhere; the parser wants it before the command."""
    for place, argument in enumerate(arguments):
        length = 2 if argument == LOG_FORMAT else 1 if argument.startswith(f"{LOG_FORMAT}=") else 0
        if length:
            end = place + length
            return [*arguments[place:end], *arguments[:place], *arguments[end:]]
    return list(arguments)


def settings_of(config: str | None) -> Any:
    """The settings from a file, or from stillstream.toml, and the environment."""
    from flows.settings import load_settings

    return load_settings(config)


def finish(outcome: "Outcome", *, strict: bool = False, as_json: bool = False) -> None:
    """Show what a job did: items that are not ok, then the table, or one JSON object instead."""
    if as_json:
        sys.stdout.write(json.dumps(outcome.as_json(), ensure_ascii=False) + "\n")
    show_items(outcome.items, total=outcome.not_ok, where=outcome.items_url)
    if not as_json:
        show_summary(outcome.title, outcome.rows)
    if outcome.summary.get("stopped") or outcome.summary.get("interrupted"):
        raise typer.Exit(INTERRUPTED)
    if strict and outcome.failed:
        note(f"stillstream: {outcome.failed} failed, and --strict was given")
        raise typer.Exit(1)
