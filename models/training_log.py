"""The curves of a training: metrics.jsonl in its output folder, the same for TensorBoard, with pictures."""

from __future__ import annotations

import json
import logging
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.configs import TrainConfig
from storage.errors import UsageError
from storage.locations import local_path, parse_url
from storage.objects import is_local, join_url, publish_file, read_bytes, write_bytes

__all__ = ["TrainingLog", "read_metrics"]

logger = logging.getLogger(__name__)


class TrainingLog:
    """One row per logged step, written whole with every state: a resumed run goes on after its step."""

    def __init__(self, out_url: str, config: TrainConfig, *, step: int = 0, write: bool = True) -> None:
        """`step`: where the run goes on; rows after it belong to a future that did not happen.

        Every rank may keep a log; the one that may `write` does.
        """
        self._url = join_url(out_url, "metrics.jsonl")
        self.rows = [row for row in read_metrics(out_url) if row["step"] <= step] if step else []
        self._write, self._steps = write, config.steps
        self._writer, self._folder, self._remote = None, None, ""
        if config.tensorboard and write:
            from torch.utils.tensorboard import SummaryWriter

            folder = join_url(out_url, "tensorboard")
            self._remote = "" if is_local(folder) else folder
            self._folder = (
                Path(tempfile.mkdtemp(prefix="stillstream-tensorboard-"))
                if self._remote
                else local_path(parse_url(folder))
            )
            self._writer = SummaryWriter(str(self._folder), purge_step=step + 1 if step else None)  # type: ignore[no-untyped-call]

    def add(self, step: int, part: str, values: Mapping[str, float]) -> None:
        """One row: the numbers of a part ("train" or "validation") after `step` steps."""
        self.rows.append({"step": step, "part": part, **values})
        if not self._write:
            return
        text = ", ".join(f"{name} {value:.4g}" for name, value in values.items())
        logger.info("step %d of %d, %s: %s", step, self._steps, part, text)
        if self._writer is not None:
            for name, value in values.items():
                self._writer.add_scalar(f"{part}/{name}", value, step)  # type: ignore[no-untyped-call]

    def add_pictures(self, step: int, pictures_HW3: Mapping[str, NDArray[np.uint8]]) -> None:
        """Pictures for TensorBoard."""
        if self._writer is not None:
            for name, picture in pictures_HW3.items():
                self._writer.add_image(name, picture, step, dataformats="HWC")  # type: ignore[no-untyped-call]

    def save(self) -> None:
        """Write the rows, and the TensorBoard files where the output folder is remote."""
        if not self._write:
            return
        write_bytes(self._url, "".join(json.dumps(row) + "\n" for row in self.rows).encode())
        if self._writer is None or self._folder is None:
            return
        self._writer.flush()  # type: ignore[no-untyped-call]
        if self._remote:
            for path in sorted(self._folder.iterdir()):
                publish_file(path, join_url(self._remote, path.name))

    def close(self) -> None:
        """Write what is left."""
        self.save()
        if self._writer is not None and self._folder is not None:
            self._writer.close()  # type: ignore[no-untyped-call]
            if self._remote:
                shutil.rmtree(self._folder, ignore_errors=True)


def read_metrics(out_url: str) -> list[dict[str, Any]]:
    """The rows of a training's metrics.jsonl; empty when there is none."""
    try:
        lines = read_bytes(join_url(out_url, "metrics.jsonl")).decode().splitlines()
    except UsageError:
        return []
    return [json.loads(line) for line in lines if line]
