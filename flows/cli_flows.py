"""`stillstream flows …`: the flows as deployments of a Prefect server."""

import sys
from typing import Annotated

import typer

from flows.command_parts import ConfigFile, settings_of

__all__ = ["flows_app", "serve", "write_yaml"]

flows_app = typer.Typer(help="Run the flows unattended, on a Prefect server.", no_args_is_help=True)


@flows_app.command("serve")
def serve(
    config: ConfigFile = None,
    limit: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Runs at a time.", show_default="2")
    ] = None,
    metrics_port: Annotated[
        int | None,
        typer.Option(min=0, max=65535, metavar="PORT", help="Prometheus; 0: none.", show_default="9464"),
    ] = None,
) -> None:
    """Run all deployments with their schedules in this one process, until it is stopped.

    Example:  [bold]PREFECT_API_URL=http://127.0.0.1:4200/api stillstream flows serve[/bold]
    """
    from flows.serving import serve_flows

    settings = settings_of(config).override("flows", limit=limit, metrics_port=metrics_port)
    serve_flows(settings, config)


@flows_app.command("yaml")
def write_yaml(
    config: ConfigFile = None,
    out: Annotated[
        str | None, typer.Option("--out", metavar="FILE", help="Where to.", show_default="standard output")
    ] = None,
) -> None:
    """Write the same deployments for a work pool, as a prefect.yaml for `prefect deploy --all`.

    Example:  [bold]stillstream flows yaml --out prefect.yaml[/bold]
    """
    from flows.deployments import prefect_yaml
    from storage.objects import write_bytes

    text = prefect_yaml(settings_of(config), config)
    if out is None:
        sys.stdout.write(text)
    else:
        write_bytes(out, text.encode())
