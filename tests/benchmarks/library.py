"""What bulk animation costs beside rendering: memory over the number of photos, overhead, a second worker.

    python tests/benchmarks/library.py [--few 200] [--many 2000] [--photos 24] [--out FILE]

Memory: peak of the driver and all processes below it, for many small photos against few. Overhead: everything
that is not motion, rendering or encoding (reading, decoding apart, posters, sidecars, rows, Beam),
in milliseconds per photo. Workers: seconds per larger photo, start-up left out by the difference of two runs
(--photos 0 leaves them out). The weights see everything fall, so that every photo is rendered.
"""

import argparse
import json
import platform
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import psutil

sys.path.insert(0, str(Path(__file__).parents[1]))

from animation_world import write_photos, write_weights  # noqa: E402 (tests/ has to be on the path)

FLAT_TARGET = 1.10
OVERHEAD_TARGET_MS = 30.0
WORKERS_TARGET = 1.7
SMALL = {"seconds": 0.4, "fps": 10.0}
LARGE = {"seconds": 1.0, "fps": 30.0}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--few", type=int, default=200)
    parser.add_argument("--many", type=int, default=2000)
    parser.add_argument("--photos", type=int, default=24, help="larger photos for the comparison of workers")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "library.md")
    parser.add_argument("--run", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.run:
        run_job(json.loads(options.run))
        return
    with tempfile.TemporaryDirectory() as folder:
        report = write_report(measure(options, Path(folder)))
    print(report)
    options.out.parent.mkdir(exist_ok=True)
    options.out.write_text(report)


def measure(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    weights = write_weights(folder)
    results: dict[str, Any] = {"few": options.few, "many": options.many}
    for name in ("few", "many"):
        write_photos(folder / name, results[name], size_HW=(48, 64))
        results[f"{name}_run"] = animate_apart(folder / name, weights, 1, SMALL)
        results[f"{name}_again"] = animate_apart(folder / name, weights, 1, SMALL)
    for workers in (1, 2) if options.photos else ():
        for share, count in (("half", options.photos), ("whole", 3 * options.photos)):
            photos = folder / f"large_{share}"
            write_photos(photos, count, size_HW=(480, 720))
            results[f"{share}_{workers}"] = animate_apart(photos, weights, workers, LARGE)
        seconds = results[f"whole_{workers}"]["seconds"] - results[f"half_{workers}"]["seconds"]
        results[f"per_photo_{workers}"] = seconds / (2 * options.photos)
    return results


def animate_apart(photos: Path, weights: str, workers: int, settings: dict[str, float]) -> dict[str, Any]:
    """Animate in a process of its own; returns its summary, its peak memory in bytes and its CPU seconds."""
    job = {"photos": str(photos), "weights": weights, "workers": workers, **settings}
    process = subprocess.Popen(
        [sys.executable, __file__, "--run", json.dumps(job)],
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
    )
    peak = [0]
    watcher = threading.Thread(target=watch, args=(process.pid, peak), daemon=True)
    watcher.start()
    said, _ = process.communicate()
    assert process.returncode == 0
    return {**json.loads(said.splitlines()[-1]), "peak_bytes": peak[0]}


def watch(pid: int, peak: list[int]) -> None:
    """Keep the largest sum of resident memory of a process and those below it."""
    try:
        parent = psutil.Process(pid)
        while True:
            total = parent.memory_info().rss
            for child in parent.children(recursive=True):
                try:
                    total += child.memory_info().rss
                except psutil.NoSuchProcess:
                    continue
            peak[0] = max(peak[0], total)
            time.sleep(0.1)
    except psutil.NoSuchProcess:
        return


def run_job(job: dict[str, Any]) -> None:
    from pipelines.photo_animation import AnimationConfig, animate_photos
    from pipelines.runner import RunnerConfig

    config = AnimationConfig(
        checkpoint=job["weights"], seconds=job["seconds"], fps=job["fps"], renderer="splat"
    )
    begin = time.process_time()
    out = f"{job['photos']}_out_{job['workers']}"
    summary = animate_photos(job["photos"], out, config, RunnerConfig(workers=job["workers"]))
    print(json.dumps({**asdict(summary), "cpu_seconds": time.process_time() - begin}))


def write_report(results: dict[str, Any]) -> str:
    few, many = results["few_run"], results["many_run"]
    flat = many["peak_bytes"] / few["peak_bytes"]
    again = results["many_again"]
    lines = [
        "# Bulk animation: memory, overhead, workers",
        "",
        f"`python tests/benchmarks/library.py --few {results['few']} --many {results['many']}` on "
        f"{platform.processor() or platform.machine()}, {psutil.cpu_count()} cores, "
        f"{psutil.virtual_memory().total / 2**30:.0f} GiB, Python {platform.python_version()}; load average "
        f"at the end {psutil.getloadavg()[0]:.1f}.",
        "",
        "| measure | value | target |",
        "| --- | --- | --- |",
        f"| peak memory, {results['few']} photos | {few['peak_bytes'] / 1e6:.0f} MB | |",
        f"| peak memory, {results['many']} photos | {many['peak_bytes'] / 1e6:.0f} MB | |",
        f"| many : few | {flat:.3f} | ≤ {FLAT_TARGET} |",
        f"| overhead per photo | {overhead_ms(few, many):.1f} ms | < {OVERHEAD_TARGET_MS:.0f} ms |",
        f"| rerun of {results['many']} finished photos | {again['seconds']:.2f} s | |",
        *(worker_lines(results) if "per_photo_1" in results else []),
    ]
    return "\n".join(lines) + "\n"


def worker_lines(results: dict[str, Any]) -> list[str]:
    speed_up = results["per_photo_1"] / results["per_photo_2"]
    return [
        f"| 480×720, 30 frames, one worker | {results['per_photo_1']:.3f} s a photo | |",
        f"| the same, two workers | {results['per_photo_2']:.3f} s a photo | |",
        f"| two workers : one | {speed_up:.2f} × | ≥ {WORKERS_TARGET} |",
        f"| share of time per stage (these photos) | {shares(results['whole_1'])} | |",
    ]


def overhead_ms(few: dict[str, Any], many: dict[str, Any]) -> float:
    """Milliseconds beside motion, render and encode, from the difference of two runs: start-up drops out."""

    def beside(run: dict[str, Any]) -> float:
        stages = run["stage_seconds"]
        return float(run["seconds"] - sum(stages[name] for name in ("motion", "render", "encode")))

    return (beside(many) - beside(few)) / (many["counts"]["ok"] - few["counts"]["ok"]) * 1000


def shares(run: dict[str, Any]) -> str:
    return ", ".join(f"{stage} {share:.0%}" for stage, share in run["stage_shares"].items())


if __name__ == "__main__":
    main()
