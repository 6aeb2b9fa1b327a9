"""What each part of the motion network's training is worth: the same short training with one part left out.

    python tests/benchmarks/ablation.py --data DATASET --validation DATASET [--steps 200] [--only "A;B"]

Every variant trains the same network from the same start on the same draws (one thread), and is judged on the
same held-out samples; the table also holds the learning curve, half of the sources and all of them. The
trainings are short, so the table says which parts matter early on, not how good the full training gets; the
full variant with another seed tells how large a difference chance makes. Rows are kept as they come: a
variant that is in --rows already is not trained again.
"""

import argparse
import dataclasses
import json
import logging
import os
import platform
import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from models.configs import TrainConfig, override, small
from models.distributed import Ranks
from models.recipes import MotionRecipe
from models.train import choose_samples
from models.trainer import Trainer

MEASURES = ("score", "iou", "angle", "relative_error", "end_point_error")
VARIANTS: dict[str, dict[str, Any]] = {
    "full": {},
    "full, seed 1": {"seed": 1},
    "half of the sources": {"data": {"source_share": 0.5}},
    "without confidence weights": {},
    "without mask cross-entropy": {"losses": {"moving": 0.0}},
    "without mask overlap (Dice)": {"losses": {"dice": 0.0}},
    "without direction bins": {"losses": {"direction": 0.0}},
    "without exact angle": {"losses": {"angle": 0.0}},
    "without log-speed": {"losses": {"speed": 0.0}},
    "without stillness outside": {"losses": {"still": 0.0}},
    "without smoothness": {"losses": {"smooth": 0.0}},
    "without end-point error": {"losses": {"endpoint": 0.0}},
    "without mirroring": {"augment": {"mirror": 0.0}},
    "without crops": {"augment": {"smallest_crop": 1.0}},
    "without colour changes": {"augment": {"colour": 0.0, "grey": 0.0, "soften": 0.0}},
    "without rotation and stretch": {"augment": {"rotation_degrees": 0.0, "stretch": 0.0}},
    "without hints": {"augment": {"hint_dropout": 1.0}},
}


class Unweighted(MotionRecipe):
    """Every pixel's target is trusted alike."""

    def losses(
        self, network: nn.Module, batch: dict[str, Tensor], adversary: nn.Module | None
    ) -> tuple[dict[str, Tensor], Tensor | None]:
        trusted = torch.ones_like(batch["confidence_B1HW"])
        return super().losses(network, {**batch, "confidence_B1HW": trusted}, adversary)


def base(steps: int, validation: str) -> TrainConfig:
    """The `small` run on 96×160 crops, validated once at its end."""
    config = override(small("motion"), {"augment": {"shapes_HW": [[96, 160]]}}, where="ablation")
    return dataclasses.replace(
        config,
        steps=steps,
        validation=validation,
        validation_samples=0,
        validate_every=steps,
        save_every=steps,
        log_every=max(steps // 4, 1),
        tensorboard=False,
    )


def measure(name: str, config: TrainConfig, data: str) -> dict[str, float]:
    """Train one variant; the scores of its averaged weights."""
    recipe = (Unweighted if name == "without confidence weights" else MotionRecipe)(config)
    ranks = Ranks(rank=0, world_size=1, device=torch.device("cpu"))
    with tempfile.TemporaryDirectory() as out:
        summary = Trainer(config, recipe, choose_samples(config, data), out, ranks).run()
    return {measure: summary.metrics[measure] for measure in MEASURES} | {"seconds": summary.seconds}


def table(rows: dict[str, dict[str, float]], steps: int) -> str:
    """The rows as Markdown, with the difference of the score to that of the full variant."""
    lines = [
        "# Ablation of the motion network's training",
        "",
        f"Short trainings: {steps} steps of the `small` network on 96×160 crops, from scratch, seed 0, one "
        "thread; judged on held-out clips at 96×160. They rank parts, not the package's weights.",
        "",
        f"{platform.machine()}, {os.cpu_count()} cores, torch {torch.__version__}. Score: relative end-point "
        "error + angle / 90° + 1 − IoU, lower is better.",
        "",
        "| variant | score | to full | moving IoU | angle | relative error | error, px |",
        "|---|---|---|---|---|---|---|",
    ]
    full = rows.get("full", {}).get("score", float("nan"))
    for name, row in rows.items():
        lines.append(
            f"| {name} | {row['score']:.3f} | {row['score'] - full:+.3f} | {row['iou']:.3f} | "
            f"{row['angle']:.1f}° | {row['relative_error']:.3f} | {row['end_point_error']:.3f} |"
        )
    if "full, seed 1" in rows:
        chance = abs(rows["full, seed 1"]["score"] - full)
        lines += [
            "",
            f"Two seeds of the full training differ by {chance:.2f}: smaller differences say nothing. The "
            "angle alone moves the score by as much, since what could go either way turns around together.",
        ]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", required=True)
    parser.add_argument("--validation", required=True)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--only", default="", help="variants separated by semicolons; all without")
    parser.add_argument("--rows", default="ablation.json", help="rows measured so far")
    parser.add_argument("--out", default="", help="the table as Markdown")
    options = parser.parse_args()
    logging.basicConfig(level=logging.WARNING)
    torch.set_num_threads(1)
    chosen = [name.strip() for name in options.only.split(";") if name.strip()] or list(VARIANTS)
    kept = Path(options.rows)
    rows: dict[str, dict[str, float]] = json.loads(kept.read_text()) if kept.is_file() else {}
    for name in chosen:
        if name not in rows:
            config = override(base(options.steps, options.validation), VARIANTS[name], where=name)
            rows[name] = measure(name, config, options.data)
            kept.write_text(json.dumps(rows, indent=2) + "\n")
        print(name, {measure: round(value, 3) for measure, value in rows[name].items()}, flush=True)
    text = table(rows, options.steps)
    print(text)
    if options.out:
        Path(options.out).write_text(text)


if __name__ == "__main__":
    main()
