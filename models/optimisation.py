"""How weights are changed: groups of parameters with their own rates, and the rates' way over a training."""

from __future__ import annotations

import math
from typing import Any

from torch import nn
from torch.optim import AdamW, Optimizer

from models.configs import TrainConfig

__all__ = ["adversary_optimizer", "learning_rate_factor", "network_optimizer", "set_learning_rate"]


def network_optimizer(network: nn.Module, config: TrainConfig) -> Optimizer:
    """AdamW with a lower rate for the encoder and no weight decay for biases and normalisation."""
    groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    for name, parameter in network.named_parameters():
        if parameter.requires_grad:
            groups.setdefault((name.startswith("backbone."), parameter.dim() > 1), []).append(parameter)
    settings: list[dict[str, Any]] = [
        {
            "params": parameters,
            "base_rate": config.learning_rate * (config.encoder_rate if in_encoder else 1.0),
            "weight_decay": config.weight_decay if decays else 0.0,
        }
        for (in_encoder, decays), parameters in sorted(groups.items(), reverse=True)
    ]
    return AdamW(settings, betas=(0.9, 0.99))


def adversary_optimizer(adversary: nn.Module, config: TrainConfig) -> Optimizer:
    """For a discriminator: little momentum, since what it chases moves."""
    settings = [{"params": list(adversary.parameters()), "base_rate": config.learning_rate}]
    return AdamW(settings, betas=(0.5, 0.99), weight_decay=0.0)


def set_learning_rate(optimizers: list[Optimizer], step: int, config: TrainConfig) -> None:
    """Set every group's rate for a step."""
    factor = learning_rate_factor(step, config)
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = group["base_rate"] * factor


def learning_rate_factor(step: int, config: TrainConfig) -> float:
    """Linear warm-up, then half a cosine from 1 to `config.final_rate`."""
    if step < config.warmup_steps:
        return (step + 1) / config.warmup_steps
    progress = (step - config.warmup_steps) / max(config.steps - config.warmup_steps, 1)
    return config.final_rate + (1 - config.final_rate) * 0.5 * (1 + math.cos(math.pi * min(progress, 1.0)))
