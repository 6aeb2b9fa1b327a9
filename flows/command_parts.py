"""What the commands of several modules share: their common options, the settings, and how they end."""

import json
import sys
from typing import TYPE_CHECKING, Annotated, Any

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
    "Out",
    "Runner",
    "Strict",
    "WorkerPool",
    "Workers",
    "finish",
    "settings_of",
]

INTERRUPTED = 130

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
