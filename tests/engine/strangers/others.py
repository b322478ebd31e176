"""Models without a native program, with the reason: they are drawn by a full forward, and must be drawn right."""

import torch
from torch import nn

from .masked import BufferConv2d, grey_logits, logits_at
from .stranger import Stranger, symmetric


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
]
