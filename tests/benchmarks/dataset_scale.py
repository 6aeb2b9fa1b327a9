"""What dataset building needs as videos get longer and workers more: memory, bytes, speed of two workers.

    python tests/benchmarks/dataset_scale.py [--minutes 10] [--videos 24] [--out FILE]

Memory is the peak resident size of a fresh process that distils one 1080p video of ten seconds, and one of
`--minutes`. The rate of a number of workers counts from the first video that is done, so that their start is
left out; it is wall time, so the machine's load is told beside it.
"""

from __future__ import annotations

import argparse
import os
import platform
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np

from pipelines.motion_dataset import build_dataset
from pipelines.runner import RunnerConfig
from storage.dataset_format import read_dataset_json
from storage.isolated import stop_workers
from storage.progress import Progress

FPS = 30
LOOP_SECONDS = 2
SHORT_SECONDS = 10
MEMORY_TARGET_MB = 1200
GROWTH_TARGET = 1.10
BYTES_TARGET_MB = 15.0
WORKERS_TARGET = 1.7
PEAK = (
    "import resource, sys; from pathlib import Path; from pipelines.distil import *; "
    "got = distil_video(Path(sys.argv[1]), Source(url='x', sha256='0' * 64), MeasureConfig()); "
    "assert len(got.samples) == int(sys.argv[2]), got.rows; "
    "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--videos", type=int, default=24)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "dataset_scale.md")
    options = parser.parse_args()
    cv2.setNumThreads(1)
    lines = [
        "# Dataset building at scale",
        "",
        f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, "
        f"Python {platform.python_version()}, OpenCV {cv2.__version__}, PyAV {av.__version__}.",
        f"Command: `python tests/benchmarks/dataset_scale.py --minutes {options.minutes:g} "
        f"--videos {options.videos}`",
        "",
    ]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        lines += memory_lines(folder, options.minutes)
        lines += worker_lines(folder, options.videos)
    report = "\n".join([*lines, ""])
    print(report)
    options.out.write_text(report)


def write_long(path: Path, seconds: float, size: tuple[int, int], velocity: tuple[float, float]) -> None:
    """A video of flowing texture: two seconds are encoded once and their packets repeated."""
    packets = _encode_loop(path.with_suffix(".loop.mp4"), size, velocity)
    with av.open(str(path.with_suffix(".loop.mp4"))) as source, av.open(str(path), "w") as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        base = Fraction(source.streams.video[0].time_base)
        step = int(Fraction(LOOP_SECONDS) / base)
        kept = [
            (bytes(packet), packet.pts, packet.dts, packet.is_keyframe) for packet in source.demux(video=0)
        ]
        for turn in range(round(seconds / LOOP_SECONDS)):
            for data, pts, dts, key in kept[:packets]:
                packet = av.Packet(data)
                packet.pts, packet.dts, packet.time_base = pts + turn * step, dts + turn * step, base
                packet.is_keyframe, packet.stream = key, stream
                target.mux(packet)
    path.with_suffix(".loop.mp4").unlink()


def _encode_loop(path: Path, size: tuple[int, int], velocity: tuple[float, float]) -> int:
    height, width = size
    rng = np.random.default_rng(round(1000 * abs(velocity[0])))
    ground, fluid = (_texture(rng, size) for _ in range(2))
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=FPS, options={"preset": "ultrafast", "crf": "23"})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.codec_context.gop_size = FPS * LOOP_SECONDS
        for index in range(FPS * LOOP_SECONDS):
            shift = [round(axis * index) for axis in velocity]
            picture = ground.copy()
            rows, columns = slice(height // 3, -height // 12), slice(width // 4, 3 * width // 4)
            picture[rows, columns] = np.roll(fluid, shift[::-1], (0, 1))[rows, columns]
            frame = av.VideoFrame.from_ndarray(np.repeat(picture[..., None], 3, 2), format="rgb24")
            frame.pts = index
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return FPS * LOOP_SECONDS


def _texture(rng: np.random.Generator, size: tuple[int, int]) -> Any:
    """Smooth noise, (H, W) uint8, that repeats at its edges."""
    small = rng.normal(128, 45, (size[0] // 8, size[1] // 8)).astype(np.float32)
    wide = cv2.resize(np.pad(small, 2, mode="wrap"), None, fx=8, fy=8, interpolation=cv2.INTER_CUBIC)
    return np.clip(wide[16 : 16 + size[0], 16 : 16 + size[1]], 0, 255).astype(np.uint8)


def memory_lines(folder: Path, minutes: float) -> list[str]:
    """Peak memory over a short and a long 1080p video."""
    peaks = []
    for name, seconds in (("short.mp4", SHORT_SECONDS), ("long.mp4", 60.0 * minutes)):
        write_long(folder / name, seconds, (1080, 1920), (4.0, 2.0))
        command = [sys.executable, "-c", PEAK, str(folder / name), "4"]
        said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        peaks.append(int(said) / 1024)
        size = (folder / name).stat().st_size / 1e6
        print(f"{name}: {seconds:g} s, {size:.0f} MB, peak {peaks[-1]:.0f} MB", flush=True)
        (folder / name).unlink()
    return [
        "## Memory",
        "",
        f"- peak resident size of a worker over {SHORT_SECONDS} s of 1080p: **{peaks[0]:.0f} MB**, "
        f"over {minutes:g} minutes: **{peaks[1]:.0f} MB** (target below {MEMORY_TARGET_MB})",
        f"- the long video needs **{peaks[1] / peaks[0]:.3f}** times as much "
        f"(target at most {GROWTH_TARGET:.2f})",
        "",
    ]


def worker_lines(folder: Path, count: int) -> list[str]:
    """Bytes per accepted minute, and the rate of one worker and of two."""
    videos = folder / "videos"
    videos.mkdir()
    for index in range(count):
        write_long(videos / f"{index:03d}.mp4", 2.0, (256, 456), (1.0 + index / count, 0.4))
    rates: dict[int, float] = {}
    cpu: dict[int, float] = {}
    megabytes = 0.0
    for workers in (1, 2):
        out = folder / f"out{workers}"
        rates[workers], cpu[workers] = _build(videos, out, workers)
        info = read_dataset_json(str(out))
        assert info.counts["ok"] == count, info.counts
        megabytes = sum(shard.bytes for shard in info.shards) / 1e6 / (count * LOOP_SECONDS / 60)
        shutil.rmtree(out)
    load = os.getloadavg()[0]
    return [
        "## Output",
        "",
        f"- shards: **{megabytes:.1f} MB** per minute of accepted video, 456x256 "
        f"(target below {BYTES_TARGET_MB:g})",
        "",
        "## Workers",
        "",
        f"- clips a second of wall time, start-up left out: {rates[1]:.2f} with one worker, "
        f"{rates[2]:.2f} with two: **{rates[2] / rates[1]:.2f}** times (target {WORKERS_TARGET}); "
        f"load average {load:.1f} on {os.cpu_count()} cores",
        f"- CPU seconds per clip, start-up included: {cpu[1] / count:.2f} with one worker, "
        f"{cpu[2] / count:.2f} with two",
    ]


def _build(videos: Path, out: Path, workers: int) -> tuple[float, float]:
    """Clips a second from the first one that is done, and CPU seconds in all."""
    times: list[tuple[float, int]] = []

    def note(step: Progress) -> None:
        if step.stage == "distil" and step.done and (not times or step.done > times[-1][1]):
            times.append((time.perf_counter(), step.done))

    begin = _cpu()
    build_dataset(str(videos), str(out), runner=RunnerConfig(workers=workers), on_progress=note)
    stop_workers()  # only children that ended are counted
    (first, some), (last, every) = times[0], times[-1]
    return (every - some) / max(last - first, 1e-6), _cpu() - begin


def _cpu() -> float:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


if __name__ == "__main__":
    main()
