"""How much faster the compiled splat is than scattering with torch.index_add_, in one run, on one thread.

    python tests/benchmarks/splatting.py [--repeats 7]

Both splat a 1280×720 RGB picture with softmax importance along the same displacement. The two take turns, so
that a busy machine disturbs both alike; the ratio is that of the medians. Prints the largest difference too.
"""

import argparse
import platform
import statistics
import time
from collections.abc import Callable

import numba
import numpy as np
import torch

from models.euler import displacement_after
from models.softmax_splatting import softmax_splat, splat_numpy
from models.warp import bilinear_warp

HEIGHT, WIDTH = 720, 1280


def inputs() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A picture, the displacement of a swirl after 30 frames, and an importance."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:HEIGHT, :WIDTH].astype(np.float32)
    motion = np.stack([np.sin(y / 90) * 2, np.cos(x / 120)]).astype(np.float32)
    picture = rng.random((HEIGHT, WIDTH, 3), np.float32)
    return picture, displacement_after(motion, 30), rng.standard_normal((HEIGHT, WIDTH)).astype(np.float32)


def timed(function: Callable[[], object]) -> float:
    started = time.perf_counter()
    function()
    return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=7)
    repeats = parser.parse_args().repeats
    torch.set_num_threads(1)
    picture, displacement, importance = inputs()
    tensors = (
        torch.from_numpy(picture).permute(2, 0, 1)[None].contiguous(),
        torch.from_numpy(displacement)[None],
        torch.from_numpy(importance)[None, None],
    )
    contenders = {
        "compiled splat": lambda: splat_numpy(picture, displacement, importance),
        "torch.index_add_": lambda: softmax_splat(*tensors),
        "bilinear gather": lambda: bilinear_warp(picture, displacement),
    }
    times: dict[str, list[float]] = {name: [] for name in contenders}
    with torch.inference_mode():
        splatted = contenders["compiled splat"]()
        scattered, _ = softmax_splat(*tensors)
        contenders["bilinear gather"]()
        for _ in range(repeats):
            for name, function in contenders.items():
                times[name].append(timed(function))
    difference = np.abs(splatted.features - scattered[0].permute(1, 2, 0).numpy()).max()
    print(
        f"{platform.processor() or platform.machine()}, numba {numba.__version__}, torch {torch.__version__}"
    )
    for name, values in times.items():
        spread = f"{min(values) * 1e3:.1f} to {max(values) * 1e3:.1f}"
        print(f"{name:18} {statistics.median(values) * 1e3:8.1f} ms   ({spread})")
    ratio = statistics.median(times["torch.index_add_"]) / statistics.median(times["compiled splat"])
    print(f"the compiled splat is {ratio:.1f} × as fast; largest difference {difference:.1e}")


if __name__ == "__main__":
    main()
