"""Models of flattened pixels, MADE, FVBN and NADE, in any order; an LSTM over them; and a model of one row."""

import torch
from torch import nn
from torch.nn import functional as F

from .masked import grey_logits
from .stranger import Stranger, cross_entropy, unit


class MaskedLinear(nn.Linear):
    def __init__(self, inputs, outputs, mask):
        super().__init__(inputs, outputs)
        self.register_buffer("mask", mask.float())

    def forward(self, x):
        return F.linear(x, self.mask * self.weight, self.bias)


class Made(nn.Module):
    """Linear layers over flattened pixels with masks by degree, in raster order; ReLU; logits for BCEWithLogits."""

    def __init__(self, shape, levels, width):
        super().__init__()
        count, hidden = shape[1] * shape[2], 8 * width
        degree, inner = torch.arange(count), torch.arange(hidden) % max(1, count - 1)
        self.net = nn.Sequential(
            nn.Flatten(),
            MaskedLinear(count, hidden, inner[:, None] >= degree),
            nn.ReLU(),
            MaskedLinear(hidden, hidden, inner[:, None] >= inner),
            nn.ReLU(),
            MaskedLinear(hidden, count, degree[:, None] > inner),
        )

    def forward(self, x):
        return self.net(x).view(x.shape)


class MadeInAnyOrder(nn.Module):
    """MADE in an order drawn at random, with a skip from the inputs; Tanh; categorical logits [B, H * W, L]."""

    def __init__(self, shape, levels, width):
        super().__init__()
        count, hidden = shape[1] * shape[2], 8 * width
        degree = torch.empty(count, dtype=torch.long)
        degree[shuffled(shape)] = torch.arange(count)
        inner = torch.randint(0, max(1, count - 1), (hidden,))
        self.levels, out = levels, degree.repeat_interleave(levels)
        self.hidden = MaskedLinear(count, hidden, inner[:, None] >= degree)
        self.out = MaskedLinear(hidden, count * levels, out[:, None] > inner)
        self.skip = MaskedLinear(count, count * levels, out[:, None] > degree)

    def forward(self, x):
        x = x.reshape(x.size(0), -1)
        logits = self.out(torch.tanh(self.hidden(x))) + self.skip(x)
        return logits.view(x.size(0), x.size(1), self.levels)


def shuffled(shape):
    """The order in which MadeInAnyOrder draws its pixels."""
    return torch.randperm(shape[1] * shape[2], generator=torch.Generator().manual_seed(3))


class TriangularWeights(nn.Module):
    """A fully visible belief network: one torch.tril of weights, a bias, and torch.sigmoid."""

    def __init__(self, shape, levels, width):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(shape[1] * shape[2], shape[1] * shape[2]))
        self.bias = nn.Parameter(torch.zeros(shape[1] * shape[2]))

    def forward(self, x):
        flat = x.flatten(start_dim=1)
        return torch.sigmoid(flat @ torch.tril(self.weight, -1).t() + self.bias).view_as(x)


class Nade(nn.Module):
    """NADE without a loop: hidden units of all pixels at once by a triangular matrix; probabilities [B, H * W]."""

    def __init__(self, shape, levels, width):
        super().__init__()
        count = shape[1] * shape[2]
        self.W, self.V = (nn.Parameter(torch.zeros(count, width)) for _ in range(2))
        self.b, self.c = nn.Parameter(torch.zeros(count)), nn.Parameter(torch.zeros(width))
        self.register_buffer("before", torch.tril(torch.ones(count, count), -1))

    def forward(self, x):
        v = x.view(x.size(0), -1, 1)
        h = torch.sigmoid(self.c + torch.matmul(self.before, v * self.W))
        return torch.sigmoid(self.b + (self.V * h).sum(-1))


class OneRow(nn.Module):
    """Images of one row, as sequences x[:, :, 0]: causal padding, dilations, PReLU and squeeze; logits [B, L, W]."""

    def __init__(self, shape, levels, width):
        super().__init__()
        assert shape[1] == 1
        self.start = nn.Conv2d(1, width, (1, 2))
        self.convs = nn.ModuleList(nn.Conv2d(width, width, (1, 2), dilation=(1, d)) for d in (1, 2, 4))
        self.act = nn.PReLU(width)
        self.out = nn.Conv2d(width, levels, 1)

    def forward(self, x):
        x = x[:, :, 0]  # [B, 1, W]
        x = F.pad(x, (2, -1)).unsqueeze(2)
        x = self.start(x)
        for conv in self.convs:
            x = x + conv(F.pad(self.act(x), (conv.dilation[1], 0)))
        return self.out(self.act(x)).squeeze(2)


class LstmOverPixels(nn.Module):
    """nn.LSTM over flattened pixels, moved by one; the author's loop keeps the state and runs one step a pixel."""

    def __init__(self, shape, levels, width):
        super().__init__()
        self.lstm = nn.LSTM(1, 2 * width, batch_first=True)
        self.out = nn.Linear(2 * width, levels)

    def forward(self, x):
        sequence = F.pad(x.flatten(2), (1, -1)).transpose(1, 2)
        hidden, _ = self.lstm(sequence)
        return self.out(hidden).transpose(1, 2).view(x.size(0), -1, *x.shape[2:])


def one_step_a_pixel(model, n, shape, count):
    x, last, memory = torch.zeros(n, shape[1] * shape[2], dtype=torch.int64), torch.zeros(n, 1, 1), None
    for at in range(x.size(1)):
        hidden, memory = model.lstm(last, memory)
        x[:, at] = torch.multinomial(model.out(hidden[:, 0]).softmax(1), 1)[:, 0]
        last = unit(x[:, at].view(n, 1, 1), count)
    return x.view(n, *shape)


def flat_bce(output, levels, count):
    probabilities = output.flatten(1)
    return F.binary_cross_entropy(probabilities, levels.flatten(1).float(), reduction="none").double().sum(1)


def bce_with_logits(output, levels, count):
    return nn.BCEWithLogitsLoss(reduction="none")(output.double(), levels.double()).flatten(1).sum(1)


def flat_bernoulli(output, at):
    p = output[:, at.pixel] if output.dim() == 2 else output[:, at.c, at.i, at.j]
    return torch.stack([1 - p, p], 1)


def made_bernoulli(output, at):
    return flat_bernoulli(output.sigmoid(), at)


SQUARE = {"shape": (1, 8, 8), "levels": 2, "tiny": ((1, 3, 3), 2), "large": False}

MODELS = [
    Stranger(
        Made,
        lambda shape, levels: {"input_range": (0, 1)},
        unit,
        bce_with_logits,
        made_bernoulli,
        wrong=({"input_range": (-1, 1)}, r"input_range.*0.*1"),
        **SQUARE,
    ),
    Stranger(
        MadeInAnyOrder,
        lambda shape, levels: {
            "input_range": (0, 1),
            "output": "B (H W) L",
            "pixel_order": shuffled(shape).tolist(),
        },
        unit,
        lambda output, levels, count: cross_entropy(output.transpose(1, 2), levels.flatten(1)),
        lambda output, at: output[:, at.pixel].softmax(1),
        order=lambda shape: shuffled(shape).tolist(),
        wrong=({"input_range": (-1, 1)}, r"input_range.*0.*1"),
        **(SQUARE | {"levels": 3, "tiny": ((1, 2, 2), 3)}),
    ),
    Stranger(
        TriangularWeights,
        lambda shape, levels: {"input_range": (0, 1), "head": "probabilities"},
        unit,
        flat_bce,
        flat_bernoulli,
        wrong=({"input_range": (-1, 1)}, r"input_range.*0.*1"),
        **SQUARE,
    ),
    Stranger(
        Nade,
        lambda shape, levels: {"input_range": (0, 1), "head": "probabilities", "output": "B (H W)"},
        unit,
        flat_bce,
        flat_bernoulli,
        wrong=({"input_range": (-1, 1)}, r"input_range.*0.*1"),
        **SQUARE,
    ),
    Stranger(
        OneRow,
        lambda shape, levels: {"input_range": (0, 1), "output": "B L (H W)"},
        unit,
        lambda output, levels, count: cross_entropy(output, levels[:, 0, 0]),
        lambda output, at: output[:, :, at.j].softmax(1),
        gain=0.9,
        wrong=({"input_range": (-1, 1)}, r"input_range.*0.*1"),
        shape=(1, 1, 24),
        tiny=((1, 1, 4), 3),
        large=False,
    ),
    Stranger(
        LstmOverPixels,
        lambda shape, levels: {"input_range": (0, 1)},
        unit,
        grey_logits,
        None,
        loop=one_step_a_pixel,
        wrong=({"input_range": (-1, 1)}, r"input_range.*0.*1"),
        large=False,
    ),
]
