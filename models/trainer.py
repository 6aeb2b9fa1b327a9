"""The trainer: one loop that reads from top to bottom, on one process or many, on CPUs or GPUs.

    draw a batch → losses → gradients (averaged over ranks) → clip → step → average the weights
      → now and then: log, validate, keep the best, remember everything

What differs between the motion network and the animator is a `Recipe`. A training that is killed and resumed
makes the steps it would have made: the loader's order, the augmentation and the random numbers of step k
derive from (seed, k), and the state file holds the rest.
"""

from __future__ import annotations

import dataclasses
import logging
import math
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import AbstractContextManager, closing
from typing import Any, Protocol, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from models.checkpoint import load_checkpoint, load_weights, save_checkpoint
from models.configs import TrainConfig
from models.dataset import Batch, Example, SampleIndex, SampleReader, ShardLoader, collate
from models.distributed import Ranks, any_rank, gather, mean_over_ranks, share_buffers, union
from models.optimisation import adversary_optimizer, network_optimizer, set_learning_rate
from models.training_log import TrainingLog
from models.training_state import AveragedWeights, load_state, save_state
from storage.errors import StillstreamError, UsageError
from storage.objects import delete_object, exists, join_url
from storage.progress import OnProgress, Progress
from storage.shards import Sample

__all__ = ["Recipe", "TrainSummary", "Trainer"]

logger = logging.getLogger(__name__)

Pictures = dict[str, NDArray[np.uint8]]
Scores = dict[str, Tensor]


class Recipe(Protocol):
    """What is trained: the network, how a sample becomes an example, the losses, and how good it is.

    `losses` returns scalars, "loss" being their weighted sum, and what an adversary is shown (None without).
    `scores` returns one number per sample of the batch (NaN where a sample has none); the mean of "score"
    decides which weights are best, lower is better.
    """

    def build(self) -> nn.Module: ...

    def example(
        self, sample: Sample, rng: np.random.Generator, batch_rng: np.random.Generator
    ) -> Example: ...

    def validation_example(self, sample: Sample) -> Example: ...

    def build_adversary(self) -> nn.Module | None: ...

    def losses(
        self, network: nn.Module, batch: dict[str, Tensor], adversary: nn.Module | None
    ) -> tuple[dict[str, Tensor], Tensor | None]: ...

    def adversary_loss(self, adversary: nn.Module, batch: dict[str, Tensor], shown: Tensor) -> Tensor: ...

    def scores(self, network: nn.Module, batch: dict[str, Tensor]) -> Scores: ...

    def pictures(self, network: nn.Module, batch: dict[str, Tensor]) -> Pictures: ...


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class TrainSummary:
    """How a training ended. `metrics` are those of the last validation, `best_metric` its lowest "score"."""

    steps: int
    best_metric: float
    metrics: dict[str, float]
    checkpoint_url: str
    seconds: float
    skipped_samples: int = 0
    interrupted: bool = False


class Trainer:
    """One training run: `Trainer(...).run()`."""

    def __init__(
        self,
        config: TrainConfig,
        recipe: Recipe,
        indexes: tuple[SampleIndex, SampleIndex],
        out_url: str,
        ranks: Ranks,
    ) -> None:
        """`indexes`: the samples to train on, and those to validate on."""
        self.config, self.recipe, self.out_url, self.ranks = config, recipe, out_url, ranks
        torch.manual_seed(config.seed)
        memory_format = torch.channels_last if config.channels_last else torch.contiguous_format
        self.network = recipe.build().to(ranks.device, memory_format=memory_format)  # type: ignore[call-overload]
        if config.start_from:
            load_weights(self.network, load_checkpoint(config.start_from).tensors, url=config.start_from)
        self.average = AveragedWeights(self.network, config.average_decay)
        self.adversary = recipe.build_adversary()
        self.optimizers = {"optimizer": network_optimizer(self.network, config)}
        if self.adversary is not None:
            self.adversary.to(ranks.device)
            self.optimizers["adversary_optimizer"] = adversary_optimizer(self.adversary, config)
        self.reader, self.validation_reader = (SampleReader(index, config.data) for index in indexes)
        self.step = self.position = 0
        self.best, self.worse_in_a_row, self.finished = math.inf, 0, False
        self.metrics: dict[str, float] = {}
        self.sums: dict[str, Tensor | float] = {}  # of the losses since the last logged step
        self.seconds = 0.0

    def run(
        self,
        *,
        resume: bool = False,
        on_progress: OnProgress | None = None,
        should_stop: Callable[[], bool] = lambda: False,
    ) -> TrainSummary:
        """Train to the end, to early stopping, or until `should_stop` says so on any rank."""
        if resume:
            self.restore()
        elif self.first:
            delete_object(self.state_url)  # else a later --resume could take up a run that was given up
        self.log = TrainingLog(self.out_url, self.config, step=self.step, write=self.first)
        module = self.wrapped(_Losses(self.network, self.recipe, self.adversary))
        rival = None if self.adversary is None else self.wrapped(_AdversaryLoss(self.adversary, self.recipe))
        started = time.monotonic() - self.seconds
        stopped = False
        with closing(self.reader), closing(self.validation_reader), closing(self.log):
            for batch in self.batches():
                self.train_step(module, rival, batch)
                self.step += 1
                self.average.update(self.network, self.step)
                self.seconds = time.monotonic() - started
                if on_progress is not None and self.first:
                    on_progress(
                        Progress(stage=f"train {self.config.kind}", done=self.step, total=self.config.steps)
                    )
                if self.due(self.config.log_every):
                    self.log_losses()
                if self.due(self.config.validate_every):
                    self.validate()
                stopped = any_rank(should_stop(), self.ranks)
                if stopped or self.finished or self.due(self.config.save_every):
                    self.save()
                if stopped or self.finished:
                    break
        skipped = union(self.reader.skipped | self.validation_reader.skipped, self.ranks)
        return self.summary(skipped=len(skipped), interrupted=stopped and not self.finished)

    @property
    def first(self) -> bool:
        return self.ranks.is_first

    @property
    def state_url(self) -> str:
        return join_url(self.out_url, "state.safetensors")

    def due(self, every: int) -> bool:
        """Whether something that happens every so many steps, and at the end, happens now."""
        return self.step % every == 0 or self.step == self.config.steps

    def batches(self) -> Iterator[dict[str, Tensor]]:
        """The batches that are left, on this process's device."""
        if self.finished:
            return
        loader = ShardLoader(
            reader=self.reader,
            make_example=self.recipe.example,
            batch_size=self.config.batch_size,
            seed=self.config.seed,
            rank=self.ranks.rank,
            world_size=self.ranks.world_size,
            config=self.config.data,
        )
        stream = cast(Generator[Batch], loader.batches(self.position))
        with closing(stream):
            for batch in stream:
                self.position = batch.position
                yield self.to_device(batch.tensors)

    def to_device(self, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        """Move a batch, pictures in the layout that convolutions are fastest in."""
        moved = {}
        for name, tensor in tensors.items():
            if self.ranks.device.type == "cuda":
                tensor = tensor.pin_memory().to(self.ranks.device, non_blocking=True)
            if self.config.channels_last and tensor.dim() == 4:
                tensor = tensor.contiguous(memory_format=torch.channels_last)
            moved[name] = tensor
        return moved

    def wrapped(self, module: nn.Module) -> nn.Module:
        """A module compiled and joined to the other ranks as the configuration wants."""
        if self.config.compile:
            module.compile()
        return DistributedDataParallel(module) if self.ranks.world_size > 1 else module

    def autocast(self) -> AbstractContextManager[Any]:
        """bfloat16 on GPUs; on CPUs without matrix units it is slower than float32."""
        return torch.autocast(
            "cuda", torch.bfloat16, enabled=self.ranks.device.type == "cuda" and self.config.bf16
        )

    def train_step(self, module: nn.Module, rival: nn.Module | None, batch: dict[str, Tensor]) -> None:
        """One step of the network, and of its adversary where it has one."""
        seeds = np.random.SeedSequence((self.config.seed, self.step, self.ranks.rank)).generate_state(1)
        torch.manual_seed(int(seeds[0]))  # dropout and the like: the same when this step is made again
        set_learning_rate(list(self.optimizers.values()), self.step, self.config)
        self.network.train()
        if self.adversary is not None:
            self.adversary.requires_grad_(False)  # it judges now; its own turn comes below
        with self.autocast():
            losses, shown = module(batch)
        norm = self.update("optimizer", self.network, losses["loss"])
        if rival is not None and self.adversary is not None:
            self.adversary.requires_grad_(True)
            with self.autocast():
                losses["adversary"] = rival(batch, shown)
            self.update("adversary_optimizer", self.adversary, losses["adversary"])
        for name, value in (losses | {"gradient": norm}).items():
            # On the device, in double precision: reading a number here would make the GPU wait every step.
            self.sums[name] = self.sums.get(name, 0.0) + value.detach().double()

    def update(self, name: str, module: nn.Module, loss: Tensor) -> Tensor:
        """Change a module against the gradient of its loss; returns the gradient's norm before clipping."""
        self.optimizers[name].zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        norm = nn.utils.clip_grad_norm_(module.parameters(), self.config.clip_norm)
        self.optimizers[name].step()
        return norm

    def sums_so_far(self) -> dict[str, float]:
        """The losses since the last logged step as numbers; StillstreamError when they are not finite."""
        sums = {name: float(value) for name, value in self.sums.items()}
        if not all(math.isfinite(value) for value in sums.values()):
            raise StillstreamError(
                f"the losses are no longer finite near step {self.step}: {sums}; "
                "lower learning_rate or clip_norm and --resume from the last state"
            )
        return sums

    def log_losses(self) -> None:
        """The mean losses since the last logged step."""
        count = (self.step - 1) % self.config.log_every + 1
        means = {name: value / count for name, value in self.sums_so_far().items()}
        means = mean_over_ranks(means, self.ranks)
        rate = self.optimizers["optimizer"].param_groups[-1]["lr"]
        self.log.add(self.step, "train", means | {"learning_rate": rate, "seconds": round(self.seconds, 3)})
        self.sums = {}

    @torch.no_grad()
    def validate(self) -> None:
        """Score the averaged weights; keep them when they are the best so far; decide whether to go on."""
        share_buffers(self.average.module, self.ranks)
        found: dict[str, list[Tensor]] = {}
        for number, batch in enumerate(self.validation_batches()):
            for name, values in self.recipe.scores(self.average.module, batch).items():
                found.setdefault(name, []).append(values.float().cpu())
            if self.first and number == 0:
                self.log.add_pictures(self.step, self.recipe.pictures(self.average.module, batch))
        joined = {name: torch.cat(values) for name, values in found.items()}
        everyone = gather(joined, self.ranks)
        self.metrics = {name: float(values.nanmean()) for name, values in sorted(everyone.items())}
        score = self.metrics["score"]
        self.log.add(self.step, "validation", self.metrics)
        self.worse_in_a_row = 0 if score < self.best else self.worse_in_a_row + 1
        if score < self.best:
            self.best = score
            self.save_weights("best")
        self.finished = self.has_ended()

    def has_ended(self) -> bool:
        """Whether all steps are made, or the score did not get better for too long."""
        return self.step >= self.config.steps or 0 < self.config.patience <= self.worse_in_a_row

    def validation_batches(self) -> Iterator[dict[str, Tensor]]:
        """Every rank's share of the validation samples, always the same ones in the same order."""
        rows = range(self.ranks.rank, len(self.validation_reader.index), self.ranks.world_size)
        for start in range(0, len(rows), self.config.batch_size):
            chosen = rows[start : start + self.config.batch_size]
            made = [self.validation_reader.example(row, self.recipe.validation_example) for row in chosen]
            if examples := [example for example in made if example is not None]:
                yield self.to_device(collate(examples))

    def save_weights(self, name: str) -> None:
        """Write the averaged weights with where they come from."""
        if self.first:
            metadata = {"step": self.step, "metrics": self.metrics, "training": self.config.to_json()}
            url = join_url(self.out_url, f"{name}.safetensors")
            save_checkpoint(
                url, self.average.module.state_dict(), self.config.network, self.config.kind, metadata
            )

    def save(self) -> None:
        """Remember everything; the state comes last, and is what a resumed run believes."""
        sums = mean_over_ranks(self.sums_so_far(), self.ranks)
        if not self.first:
            return
        self.log.save()
        self.save_weights("last")
        metadata = {
            "step": self.step,
            "position": self.position,
            "best": self.best if math.isfinite(self.best) else None,
            "worse_in_a_row": self.worse_in_a_row,
            "metrics": self.metrics,
            "sums": sums,
            "seconds": self.seconds,
            "samples": self.reader.index.digest,
            "batch_size": self.config.batch_size,
        }
        save_state(
            self.state_url,
            self.modules(),
            self.optimizers,
            config=self.config.to_json(),
            metadata=metadata,
        )

    def modules(self) -> dict[str, nn.Module]:
        """Everything whose weights belong to the state."""
        adversary = {} if self.adversary is None else {"adversary": self.adversary}
        return {"network": self.network, "average": self.average.module, **adversary}

    def restore(self) -> None:
        """Take up the state of an earlier run, if there is one."""
        if not exists(self.state_url):
            logger.info("nothing to resume at %s, starting anew", self.out_url)
            return
        state = load_state(self.state_url, self.modules(), self.optimizers)
        if state["samples"] != self.reader.index.digest:
            raise UsageError(
                f"{self.out_url} was trained on other samples; name the same --data, or a new --out"
            )
        self.step, self.position, self.seconds = state["step"], state["position"], state["seconds"]
        self.best = math.inf if state["best"] is None else state["best"]
        self.worse_in_a_row, self.metrics, self.sums = (
            state["worse_in_a_row"],
            state["metrics"],
            state["sums"],
        )
        self.finished = self.has_ended()

    def summary(self, *, skipped: int, interrupted: bool) -> TrainSummary:
        """How it went."""
        best = join_url(self.out_url, "best.safetensors")
        return TrainSummary(
            steps=self.step,
            best_metric=self.best,
            metrics=self.metrics,
            checkpoint_url=best if math.isfinite(self.best) else join_url(self.out_url, "last.safetensors"),
            seconds=self.seconds,
            skipped_samples=skipped,
            interrupted=interrupted,
        )


class _Losses(nn.Module):
    """The losses of a batch as a module, since the gradients of many ranks meet in a module's forward."""

    def __init__(self, network: nn.Module, recipe: Recipe, adversary: nn.Module | None) -> None:
        super().__init__()
        self.network = network
        self.recipe = recipe
        self.adversary = [adversary]  # in a list, so that its weights are not this module's

    def forward(self, batch: dict[str, Tensor]) -> tuple[dict[str, Tensor], Tensor | None]:
        losses, shown = self.recipe.losses(self.network, batch, self.adversary[0])
        return losses, None if shown is None else shown.detach()


class _AdversaryLoss(nn.Module):
    """The same for the adversary."""

    def __init__(self, adversary: nn.Module, recipe: Recipe) -> None:
        super().__init__()
        self.adversary = adversary
        self.recipe = recipe

    def forward(self, batch: dict[str, Tensor], shown: Tensor) -> Tensor:
        return self.recipe.adversary_loss(self.adversary, batch, shown)
