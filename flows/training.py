"""Training under torchrun: one node, several processes, the log streamed, cancelled cleanly.

On several nodes a scheduler starts `torchrun … -m models.train` on each of them instead.
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
from storage.objects import delete_object, join_url, read_bytes
from storage.progress import OnProgress, Progress

if TYPE_CHECKING:
    from flows.jobs import TrainingJob

__all__ = ["TrainingError", "launch_training", "torchrun_command"]

logger = logging.getLogger(__name__)

RESTARTS = 3  # a worker that dies takes the others down; all start again from the last saved state
STOP_SECONDS = 60.0  # time to save the state after SIGTERM
KEPT_LINES = 20
STATE_FILE = "state.safetensors"
_STEP = re.compile(r"step (\d+) of (\d+), train")


class TrainingError(StillstreamError):
    """The training processes ended without success; the message ends with the last of their log."""


def launch_training(
    job: "TrainingJob",
    steps: int,
    *,
    on_line: Callable[[str], None] = logger.info,
    on_progress: OnProgress | None = None,
) -> dict[str, Any]:
    """Run torchrun to its end and return the training's summary. Raises TrainingError or UsageError.

    `steps` is how long it will be, for the progress; `on_line` gets every line of the log. When the caller is
    cancelled the processes are stopped; they save their state first.
    """
    if not job.resume:
        delete_object(join_url(job.out, STATE_FILE))
    # torchrun's processes share the machine's cores; by default it gives each a single thread.
    threads = max(1, (os.cpu_count() or 1) // job.nproc)
    environment = {"OMP_NUM_THREADS": str(threads), **os.environ}
    process = subprocess.Popen(
        torchrun_command(job), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment
    )
    last: list[str] = []
    try:
        assert process.stdout is not None
        with process.stdout:
            for line in process.stdout:
                line = line.rstrip()
                last = [*last[-KEPT_LINES:], line]
                on_line(line)
                if on_progress is not None and (found := _STEP.search(line)):
                    on_progress(Progress(stage=f"train {job.kind}", done=int(found[1]), total=int(found[2])))
        code = process.wait()
    except BaseException:
        _stop(process)
        raise
    _check(code, last)
    summary: dict[str, Any] = json.loads(read_bytes(join_url(job.out, "training.json")))["summary"]
    return summary


def torchrun_command(job: "TrainingJob") -> list[str]:
    """The command that starts the processes of one node."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={job.nproc}"]
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


def _check(code: int, last: list[str]) -> None:
    if code == 0:
        return
    errors = [line.removeprefix("error: ") for line in last if line.startswith("error: ")]
    if errors:
        raise UsageError(errors[-1])
    raise TrainingError(f"training ended with exit code {code}; the last of its log: {' | '.join(last[-3:])}")
