"""What a flow run is called and how it ends: states that tell the truth about failed items."""

import flows.prefect_environment  # noqa: F401

# isort: split
import datetime
import re
from collections.abc import Callable, Mapping
from typing import Any

from prefect.client.schemas.objects import State
from prefect.runtime import flow_run
from prefect.states import Completed

from flows.jobs import Outcome
from flows.prefect_logs import log_prefect_as_json

__all__ = ["final_state", "run_name"]

log_prefect_as_json()  # every flow imports this, in every process that runs one


def run_name(verb: str, place: str | Callable[[Mapping[str, Any]], str]) -> Callable[[], str]:
    """A name for flow runs that tells what is worked on and when: `dataset lakes/water 2026-11-22 03:00`.

    What is worked on are the last two names of a URL: the flow's parameter `place`, or what `place` makes of
    the parameters.
    """

    def name() -> str:
        parameters = flow_run.parameters
        url = str((place(parameters) if callable(place) else parameters.get(place)) or "")
        now = datetime.datetime.now(datetime.UTC)
        names = "/".join(re.findall("[^/]+", url.rpartition("://")[2])[-2:])
        return " ".join(filter(None, [verb, names, f"{now:%Y-%m-%d %H:%M}"]))

    return name


def final_state(*outcomes: Outcome) -> list[Outcome]:
    """Completed, and named so when items failed on the way; a broken job has raised before it comes here.

    Prefect takes a State that a flow returns for the run's own and hands its data to the flow's caller, who
    therefore sees the outcomes.
    """
    failed = sum(outcome.failed for outcome in outcomes)
    state: State[list[Outcome]] = Completed(message="done", data=list(outcomes))
    if failed:
        message = f"done, but {failed} item{'' if failed == 1 else 's'} failed; the artifacts list them"
        state = Completed(name="CompletedWithFailedItems", message=message, data=list(outcomes))
    return state  # type: ignore[return-value]
