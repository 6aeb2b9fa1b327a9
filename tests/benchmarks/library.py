"""What bulk animation costs beside rendering: memory over the number of photos, overhead, a second worker.

    python tests/benchmarks/library.py [--few 200] [--many 2000] [--photos 12] [--out FILE]

Memory: peak of the driver and all processes below it, for many small photos against few. Overhead:
processor time per photo (reading, decoding apart, posters, sidecars, rows, Beam) beyond what rendering and
encoding the same photos by plain calls takes, both on one core in processes of their own; start-up drops out
by the difference of two runs. Workers: seconds per larger photo with one worker on one core, and with two
workers on two (--photos 0 leaves them out, --many 0 the rest). The weights see everything fall, so that every
photo is rendered. On a busy machine processor times compare better than seconds.
"""

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import psutil

sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parents[2])]

from animation_world import write_photos, write_weights  # noqa: E402 (tests/ has to be on the path)

FLAT_TARGET = 1.10
OVERHEAD_TARGET_MS = 30.0
WORKERS_TARGET = 1.7
SMALL = {"seconds": 0.4, "fps": 10.0}
LARGE = {"seconds": 1.0, "fps": 30.0}
WARM_UP = 20  # photos after which a process has its kernels, plans and memory


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--few", type=int, default=200)
    parser.add_argument("--many", type=int, default=2000)
    parser.add_argument("--photos", type=int, default=12, help="larger photos for the comparison of workers")
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
    for name in ("few", "many") if options.many else ():
        write_photos(folder / name, results[name], size_HW=(48, 64))
        results[f"{name}_run"] = animate_apart(folder / name, weights, 1, SMALL)
    if options.many:
        results["many_again"] = animate_apart(folder / "many", weights, 1, SMALL)
        results["bare_ms"] = bare_ms(folder / "few", weights, SMALL)
    for workers in (1, 2) if options.photos else ():
        for share, count in (("half", options.photos), ("whole", 3 * options.photos)):
            photos = folder / f"large_{share}"
            write_photos(photos, count, size_HW=(480, 720))
            results[f"{share}_{workers}"] = animate_apart(photos, weights, workers, LARGE)
        whole, half = results[f"whole_{workers}"], results[f"half_{workers}"]
        for measure in ("seconds", "cpu_seconds"):
            results[f"{measure}_{workers}"] = (whole[measure] - half[measure]) / (2 * options.photos)
    return results


def animate_apart(photos: Path, weights: str, workers: int, settings: dict[str, float]) -> dict[str, Any]:
    """Animate in a process of its own, on as many cores as workers; its summary, peak bytes, CPU seconds."""
    return run_apart({"photos": str(photos), "weights": weights, "workers": workers, **settings})


def bare_ms(photos: Path, weights: str, settings: dict[str, float]) -> float:
    """Processor time per photo, in milliseconds, of nothing but animating and encoding decoded photos."""
    said = run_apart({"photos": str(photos), "weights": weights, "workers": 1, "plain": True, **settings})
    return float(said["cpu_seconds"]) / said["photos"] * 1000


def run_apart(job: dict[str, Any]) -> dict[str, Any]:
    """Run a job in a process of its own; what it says, and the peak of its and its children's memory."""
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
    """Do a job on as many cores as it has workers, and print what it took."""
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: job["workers"]])
    said = animate_plainly(job) if job.get("plain") else animate_in_bulk(job)
    print(json.dumps(said))


def animate_in_bulk(job: dict[str, Any]) -> dict[str, Any]:
    from pipelines.photo_animation import AnimationConfig, animate_photos
    from pipelines.runner import RunnerConfig
    from storage.isolated import stop_workers

    config = AnimationConfig(
        checkpoint=job["weights"], seconds=job["seconds"], fps=job["fps"], renderer="splat"
    )
    out = f"{job['photos']}_out_{job['workers']}"
    summary = animate_photos(job["photos"], out, config, RunnerConfig(workers=job["workers"]))
    stop_workers()  # a process's time is known when it has ended
    spent = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    cpu_seconds = sum(usage.ru_utime + usage.ru_stime for usage in spent)
    return {**asdict(summary), "cpu_seconds": cpu_seconds}


def animate_plainly(job: dict[str, Any]) -> dict[str, Any]:
    import torch

    from models.animate import LoopStyle, animate_photo, load_networks
    from storage.loops import write_loop
    from storage.photo import decode_photo

    torch.set_num_threads(job["workers"])  # as the bulk's workers do
    networks = load_networks(job["weights"], "splat")
    style = LoopStyle(frames=round(job["seconds"] * job["fps"]), fps=job["fps"], renderer="splat")
    images = [decode_photo(path.read_bytes()).image_HW3 for path in sorted(Path(job["photos"]).iterdir())]
    target = f"{job['photos']}.mp4"

    def animate(image: np.ndarray) -> None:
        write_loop(animate_photo(image, networks, style).frames, target, format="mp4", fps=style.fps)

    for image in images[:WARM_UP]:
        animate(image)
    begin = time.process_time()
    for image in images:
        animate(image)
    return {"cpu_seconds": time.process_time() - begin, "photos": len(images)}


def write_report(results: dict[str, Any]) -> str:
    lines = [
        "# Bulk animation: memory, overhead, workers",
        "",
        f"`python tests/benchmarks/library.py --few {results['few']} --many {results['many']}` on "
        f"{platform.processor() or platform.machine()}, {psutil.cpu_count()} cores, "
        f"{psutil.virtual_memory().total / 2**30:.0f} GiB, Python {platform.python_version()}; load average "
        f"at the end {psutil.getloadavg()[0]:.1f}, so compare processor times.",
        "",
        "| measure | value | target |",
        "| --- | --- | --- |",
        *(photo_lines(results) if results["many"] else []),
        *(worker_lines(results) if "seconds_1" in results else []),
    ]
    return "\n".join(lines) + "\n"


def photo_lines(results: dict[str, Any]) -> list[str]:
    few, many, bulk = (
        results["few_run"],
        results["many_run"],
        bulk_ms(results["few_run"], results["many_run"]),
    )
    flat = many["peak_bytes"] / few["peak_bytes"]
    return [
        f"| peak memory, {results['few']} photos | {few['peak_bytes'] / 1e6:.0f} MB | |",
        f"| peak memory, {results['many']} photos | {many['peak_bytes'] / 1e6:.0f} MB | |",
        f"| many : few | {flat:.3f} | ≤ {FLAT_TARGET} |",
        f"| processor time of a small photo, in bulk | {bulk:.1f} ms | |",
        f"| the same, by plain calls | {results['bare_ms']:.1f} ms | |",
        f"| overhead per photo | {bulk - results['bare_ms']:.1f} ms | < {OVERHEAD_TARGET_MS:.0f} ms |",
        f"| rerun of {results['many']} finished photos | {results['many_again']['seconds']:.2f} s | |",
    ]


def worker_lines(results: dict[str, Any]) -> list[str]:
    speed_up = results["seconds_1"] / results["seconds_2"]
    rows = [
        f"| 480×720, 30 frames, {words} | {results[f'seconds_{workers}']:.2f} s a photo "
        f"({results[f'cpu_seconds_{workers}']:.2f} s of processor time) | |"
        for workers, words in ((1, "one worker on one core"), (2, "two workers on two cores"))
    ]
    return [
        *rows,
        f"| two workers : one | {speed_up:.2f} × | ≥ {WORKERS_TARGET} |",
        f"| photos per hour, two workers, with start-up | {results['whole_2']['photos_per_hour']:.0f} | |",
        f"| share of time per stage (these photos) | {shares(results['whole_1'])} | |",
    ]


def bulk_ms(few: dict[str, Any], many: dict[str, Any]) -> float:
    """Milliseconds of processor time per photo, from the difference of two runs: start-up drops out."""
    photos = many["counts"]["ok"] - few["counts"]["ok"]
    return float(many["cpu_seconds"] - few["cpu_seconds"]) / photos * 1000


def shares(run: dict[str, Any]) -> str:
    return ", ".join(f"{stage} {share:.0%}" for stage, share in run["stage_shares"].items())


if __name__ == "__main__":
    main()
