"""A training for torchrun in the tests: the real network without batch statistics, so that ranks can agree.

torchrun --nproc-per-node 2 tests/train_in_ranks.py DATASET FOLDER STEPS
"""

from __future__ import annotations

import dataclasses
import sys

from torch import nn

from models.configs import TrainConfig, debug
from models.distributed import joined_ranks
from models.recipes import MotionRecipe
from models.train import choose_samples
from models.trainer import Trainer, TrainSummary


class PlainRecipe(MotionRecipe):
    """Batch normalisation sees one rank's samples only: with it, two ranks and one rightly differ."""

    __slots__ = ()

    def build(self) -> nn.Module:
        network = MotionRecipe.build(self)
        for module in list(network.modules()):
            for name, child in module.named_children():
                if isinstance(child, nn.BatchNorm2d):
                    setattr(module, name, nn.GroupNorm(4, child.num_features))
        return network


def ranks_config(steps: int) -> TrainConfig:
    config = debug("motion")
    network = dataclasses.replace(config.network, dropout=0.0)
    return dataclasses.replace(
        config, network=network, steps=steps, log_every=1, save_every=4, tensorboard=False
    )


def train_plain(data_url: str, out_url: str, steps: int, *, resume: bool = False) -> TrainSummary:
    config = ranks_config(steps)
    with joined_ranks("cpu") as ranks:
        trainer = Trainer(config, PlainRecipe(config), choose_samples(config, data_url), out_url, ranks)
        return trainer.run(resume=resume)


if __name__ == "__main__":
    train_plain(sys.argv[1], sys.argv[2], int(sys.argv[3]), resume=True)
