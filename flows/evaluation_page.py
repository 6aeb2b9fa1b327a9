"""The evaluation as two files: evaluation.json for machines, index.html with tables and pictures for people.

Every figure stands beside those of its baselines, with its interval.
"""

import datetime
import json
import math
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from numpy.typing import NDArray

from flows.page import picture_uri, render_page
from models.colour_wheel import colour_wheel, motion_to_colour, reference_speed
from storage.objects import join_url, write_bytes

if TYPE_CHECKING:
    from models.bootstrap import Estimate
    from models.evaluate import Evaluation, Example

__all__ = ["publish_evaluation"]

PICTURE_WIDTH = 300
PARTS = {
    "motion": ("Motion", "Predicted from one frame, against the average motion of the clip it comes from."),
    "rendering": (
        "Rendering from the photo",
        "Frames up to a second after the photo, drawn with the clip's true motion, against the real frames.",
    ),
    "between": (
        "Rendering between two frames",
        "Frames between the first and the last one, against the real frames.",
    ),
    "loop": ("Loops", "Whole loops with predicted motion. A frozen picture has a perfect seam and no life."),
}
METHODS = {
    "automatic": "this network",
    "hints_5": "this network, 5 arrows given",
    "zero": "no motion",
    "mean": "mean motion of the others",
    "still": "still picture",
    "cross_fade": "cross-fade",
    "splat": "colour splat",
    "deep": "deep animator",
}
# Measure → (name, whether more is better: None where neither is).
MEASURES: Mapping[str, tuple[str, bool | None]] = {
    "end_point_error": ("End-point error, px", False),
    "end_point_error_moving": ("End-point error where it moves, px", False),
    "angular_error": ("Angular error, °", False),
    "iou": ("Moving-mask IoU", True),
    "psnr": ("PSNR, dB", True),
    "psnr_moving": ("PSNR of what moves, dB", True),
    "ssim": ("SSIM", True),
    "ssim_moving": ("SSIM of what moves", True),
    "perceptual": ("Perceptual distance", False),
    "perceptual_moving": ("Perceptual distance of what moves", False),
    "still_largest": ("Largest change of still pixels", False),
    "still_changed": ("Share of still pixels changed", False),
    "seam_ssim": ("SSIM across the seam", True),
    "seam_step": ("Step across the seam", None),
    "largest_step": ("Largest step inside", None),
    "vividness": ("Vividness", True),
    "pulsing": ("Pulsing", False),
}


def publish_evaluation(evaluation: "Evaluation", out: str) -> str:
    """Write both files into `out`; returns the page's URL."""
    plain = evaluation.as_json()
    text = json.dumps(plain, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    write_bytes(join_url(out, "evaluation.json"), text.encode())
    page = render_page(
        "evaluation",
        title="Evaluation",
        data={},
        values={
            "headline": list(evaluation.headline().items()),
            "samples": evaluation.samples,
            "sources": evaluation.sources,
            "parts": [_part(name, table) for name, table in evaluation.tables.items()],
            "ratios": [
                (METHODS.get(method, method), base, str(estimate))
                for method, ratios in evaluation.ratios.items()
                for base, estimate in ratios.items()
            ],
            "examples": [_example(example) for example in evaluation.examples],
            "facts": _facts(evaluation),
            "skipped": evaluation.skipped,
            "wheel": picture_uri(colour_wheel(168)),
            "version": version("stillstream"),
            "made_on": datetime.datetime.now(datetime.UTC).date().isoformat(),
        },
    )
    page_url = join_url(out, "index.html")
    write_bytes(page_url, page)
    return page_url


def _part(name: str, table: "Mapping[str, Mapping[str, Estimate]]") -> dict[str, Any]:
    """One table: methods as rows, measures as columns, the best mean of a column marked."""
    title, explanation = PARTS.get(name, (name, ""))
    measures = list(dict.fromkeys(measure for row in table.values() for measure in row))
    best = {
        measure: _best([row[measure].mean for row in table.values() if measure in row], measure)
        for measure in measures
    }
    rows = [
        {
            "method": METHODS.get(method, method),
            "cells": [_cell(row.get(measure), best[measure]) for measure in measures],
        }
        for method, row in table.items()
    ]
    return {
        "title": title,
        "explanation": explanation,
        "measures": [MEASURES.get(measure, (measure.replace("_", " "), None))[0] for measure in measures],
        "rows": rows,
    }


def _best(means: Sequence[float], measure: str) -> float | None:
    more = MEASURES.get(measure, ("", None))[1]
    finite = [mean for mean in means if math.isfinite(mean)]
    if more is None or len(finite) < 2:
        return None
    return max(finite) if more else min(finite)


def _cell(estimate: "Estimate | None", best: float | None) -> dict[str, Any]:
    if estimate is None or not math.isfinite(estimate.mean):
        return {"mean": "–", "interval": "", "best": False}
    return {
        "mean": f"{estimate.mean:.3g}",
        "interval": f"{estimate.low:.3g} … {estimate.high:.3g}",
        "best": best is not None and estimate.mean == best,
    }


def _example(example: "Example") -> dict[str, Any]:
    """The pictures of one clip; all motion in one scale, that of the target."""
    top = reference_speed(example.target_2HW)
    pictures = [
        ("Photo", _small(example.photo_HW3)),
        ("Motion of the clip", _small(motion_to_colour(example.target_2HW, max_speed=top))),
        ("Predicted", _small(motion_to_colour(example.predicted_2HW, max_speed=top))),
        ("Predicted with 5 arrows", _small(motion_to_colour(example.hinted_2HW, max_speed=top))),
    ]
    pictures += [
        (f"Loop, frame {index + 1} of {len(example.frames)} shown", _small(frame))
        for index, frame in enumerate(example.frames)
    ]
    verdict = (
        "would be left alone (nothing to animate)" if example.nothing_to_animate else "would be animated"
    )
    return {
        "name": example.source.rpartition("/")[2] or example.key,
        "category": example.category,
        "said": f"confidence {example.confidence:.2f}, {verdict}; deepest colour {top:.2f} px/frame",
        "pictures": [(name, picture_uri(picture, format="WEBP", quality=80)) for name, picture in pictures],
        "width": PICTURE_WIDTH,
        "height": pictures[0][1].shape[0],
    }


def _small(picture_HW3: NDArray[np.uint8]) -> NDArray[np.uint8]:
    height, width = picture_HW3.shape[:2]
    size = (PICTURE_WIDTH, max(1, round(height * PICTURE_WIDTH / width)))
    return np.asarray(cv2.resize(picture_HW3, size, interpolation=cv2.INTER_AREA), dtype=np.uint8)


def _facts(evaluation: "Evaluation") -> list[tuple[str, str]]:
    def counted(counts: Mapping[str, int]) -> str:
        return ", ".join(f"{name or 'not said'} {count}" for name, count in counts.items())

    return [
        ("Data", evaluation.data),
        ("Weights", evaluation.checkpoint or "those in the package"),
        *(
            (f"Digest of the {kind} weights", (digest or "none")[:16])
            for kind, digest in evaluation.weights.items()
        ),
        ("Categories", counted(evaluation.categories)),
        ("Splits", counted(evaluation.splits)),
        ("Left alone as “nothing to animate”", str(evaluation.nothing_to_animate)),
        ("Intervals", "95 %, bootstrap over sources"),
        ("Seconds", f"{evaluation.seconds:.0f}"),
    ]
