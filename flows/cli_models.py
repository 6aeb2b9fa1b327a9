"""`stillstream models …`: versions of weights in a registry, and which of them is current."""

from typing import Annotated

import typer

from flows.command_parts import AsJson, ConfigFile, finish, settings_of
from flows.console import stage_progress

__all__ = ["add", "list_versions", "models_app", "promote", "rollback"]

models_app = typer.Typer(help="Keep versions of weights, and say which one is current.", no_args_is_help=True)

Registry = Annotated[
    str,
    typer.Option("--registry", metavar="URL", help="The model registry: any folder or fsspec URL."),
]
VersionName = Annotated[str, typer.Argument(metavar="VERSION", help="Its name, or the first digits of it.")]


@models_app.command()
def add(
    checkpoint: Annotated[
        str,
        typer.Argument(
            metavar="CHECKPOINT", help="A training's folder, one with motion/ and animator/, or a file."
        ),
    ],
    registry: Registry,
    as_json: AsJson = False,
) -> None:
    """Register a checkpoint as a candidate; a new registry begins with the weights in the package.

    Example:  [bold]stillstream models add weights --registry s3://library/models[/bold]
    """
    from flows import model_jobs

    finish(model_jobs.add_model(registry, checkpoint), as_json=as_json)


@models_app.command("list")
def list_versions(registry: Registry, as_json: AsJson = False) -> None:
    """Show every version, its state, and what was decided about it last.

    Example:  [bold]stillstream models list --registry s3://library/models[/bold]
    """
    from flows import model_jobs

    finish(model_jobs.list_models(registry), as_json=as_json)


@models_app.command()
def promote(
    version: VersionName,
    registry: Registry,
    data: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help="Dataset to judge on, or several separated by commas.",
            show_default="data in [promotion]",
        ),
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Promote it by hand, without a look at its figures.")
    ] = False,
    config: ConfigFile = None,
    as_json: AsJson = False,
) -> None:
    """Judge a version against the current one; it becomes current only if it is better for sure.

    Exits with 1 when it is refused. The refusal and its reasons stay in the registry's history.

    Example:  [bold]stillstream models promote 3fa9c1 --registry s3://library/models --data s3://library/data[/bold]
    """
    from flows import model_jobs

    settings = settings_of(config)
    with stage_progress("promote", silent=as_json) as on_progress:
        outcome = model_jobs.promote_model(
            registry, version, settings, data=data, force=force, on_progress=on_progress
        )
    finish(outcome, as_json=as_json)
    if outcome.summary["decision"] == "refused":
        raise typer.Exit(1)


@models_app.command()
def rollback(
    registry: Registry,
    version: Annotated[
        str | None,
        typer.Argument(metavar="[VERSION]", help="A version that was current once.", show_default="the last"),
    ] = None,
    why: Annotated[str, typer.Option(metavar="TEXT", help="The reason, for the history.")] = "",
    as_json: AsJson = False,
) -> None:
    """Make the version that was current before current again.

    Example:  [bold]stillstream models rollback --registry s3://library/models --why "ugly seams"[/bold]
    """
    from flows import model_jobs

    finish(model_jobs.roll_back_model(registry, version, why=why), as_json=as_json)
