"""Skipping a stage whose inputs have not changed since it was done.

Crawl, dataset and animation know by themselves what is done, item by item. Training and evaluation are done
as a whole: `inputs.json` beside their results keeps the digest of all that they follow from, and what came of
it. It lies with the results and not in Prefect's cache: it holds on every machine and goes with the results.
"""

import dataclasses
import json
from collections.abc import Sequence
from importlib.metadata import version
from typing import Any

from flows.jobs import Outcome
from storage.dataset_format import read_dataset_json
from storage.digest import digest_json
from storage.errors import UsageError
from storage.objects import digest_object, exists, join_url, read_bytes, write_bytes

__all__ = ["Record", "datasets_digest", "inputs_digest"]

RECORD_FILE = "inputs.json"


def inputs_digest(**inputs: object) -> str:
    """One digest of everything that a stage follows from; the version of the code is always part of it."""
    return digest_json({**inputs, "version": version("stillstream")})


def datasets_digest(urls: str) -> list[str]:
    """The versions of datasets, several separated by commas. Raises FormatError for one that is not there."""
    names = [name.strip() for name in urls.split(",") if name.strip()]
    return [digest_json(read_dataset_json(name)) for name in names]


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Record:
    """What is known at `out` of a stage with these `inputs`; its `results` there must be as it left them."""

    out: str
    inputs: str
    results: Sequence[str]

    def outcome(self) -> Outcome | None:
        """What came of the same inputs the last time, if the results are still there; else None."""
        known = self._read()
        if known.get("inputs") != self.inputs or known.get("results") != self._results():
            return None
        return Outcome(**known["outcome"])

    def was_begun(self) -> bool:
        """Whether a run with the same inputs began here and did not end."""
        known = self._read()
        return known.get("inputs") == self.inputs and "outcome" not in known

    def begin(self) -> None:
        """Say that a run with these inputs begins; what was known of others is forgotten."""
        self._write({"inputs": self.inputs})

    def end(self, outcome: Outcome) -> None:
        """Keep what came of it."""
        kept = {name: getattr(outcome, name) for name in ("title", "rows", "summary")}
        self._write({"inputs": self.inputs, "results": self._results(), "outcome": kept})

    def _results(self) -> list[str | None]:
        urls = [join_url(self.out, name) for name in self.results]
        return [digest_object(url) if exists(url) else None for url in urls]

    def _read(self) -> dict[str, Any]:
        try:
            known = json.loads(read_bytes(join_url(self.out, RECORD_FILE)))
        except (UsageError, ValueError):
            return {}
        return known if isinstance(known, dict) else {}

    def _write(self, content: dict[str, Any]) -> None:
        write_bytes(join_url(self.out, RECORD_FILE), json.dumps(content, indent=2, default=str).encode())
