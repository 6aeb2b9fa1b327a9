"""How much faster the compiled splat is than scattering with torch, in one run, on equally many threads.

    python tests/benchmarks/splatting.py [--repeats 7] [--threads 2]

All splat a 1280×720 RGB picture with softmax importance along the same displacement. "index_add_" is the
plain scatter: four corners, each torch.index_add_ into (C, H·W) planes, one global maximum of Z.
"softmax_splat" is this project's differentiable path, which finds every destination's maximum and scatters
whole pixels. They take turns, so that a busy machine disturbs all alike; ratios are of the medians.
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


def scatter_by_index_add(
    picture_CHW: torch.Tensor, displacement: torch.Tensor, importance: torch.Tensor
) -> torch.Tensor:
    """Weighted average (C, H, W) by four index_add_ calls on planes."""
    channels, height, width = picture_CHW.shape
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    px, py = columns + displacement[0], rows + displacement[1]
    x0, y0 = px.floor(), py.floor()
    weight = (importance - importance.max()).exp()
    source = torch.cat([picture_CHW * weight, weight[None]]).reshape(channels + 1, -1)
    sums = torch.zeros_like(source)
    for dx in (0, 1):
        for dy in (0, 1):
            u, v = x0 + dx, y0 + dy
            share = (1 - (px - u).abs()) * (1 - (py - v).abs())
            inside = (u >= 0) & (u < width) & (v >= 0) & (v < height)
            index = torch.where(inside, v * width + u, 0).long().reshape(-1)
            sums.index_add_(1, index, source * (share * inside).reshape(-1))
    return (sums[:-1] / sums[-1:].clamp(min=1e-12)).reshape(channels, height, width)


def timed(function: Callable[[], object]) -> float:
    started = time.perf_counter()
    function()
    return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    repeats, threads = options.repeats, options.threads
    torch.set_num_threads(threads)
    picture, displacement, importance = inputs()
    tensors = (
        torch.from_numpy(picture).permute(2, 0, 1)[None].contiguous(),
        torch.from_numpy(displacement)[None],
        torch.from_numpy(importance)[None, None],
    )
    contenders = {
        "compiled splat": lambda: splat_numpy(picture, displacement, importance, threads=threads),
        "torch.index_add_": lambda: scatter_by_index_add(tensors[0][0], tensors[1][0], tensors[2][0, 0]),
        "softmax_splat": lambda: softmax_splat(*tensors)[0][0],
        "bilinear gather": lambda: bilinear_warp(picture, displacement),
    }
    times: dict[str, list[float]] = {name: [] for name in contenders}
    with torch.inference_mode():
        splatted = splat_numpy(picture, displacement, importance).features
        others = [
            contenders[name]().permute(1, 2, 0).numpy() for name in ("torch.index_add_", "softmax_splat")
        ]
        contenders["bilinear gather"]()
        for _ in range(repeats):
            for name, function in contenders.items():
                times[name].append(timed(function))
    difference = max(float(np.abs(splatted - other).max()) for other in others)
    machine = platform.processor() or platform.machine()
    print(f"{machine}, {threads} threads, numba {numba.__version__}, torch {torch.__version__}")
    for name, values in times.items():
        spread = f"{min(values) * 1e3:.1f} to {max(values) * 1e3:.1f}"
        print(f"{name:18} {statistics.median(values) * 1e3:8.1f} ms   ({spread})")
    for name in ("torch.index_add_", "softmax_splat"):
        ratio = statistics.median(times[name]) / statistics.median(times["compiled splat"])
        print(f"the compiled splat is {ratio:.1f} × as fast as {name}")
    print(f"largest difference {difference:.1e}")


if __name__ == "__main__":
    main()
