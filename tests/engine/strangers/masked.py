"""Grey PixelCNNs of masked convolutions: five places where authors keep the mask."""

import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import parametrize, weight_norm

from .stranger import Stranger, cross_entropy, symmetric, unit


def causal_mask(weight, kind):
    """One for the taps above and at the left of the centre; at kind B for the centre too."""
    mask = torch.ones_like(weight)
    _, _, height, width = weight.shape
    mask[:, :, height // 2, width // 2 + (kind == "B") :] = 0
    mask[:, :, height // 2 + 1 :] = 0
    return mask


class OverwritingConv2d(nn.Conv2d):
    def __init__(self, kind, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.register_buffer("mask", causal_mask(self.weight.data, kind))

    def forward(self, x):
        self.weight.data *= self.mask
        return super().forward(x)


class OverwrittenWeights(nn.Module):
    """`self.weight.data *= self.mask` in forward, BatchNorm2d and ReLU, logits [B, L, H, W]."""

    def __init__(self, shape, levels, width):
        super().__init__()
        layers = []
        for n, size in enumerate((5, 3, 3)):
            kind, inputs = ("B", width) if n else ("A", shape[0])
            layers += [OverwritingConv2d(kind, inputs, width, size, 1, size // 2, bias=False)]
            layers += [nn.BatchNorm2d(width), nn.ReLU(True)]
        self.net = nn.Sequential(*layers, nn.Conv2d(width, levels, 1))

    def forward(self, x):
        return self.net(x)


class BufferConv2d(nn.Conv2d):
    def __init__(self, inputs, outputs, size, kind, **kwargs):
        super().__init__(inputs, outputs, size, **kwargs)
        self.register_buffer("mask", causal_mask(self.weight.data, kind), persistent=False)

    def forward(self, x):
        return F.conv2d(x, self.weight * self.mask, self.bias, self.stride, self.padding, self.dilation)


class Residual(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.reduce = nn.Conv2d(width, width // 2, 1)
        self.conv = BufferConv2d(width // 2, width // 2, 3, "B", padding=1)
        self.widen = nn.Conv2d(width // 2, width, 1)

    def forward(self, x):
        h = self.reduce(x.relu())
        h = self.conv(h.relu())
        return x + self.widen(h.relu())


class FinalSigmoid(nn.Module):
    """The mask is a buffer made in __init__; residual blocks with ReLU and 1x1; a final Sigmoid for nn.BCELoss."""

    def __init__(self, shape, levels, width):
        super().__init__()
        assert levels == 2
        self.first = BufferConv2d(shape[0], width, 7, "A", padding=3)
        self.blocks = nn.ModuleList([Residual(width) for _ in range(2)])
        self.out = nn.Sequential(nn.ReLU(), nn.Conv2d(width, shape[0], 1), nn.Sigmoid())

    def forward(self, x):
        x = self.first(x)
        for block in self.blocks:
            x = block(x)
        return self.out(x)


def bce(output, levels, count):
    return nn.BCELoss(reduction="none")(output, levels.float()).double().flatten(1).sum(1)


def bernoulli(output, at):
    p = output[:, at.c, at.i, at.j]
    return torch.stack([1 - p, p], 1)


class MaskOfWeight(nn.Module):
    def __init__(self, mask):
        super().__init__()
        self.register_buffer("mask", mask)

    def forward(self, weight):
        return weight * self.mask


class Parametrized(nn.Module):
    """The mask is a parametrization of plain convolutions; GELU; LogSoftmax for nn.NLLLoss."""

    def __init__(self, shape, levels, width):
        super().__init__()
        self.net = nn.Sequential(
            nn.Conv2d(shape[0], width, 5, padding=2),
            nn.GELU(),
            nn.Conv2d(width, width, 3, padding="same"),
            nn.GELU(approximate="tanh"),
            nn.Conv2d(width, levels, 1),
            nn.LogSoftmax(dim=1),
        )
        for at, kind in ((0, "A"), (2, "B")):
            mask = causal_mask(self.net[at].weight.data, kind)
            parametrize.register_parametrization(self.net[at], "weight", MaskOfWeight(mask))

    def forward(self, x):
        return self.net(x)


def nll_loss(output, levels, count):
    return nn.NLLLoss(reduction="none")(output, levels[:, 0]).double().flatten(1).sum(1)


def apply_mask(module, inputs):
    """A forward pre-hook."""
    module.weight.data = module.weight.data * module.mask


class HookedMasks(nn.Module):
    """Forward pre-hooks mask plain convolutions: `weight.data = weight.data * mask`; SiLU, skips and `out += x`."""

    def __init__(self, shape, levels, width):
        super().__init__()
        self.stem = nn.Conv2d(shape[0], width, 3, padding=1)
        self.body = nn.ModuleList(nn.Conv2d(width, width, 3, padding=1) for _ in range(2))
        self.head = nn.Conv2d(width, levels, 1)
        for conv, kind in [(self.stem, "A"), *((conv, "B") for conv in self.body)]:
            conv.register_buffer("mask", causal_mask(conv.weight.data, kind))
            conv.register_forward_pre_hook(apply_mask)

    def forward(self, x):
        x = self.stem(x)
        for conv in self.body:
            out = conv(F.silu(x))
            out += x
            x = out
        return self.head(F.silu(x))


class DilatedMixture(nn.Module):
    """Dilated convolutions under the hook of `weight_norm`; a grey mixture of logistics, [weights | means | scales]."""

    def __init__(self, shape, levels, width, mixtures=3):
        super().__init__()
        self.levels = levels
        self.first = weight_norm(BufferConv2d(shape[0], width, 3, "A", padding=1))
        self.convs = nn.ModuleList(
            weight_norm(BufferConv2d(width, width, 3, "B", padding=d, dilation=d)) for d in (1, 2)
        )
        self.out = weight_norm(nn.Conv2d(width, 3 * mixtures, 1))

    def forward(self, x):
        x = self.first(x)
        for conv in self.convs:
            x = x + conv(F.elu(x))
        return self.out(F.elu(x))


def mixture_loss(output, levels, count):
    weights, means, log_scales = output.double().chunk(3, dim=1)
    log_scales = log_scales.clamp(min=-7)
    x = symmetric(levels.double(), count)
    plus = torch.sigmoid((x + 1 / (count - 1) - means) * torch.exp(-log_scales))
    minus = torch.sigmoid((x - 1 / (count - 1) - means) * torch.exp(-log_scales))
    plus = torch.where(levels == count - 1, 1.0, plus)
    minus = torch.where(levels == 0, 0.0, minus)
    log_probs = torch.log((plus - minus).clamp(min=1e-12)) + weights.log_softmax(1)
    return -torch.logsumexp(log_probs, 1).flatten(1).sum(1)


def draw_mixture(output, count):
    """Pick a component by Gumbel noise, then a logistic by its inverse, to the nearest level."""
    weights, means, log_scales = output.chunk(3, dim=1)
    noise = -torch.log(-torch.log(torch.rand_like(weights).clamp(1e-5, 1 - 1e-5)))
    chosen = (weights + noise).argmax(1, keepdim=True)
    mean, log_scale = means.gather(1, chosen), log_scales.gather(1, chosen).clamp(min=-7)
    u = torch.rand_like(mean).clamp(1e-5, 1 - 1e-5)
    x = (mean + torch.exp(log_scale) * (torch.log(u) - torch.log(1 - u))).clamp(-1, 1)
    return ((x + 1) / 2 * (count - 1)).round().long()


def grey_logits(output, levels, count):
    return cross_entropy(output, levels[:, 0])


def logits_at(output, at):
    return output[:, :, at.i, at.j].softmax(1)


MODELS = [
    Stranger(
        OverwrittenWeights,
        lambda shape, levels: {"input_range": (0, 1)},
        unit,
        grey_logits,
        logits_at,
        wrong=({"input_range": (-1, 1)}, r"input_range.*0.*1"),
    ),
    Stranger(
        FinalSigmoid,
        lambda shape, levels: {"input_range": (0, 1)},
        unit,
        bce,
        bernoulli,
        wrong=({"input_range": (-1, 1)}, r"input_range.*0.*1"),
        levels=2,
        tiny=((1, 2, 3), 2),
    ),
    Stranger(
        Parametrized,
        lambda shape, levels: {"input_range": (-1, 1), "head": "log-probabilities"},
        symmetric,
        nll_loss,
        lambda output, at: output[:, :, at.i, at.j].exp(),
        wrong=({"input_range": (0, 1)}, r"input_range.*-1.*1"),
    ),
    Stranger(
        HookedMasks,
        lambda shape, levels: {"input_range": (-1, 1)},
        symmetric,
        grey_logits,
        logits_at,
        wrong=({"input_range": (0, 1)}, r"input_range.*-1.*1"),
        rows_so_far=True,
    ),
    Stranger(
        DilatedMixture,
        lambda shape, levels: {"input_range": (-1, 1), "head": "mixture"},
        symmetric,
        mixture_loss,
        None,
        draw=draw_mixture,
        wrong=({"input_range": (0, 1)}, r"input_range.*-1.*1"),
        levels=16,
    ),
]
