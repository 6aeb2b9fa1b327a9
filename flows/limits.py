"""One writer at a time per output folder, over all runs of one Prefect server.

Two runs that write the same dataset, weights or loops would undo each other's work, whichever flows they
belong to: the nightly run and one that a person starts by hand. The second waits for the first. A run that is
killed hard gives its place up when its lease ends.
"""

import flows.prefect_environment  # noqa: F401

# isort: split
import contextlib
import re
from collections.abc import Iterator

from prefect.client.orchestration import get_client
from prefect.concurrency.sync import concurrency
from prefect.exceptions import ObjectAlreadyExists

from storage.digest import digest_bytes
from storage.errors import StillstreamError

__all__ = ["folder_limit", "one_writer"]

LEASE_SECONDS = 60.0
WAIT_SECONDS = 12 * 3600.0


@contextlib.contextmanager
def one_writer(out: str, *, wait_seconds: float = WAIT_SECONDS) -> Iterator[None]:
    """Hold the only place to write to `out`; raises StillstreamError when it does not become free."""
    name = folder_limit(out)
    with get_client(sync_client=True) as client, contextlib.suppress(ObjectAlreadyExists):
        client.upsert_global_concurrency_limit_by_name(name, 1)
    with contextlib.ExitStack() as held:
        try:
            held.enter_context(concurrency(name, timeout_seconds=wait_seconds, lease_duration=LEASE_SECONDS))
        except TimeoutError as exc:
            raise StillstreamError(
                f"another run has been writing to {out} for {wait_seconds / 3600:.1f} hours; end it, or free "
                f"its place by `prefect global-concurrency-limit update {name} --active-slots 0`"
            ) from exc
        yield


def folder_limit(out: str) -> str:
    """The limit's name: the end of the URL for people, a digest to tell equal ends apart."""
    url = out.rstrip("/")
    words = re.sub(r"[^A-Za-z0-9]+", "-", "/".join(url.split("/")[-2:])).strip("-")
    return f"stillstream-{words[:60]}-{digest_bytes(url.encode())[:8]}"
