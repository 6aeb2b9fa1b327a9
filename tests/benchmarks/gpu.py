"""What the accelerator does beside what it could do, in one run: splat, deep renderer, training, loader.

    python tests/benchmarks/gpu.py [--repeats 20] [--steps 60] [--data DATASET] [--out RESULTS.json]

(1) The differentiable splat of a 1280×720 picture beside the time its bytes need at the copy bandwidth that
is measured here: sources and displacement read once, sums and average written once; the aim is 2 ×.
(2) The small deep renderer at 1280×720 in bfloat16; the aim is 60 frames a second. (3) Training images a
second of both models, and those that the loader alone makes: training is bound by it where they are equal.
Without a GPU (1) and (3) run on the processor, and what makes no sense there is named with its reason.
"""

import argparse
import dataclasses
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from drawn_dataset import write_drawn_dataset

from models.animator import Animator
from models.configs import TrainConfig, default, small
from models.dataset import SampleReader, ShardLoader, read_index
from models.recipes import make_recipe
from models.softmax_splatting import softmax_splat
from models.train import train

HEIGHT, WIDTH = 720, 1280
COPIED_BYTES = 256 * 2**20


def timed(function: Callable[[], object], repeats: int, device: torch.device) -> float:
    """Median seconds of a call, the device waited for, after two calls to warm up."""
    times = []
    for attempt in range(repeats + 2):
        started = time.perf_counter()
        function()
        if device.type == "cuda":
            torch.cuda.synchronize()
        if attempt >= 2:
            times.append(time.perf_counter() - started)
    return statistics.median(times)


def copy_bandwidth(repeats: int, device: torch.device) -> float:
    """Bytes a second of a copy on the device, read and written both counted."""
    source = torch.ones(COPIED_BYTES // 4, device=device)
    target = torch.empty_like(source)
    return 2 * COPIED_BYTES / timed(lambda: target.copy_(source), repeats, device)


def fields(device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """A displacement of up to 40 pixels, and everything moving."""
    y = torch.arange(HEIGHT, device=device, dtype=torch.float32).view(1, 1, -1, 1)
    x = torch.arange(WIDTH, device=device, dtype=torch.float32).view(1, 1, 1, -1)
    dx, dy = 40 * torch.sin(y / 90), 40 * torch.cos(x / 120)
    displacement = torch.cat((dx.expand(1, 1, HEIGHT, WIDTH), dy.expand(1, 1, HEIGHT, WIDTH)), 1)
    return displacement, torch.ones((1, 1, HEIGHT, WIDTH), device=device)


@torch.inference_mode()
def splat(repeats: int, device: torch.device) -> dict[str, float]:
    picture = torch.rand((1, 3, HEIGHT, WIDTH), device=device)
    displacement, _ = fields(device)
    importance = torch.randn((1, 1, HEIGHT, WIDTH), device=device)
    seconds = timed(lambda: softmax_splat(picture, displacement, importance), repeats, device)
    bandwidth = copy_bandwidth(repeats, device)
    read, written = 4 * (3 + 2 + 1), 4 * (4 + 4)
    floor = HEIGHT * WIDTH * (read + written) / bandwidth
    return {
        "copy_gigabytes_per_second": bandwidth / 1e9,
        "splat_milliseconds": seconds * 1e3,
        "splat_floor_milliseconds": floor * 1e3,
        "splat_over_floor": seconds / floor,
    }


@torch.inference_mode()
def deep(repeats: int, device: torch.device) -> dict[str, float]:
    animator = Animator.from_config("small").to(device, memory_format=torch.channels_last).eval()
    photo = torch.rand((1, 3, HEIGHT, WIDTH), device=device)
    displacement, moving = fields(device)
    alpha = torch.tensor([0.5], device=device)

    def frame() -> torch.Tensor:
        with torch.autocast(device.type, torch.bfloat16):
            result: torch.Tensor = animator(photo, photo, (displacement, -displacement), alpha, moving)
            return result

    return {"deep_frames_per_second": 1 / timed(frame, repeats, device)}


def training(config: TrainConfig, data: str, steps: int) -> dict[str, float]:
    """Images a second of a training (its first half left to warm up), and of its loader alone."""
    config = dataclasses.replace(
        config,
        steps=steps,
        validate_every=steps,
        save_every=steps,
        log_every=steps,
        validation_samples=1,
        tensorboard=False,
    )
    moments: list[float] = []
    with tempfile.TemporaryDirectory() as out:
        train(config.kind, config, data, out, on_progress=lambda _: moments.append(time.perf_counter()))
    half = steps // 2
    trained = (steps - 1 - half) * config.batch_size / (moments[-1] - moments[half])
    index = read_index([data])
    loader = ShardLoader(
        reader=SampleReader(index, config.data),
        make_example=make_recipe(config).example,
        batch_size=config.batch_size,
        config=config.data,
    )
    batches = loader.batches()
    next(batches)
    started = time.perf_counter()
    for _ in range(half):
        next(batches)
    loaded = half * config.batch_size / (time.perf_counter() - started)
    return {
        f"{config.kind}_images_per_second": trained,
        f"{config.kind}_loader_images_per_second": loaded,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--data", default="", help="a dataset; drawn where none is named")
    parser.add_argument("--out", default="")
    options = parser.parse_args()
    cuda = torch.cuda.is_available()
    device = torch.device("cuda" if cuda else "cpu")
    name = torch.cuda.get_device_name() if cuda else f"no GPU, {torch.get_num_threads()} threads"
    print(f"{name}, torch {torch.__version__}, load {os.getloadavg()[0]:.1f}")
    found = splat(options.repeats, device)
    skipped = {}
    if cuda:
        found |= deep(options.repeats, device)
    else:
        skipped["deep_frames_per_second"] = "no GPU: bfloat16 convolutions are emulated on most processors"
    with tempfile.TemporaryDirectory() as folder:
        data = options.data or folder
        if not options.data:
            write_drawn_dataset(folder, sources=16, per_source=4, per_shard=16, size_HW=(288, 512))
        for kind in ("motion", "animator"):
            # The network that a person trains with: on a processor the small one, or this takes an hour.
            config = default(kind) if cuda else small(kind)  # type: ignore[arg-type]
            workers = max(1, min(os.cpu_count() or 1, 12) - 1) if cuda else 0
            config = dataclasses.replace(config, data=dataclasses.replace(config.data, workers=workers))
            found |= training(config, data, options.steps)
    for label, value in found.items():
        print(f"{label.replace('_', ' '):36} {value:10.2f}")
    for label, reason in skipped.items():
        print(f"{label.replace('_', ' '):36} skipped: {reason}")
    if options.out:
        result = {"device": name, "torch": torch.__version__, "found": found, "skipped": skipped}
        Path(options.out).write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
