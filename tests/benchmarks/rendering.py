"""What a motion field costs, and rendering beside encoding: 1280×720, 60 frames, one run.

    python tests/benchmarks/rendering.py [--frames 60] [--threads 2] [--repeats 3] [--deep-frames 6]

(0) The motion field by the package's weights, refined to the photo; at most 1 s. For sample scenes:
(1) encode finished frames to H.264 alone, (2) splat, composite and encode together, streaming; the ratio
should be at most 2.5. (3) The deep renderer's seconds per frame for a photo of which 30 % move; at most 0.5.
Wall clock and processor time are both printed: on a busy machine processor times compare better.
"""

import argparse
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path

import cv2
import numba
import numpy as np
import torch

from models.animator import Animator
from models.checkpoint import find_weights, load_motion_network
from models.motion import predict_motion
from models.renderer import LoopConfig, render_loop
from pipelines.sample_data import draw_scene
from storage.video import encode_video

SIZE = (720, 1280)
SCENES = ("waterfall", "river", "sea", "clouds")
Timing = tuple[float, float]


def timed(function: Callable[[], object]) -> Timing:
    wall, processor = time.perf_counter(), time.process_time()
    function()
    return time.perf_counter() - wall, time.process_time() - processor


def median(timings: list[Timing]) -> Timing:
    return statistics.median(t[0] for t in timings), statistics.median(t[1] for t in timings)


def encode(frames: Iterable[np.ndarray]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        encode_video(frames, str(Path(folder) / "loop.mp4"), fps=30)


def compare(scene: str, config: LoopConfig, repeats: int) -> None:
    """Print one scene's line: encoding alone, rendering and encoding, their ratios."""
    drawn = draw_scene(scene, seed=1, size=SIZE)
    moving = drawn.moving_HW.astype(np.float32)

    def render() -> Iterator[np.ndarray]:
        return render_loop(drawn.photo_HW3, drawn.motion_2HW, moving, config)

    frames = list(render())
    alone, together = [], []
    for _ in range(repeats):
        alone.append(timed(lambda: encode(frames)))
        together.append(timed(lambda: encode(render())))
    (wall, processor), (both_wall, both_processor) = median(alone), median(together)
    print(
        f"{scene:10} {moving.mean():5.0%}   {wall:6.2f} s {processor:6.2f} s   {both_wall:6.2f} s "
        f"{both_processor:6.2f} s   {both_wall / wall:5.2f}  {both_processor / processor:5.2f}"
    )


def motion(threads: int, repeats: int) -> None:
    """Print the seconds from a photo to its refined motion field."""
    torch.set_num_threads(threads)
    photo = draw_scene(SCENES[0], seed=1, size=SIZE).photo_HW3
    network = load_motion_network(find_weights(None, "motion"))
    predict_motion(photo, network)
    wall, processor = median([timed(lambda: predict_motion(photo, network)) for _ in range(repeats)])
    print(f"motion field: {wall:.3f} s, {processor:.3f} s of processor time, {threads} threads")


def deep(frames: int, threads: int) -> None:
    """Print the deep renderer's seconds per frame, preparation left out."""
    y, x = np.mgrid[: SIZE[0], : SIZE[1]].astype(np.float32)
    moving = (((x - 640) / 400) ** 2 + ((y - 360) / 220) ** 2 < 1).astype(np.float32)
    noise = np.random.default_rng(0).random((*SIZE, 3), np.float32)
    photo = np.uint8(255 * cv2.GaussianBlur(noise, (0, 0), 3.0))
    motion = np.stack([0 * y + 0.5, 1.5 + 0.3 * np.sin(x / 60)]).astype(np.float32)
    animator = Animator.from_config("small")
    torch.nn.init.normal_(animator.decoder.last.weight, std=0.01)
    config = LoopConfig(frames=60, threads=threads)
    loop = render_loop(photo, motion, moving, config, animator)
    next(loop), next(loop)
    wall, processor = timed(lambda: list(islice(loop, frames)))
    print(
        f"deep renderer (small), {moving.mean():.0%} moving: {wall / frames:.3f} s a frame, "
        f"{processor / frames:.3f} s of processor time, {threads} threads"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--frames", type=int, default=60)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--deep-frames", type=int, default=6)
    options = parser.parse_args()
    versions = f"numba {numba.__version__}, torch {torch.__version__}"
    print(f"{platform.machine()}, {versions}, {options.threads} threads")
    motion(options.threads, options.repeats)
    print("scene      moving  encode: wall, cpu   render + encode: wall, cpu   ratio: wall, cpu")
    for scene in SCENES:
        compare(scene, LoopConfig(frames=options.frames, threads=options.threads), options.repeats)
    deep(options.deep_frames, options.threads)


if __name__ == "__main__":
    main()
