"""How fast videos become samples: the whole pipeline against bare loops, in one run and on one thread.

    python tests/benchmarks/dataset_speed.py [--seeds N] [--out FILE]

Per sample scene, as H.264 at 456x256 and 30 fps: (a) a bare Farneback loop over decoded frames, (b) a bare
loop of decoding and the pipeline's own optical flow preset, (c) the whole of one clip: decode, first pass,
camera, averaged motion with checks, scores, JPEG, shard. Times are CPU seconds, which other jobs on the
machine disturb least. Errors are mean end-point errors against the scenes' known motion.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from pipelines.clip import ClipConfig, plan_windows
from pipelines.distil import MeasureConfig, Source, distil_video
from pipelines.optical_flow import OpticalFlowConfig, average_motion, grey_frame
from pipelines.optical_flow_methods import optical_flow_method
from pipelines.sample_data import SCENES, draw_scene, scene_frames
from storage.shards import write_shard
from storage.video import decode_frames, encode_video, probe_video

SIZE = (256, 456)
FRAMES = 60
FARNEBACK_TARGET = 4.0
DIS_TARGET = 1.4


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "dataset_speed.md")
    options = parser.parse_args()
    cv2.setNumThreads(1)
    with tempfile.TemporaryDirectory() as folder:
        rows = [measure_scene(kind, seed, Path(folder)) for kind in SCENES for seed in range(options.seeds)]
    report = write_report(rows)
    print(report)
    options.out.parent.mkdir(exist_ok=True)
    options.out.write_text(report)


def measure_scene(kind: str, seed: int, folder: Path) -> dict[str, Any]:
    """All figures of one scene; times in CPU milliseconds per pair of frames."""
    scene = draw_scene(kind, seed=seed, size=SIZE)
    path = folder / f"{kind}_{seed}.mp4"
    encode_video(scene_frames(scene, FRAMES), str(path), fps=30, crf=20)
    source = Source(url=str(path), sha256=f"{seed:064x}")
    config = MeasureConfig(clip=ClipConfig(per_source=1))
    assert len(plan_windows(probe_video(path), config.clip)) == 1

    def pipeline() -> None:
        distilled = distil_video(path, source, config)
        assert distilled.samples, distilled.rows
        write_shard(str(folder / "shard.tar"), distilled.samples)

    grey = [grey_frame(frame) for _, frame in decode_frames(path)]
    flow = optical_flow_method("farneback")
    first = [flow(*pair) for pair in zip(grey, grey[1:], strict=False)]
    plain_2HW = np.mean(first, axis=0).transpose(2, 0, 1)
    estimate = average_motion(grey, OpticalFlowConfig())
    pairs = len(grey) - 1
    farneback, bare, whole = cpu_ms(
        lambda: [flow(*pair) for pair in zip(grey, grey[1:], strict=False)],
        lambda: decode_and_flow(path, config.optical_flow.method),
        pipeline,
    )
    return {
        "scene": f"{kind} {seed}",
        "farneback": farneback / pairs,
        "bare": bare / pairs,
        "pipeline": whole / pairs,
        "farneback_error": error(plain_2HW, scene),
        "pipeline_error": error(estimate.motion_2HW, scene),
    }


def decode_and_flow(path: Path, method: str) -> None:
    """What cannot be done with less: decode and optical flow of every adjacent pair."""
    flow = optical_flow_method(method)
    before = None
    for _, frame in decode_frames(path):
        grey = grey_frame(frame)
        if before is not None:
            flow(before, grey)
        before = grey


def cpu_ms(*actions: Callable[[], Any], repeats: int = 3) -> list[float]:
    """The smallest CPU time of each action, which take turns so that a busy spell hits them alike."""
    for action in actions:
        action()
    times: list[list[float]] = [[] for _ in actions]
    for _ in range(repeats):
        for action, taken in zip(actions, times, strict=True):
            begin = time.process_time()
            action()
            taken.append(time.process_time() - begin)
    return [min(taken) * 1000 for taken in times]


def error(motion_2HW: Any, scene: Any) -> float:
    """Mean end-point error on moving pixels, px/frame."""
    miss = np.hypot(motion_2HW[0] - scene.motion_2HW[0], motion_2HW[1] - scene.motion_2HW[1])
    return float(miss[scene.moving_HW].mean())


def write_report(rows: list[dict[str, Any]]) -> str:
    """The table as Markdown, its last row the means and the ratios below."""
    names = ("farneback", "bare", "pipeline", "farneback_error", "pipeline_error")
    mean = {name: statistics.fmean(row[name] for row in rows) for name in names}
    lines = [
        "# Speed of dataset building",
        "",
        f"{len(rows)} scenes, {SIZE[1]}x{SIZE[0]}, {FRAMES} frames at 30 fps, H.264 crf 20; one thread.",
        f"{platform.processor() or platform.machine()}, Python {platform.python_version()}, "
        f"OpenCV {cv2.__version__}; preset {OpticalFlowConfig().method}.",
        "Command: `python tests/benchmarks/dataset_speed.py`",
        "",
        "CPU milliseconds per pair of frames, and mean end-point error on moving pixels (px/frame):",
        "",
        "| scene | bare Farneback | bare decode + flow | pipeline | Farneback error | pipeline error |",
        "|---|---|---|---|---|---|",
    ]
    for row in [*rows, {"scene": "**mean**", **mean}]:
        times = " | ".join(f"{row[name]:.2f}" for name in names[:3])
        errors = " | ".join(f"{row[name]:.3f}" for name in names[3:])
        lines.append(f"| {row['scene']} | {times} | {errors} |")
    faster, slower = mean["farneback"] / mean["pipeline"], mean["pipeline"] / mean["bare"]
    spread = [row["farneback"] / row["pipeline"] for row in rows]
    lines += [
        "",
        f"- pairs per second, pipeline over bare Farneback: **{faster:.2f}** (target {FARNEBACK_TARGET}; "
        f"{min(spread):.2f} to {max(spread):.2f} over the scenes)",
        f"- time, pipeline over bare decode + flow: **{slower:.2f}** (target at most {DIS_TARGET})",
        f"- pairs per second of one core: {1000 / mean['pipeline']:.0f}",
        "",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
