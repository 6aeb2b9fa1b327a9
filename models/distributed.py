"""One process or many: who am I, what do the others say. Under torchrun gloo joins CPUs, NCCL joins GPUs."""

from __future__ import annotations

import datetime
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor, nn

__all__ = ["Ranks", "any_rank", "gather", "joined_ranks", "mean_over_ranks", "share_buffers", "union"]

TIMEOUT = datetime.timedelta(minutes=30)  # a rank may wait this long for another one's validation or upload


@dataclass(frozen=True, kw_only=True, slots=True)
class Ranks:
    """This process among the processes of one training."""

    rank: int = 0
    world_size: int = 1
    device: torch.device = torch.device("cpu")

    @property
    def is_first(self) -> bool:
        return self.rank == 0


@contextmanager
def joined_ranks(device: str = "auto") -> Iterator[Ranks]:
    """Join torchrun's process group, if there is one, and choose this process's device.

    `device` is auto, cpu or cuda. Small messages between ranks go through gloo even on GPUs, so that asking
    the others something does not wait for the GPU.
    """
    use_cuda = device == "cuda" or (device == "auto" and torch.cuda.is_available())
    if not dist.is_torchelastic_launched():
        yield Ranks(device=torch.device("cuda" if use_cuda else "cpu"))
        return
    place = torch.device("cuda", int(os.environ["LOCAL_RANK"])) if use_cuda else torch.device("cpu")
    if use_cuda:
        torch.cuda.set_device(place)
    dist.init_process_group("cpu:gloo,cuda:nccl" if use_cuda else "gloo", timeout=TIMEOUT)
    try:
        yield Ranks(rank=dist.get_rank(), world_size=dist.get_world_size(), device=place)
    finally:
        dist.destroy_process_group()


def any_rank(flag: bool, ranks: Ranks) -> bool:
    """Whether the flag is set on any rank; the same answer on all of them."""
    if ranks.world_size == 1:
        return flag
    votes = torch.tensor([int(flag)])
    dist.all_reduce(votes)
    return bool(votes.item())


def mean_over_ranks(values: Mapping[str, float], ranks: Ranks) -> dict[str, float]:
    """The mean over the ranks of each named number; every rank must give the same names."""
    if ranks.world_size == 1:
        return dict(values)
    names = sorted(values)
    numbers = torch.tensor([values[name] for name in names], dtype=torch.float64)
    dist.all_reduce(numbers)
    return {name: float(number) / ranks.world_size for name, number in zip(names, numbers, strict=True)}


def share_buffers(module: nn.Module, ranks: Ranks) -> None:
    """Give every rank the first rank's buffers: batch statistics differ, since each saw other samples."""
    if ranks.world_size > 1:
        for buffer in module.buffers():
            dist.broadcast(buffer, 0)


def gather(values: Mapping[str, Tensor], ranks: Ranks) -> dict[str, Tensor]:
    """Each rank's one-dimensional tensors, joined in the order of the ranks, on every rank."""
    if ranks.world_size == 1:
        return dict(values)
    everyone: list[dict[str, Tensor]] = [{} for _ in range(ranks.world_size)]
    dist.all_gather_object(everyone, dict(values))
    names = sorted({name for each in everyone for name in each})
    return {name: torch.cat([each[name] for each in everyone if name in each]) for name in names}


def union(names: set[str], ranks: Ranks) -> set[str]:
    """All names of all ranks, on every rank."""
    if ranks.world_size == 1:
        return names
    everyone: list[set[str]] = [set() for _ in range(ranks.world_size)]
    dist.all_gather_object(everyone, names)
    return set().union(*everyone)
