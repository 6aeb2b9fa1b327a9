"""Which optical flow method should measure motion: error of the averaged field, and pairs a second.

    python tests/benchmarks/flow_methods.py [--pairs 8] [--methods dis_fast,farneback] [--write]

Every method of pipelines.optical_flow_methods sees the same H.264 clips of drawn scenes with known motion:
textured (a river, a waterfall) and smooth (clouds out of focus), slow (95 % of the moving pixels below
1 px/frame) and fast (12 px/frame), at crf 18 and 30. The error is that of the mean over the pairs, as the
dataset takes it, over moving and over still pixels. Speed is one thread's CPU time, so that a busy machine
does not change it much. --write puts the table into results/flow_methods.md.
"""

from __future__ import annotations

import argparse
import platform
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import av
import cv2
import numpy as np
from numpy.typing import NDArray

from pipelines.optical_flow_methods import METHODS, optical_flow_method
from pipelines.sample_data import Scene, draw_scene
from storage.video import decode_frames, encode_video

SIZE = (256, 456)
SCENES = (("river", 3, 0.0), ("waterfall", 3, 0.0), ("clouds", 3, 2.0))  # kind, seed, blur in pixels
SPEEDS = {"slow": 1.0, "fast": 12.0}  # 95th percentile, px/frame
QUALITIES = (18, 30)
RESULTS = Path(__file__).parent / "results" / "flow_methods.md"


@dataclass(frozen=True, kw_only=True, slots=True)
class Clip:
    """Decoded grey frames and the truth about them."""

    texture: str
    pace: str
    crf: int
    grey: list[NDArray[np.uint8]]
    scene: Scene


def scene_at(kind: str, seed: int, top_speed: float) -> Scene:
    """The scene with its 95th percentile of speed at `top_speed`."""
    probe = draw_scene(kind, seed=seed, size=SIZE)
    usual = float(np.percentile(np.hypot(*probe.motion_2HW)[probe.moving_HW], 95))
    return draw_scene(kind, seed=seed, size=SIZE, speed=top_speed / usual)


def frames_of(scene: Scene, count: int, blur: float) -> list[NDArray[np.uint8]]:
    frames = [scene.frame_at(float(index)) for index in range(count)]
    return [cv2.GaussianBlur(frame, (0, 0), blur) for frame in frames] if blur else frames


def make_clips(pairs: int, folder: Path) -> list[Clip]:
    clips = []
    for kind, seed, blur in SCENES:
        for pace, top_speed in SPEEDS.items():
            scene = scene_at(kind, seed, top_speed)
            frames = frames_of(scene, pairs + 1, blur)
            for crf in QUALITIES:
                path = folder / f"{kind}_{pace}_{crf}.mp4"
                encode_video(frames, str(path), fps=30, crf=crf)
                grey = [cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for _, frame in decode_frames(path)]
                texture = "smooth" if blur else "textured"
                clips.append(Clip(texture=texture, pace=pace, crf=crf, grey=grey, scene=scene))
    return clips


@dataclass(frozen=True, kw_only=True, slots=True)
class Score:
    """One method on one clip."""

    clip: Clip
    moving: float
    still: float
    seconds: float  # a pair


def measure(name: str, clips: list[Clip]) -> list[Score]:
    method = optical_flow_method(name)
    method(clips[0].grey[0], clips[0].grey[1])
    scores = []
    for clip in clips:
        total = np.zeros((*SIZE, 2), np.float64)
        begin = time.process_time()
        for first, second in zip(clip.grey[:-1], clip.grey[1:], strict=True):
            total += method(first, second)
        seconds = (time.process_time() - begin) / (len(clip.grey) - 1)
        mean_2HW = (total / (len(clip.grey) - 1)).transpose(2, 0, 1)
        error = np.hypot(*(mean_2HW - clip.scene.motion_2HW))
        moving = clip.scene.moving_HW
        scores.append(
            Score(
                clip=clip,
                moving=float(error[moving].mean()),
                still=float(error[~moving].mean()),
                seconds=seconds,
            )
        )
    return scores


def table(results: dict[str, list[Score]]) -> str:
    """One row a method, best first by the mean error on slow and fast textured clips."""
    columns = [(texture, pace) for texture in ("textured", "smooth") for pace in SPEEDS]
    head = ["method", *(f"{t} {p}" for t, p in columns), "crf 18", "crf 30", "still", "pairs/s"]
    lines = ["| " + " | ".join(head) + " |", "|---" + "|---:" * (len(head) - 1) + "|"]
    for name, scores in sorted(results.items(), key=lambda item: np.mean([s.moving for s in item[1]])):
        cells = [
            np.mean([s.moving for s in scores if (s.clip.texture, s.clip.pace) == column])
            for column in columns
        ]
        cells += [np.mean([s.moving for s in scores if s.clip.crf == crf]) for crf in QUALITIES]
        cells.append(np.mean([s.still for s in scores]))
        rate = 1.0 / np.mean([s.seconds for s in scores])
        lines.append(f"| {name} | " + " | ".join(f"{cell:.3f}" for cell in cells) + f" | {rate:.1f} |")
    return "\n".join(lines)


def report(results: dict[str, list[Score]], pairs: int) -> str:
    scenes = [score.clip.scene for score in next(iter(results.values()))]
    zero = np.mean([np.hypot(*scene.motion_2HW)[scene.moving_HW].mean() for scene in scenes])
    return f"""# Optical flow methods

End-point error in pixels a frame of the field averaged over {pairs} pairs, on moving pixels unless it says
still, {SIZE[1]}x{SIZE[0]}, H.264; pairs a second on one thread (CPU time).
No motion at all would score {zero:.3f}.

{table(results)}

- Scenes: {", ".join(f"{k} {s}" + (f" blurred by {b:g} px" if b else "") for k, s, b in SCENES)};
  slow and fast are 95th percentiles of {SPEEDS["slow"]:g} and {SPEEDS["fast"]:g} px/frame.
- Machine: {cpu_name()}, one thread; Python {platform.python_version()}, OpenCV {cv2.__version__},
  numpy {np.__version__}, PyAV {av.__version__}.
- Command: `python {" ".join(["tests/benchmarks/flow_methods.py", *sys.argv[1:]])}`
"""


def cpu_name() -> str:
    """The processor's name, where the system tells."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=8)
    parser.add_argument("--methods", default=",".join(METHODS))
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    cv2.setNumThreads(1)
    with tempfile.TemporaryDirectory() as folder:
        clips = make_clips(options.pairs, Path(folder))
    results = {}
    for name in options.methods.split(","):
        results[name] = measure(name, clips)
        print(f"{name}: {np.mean([s.moving for s in results[name]]):.3f} px/frame", flush=True)
        if options.write:  # after every method, for the slow ones take minutes
            RESULTS.parent.mkdir(exist_ok=True)
            RESULTS.write_text(report(results, options.pairs))
    print(report(results, options.pairs))


if __name__ == "__main__":
    main()
