"""How many training examples a second the shard loader makes, beside what bounds it.

    python tests/benchmarks/loader.py [--out RESULTS.json] [--seconds 5]

In one run on the same drawn dataset (512×288 frames, 5 per sample): reading the members of samples alone,
decoding one JPEG of each alone, and whole augmented examples with 0, 1, 2 … threads, per second and per
second of processor time, which a busy machine does not change much. The ratios say what the loader adds to
the decoder, and what the threads gain.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from drawn_dataset import write_drawn_dataset

from models.configs import TrainConfig, default
from models.dataset import DataConfig, SampleIndex, SampleReader, ShardLoader, read_index
from models.recipes import make_recipe

SIZE = (288, 512)


def rate(steps: Iterator[int], seconds: float) -> tuple[float, float]:
    """Items per second, by clock and by processor, of an iterator that yields how many each step made."""
    next(steps)  # the first one opens shards and starts threads
    count, started, worked = 0, time.perf_counter(), time.process_time()
    while time.perf_counter() - started < seconds:
        count += next(steps)
    return count / (time.perf_counter() - started), count / (time.process_time() - worked)


def reading(index: SampleIndex, then: Callable[[SampleReader, int], object]) -> Iterator[int]:
    reader = SampleReader(index, DataConfig())
    rng = np.random.default_rng(0)
    while True:
        then(reader, int(rng.integers(len(index))))
        yield 1


def examples(index: SampleIndex, config: TrainConfig, workers: int) -> Iterator[int]:
    data = DataConfig(workers=workers)
    loader = ShardLoader(
        reader=SampleReader(index, data),
        make_example=make_recipe(config).example,
        batch_size=config.batch_size,
        config=data,
    )
    for _ in loader.batches():
        yield config.batch_size


def measure(url: str, seconds: float) -> dict[str, tuple[float, float]]:
    index = read_index([url])
    found = {
        "read members": rate(reading(index, lambda reader, row: reader.read(row)), seconds),
        "read and decode one frame": rate(
            reading(index, lambda reader, row: reader.read(row).frames[0]), seconds
        ),
    }
    counts = [0, 1, *(2**power for power in range(1, 5) if 2**power <= (os.cpu_count() or 1))]
    for kind in ("motion", "animator"):
        config = default(kind)  # type: ignore[arg-type]
        for workers in counts:
            found[f"{kind} examples, {workers} threads"] = rate(examples(index, config, workers), seconds)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", default="")
    parser.add_argument("--seconds", type=float, default=5.0)
    options = parser.parse_args()
    cv2.setNumThreads(1)  # the loader's own threads are what is measured
    with tempfile.TemporaryDirectory() as folder:
        write_drawn_dataset(folder, sources=16, per_source=4, per_shard=16, size_HW=SIZE)
        found = measure(folder, options.seconds)
    decode = found["read and decode one frame"][1]
    for name, (by_clock, by_work) in found.items():
        print(f"{name:32} {by_clock:8.1f} /s {by_work:8.1f} /cpu s   {by_work / decode:5.2f} × decode")
    result = {
        "per_second": {name: round(value, 1) for name, (value, _) in found.items()},
        "per_processor_second": {name: round(value, 1) for name, (_, value) in found.items()},
        "machine": {"processor": platform.processor() or platform.machine(), "cores": os.cpu_count()},
        "load_average": [round(value, 1) for value in os.getloadavg()],
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "opencv": cv2.__version__,
        },
        "command": "python tests/benchmarks/loader.py " + " ".join(sys.argv[1:]),
    }
    if options.out:
        Path(options.out).write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
