"""What one huge photo costs: peak memory of a whole `stillstream animate`, and processor time.

    python tests/benchmarks/large_photo.py [--size 6000x4000] [--frames 60] [--renderer splat] [--out FILE]

The photo is noise of all sizes in which the weights see everything fall, the worst case: nothing can be left
out. Memory is the sum of the driver's and all its children's resident memory at its largest, so shared
libraries count more than once.
"""

import argparse
import os
import platform
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import cv2
import numpy as np
from library import watch

sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parents[2])]

from animation_world import write_weights  # noqa: E402 (tests/ has to be on the path)

TARGET_GB = 3.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", default="6000x4000")
    parser.add_argument("--frames", type=int, default=60)
    parser.add_argument("--renderer", default="splat")
    parser.add_argument("--format", default="mp4")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    width, height = map(int, options.size.split("x"))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "photos").mkdir()
        draw_noise(folder / "photos" / "noise.jpg", (height, width))
        seconds, processor, peak = animate(folder, write_weights(folder), options)
    line = (
        f"| {options.size} ({width * height / 1e6:.0f} megapixels) | {options.renderer} | {options.format} | "
        f"{options.frames} | {peak / 1e9:.2f} GB | {seconds:.0f} s | {processor:.0f} s |"
    )
    print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores; target {TARGET_GB:g} GB")
    print(line)
    if options.out:
        with options.out.open("a") as report:
            report.write(line + "\n")


def draw_noise(path: Path, size_HW: tuple[int, int]) -> None:
    """A JPEG of smooth noise of every size."""
    rng = np.random.default_rng(0)
    picture = np.zeros((*size_HW, 3), np.float32)
    for cells in (8, 64, 512):
        grid = rng.standard_normal((cells, cells, 3)).astype(np.float32)
        picture += cv2.resize(grid, size_HW[::-1], interpolation=cv2.INTER_CUBIC)
    cv2.imwrite(str(path), np.clip(128 + 40 * picture, 0, 255).astype(np.uint8))


def animate(folder: Path, weights: str, options: argparse.Namespace) -> tuple[float, float, int]:
    """Seconds, seconds of processor time, and peak bytes of the command."""
    command = [sys.executable, "-m", "flows.cli", "animate", str(folder / "photos")]
    command += ["--out", str(folder / "loops"), "--checkpoint", weights, "--renderer", options.renderer]
    command += ["--seconds", str(options.frames / 30), "--fps", "30", "--format", options.format]
    peak, begin = [0], time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2])
    threading.Thread(target=watch, args=(process.pid, peak), daemon=True).start()
    said, _ = process.communicate()
    seconds = time.perf_counter() - begin
    sidecars = list((folder / "loops").rglob("*.json"))
    assert process.returncode == 0 and sidecars, said
    used = os.times()
    return seconds, used.children_user + used.children_system, peak[0]


if __name__ == "__main__":
    main()
