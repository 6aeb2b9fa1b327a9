"""Training under torchrun: one node, several processes, the log streamed, cancelled cleanly.

On several nodes a scheduler starts `torchrun … -m models.train` on each of them instead, with
TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1 in its environment.
"""

import json
import logging
import os
import re
import subprocess
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from storage.errors import StillstreamError, UsageError
from storage.logs import FORMAT_VARIABLE
from storage.objects import delete_object, join_url, read_bytes
from storage.progress import OnProgress, Progress

if TYPE_CHECKING:
    from flows.jobs import TrainingJob

__all__ = ["TrainingError", "launch_training", "torchrun_command"]

logger = logging.getLogger(__name__)

# Else restarted workers meet in the store of those that died, find their addresses there and wait in vain.
FRESH_STORE = {"TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"}
RESTARTS = 3  # a worker that dies takes the others down; all start again from the last saved state
# To save the state after SIGTERM; Prefect kills a cancelled run after 30 s.
STOP_SECONDS = 20.0
KEPT_LINES = 20
STATE_FILE = "state.safetensors"
_STEP = re.compile(r"step (\d+) of (\d+), train")
_EXIT_CODE = re.compile(r"exitcode +: (\d+)")
BAD_USAGE = "2"


class TrainingError(StillstreamError):
    """The training processes ended without success; the message ends with the last of their log."""


def launch_training(
    job: "TrainingJob",
    *,
    on_line: Callable[[str], None] = logger.info,
    on_progress: OnProgress | None = None,
) -> dict[str, Any]:
    """Run torchrun to its end and return the training's summary. Raises TrainingError or UsageError.

    `on_line` gets every line of the log. When the caller is cancelled the processes are stopped and save
    their state first; when it is killed they end too.
    """
    if not job.resume:
        delete_object(join_url(job.out, STATE_FILE))
    # torchrun's processes share the machine's cores; by default it gives each a single thread.
    threads = max(1, (os.cpu_count() or 1) // job.nproc)
    environment = {"OMP_NUM_THREADS": str(threads), **os.environ, **FRESH_STORE, FORMAT_VARIABLE: "text"}
    process = subprocess.Popen(
        torchrun_command(job), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment
    )
    end = _End()
    try:
        assert process.stdout is not None
        with process.stdout:
            for line in process.stdout:
                line = line.rstrip()
                end.look_at(line)
                on_line(line)
                if on_progress is not None and (found := _STEP.search(line)):
                    on_progress(Progress(stage=f"train {job.kind}", done=int(found[1]), total=int(found[2])))
        code = process.wait()
    except BaseException:
        _stop(process)
        raise
    end.check(code)
    summary: dict[str, Any] = json.loads(read_bytes(join_url(job.out, "training.json")))["summary"]
    return summary


def torchrun_command(job: "TrainingJob") -> list[str]:
    """The command that starts the processes of one node."""
    command = [sys.executable, "-m", "flows.torchrun", "--standalone", f"--nproc-per-node={job.nproc}"]
    command += [f"--max-restarts={RESTARTS}", "-m", "models.train", job.kind]
    # Always --resume: after a restart the processes go on from the state of those that died.
    return [*command, "--config", job.config, "--data", job.data, "--out", job.out, "--resume"]


def _stop(process: subprocess.Popen[str]) -> None:
    process.terminate()
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


class _End:
    """What the log says about how it ended."""

    def __init__(self) -> None:
        self._last: list[str] = []
        self._errors: list[str] = []
        self._is_usage = False

    def look_at(self, line: str) -> None:
        """Take in one line: the trainer's own words for an error, and the exit code in torchrun's report."""
        self._last = [*self._last[-KEPT_LINES:], line]
        if line.startswith("error: "):
            self._errors.append(line.removeprefix("error: "))
        if (found := _EXIT_CODE.search(line)) and found[1] == BAD_USAGE:
            self._is_usage = True

    def check(self, code: int) -> None:
        """Raise what the exit code and the log amount to."""
        if code == 0:
            return
        if self._errors:
            raise UsageError(self._errors[-1]) if self._is_usage else TrainingError(self._errors[-1])
        raise TrainingError(
            f"training ended with exit code {code}; the last of its log: {' | '.join(self._last[-3:])}"
        )
