"""What a training must remember to go on after a kill: weights, their average, the optimizer, its place.

Everything lies in one file that is replaced as a whole, so a state is never half of one step and half of
another. Random numbers need no place in it: every step seeds them from (seed, step, rank).
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from models.checkpoint import load_checkpoint, load_weights, save_checkpoint
from storage.errors import FormatError

__all__ = ["AveragedWeights", "load_state", "save_state"]


class AveragedWeights:
    """Moving average of a module's parameters; its buffers (batch statistics) are taken as they are."""

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.module = copy.deepcopy(module).eval().requires_grad_(False)
        self.decay = decay

    @torch.no_grad()
    def update(self, module: nn.Module, step: int) -> None:
        """Blend in the weights after `step` steps; the average is short at first, not to drag the start."""
        decay = min(self.decay, (1 + step) / (10 + step))
        averages: list[Tensor] = list(self.module.parameters())
        weights: list[Tensor] = list(module.parameters())
        torch._foreach_lerp_(averages, weights, 1 - decay)
        for average, buffer in zip(self.module.buffers(), module.buffers(), strict=True):
            average.copy_(buffer)


def save_state(
    url: str,
    modules: dict[str, nn.Module],
    optimizers: dict[str, Optimizer],
    *,
    config: dict[str, Any],
    metadata: dict[str, Any],
) -> None:
    """Write modules and optimizers, each under its name, with JSON-able `metadata` (step, position, …)."""
    tensors = {
        f"{part}/{name}": t for part, module in modules.items() for name, t in module.state_dict().items()
    }
    for part, optimizer in optimizers.items():
        for number, values in optimizer.state_dict()["state"].items():
            tensors |= {f"{part}/{number}/{name}": t for name, t in values.items() if isinstance(t, Tensor)}
    save_checkpoint(url, tensors, config, "state", metadata)


def load_state(
    url: str,
    modules: dict[str, nn.Module],
    optimizers: dict[str, Optimizer],
) -> dict[str, Any]:
    """Read what `save_state` wrote into modules and optimizers; returns the metadata. Raises FormatError."""
    checkpoint = load_checkpoint(url)
    if checkpoint.kind != "state":
        raise FormatError(f"{url} must hold the state of a training, got {checkpoint.kind!r}")
    for part, module in modules.items():
        load_weights(module, _part(checkpoint.tensors, part), url=url)
    for part, optimizer in optimizers.items():
        state: dict[int, dict[str, Tensor]] = {}
        for place, tensor in _part(checkpoint.tensors, part).items():
            number, _, name = place.partition("/")
            state.setdefault(int(number), {})[name] = tensor
        groups = optimizer.state_dict()["param_groups"]
        optimizer.load_state_dict({"state": state, "param_groups": groups})
    return checkpoint.metadata


def _part(tensors: dict[str, Tensor], part: str) -> dict[str, Tensor]:
    return {name[len(part) + 1 :]: t for name, t in tensors.items() if name.startswith(f"{part}/")}
