"""The plan of a crawl: which of all links found are to be fetched, and rows for the others."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator

from pipelines.crawl_link import link_row
from pipelines.crawl_manifest import CrawlManifest
from pipelines.crawl_table import Row, Task
from pipelines.links import BadSource, Link, licence_accepted
from storage.errors import ItemError, RejectedError, UsageError
from storage.objects import join_url, list_objects
from storage.reasons import Reason, Status
from storage.web_address import canonical_url, public_url

__all__ = ["CrawlPlan", "stored_objects"]

# Verdicts that cost nothing and depend on the options alone are reached anew in every run.
CHEAP_VERDICTS = {Reason.LICENCE, Reason.PRIVATE_ADDRESS}


class CrawlPlan:
    """What is to be fetched: links that are new, failed before, or whose object is gone.

    Tasks go into the manifest's table; so do the rows of links that are refused unseen.
    """

    def __init__(self, manifest: CrawlManifest, licences: Collection[str]) -> None:
        self._rows = manifest.rows
        self._licences = licences
        self._rows.note_objects(stored_objects(manifest.out))
        for row in self._rows:
            if not _is_spelling(row):
                self._rows.claim(canonical_url(row["url"]), row["url"])
        self._next = self._rows.last_place() + 1
        self.links = 0
        self.skipped = 0

    def add(self, found: Link | BadSource, source: str) -> None:
        """Judge one link by what can be known without fetching it."""
        self.links += 1
        url = public_url(found.url)
        if not self._rows.meet(url):
            return
        known = self._rows.get(url)
        order = known["order"] if known and known.get("order") else self._next
        self._next = max(self._next, order + 1)
        if isinstance(found, BadSource):
            task = Task(link=Link(url=url), source=source, order=order)
            self._rows.put(_refused(task, found.error, "source"))
            return
        task = Task(link=found, source=source, order=order)
        first = self._rows.claim(canonical_url(found.url), url)
        if first != url:
            error = RejectedError(f"another spelling of {first}", reason=Reason.DUPLICATE)
            self._rows.put(_refused(task, error, "links"))
        elif not licence_accepted(found.licence, self._licences):
            accepted = ", ".join(self._licences)
            message = f"its licence is {found.licence or 'not told'}, accepted are {accepted}"
            self._rows.put(_refused(task, RejectedError(message, reason=Reason.LICENCE), "links"))
        elif known is not None and self._is_done(known):
            self.skipped += 1
        else:
            self._rows.add_task(task)

    def _is_done(self, row: Row) -> bool:
        if row["status"] == Status.OK:
            return self._rows.is_stored(row["object"])
        if row["status"] == Status.FAILED:
            return False
        return row["reason"] not in CHEAP_VERDICTS and not self._lost_original(row)

    def _lost_original(self, row: Row) -> bool:
        """A twin whose original is no longer to be had is worth fetching."""
        if row["reason"] != Reason.DUPLICATE:
            return False
        original = self._rows.get((row["message"] or "").rpartition(" as ")[2])
        return original is None or original["status"] != Status.OK


def stored_objects(out: str) -> Iterator[str]:
    """The paths of all objects that a crawl stored, below its output folder."""
    with contextlib.suppress(UsageError):  # nothing yet
        for item in list_objects(join_url(out, "videos")):
            yield f"videos/{item.key}"


def _is_spelling(row: Row) -> bool:
    return row.get("reason") == Reason.DUPLICATE and row.get("stage") == "links"


def _refused(task: Task, error: ItemError, stage: str) -> Row:
    verdict = {"status": error.status, "reason": error.reason, "message": str(error)[:1000]}
    return {**link_row(task), **verdict, "stage": stage}
