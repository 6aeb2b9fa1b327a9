"""Train the motion network or the animator on datasets at any URL, alone or under torchrun.

    python -m models.train motion --config small --data DATASET --out FOLDER
    torchrun --nproc-per-node 8 -m models.train motion --data s3://bucket/data --out s3://bucket/run --resume

`--data` may name several datasets, separated by commas. The output folder holds best.safetensors and
last.safetensors (the averaged weights), state.safetensors (what --resume needs), metrics.jsonl, tensorboard/
and training.json (configuration and summary). SIGTERM saves the state and ends the run.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import logging
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any, cast

import cv2
import torch.distributed as dist

from models.checkpoint import KINDS, Kind
from models.configs import TrainConfig, load_config
from models.dataset import SampleIndex, read_index, split_urls
from models.distributed import Ranks, joined_ranks
from models.lineage import code_version, describe_dataset
from models.recipes import make_recipe
from models.trainer import Trainer, TrainSummary
from storage.errors import StillstreamError, UsageError
from storage.logs import json_handler, wants_json
from storage.objects import join_url, write_bytes
from storage.parenthood import end_with_parent
from storage.progress import OnProgress

__all__ = ["TrainSummary", "choose_samples", "main", "train"]

logger = logging.getLogger(__name__)

STOPPED_BY_SIGNAL = 143  # what a shell reports for a process that SIGTERM ended


def train(
    kind: str,
    config: TrainConfig | str,
    data_url: str,
    out_url: str,
    *,
    resume: bool = False,
    on_progress: OnProgress | None = None,
) -> TrainSummary:
    """Train `kind` on the datasets at `data_url` (several: separated by commas) into the folder `out_url`.

    `config` is a TrainConfig, the name of a run, or the URL of a file of overrides. Raises UsageError for
    what cannot be, FormatError for a dataset or state that is not one.
    """
    chosen = load_config(kind, config) if isinstance(config, str) else config
    if chosen.kind != kind:
        raise UsageError(
            f"the configuration trains {chosen.kind!r}, asked was {kind!r}; name the one it is for"
        )
    # Before the training: a dataset may grow meanwhile.
    lineage = {"datasets": [describe_dataset(url) for url in split_urls(data_url)], "code": code_version()}
    with joined_ranks(chosen.device) as ranks:
        trainer = Trainer(chosen, make_recipe(chosen), choose_samples(chosen, data_url), out_url, ranks)
        with _stop_on_sigterm() as should_stop:
            summary = trainer.run(resume=resume, on_progress=on_progress, should_stop=should_stop)
        if ranks.is_first:
            _write_training_json(out_url, chosen, lineage, summary, ranks)
        return summary


def choose_samples(config: TrainConfig, data_url: str) -> tuple[SampleIndex, SampleIndex]:
    """The samples to train on and to validate on, which never share a source unless there is but one split.

    With a validation dataset, everything at `data_url` is trained on; otherwise its own splits decide.
    """
    index = read_index(split_urls(data_url))
    if config.validation:
        held_out = read_index(split_urls(config.validation))
        return index.with_source_share(config.data.source_share), held_out.spread(config.validation_samples)
    training, validation = index.with_split("train"), index.with_split("val")
    if len(training) == 0:
        logger.warning("%s has no training split: training on all of its %d samples", data_url, len(index))
        training = index
    if len(validation) == 0:
        logger.warning("%s has no validation split: scores are those of training samples", data_url)
        validation = training
    training = training.with_source_share(config.data.source_share)
    return training, validation.spread(config.validation_samples)


@contextlib.contextmanager
def _stop_on_sigterm() -> Iterator[Callable[[], bool]]:
    """Ask the training to end at the next step when SIGTERM comes; signals reach the main thread only."""
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stop.is_set
        return
    before = signal.signal(signal.SIGTERM, lambda *_: stop.set())
    try:
        yield stop.is_set
    finally:
        signal.signal(signal.SIGTERM, before)


def _write_training_json(
    out_url: str, config: TrainConfig, lineage: dict[str, Any], summary: TrainSummary, ranks: Ranks
) -> None:
    content = {
        **lineage,
        "config": config.to_json(),
        "summary": dataclasses.asdict(summary),
        "processes": ranks.world_size,
        "device": ranks.device.type,
    }
    text = json.dumps(content, indent=2, sort_keys=True)
    write_bytes(join_url(out_url, "training.json"), text.encode())


def main(arguments: list[str] | None = None) -> int:
    """The command; returns its exit status: 2 for bad usage, 1 when the training failed."""
    options = _parser().parse_args(arguments)
    if dist.is_torchelastic_launched():
        end_with_parent()  # torchrun may be killed too hard to end its processes itself
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", stream=sys.stderr)
    if wants_json():
        logging.basicConfig(level=logging.INFO, handlers=[json_handler()], force=True)
    try:
        config = load_config(options.kind, options.config)
        if options.validation:
            config = dataclasses.replace(config, validation=options.validation)
        if config.data.workers:
            cv2.setNumThreads(1)  # the loader's threads already use the cores
        summary = train(cast(Kind, options.kind), config, options.data, options.out, resume=options.resume)
    except UsageError as exc:
        sys.stderr.write(f"error: {exc}\n")
        return 2
    except StillstreamError as exc:
        sys.stderr.write(f"error: {exc}\n")
        return 1
    return STOPPED_BY_SIGNAL if summary.interrupted else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m models.train", description=__doc__.partition("\n")[0])
    parser.add_argument("kind", choices=KINDS)
    parser.add_argument(
        "--config", default="default", help="debug, small, default, paper, or a .json or .toml file"
    )
    parser.add_argument("--data", required=True, help="dataset URL, or several separated by commas")
    parser.add_argument("--out", required=True, help="folder URL for checkpoints and curves")
    parser.add_argument(
        "--validation", default="", help="dataset URL to validate on instead of the data's own split"
    )
    parser.add_argument(
        "--resume", action="store_true", help="go on from the state in --out, if there is one"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
