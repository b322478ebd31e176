"""Models without a native program, with the reason: they are drawn by a full forward, and must be drawn right."""

import math

import torch
from torch import nn
from torch.nn import functional as F

from .masked import BufferConv2d, grey_logits, logits_at
from .stranger import Stranger, symmetric, unit


class BranchOnValues(nn.Module):
    """Asks its input whether it is normalised already: `if x.min() >= 0`; the author feeds the rows so far."""

    def __init__(self, shape, levels, width):
        super().__init__()
        self.conv1 = BufferConv2d(shape[0], width, 5, "A", padding=2)
        self.conv2 = BufferConv2d(width, width, 3, "B", padding=1)
        self.out = nn.Conv2d(width, levels, 1)

    def forward(self, x):
        if x.min() >= 0:
            x = 2 * x - 1
        x = torch.relu(self.conv1(x))
        return self.out(torch.relu(self.conv2(x)))


class AttentionOverPixels(nn.Module):
    """Causal attention over all pixels before, as in PixelSNAIL."""

    def __init__(self, shape, levels, width):
        super().__init__()
        self.conv = BufferConv2d(shape[0], width, 5, "A", padding=2)
        self.queries, self.keys, self.values = (nn.Conv2d(width, width, 1) for _ in range(3))
        count = shape[1] * shape[2]
        self.register_buffer("future", torch.triu(torch.ones(count, count), 1).bool())
        self.out = nn.Conv2d(width, levels, 1)

    def forward(self, x):
        h = F.elu(self.conv(x))
        q, k, v = (layer(h).flatten(2) for layer in (self.queries, self.keys, self.values))
        weights = q.transpose(1, 2) @ k / math.sqrt(q.size(1))
        weights = weights.masked_fill(self.future, float("-inf")).softmax(-1)
        return self.out(h + (v @ weights.transpose(1, 2)).view_as(h))


MODELS = [
    Stranger(
        BranchOnValues,
        lambda shape, levels: {"input_range": (-1, 1)},
        symmetric,
        grey_logits,
        logits_at,
        rows_so_far=True,
        wrong=({"input_range": (-2, 2)}, r"input_range"),
        reason="a branch on values cannot be traced",
    ),
    Stranger(
        AttentionOverPixels,
        lambda shape, levels: {"input_range": (0, 1)},
        unit,
        grey_logits,
        logits_at,
        gain=1.2,
        wrong=({"input_range": (-1, 1)}, r"input_range"),
        reason="attention has no instruction yet",
    ),
]
