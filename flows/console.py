"""What a person at a terminal sees: progress per stage, a summary table, one clear line for an error.

Progress and messages go to standard error, results to standard output. On a terminal each stage has a bar;
elsewhere (a log, a pipe) each stage leaves one plain line when it is done. Where logs are to be JSON (see
storage.logs) every such line is an object.
"""

import logging
import re
import sys
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import TYPE_CHECKING

from storage.logs import json_handler, redact, wants_json
from storage.progress import OnProgress, Progress

if TYPE_CHECKING:
    from rich.progress import Progress as Bars
    from rich.progress import TaskID

__all__ = [
    "StageProgress",
    "error_line",
    "note",
    "quiet_libraries",
    "show_items",
    "show_summary",
    "stage_progress",
]

logger = logging.getLogger(__name__)

LISTED_ITEMS = 20
BEAM_NOTE = re.compile(r" \[while running '[^']*'\]")
OWN_LOGGERS = ("storage.", "models.", "pipelines.", "flows.", "__main__")


class StageProgress:
    """Shows the progress of a job's stages; call it with each Progress, use it as a context manager.

    `title` stands before each plain line; `silent` shows nothing.
    """

    def __init__(self, *, title: str = "", silent: bool = False) -> None:
        self._title = title
        self._silent = silent
        self._terminal = sys.stderr.isatty() and not silent and not wants_json()
        self._bars: Bars | None = None
        self._tasks: dict[str, TaskID] = {}
        self._pending: dict[str, Progress] = {}
        self._shown: set[str] = set()
        self._started: dict[str, float] = {}

    def __enter__(self) -> "StageProgress":
        if self._terminal:
            self._bars = _bars()
            self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bars is not None:
            self._bars.stop()
        for progress in list(self._pending.values()):
            self._line(progress)

    def __call__(self, progress: Progress) -> None:
        self._started.setdefault(progress.stage, time.monotonic())
        if self._silent:
            return
        if self._bars is not None:
            self._draw(self._bars, progress)
        elif progress.total is not None and progress.done >= progress.total:
            self._line(progress)
        else:
            self._pending[progress.stage] = progress

    def _draw(self, bars: "Bars", progress: Progress) -> None:
        if progress.stage not in self._tasks:
            self._tasks[progress.stage] = bars.add_task(progress.stage, total=progress.total, counts="")
        bars.update(
            self._tasks[progress.stage],
            completed=progress.done,
            total=progress.total,
            counts=_counts_text(progress.counts),
        )

    def _line(self, progress: Progress) -> None:
        """One plain line for a stage, once; a stage that goes on after its total is not told again."""
        self._pending.pop(progress.stage, None)
        if self._silent or progress.stage in self._shown:
            return
        self._shown.add(progress.stage)
        of = "" if progress.total is None else f"/{progress.total}"
        seconds = time.monotonic() - self._started[progress.stage]
        stage = f"{self._title}: {progress.stage}" if self._title else progress.stage
        counts = _counts_text(progress.counts)
        note(
            f"{stage:<28} {progress.done}{of}  {counts + '  ' if counts else ''}{seconds:.1f} s",
            stage=stage,
            done=progress.done,
            total=progress.total,
            counts=dict(progress.counts),
            seconds=round(seconds, 3),
        )


@contextmanager
def stage_progress(title: str = "", *, silent: bool = False) -> Iterator[OnProgress]:
    """A progress callback that lives for one job."""
    with StageProgress(title=title, silent=silent) as progress:
        yield progress


def note(message: str, **fields: object) -> None:
    """One line on standard error; `fields` are what a machine reads of it."""
    if wants_json():
        logger.info("%s", " ".join(message.split()), extra={"fields": fields})
        return
    sys.stderr.write(message + "\n")
    sys.stderr.flush()


def error_line(message: str) -> None:
    """The one line that an error gets; line breaks become spaces, Beam's note of the step and secrets go."""
    line = redact(BEAM_NOTE.sub("", " ".join(message.split())))
    if wants_json():
        logger.error("%s", line)
    else:
        note(f"stillstream: {line}")


def show_summary(title: str, rows: Mapping[str, object], *, to_stderr: bool = False) -> None:
    """A small table of name and value."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(title=Text(title), title_justify="left", show_header=False, title_style="bold")
    table.add_column(style="dim")
    table.add_column(overflow="fold")
    for name, value in rows.items():
        table.add_row(name, Text(_value_text(value)))
    Console(stderr=to_stderr, highlight=False).print(table)


def show_items(items: Sequence[tuple[str, str, str, str]], *, total: int, where: str) -> None:
    """List items that are not ok, (name, status, reason, message): 20 of `total`; `where` has them all."""
    for name, status, reason, message in items[:LISTED_ITEMS]:
        said = " ".join(message.split())
        facts = {"item": name, "status": status, "reason": reason}
        note(f"  {status} ({reason}): {name}" + (f": {said}" if said else ""), **facts)
    if total > LISTED_ITEMS:
        note(f"  and {total - LISTED_ITEMS} more, all of them in {where}")


def quiet_libraries(*, verbose: bool = False) -> None:
    """Keep chatter off the terminal: warnings of ours (in JSON, news as well), everything if verbose.

    Libraries log an error's traceback before they raise it; the error itself becomes our one line.
    """
    handler: logging.Handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(levelname)s %(name)s: %(message)s"))
    if wants_json():
        handler = json_handler()
    level = logging.INFO if verbose or wants_json() else logging.WARNING
    logging.basicConfig(level=level, handlers=[handler], force=True)
    if wants_json():
        sys.excepthook = _log_crash
    if verbose:
        return
    handler.addFilter(lambda said: said.levelno >= logging.CRITICAL or said.name.startswith(OWN_LOGGERS))
    warnings.simplefilter("ignore")


def _log_crash(kind: type[BaseException], exc: BaseException, trace: TracebackType | None) -> None:
    """A bug keeps its traceback, in one line too."""
    logger.critical("crashed: %s", exc, exc_info=(kind, exc, trace))


def _bars() -> "Bars":
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, SpinnerColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bars

    return Bars(
        SpinnerColumn(finished_text="✓"),
        TextColumn("{task.description}"),
        BarColumn(bar_width=32),
        MofNCompleteColumn(),
        TextColumn("{task.fields[counts]}", style="dim"),
        TimeElapsedColumn(),
        console=Console(stderr=True),
    )


def _counts_text(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in counts.items() if count)


def _value_text(value: object) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_value_text(item)}" for key, item in value.items() if item) or "none"
    if isinstance(value, float):
        return f"{value:.3g}" if abs(value) < 100 else f"{value:.0f}"
    return str(value)
