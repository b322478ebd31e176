"""Gated PixelCNNs and what they are conditioned on: labels, vectors, maps; priors of a VQ-VAE's codes."""

import warnings

import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from .masked import OverwritingConv2d, causal_mask, grey_logits, logits_at
from .stranger import Stranger, cross_entropy, symmetric, unit


def gate(x):
    a, b = x.chunk(2, dim=1)
    return torch.tanh(a) * torch.sigmoid(b)


class CroppedLayer(nn.Module):
    def __init__(self, inputs, width, size, first, classes):
        super().__init__()
        self.first, half = first, size // 2
        self.vertical = nn.Conv2d(inputs, 2 * width, (half + 1, size), padding=(half + 1, half))
        self.horizontal = nn.Conv2d(inputs, 2 * width, (1, half + 1), padding=(0, half + first))
        self.link = nn.Conv2d(2 * width, 2 * width, 1)
        self.out = nn.Conv2d(width, width, 1)
        self.label = nn.Embedding(classes, 2 * width)

    def forward(self, v, h, y):
        rows, columns = v.shape[2:]
        bias = self.label(y)[:, :, None, None]
        above = self.vertical(v)[:, :, : rows + 1]  # one row more: the row before serves the horizontal stack
        left = self.horizontal(h)[..., :columns] + self.link(above[:, :, :-1])
        v, out = gate(above[:, :, 1:] + bias), self.out(gate(left + bias))
        return v, out if self.first else out + h


class CroppedGated(nn.Module):
    """Causality by cropping padded convolutions; labels y are an Embedding added to the gates; logits [B, L, H, W]."""

    def __init__(self, shape, levels, width, classes=3):
        super().__init__()
        self.layers = nn.ModuleList(CroppedLayer(width if n else shape[0], width, 3, n == 0, classes) for n in range(3))
        self.head = nn.Sequential(nn.ReLU(), nn.Conv2d(width, width, 1), nn.ReLU(), nn.Conv2d(width, levels, 1))

    def forward(self, x, y):
        v = h = x
        for layer in self.layers:
            v, h = layer(v, h, y)
        return self.head(h)


def labels_of(shape, rows, classes=3):
    return {"labels": torch.arange(1, rows + 1) % classes}


class CodePrior(nn.Module):
    """A prior of VQ-VAE codes: LongTensor [B, H, W] into an Embedding, stacks in a ModuleDict, weights zeroed in
    forward."""

    def __init__(self, shape, levels, width, layers=2):
        super().__init__()
        self.embedding = nn.Embedding(levels, width)
        self.stacks = nn.ModuleDict()
        for n in range(layers):
            self.stacks[f"vertical{n}"] = nn.Conv2d(width, 2 * width, (2, 3), 1, (1, 1))
            self.stacks[f"horizontal{n}"] = nn.Conv2d(width, 2 * width, (1, 2), 1, (0, 1))
            self.stacks[f"link{n}"] = nn.Conv2d(2 * width, 2 * width, 1)
            self.stacks[f"out{n}"] = nn.Conv2d(width, width, 1)
        self.layers = layers
        self.logits = nn.Sequential(nn.Conv2d(width, 2 * width, 1), nn.ReLU(True), nn.Conv2d(2 * width, levels, 1))

    def make_causal(self):
        self.stacks["vertical0"].weight.data[:, :, -1].zero_()
        self.stacks["horizontal0"].weight.data[:, :, :, -1].zero_()

    def forward(self, x):
        self.make_causal()
        v = h = self.embedding(x).permute(0, 3, 1, 2)
        rows, columns = x.shape[-2:]
        for n in range(self.layers):
            above = self.stacks[f"vertical{n}"](v)[:, :, :rows]
            left = self.stacks[f"horizontal{n}"](h)[:, :, :, :columns]
            v, out = gate(above), self.stacks[f"out{n}"](gate(left + self.stacks[f"link{n}"](above)))
            h = out + h if n else out
        return self.logits(h)


class VectorCondition(nn.Module):
    """A vector h, of CLIP or of an encoder, is added in every gate; forward returns (logits, loss or None)."""

    def __init__(self, shape, levels, width, size=5):
        super().__init__()
        self.convs = nn.ModuleList(
            OverwritingConv2d("B" if n else "A", width if n else shape[0], 2 * width, 3, padding=1) for n in range(3)
        )
        self.project = nn.ModuleList(nn.Linear(size, 2 * width, bias=False) for _ in range(3))
        self.head = nn.Conv2d(width, levels, 1)

    def forward(self, x, h=None, targets=None):
        for conv, project in zip(self.convs, self.project):
            x = gate(conv(x) + project(h).unsqueeze(-1).unsqueeze(-1))
        logits = self.head(x)
        loss = None if targets is None else F.cross_entropy(logits, targets)
        return logits, loss


class MapCondition(nn.Module):
    """A map of half the size, such as the upper level of a VQ-VAE-2, is upsampled and added; returns a dict."""

    def __init__(self, shape, levels, width, channels=4):
        super().__init__()
        self.upsample = nn.ConvTranspose2d(channels, width, 4, stride=2, padding=1)
        self.first = OverwritingConv2d("A", shape[0], width, 5, padding=2)
        self.second = OverwritingConv2d("B", width, width, 3, padding=1)
        self.head = nn.Conv2d(width, levels, 1)

    def forward(self, x, context):
        context = F.leaky_relu(self.upsample(context), 0.2)
        h = F.leaky_relu(self.first(x) + context)
        h = F.leaky_relu(self.second(h) + context)
        return {"logits": self.head(h), "features": h}


class Checkpointed(nn.Module):
    """Blocks under torch.utils.checkpoint, LayerNorm with channels last, logits [B, H, W, L] of a Linear."""

    def __init__(self, shape, levels, width):
        super().__init__()
        self.stem = OverwritingConv2d("A", shape[0], width, 5, padding=2)
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(2))
        self.convs = nn.ModuleList(OverwritingConv2d("B", width, width, 3, padding=1) for _ in range(2))
        self.out = nn.Linear(width, levels)

    def block(self, x, n):
        h = self.norms[n](x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2).contiguous()
        return x + self.convs[n](F.silu(h))

    def forward(self, x):
        x = self.stem(x)
        for n in range(2):
            x = checkpoint(self.block, x, n, use_reentrant=False)
        return self.out(x.permute(0, 2, 3, 1))


def plain_gate(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return torch.tanh(a) * torch.sigmoid(b)


with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # deprecated, and in use all the same
    scripted_gate = torch.jit.script(plain_gate)


class ScriptedGates(nn.Module):
    """A gate of torch.jit.script and F.glu; the label is one-hot maps concatenated to the image."""

    def __init__(self, shape, levels, width, classes=3):
        super().__init__()
        self.classes = classes
        self.first = nn.Conv2d(shape[0] + classes, 2 * width, 3, padding=1)
        self.second = nn.Conv2d(width, 2 * width, 3, padding=1)
        self.register_buffer("mask_a", causal_mask(self.first.weight.data, "A"))
        self.register_buffer("mask_b", causal_mask(self.second.weight.data, "B"))
        self.head = nn.Conv2d(width, levels, 1)

    def forward(self, x, y):
        maps = F.one_hot(y, self.classes).float()[:, :, None, None]
        x = torch.cat([x, maps.expand(-1, -1, x.shape[2], x.shape[3])], dim=1)
        x = F.conv2d(x, self.first.weight * self.mask_a, self.first.bias, padding=1)
        a, b = torch.split(x, x.shape[1] // 2, dim=1)
        x = scripted_gate(a, b)
        x = F.glu(F.conv2d(x, self.second.weight * self.mask_b, self.second.bias, padding=1), dim=1)
        return self.head(x)


def condition_of(key, *size):
    """The further input `key` with rows of random numbers, the same at every call."""

    def side(shape, rows):
        sizes = [shape[1] // 2, shape[2] // 2] if len(size) == 1 and key == "context" else []
        generator = torch.Generator().manual_seed(1)
        return {"condition": {key: torch.randn(rows, *size, *sizes, generator=generator)}}

    return side


MODELS = [
    Stranger(
        CroppedGated,
        lambda shape, levels: {"input_range": (-1, 1), "classes": 3},
        symmetric,
        grey_logits,
        logits_at,
        side=labels_of,
        gain=1.3,
        wrong=({"input_range": (0, 1)}, r"input_range.*-1.*1"),
    ),
    Stranger(
        CodePrior,
        lambda shape, levels: {"inputs": "codes"},
        lambda levels, count: levels[:, 0],
        grey_logits,
        logits_at,
        levels=512,
        gain=1.0,
        wrong=({"head": "probabilities"}, r"head"),
    ),
    Stranger(
        VectorCondition,
        lambda shape, levels: {"input_range": (0, 1)},
        unit,
        lambda output, levels, count: cross_entropy(output[0], levels[:, 0]),
        lambda output, at: output[0][:, :, at.i, at.j].softmax(1),
        side=condition_of("h", 5),
        wrong=({"input_range": (-1, 1)}, r"input_range.*0.*1"),
    ),
    Stranger(
        MapCondition,
        lambda shape, levels: {"input_range": (0, 1)},
        unit,
        lambda output, levels, count: cross_entropy(output["logits"], levels[:, 0]),
        lambda output, at: output["logits"][:, :, at.i, at.j].softmax(1),
        side=condition_of("context", 4),
        wrong=({"input_range": (-1, 1)}, r"input_range.*0.*1"),
    ),
    Stranger(
        Checkpointed,
        lambda shape, levels: {"input_range": (0, 1), "output": "B H W L"},
        unit,
        lambda output, levels, count: cross_entropy(output.movedim(-1, 1), levels[:, 0]),
        lambda output, at: output[:, at.i, at.j].softmax(1),
        gain=1.3,
        wrong=({"input_range": (-1, 1)}, r"input_range.*0.*1"),
    ),
    Stranger(
        ScriptedGates,
        lambda shape, levels: {"input_range": (0, 1), "classes": 3},
        unit,
        grey_logits,
        logits_at,
        side=labels_of,
        wrong=({"input_range": (-1, 1)}, r"input_range.*0.*1"),
    ),
]
