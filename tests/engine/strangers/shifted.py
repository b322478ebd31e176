"""PixelCNN++ and PixelSNAIL without its attention: no mask at all, the maps are padded, shifted and cropped."""

import functools

import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import weight_norm

from .masked import grey_logits, logits_at
from .stranger import Stranger, symmetric, unit


def down(x):
    return F.pad(x, (0, 0, 1, 0))[:, :, :-1]


def right(x):
    return F.pad(x, (1, 0))[:, :, :, :-1]


def concat_elu(x):
    return F.elu(torch.cat([x, -x], dim=1))


class DownConv(nn.Module):
    """Reads its own row and the one above."""

    def __init__(self, inputs, outputs, stride=1):
        super().__init__()
        self.pad = nn.ZeroPad2d((1, 1, 1, 0))
        self.conv = weight_norm(nn.Conv2d(inputs, outputs, (2, 3), stride))

    def forward(self, x):
        return self.conv(self.pad(x))


class DownRightConv(nn.Module):
    """Reads what is above and at the left, and its own pixel."""

    def __init__(self, inputs, outputs, stride=1):
        super().__init__()
        self.pad = nn.ZeroPad2d((1, 0, 1, 0))
        self.conv = weight_norm(nn.Conv2d(inputs, outputs, (2, 2), stride))

    def forward(self, x):
        return self.conv(self.pad(x))


class GatedResnet(nn.Module):
    def __init__(self, conv, width, skips=0):
        super().__init__()
        self.first, self.second = conv(2 * width, width), conv(2 * width, 2 * width)
        self.skip = weight_norm(nn.Conv2d(2 * skips * width, width, 1)) if skips else None

    def forward(self, x, a=None):
        h = self.first(concat_elu(x))
        if self.skip is not None:
            h = h + self.skip(concat_elu(a))
        a, b = self.second(F.dropout(concat_elu(h), 0.5, self.training)).chunk(2, dim=1)
        return x + a * torch.sigmoid(b)


class TwoStreams(nn.Module):
    """PixelCNN++ in small: streams u and ul, one halving and one doubling, concat_elu, weight_norm of
    parametrizations; RGB mixture of logistics in the order of the reference."""

    def __init__(self, shape, levels, width, mixtures=2):
        super().__init__()
        self.start_u = DownConv(shape[0] + 1, width)
        self.start_above = weight_norm(nn.Conv2d(shape[0] + 1, width, (1, 3), padding=(0, 1)))
        self.start_left = weight_norm(nn.Conv2d(shape[0] + 1, width, (2, 1)))
        self.up = nn.ModuleList(
            nn.ModuleList([GatedResnet(DownConv, width), GatedResnet(DownRightConv, width, 1)]) for _ in range(2)
        )
        self.halve_u, self.halve_ul = DownConv(width, width, 2), DownRightConv(width, width, 2)
        self.double_u = weight_norm(nn.ConvTranspose2d(width, width, (2, 3), 2, (0, 1), (0, 1)))
        self.double_ul = weight_norm(nn.ConvTranspose2d(width, width, 2, 2))
        self.down = nn.ModuleList(
            nn.ModuleList([GatedResnet(DownConv, width, 1), GatedResnet(DownRightConv, width, 2)]) for _ in range(2)
        )
        self.out = weight_norm(nn.Conv2d(width, 10 * mixtures, 1))

    def forward(self, x):
        ones = torch.ones(x.size(0), 1, x.size(2), x.size(3), device=x.device)
        x = torch.cat([x, ones], 1)
        u = down(self.start_u(x))
        ul = down(self.start_above(x)) + right(self.start_left(F.pad(x, (0, 0, 1, 0))))
        u = self.up[0][0](u)
        ul = self.up[0][1](ul, u)
        kept = [(u, ul)]
        u, ul = self.halve_u(u), self.halve_ul(ul)
        u = self.up[1][0](u)
        ul = self.up[1][1](ul, u)
        kept.append((u, ul))
        for n, (vertical, diagonal) in enumerate(self.down):
            u_kept, ul_kept = kept.pop()
            u = vertical(u, u_kept)
            ul = diagonal(ul, torch.cat([u, ul_kept], 1))
            if n == 0:
                u, ul = self.double_u(u), self.double_ul(ul)
        return self.out(F.elu(ul))


def mixture_parameters(output):
    """Weights [B, K, H, W], then means, log-scales and coefficients, [B, 3, K, H, W]; float64."""
    output = output.double()
    mixtures = output.shape[1] // 10
    rest = output[:, mixtures:].unflatten(1, (3, 3 * mixtures))
    means, log_scales, coefficients = rest.chunk(3, dim=2)
    return output[:, :mixtures], means, log_scales.clamp(min=-7), torch.tanh(coefficients)


def reference_mixture(output, levels, count):
    weights, means, log_scales, coefficients = mixture_parameters(output)
    x = symmetric(levels.double(), count)[:, :, None]
    green = means[:, 1] + coefficients[:, 0] * x[:, 0]
    blue = means[:, 2] + coefficients[:, 1] * x[:, 0] + coefficients[:, 2] * x[:, 1]
    centred, scale = x - torch.stack([means[:, 0], green, blue], 1), torch.exp(-log_scales)
    upper, lower = scale * (centred + 1 / (count - 1)), scale * (centred - 1 / (count - 1))
    inside = torch.sigmoid(upper) - torch.sigmoid(lower)
    log_probs = torch.where(
        x < -0.999,
        F.logsigmoid(upper),
        torch.where(x > 0.999, F.logsigmoid(-lower), torch.log(inside.clamp(min=1e-12))),
    )
    return -torch.logsumexp(log_probs.sum(1) + weights.log_softmax(1), 1).flatten(1).sum(1)


def draw_reference_mixture(output, count):
    weights, means, log_scales, coefficients = mixture_parameters(output)
    noise = -torch.log(-torch.log(torch.rand_like(weights).clamp(1e-5, 1 - 1e-5)))
    chosen = (weights + noise).argmax(1)[:, None, None].expand(-1, 3, -1, -1, -1)
    mean, log_scale, c = (p.gather(2, chosen)[:, :, 0] for p in (means, log_scales, coefficients))
    u = torch.rand_like(mean).clamp(1e-5, 1 - 1e-5)
    x = mean + torch.exp(log_scale) * (torch.log(u) - torch.log(1 - u))

    def rounded(value):
        return ((value.clamp(-1, 1) + 1) / 2 * (count - 1)).round() / (count - 1) * 2 - 1

    red = rounded(x[:, 0])
    green = rounded(x[:, 1] + c[:, 0] * red)
    blue = rounded(x[:, 2] + c[:, 1] * red + c[:, 2] * green)
    return ((torch.stack([red, green, blue], 1) + 1) / 2 * (count - 1)).round().long()


@functools.cache
def coordinates(height, width):
    """Rows and columns, [1, 2, H, W] from -0.5 to 0.5: computed once for all models and batches."""
    rows = torch.arange(height).float()[:, None].expand(height, width) / height - 0.5
    columns = torch.arange(width).float()[None].expand(height, width) / width - 0.5
    return torch.stack([rows, columns])[None]


class CachedCoordinates(nn.Module):
    """Coordinates from functools.cache, concatenated to shifted maps; Mish and Dropout; a learned table of places."""

    def __init__(self, shape, levels, width):
        super().__init__()
        self.above = nn.Conv2d(3, width, (2, 3))
        self.left = nn.Conv2d(3, width, (1, 3))
        self.convs = nn.ModuleList(nn.Conv2d(width + 2, 2 * width, (2, 2)) for _ in range(2))
        self.places = nn.Parameter(torch.zeros(1, width, *shape[1:]))
        self.dropout = nn.Dropout2d(0.1)
        self.out = nn.Conv2d(width, levels, 1)

    def forward(self, x):
        background = coordinates(*x.shape[2:]).expand(x.shape[0], -1, -1, -1)
        x = torch.cat([x, background], 1)
        x = self.above(F.pad(down(x), (1, 1, 1, 0))) + self.left(F.pad(right(x), (2, 0)))
        x = x + self.places
        for conv in self.convs:
            h = conv(F.pad(torch.cat([F.mish(x), background], 1), (1, 0, 1, 0)))
            x = x + F.glu(self.dropout(h), dim=1)
        return self.out(F.mish(x))


class CachedPadding(nn.Module):
    """A map of ones, and zeros to shift by, cached from the first batch that comes; concat_elu."""

    def __init__(self, shape, levels, width):
        super().__init__()
        self.init_padding = None
        self.zero_row = None
        self.start = nn.Conv2d(shape[0] + 1, width, 3, padding=1)
        self.columns = nn.Conv2d(shape[0] + 1, width, (1, 2))
        self.conv = nn.Conv2d(2 * width, width, (2, 2))
        self.out = nn.Conv2d(2 * width, levels, 1)

    def forward(self, x):
        if self.init_padding is None:
            self.init_padding = torch.ones(x.size(0), 1, x.size(2), x.size(3))
            self.zero_row = torch.zeros(x.size(0), x.size(1) + 1, 1, x.size(3))
        x = torch.cat([x, self.init_padding[: x.size(0)]], dim=1)
        zeros = self.zero_row[: x.size(0)]
        above = torch.cat([zeros, zeros, x[:, :, :-2]], dim=2)
        # A convolution of 3x3 on a map that is two rows down reads none but rows above.
        h = self.start(above) + self.columns(F.pad(x, (2, 0)))[..., : x.size(3)]
        h = h + self.conv(F.pad(concat_elu(h), (1, 0, 1, 0)))
        return self.out(concat_elu(h))


MODELS = [
    Stranger(
        TwoStreams,
        lambda shape, levels: {"input_range": (-1, 1), "head": "mixture-per-channel"},
        symmetric,
        reference_mixture,
        None,
        draw=draw_reference_mixture,
        gain=1.0,
        wrong=({"head": "mixture"}, r"mixture-per-channel"),
        shape=(3, 8, 8),
        levels=32,
        tiny=((3, 2, 2), 2),
    ),
    Stranger(
        CachedCoordinates,
        lambda shape, levels: {"input_range": (0, 1)},
        unit,
        grey_logits,
        logits_at,
        wrong=({"input_range": (-1, 1)}, r"input_range.*0.*1"),
    ),
    Stranger(
        CachedPadding,
        lambda shape, levels: {"input_range": (-1, 1)},
        symmetric,
        grey_logits,
        logits_at,
        gain=1.1,
        wrong=({"input_range": (0, 1)}, r"input_range.*-1.*1"),
        shape=(1, 8, 8),
    ),
]
