"""The optimizer and its learning rate."""

from __future__ import annotations

import math

import torch
from torch import nn

from genfast.train.config import RunConfig, TrainConfig


def learning_rate(step: int, steps: int, config: RunConfig) -> float:
    """Linear warm-up, then half a cosine from the peak to zero at the last update."""
    warmup = min(config.warmup, steps // 10)
    if step < warmup:
        return config.lr * (step + 1) / warmup
    return config.lr * 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))


def make_optimizer(model: nn.Module, config: TrainConfig) -> torch.optim.AdamW:
    """AdamW with weight decay for weight matrices only."""
    # By name too: biases and initial states of scans with several directions also have two dimensions.
    decayed = {name for name, p in model.named_parameters() if p.ndim > 1 and name.endswith("weight")}
    groups = [
        {"params": [p for name, p in model.named_parameters() if (name in decayed) == on], "weight_decay": decay}
        for on, decay in ((True, config.weight_decay), (False, 0.0))
    ]
    return torch.optim.AdamW([g for g in groups if g["params"]], lr=config.lr, betas=config.betas, fused=True)
