"""Structured logs: one JSON object a line on standard error, without secrets.

Asked for by `--log-format json` or STILLSTREAM_LOG_FORMAT=json; worker processes hear of it by the variable.
"""

from __future__ import annotations

import datetime
import json
import logging
import os
import re
import sys
from collections.abc import Mapping

from storage.web_address import public_url

__all__ = ["FORMAT_VARIABLE", "JsonFormatter", "json_handler", "log_own_as_json", "redact", "wants_json"]

FORMAT_VARIABLE = "STILLSTREAM_LOG_FORMAT"
OWN_PACKAGES = ("storage", "models", "pipelines", "flows")
# What Prefect says about a record besides its message.
RUN_FACTS = ("flow_name", "flow_run_name", "flow_run_id", "task_name", "task_run_name", "task_run_id")
HIDDEN = "hidden"
LEAST_SECRET = 6  # shorter values would hide innocent words
# Settings name where a secret lies, never the secret itself.
_SECRET_NAME = re.compile(
    r"(?!.*_id$|STILLSTREAM_).*(secret|token|passw|credential|api_?key|access_?key|private_?key)",
    re.IGNORECASE,
)
_URL = re.compile(r"[a-z][a-z0-9+.-]*://[^\s\"'<>`]+", re.IGNORECASE)


def wants_json() -> bool:
    """Whether logs are to be JSON."""
    return os.environ.get(FORMAT_VARIABLE, "").lower() == "json"


def redact(text: str, environ: Mapping[str, str] | None = None) -> str:
    """The text without what must not be shown: values of variables that are called a secret, keys in URLs."""
    environ = os.environ if environ is None else environ
    values = {
        value for name, value in environ.items() if len(value) >= LEAST_SECRET and _SECRET_NAME.match(name)
    }
    for value in sorted(values, key=len, reverse=True):
        text = text.replace(value, HIDDEN)
    return _URL.sub(lambda found: public_url(found[0]), text)


class JsonFormatter(logging.Formatter):
    """A record as one line of JSON: time (UTC), level, logger, message, and the record's `fields`."""

    def format(self, record: logging.LogRecord) -> str:
        """The line, without its end."""
        when = datetime.datetime.fromtimestamp(record.created, datetime.UTC)
        content: dict[str, object] = {
            "time": when.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        facts = {name: getattr(record, name) for name in RUN_FACTS if hasattr(record, name)}
        content |= {**facts, **getattr(record, "fields", {})}
        if record.exc_info:
            content["traceback"] = self.formatException(record.exc_info)
        return json.dumps(_redacted(content), ensure_ascii=False, default=str)


def json_handler(level: int = logging.INFO) -> logging.Handler:
    """A handler that writes JSON lines to standard error."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setLevel(level)
    handler.setFormatter(JsonFormatter())
    return handler


def log_own_as_json() -> None:
    """Give our packages' loggers a handler of their own; for processes whose root logger is another's."""
    handler = json_handler()
    for name in OWN_PACKAGES:
        logger = logging.getLogger(name)
        logger.setLevel(logging.INFO)
        logger.handlers = [handler]
        logger.propagate = False


def _redacted(value: object) -> object:
    """The same with every text in it redacted."""
    if isinstance(value, str):
        return redact(value)
    if isinstance(value, Mapping):
        return {str(name): _redacted(each) for name, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_redacted(each) for each in value]
    return value
