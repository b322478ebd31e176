"""The optimizer and its learning rate."""

import math

import torch


def learning_rate(step, steps, config):
    """Linear warm-up, then half a cosine from the peak to zero at the last update."""
    warmup = min(config.warmup, steps // 10)
    if step < warmup:
        return config.lr * (step + 1) / warmup
    return config.lr * 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))


def make_optimizer(model, config):
    """AdamW that decays weight matrices and leaves the rest alone."""
    # By name too: the biases and boundary states of the scans have a dimension for the direction.
    decayed = {name for name, p in model.named_parameters() if p.ndim > 1 and name.endswith("weight")}
    groups = [
        {"params": [p for name, p in model.named_parameters() if (name in decayed) == on], "weight_decay": decay}
        for on, decay in ((True, config.weight_decay), (False, 0.0))
    ]
    return torch.optim.AdamW([g for g in groups if g["params"]], lr=config.lr, betas=config.betas, fused=True)
