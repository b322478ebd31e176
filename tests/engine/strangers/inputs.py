"""What a forward does to its images first: bytes divided inside, floats rounded to the entries of a table."""

import torch
from torch import nn
from torch.nn import functional as F

from .masked import BufferConv2d
from .stranger import Stranger, cross_entropy, unit


class BytesInside(nn.Module):
    """Fed with floats 0 .. 255, which forward divides and centres; BatchNorm1d and Linear over [B * H * W, F]; logits
    [B * H * W, L]."""

    def __init__(self, shape, levels, width):
        super().__init__()
        self.conv1 = BufferConv2d(shape[0], width, 5, "A", padding=2)
        self.conv2 = BufferConv2d(width, width, 3, "B", padding=1)
        self.norm = nn.BatchNorm1d(width)
        self.fc = nn.Linear(width, levels)

    def forward(self, x):
        x = (x / 255.0 - 0.5) / 0.5
        x = F.hardswish(self.conv1(x))
        x = self.conv2(x).permute(0, 2, 3, 1).reshape(-1, self.norm.num_features)
        return self.fc(F.relu(self.norm(x)))


class RoundedInside(nn.Module):
    """Floats in [0, 1] that forward rounds to entries of an Embedding, and learned rows and columns; einsum; logits
    [B, H * W, L]."""

    def __init__(self, shape, levels, width):
        super().__init__()
        self.levels = levels
        self.tokens = nn.Embedding(levels, width)
        self.rows = nn.Parameter(torch.zeros(1, width, shape[1], 1))
        self.columns = nn.Parameter(torch.zeros(1, width, 1, shape[2]))
        self.conv = BufferConv2d(width, width, 5, "A", padding=2)
        self.mix = nn.Parameter(torch.zeros(2 * width, width))
        self.out = nn.Linear(2 * width, levels)

    def forward(self, x):
        codes = (x * (self.levels - 1)).round().long().squeeze(1)
        h = self.tokens(codes).permute(0, 3, 1, 2)
        h = self.conv(h) + self.rows + self.columns
        h = F.gelu(torch.einsum("bchw,dc->bdhw", h, self.mix))
        return self.out(h.flatten(2).transpose(1, 2))


def places(levels):
    return levels[:, 0].flatten(1)


def flat_logits(output, levels, count):
    output = output.view(len(levels), -1, count)
    return cross_entropy(output.transpose(1, 2), places(levels))


MODELS = [
    Stranger(
        BytesInside,
        lambda shape, levels: {"input_range": (0, 255), "output": "(B H W) L"},
        lambda levels, count: levels * (255 / (count - 1)),
        flat_logits,
        lambda output, at: output.unflatten(0, (-1, at.pixels))[:, at.pixel].softmax(1),
        wrong=({"input_range": (0, 1)}, r"input_range.*0.*255"),
    ),
    Stranger(
        RoundedInside,
        lambda shape, levels: {"input_range": (0, 1), "output": "B (H W) L"},
        unit,
        flat_logits,
        lambda output, at: output[:, at.pixel].softmax(1),
        wrong=({"head": "probabilities"}, r"head"),
    ),
]
