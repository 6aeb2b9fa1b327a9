"""Defaults for Prefect, to be imported before it: it reads its settings when it is first imported.

A variable that is already set wins. Flows run without a server of their own: Prefect then starts a temporary
one, which on a busy small machine takes longer than the 20 s it waits by default.
"""

import os

from storage.logs import wants_json

__all__ = ["PREFECT_DEFAULTS"]

PREFECT_DEFAULTS = {
    "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "180",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "DO_NOT_TRACK": "1",
    "PREFECT_CLI_PROMPT": "false",
}

if wants_json():  # from the first line on; flows.prefect_logs gives the lines our own form
    PREFECT_DEFAULTS["PREFECT_LOGGING_HANDLERS_CONSOLE_FORMATTER"] = "json"

for _name, _value in PREFECT_DEFAULTS.items():
    os.environ.setdefault(_name, _value)
