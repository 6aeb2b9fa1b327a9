"""What becomes of drawn clips that should be kept and of those that should not, and of burnt-in text.

    python tests/benchmarks/screening.py [--seeds 3] [--clips FOLDER] [--out FILE]

Every sample scene and every distractor, wide and upright, goes the whole way of a clip. The table says which
were kept, why the others were not, and the medians of the scores that decide. Text of four sizes is written
over the frames of the scenes, white with a dark rim and black. --clips keeps the drawn clips for another run.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from pipelines.clip import ClipConfig
from pipelines.distil import MeasureConfig, Source, distil_video
from pipelines.optical_flow import grey_frame
from pipelines.overlays import text_share
from pipelines.sample_data import DISTRACTORS, SCENES, draw_scene, scene_frames
from pipelines.selection import SelectionConfig, select_row
from storage.reasons import Status
from storage.video import decode_frames, encode_video

SIZES = {"wide": (256, 456), "upright": (456, 256)}
FRAMES = 60
# What may be kept although it is listed as a distractor: a trembling hand is brought to rest.
WANTED = {*SCENES, "handheld_river"}
SCORES = ("text_share", "sway", "travelling", "rest", "reversal")
TEXTS = {
    0.045: ("Subscribe to see more", "of this quiet river"),
    0.06: ("Subscribe to see more", "of this quiet river"),
    0.08: ("Quiet river", "in the north"),
    0.11: ("Quiet river", "in the north"),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--clips", type=Path)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "screening.md")
    options = parser.parse_args()
    cv2.setNumThreads(1)
    with tempfile.TemporaryDirectory() as folder:
        clips = list(draw_clips(options.clips or Path(folder), options.seeds))
        rows = {kind: [judge(path) for name, path in clips if name == kind] for kind, _ in clips}
        texts = text_lines([path for kind, path in clips if kind in SCENES])
    report = "\n".join([*head_lines(options.seeds), *kind_lines(rows), *texts, ""])
    print(report)
    options.out.write_text(report)


def draw_clips(folder: Path, seeds: int) -> Iterator[tuple[str, Path]]:
    """Each kind as videos: one upright, the others wide; those that are there are not drawn again."""
    folder.mkdir(parents=True, exist_ok=True)
    for kind in SCENES + DISTRACTORS:
        for seed in range(seeds):
            for shape, size in SIZES.items():
                if shape == "upright" and seed:
                    continue
                path = folder / f"{kind}_{seed}_{shape}.mp4"
                if not path.exists():
                    frames = scene_frames(draw_scene(kind, seed=seed, size=size), FRAMES)
                    encode_video(frames, str(path), fps=30, crf=20)
                yield kind, path


def judge(path: Path) -> dict[str, Any]:
    """The manifest row of a clip."""
    config = MeasureConfig(clip=ClipConfig(per_source=1))
    (row,) = distil_video(path, Source(url=str(path), sha256="0" * 64), config).rows
    return select_row(row, SelectionConfig())


def head_lines(seeds: int) -> list[str]:
    return [
        "# What screening keeps",
        "",
        f"Drawn clips of {FRAMES} frames, 456x256 and 256x456, H.264 crf 20; "
        f"Python {platform.python_version()}, OpenCV {cv2.__version__}.",
        f"Command: `python tests/benchmarks/screening.py --seeds {seeds}`",
        "",
    ]


def kind_lines(rows: dict[str, list[dict[str, Any]]]) -> list[str]:
    """The table by kind; scores only of clips that came far enough to have them."""
    limits = SelectionConfig()
    at_most = {
        "text_share": limits.most_text,
        **{name: getattr(limits, f"most_{name}", None) for name in SCORES[1:]},
    }
    head = " | ".join(f"{name} (≤ {at_most[name]:g})" if at_most[name] else name for name in SCORES)
    lines = [
        f"| kind | kept | rejected as | fluid score (≥ {limits.least_fluid:g}) | {head} |",
        "|---|---|---|---:|" + "---:|" * len(SCORES),
    ]
    right = total = 0
    for kind, judged in rows.items():
        kept = sum(row["status"] == Status.OK for row in judged)
        right += kept if kind in WANTED else len(judged) - kept
        total += len(judged)
        reasons = Counter(str(row["reason"]).replace("_", " ") for row in judged if row["reason"])
        told = ", ".join(f"{reason} {count}" for reason, count in reasons.most_common()) or "–"
        scored = [row for row in judged if "rest" in row.get("scores", {})]
        fluid = f"{statistics.median(row['fluid_score'] for row in scored):.2f}" if scored else "–"
        cells = [
            f"{statistics.median(row['scores'][name] for row in scored):.3f}" if scored else "–"
            for name in SCORES
        ]
        lines.append(f"| {kind} | {kept} of {len(judged)} | {told} | {fluid} | {' | '.join(cells)} |")
    return [*lines, "", f"Judged as wanted: **{right} of {total}**.", ""]


def text_lines(paths: list[Path]) -> list[str]:
    """How often text is found, by its size and ink."""
    clips = [_four_frames(path) for path in paths]
    plain = [text_share(frames) for frames in clips]
    limit = SelectionConfig().most_text
    found: dict[tuple[float, int], list[bool]] = defaultdict(list)
    for size in TEXTS:
        for ink in (255, 0):
            found[size, ink] = [text_share(_written(frames, size, ink)) > limit for frames in clips]
    lines = [
        "## Burnt-in text",
        "",
        f"Two lines over the {len(clips)} clips of the sample scenes. Without text "
        f"{sum(x > limit for x in plain)} of them are taken for written on "
        f"(largest score {max(plain):.3f}, limit {limit:g}).",
        "",
        "| size of the letters, of the shorter side | white with a dark rim | black |",
        "|---|---:|---:|",
    ]
    for size in TEXTS:
        cells = " | ".join(f"{sum(found[size, ink])} of {len(clips)}" for ink in (255, 0))
        lines.append(f"| {size:.1%} | {cells} |")
    return lines


def _four_frames(path: Path) -> list[NDArray[np.uint8]]:
    grey = [grey_frame(frame) for _, frame in decode_frames(path)]
    return [grey[0], grey[20], grey[40], grey[-1]]


def _written(frames: list[NDArray[np.uint8]], size: float, ink: int) -> list[NDArray[np.uint8]]:
    height, width = frames[0].shape
    letter = size * min(height, width)
    font = ImageFont.load_default(letter)
    rim = {"stroke_width": 1, "stroke_fill": 0} if ink else {}
    made = []
    for frame in frames:
        picture = Image.fromarray(frame)
        for index, line in enumerate(TEXTS[size]):
            place = (width / 2, 0.62 * height + 1.3 * letter * index)
            ImageDraw.Draw(picture).text(place, line, font=font, fill=ink, anchor="mm", **rim)
        _, data = cv2.imencode(".jpg", np.asarray(picture), [cv2.IMWRITE_JPEG_QUALITY, 70])
        made.append(np.asarray(cv2.imdecode(data, cv2.IMREAD_GRAYSCALE), dtype=np.uint8))
    return made


if __name__ == "__main__":
    main()
