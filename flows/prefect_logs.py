"""Prefect's log on the terminal as JSON lines, where logs are to be JSON; a run's log on the server stays."""

import flows.prefect_environment  # noqa: F401

# isort: split
import logging

from prefect.logging.handlers import PrefectConsoleHandler

from storage.logs import json_handler, log_own_as_json, wants_json

__all__ = ["log_prefect_as_json"]


def log_prefect_as_json() -> None:
    """Replace the handlers that Prefect set up for the terminal when it was imported."""
    if not wants_json():
        return
    for name in ["", *logging.root.manager.loggerDict]:
        logger = logging.getLogger(name)
        kept = [each for each in logger.handlers if not isinstance(each, PrefectConsoleHandler)]
        if len(kept) < len(logger.handlers):
            logger.handlers = [*kept, json_handler()]
    log_own_as_json()
