"""RGB PixelCNNs, in which the channels of a pixel are drawn one after the other, and five layouts of their output."""

import torch
from torch import nn
from torch.nn import functional as F

from .stranger import Stranger, cross_entropy, unit


def colour_mask(weight, kind, source, target):
    """Causal in rows and columns, and at the centre in colours: `source` and `target` are those of the features."""
    mask = torch.zeros_like(weight)
    size = weight.shape[-1]
    mask[:, :, : size // 2] = 1
    mask[:, :, size // 2, : size // 2] = 1
    seen = source[None] < target[:, None] if kind == "A" else source[None] <= target[:, None]
    mask[:, :, size // 2, size // 2] = seen.float()
    return mask


def thirds(count):
    """The colour of features in blocks: red, then green, then blue."""
    return torch.arange(count) * 3 // count


def in_turn(count):
    """The colour of features in turn: red, green, blue, red, ..."""
    return torch.arange(count) % 3


class ColourConv(nn.Conv2d):
    """A masked convolution; the weights are masked at every call."""

    def __init__(self, kind, inputs, outputs, size, colours=thirds, source=None):
        super().__init__(inputs, outputs, size, padding=size // 2)
        source = colours(inputs) if source is None else source
        self.register_buffer("mask", colour_mask(self.weight.data, kind, source, colours(outputs)))

    def forward(self, x):
        return F.conv2d(x, self.weight.mul(self.mask), self.bias, padding=self.padding)


class ColoursInBlocks(nn.Module):
    """Features in blocks of colours, ReLU, logits [B, C * L, H, W] that the loss views as [B, C, L, H, W]."""

    def __init__(self, shape, levels, width):
        super().__init__()
        width = 3 * width
        self.net = nn.Sequential(
            ColourConv("A", 3, width, 5),
            nn.ReLU(),
            ColourConv("B", width, width, 3),
            nn.ReLU(),
            ColourConv("B", width, 3 * levels, 1),
        )

    def forward(self, x):
        return self.net(x)


class ColoursInTurn(nn.Module):
    """Features of the colours in turn, Softplus; logits [B, L * C, H, W], which view(B, L, C, H, W) puts in order."""

    def __init__(self, shape, levels, width):
        super().__init__()
        width = 3 * width
        self.conv1 = ColourConv("A", 3, width, 3, in_turn)
        self.conv2 = ColourConv("B", width, width, 3, in_turn)
        self.conv3 = ColourConv("B", width, width, 1, in_turn)
        self.conv4 = ColourConv("B", width, 3 * levels, 1, in_turn)

    def forward(self, x):
        x = F.softplus(self.conv1(x))
        x = F.softplus(self.conv2(x)) - 0.5 * torch.abs(x)
        return self.conv4(F.softplus(self.conv3(x)))


class OneHotLevels(nn.Module):
    """LongTensor [B, C, H, W] into F.one_hot; logits [B, L, C, H, W], as nn.CrossEntropyLoss takes them."""

    def __init__(self, shape, levels, width):
        super().__init__()
        self.levels, width = levels, 3 * width
        self.first = ColourConv("A", 3 * levels, width, 3)
        self.second = ColourConv("B", width, width, 3)
        self.out = ColourConv("B", width, 3 * levels, 1)

    def forward(self, x):
        x = F.one_hot(x, self.levels).permute(0, 1, 4, 2, 3).flatten(1, 2).float()
        x = torch.relu(self.first(x))
        x = x + torch.relu(self.second(x))
        logits = self.out(x)
        b, _, h, w = logits.shape
        return logits.view(b, 3, self.levels, h, w).transpose(1, 2)


class FinalSoftmax(nn.Module):
    """A Softmax over the last of [B, H, W, C, L]; ELU; the loss is the log of the probability of the level."""

    def __init__(self, shape, levels, width):
        super().__init__()
        self.levels, width = levels, 3 * width
        self.first = ColourConv("A", 3, width, 5)
        self.blocks = nn.ModuleList(ColourConv("B", width, width, 3) for _ in range(2))
        self.out = ColourConv("B", width, 3 * levels, 1)

    def forward(self, x):
        x = self.first(x)
        for block in self.blocks:
            x = x + block(F.elu(x))
        out = self.out(F.elu(x)).permute(0, 2, 3, 1)
        return torch.softmax(out.unflatten(-1, (3, self.levels)), dim=-1)


class NormalisedOutside(nn.Module):
    """Fed with (x / 255 - mean) / std of a data loader; SELU, ReLU6 and Hardtanh; logits [B, C, L, H, W]."""

    def __init__(self, shape, levels, width):
        super().__init__()
        self.levels, width = levels, 3 * width
        self.features = nn.Sequential(
            ColourConv("A", 3, width, 5),
            nn.SELU(),
            ColourConv("B", width, width, 3),
            nn.ReLU6(),
            ColourConv("B", width, width, 1),
            nn.Hardtanh(-2, 2),
        )
        self.classifier = ColourConv("B", width, 3 * levels, 1)

    def forward(self, x):
        out = self.classifier(self.features(x))
        return out.reshape(x.size(0), x.size(1), self.levels, x.size(2), x.size(3))


MEAN, STD = 0.4734, 0.2515
STANDARD_RANGE = ((0 - MEAN) / STD, (1 - MEAN) / STD)


def standardised(levels, count):
    return (levels / (count - 1) - MEAN) / STD


def blocks(output, count):
    return output.view(len(output), 3, count, *output.shape[-2:])


def probability_loss(output, levels, count):
    chosen = output.double().gather(-1, levels.permute(0, 2, 3, 1)[..., None])
    return -chosen.log().flatten(1).sum(1)


SIZES = {"shape": (3, 8, 8), "levels": 5, "tiny": ((3, 1, 2), 3)}
# As many levels as channels would leave two readings of [B, L, C, H, W].
ONE_READING = SIZES | {"tiny": ((3, 1, 2), 2)}

MODELS = [
    Stranger(
        ColoursInBlocks,
        lambda shape, levels: {"input_range": (0, 1), "head": "categorical"},
        unit,
        lambda output, levels, count: cross_entropy(blocks(output, count).transpose(1, 2), levels),
        lambda output, at: output.unflatten(1, (3, -1))[:, at.c, :, at.i, at.j].softmax(1),
        wrong=({"head": "categorical-levels-first"}, r"head.*categorical(?!-)"),
        **SIZES,
    ),
    Stranger(
        ColoursInTurn,
        lambda shape, levels: {"input_range": (0, 1), "head": "categorical-levels-first"},
        unit,
        lambda output, levels, count: cross_entropy(output.view(len(output), count, *levels.shape[1:]), levels),
        lambda output, at: output[:, at.c :: 3, at.i, at.j].softmax(1),
        wrong=({"input_range": (-1, 1)}, r"input_range.*0.*1"),
        **SIZES,
    ),
    Stranger(
        OneHotLevels,
        lambda shape, levels: {"inputs": "levels"},
        lambda levels, count: levels,
        lambda output, levels, count: cross_entropy(output, levels),
        lambda output, at: output[:, :, at.c, at.i, at.j].softmax(1),
        wrong=({"head": "probabilities"}, r"head"),
        **ONE_READING,
    ),
    Stranger(
        FinalSoftmax,
        lambda shape, levels: {"input_range": (0, 1), "output": "B H W C L", "head": "probabilities"},
        unit,
        probability_loss,
        lambda output, at: output[:, at.i, at.j, at.c],
        wrong=({"input_range": (-1, 1)}, r"input_range.*0.*1"),
        **SIZES,
    ),
    Stranger(
        NormalisedOutside,
        lambda shape, levels: {"input_range": STANDARD_RANGE},
        standardised,
        lambda output, levels, count: cross_entropy(output.transpose(1, 2), levels),
        lambda output, at: output[:, at.c, :, at.i, at.j].softmax(1),
        wrong=({"input_range": (0, 1)}, r"input_range"),
        **ONE_READING,
    ),
]
