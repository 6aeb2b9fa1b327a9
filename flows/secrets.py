"""Secrets of unattended runs: environment variables whose values lie in Prefect Secret blocks.

Settings name variable and block, never the value; a variable that is set already wins.
"""

import flows.prefect_environment  # noqa: F401

# isort: split
import os
from collections.abc import Mapping

from prefect.blocks.system import Secret

from flows.settings import Settings, load_settings
from storage.errors import UsageError

__all__ = ["export_secrets", "run_settings"]


def run_settings(config: str | None) -> Settings:
    """The settings of a flow run, its secrets in the environment, where object stores look for them."""
    settings = load_settings(config)
    export_secrets(settings.flows.secrets)
    return settings


def export_secrets(blocks: Mapping[str, str]) -> None:
    """Set each variable from its block. Raises UsageError for a block that is not there."""
    for variable, block in blocks.items():
        if variable in os.environ:
            continue
        try:
            os.environ[variable] = str(Secret.load(block).get())  # type: ignore[union-attr]
        except ValueError as exc:
            raise UsageError(
                f"flows.secrets: there is no Prefect Secret block {block!r} for {variable}; create it"
            ) from exc
