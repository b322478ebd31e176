"""What the ops of the adversarial family are measured against: the same in plain torch, done well."""

import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations


def minibatch_discrimination_eager(features, kernel, others):
    """As every package has it: the tensor of all differences."""
    m = (features @ kernel.flatten(1)).unflatten(1, kernel.shape[1:])
    return (-(m[:, None] - m).abs().sum(3)).exp().sum(1)


def minibatch_discrimination_cdist(features, kernel, others):
    """torch's own matrix of L1 distances, one for each projection."""
    m = (features @ kernel.flatten(1)).unflatten(1, kernel.shape[1:]).transpose(0, 1)
    return (-torch.cdist(m, m, p=1)).exp().sum(2).T


def minibatch_stddev_eager(x, group, channels):
    batch, features, height, width = x.shape
    parts = x.view(group, batch // group, channels, features // channels, height, width)
    # Not torch.var, which takes 30 times as long over dimension 0.
    deviation = (((parts - parts.mean(0)) ** 2).mean(0) + 1e-8).sqrt().mean((2, 3, 4))
    return torch.cat((x, deviation.repeat(group, 1)[:, :, None, None].expand(-1, -1, height, width)), 1)


def bias_act_eager(x, bias, activation, slope, gain, limit):
    y = x + bias[:, None, None]
    return (F.leaky_relu(y, slope) if activation == "leaky_relu" else y.tanh()) * gain


def upfirdn2d_eager(x, filter, up, down, padding):
    """One grouped convolution: transposed to upsample, strided to downsample, as a layer of its own would have it."""
    channels, weight = x.shape[1], (filter[:, None] * filter).expand(x.shape[1], 1, -1, -1)
    if up == (1, 1):
        return F.conv2d(F.pad(x, padding), weight.flip(2, 3), stride=down, groups=channels)
    # The whole of a transposed convolution, of which the part that the padding leaves is cut out.
    left, right, top, bottom = padding
    y = F.conv_transpose2d(x, weight, stride=up, groups=channels)
    taps = len(filter) - 1
    height, width = x.shape[2] * up[0] + top + bottom - taps, x.shape[3] * up[1] + left + right - taps
    return y[:, :, taps - top : taps - top + height, taps - left : taps - left + width]


def upfirdn2d_zeros(x, filter, up, down, padding):
    """Zeros between the samples and a convolution of all planes, as the resampling of most packages is written."""
    batch, channels, height, width = x.shape
    x = F.pad(x.view(-1, 1, height, 1, width, 1), (0, up[1] - 1, 0, 0, 0, up[0] - 1))
    x = F.pad(x.view(-1, 1, height * up[0], width * up[1]), padding)
    y = F.conv2d(x, (filter[:, None] * filter).flip(0, 1)[None, None], stride=down)
    return y.view(batch, channels, *y.shape[2:])


class Normalized(nn.Module):
    """As many linear layers as there are matrices, each with torch's spectral normalisation in training mode."""

    def __init__(self, weight, u, v):
        super().__init__()
        self.layers = nn.ModuleList(parametrizations.spectral_norm(_layer(w)) for w in weight.detach())
        for layer, left, right in zip(self.layers, u, v):
            state = layer.parametrizations.weight[0]
            state._u.copy_(left.detach())
            state._v.copy_(right.detach())

    def forward(self):
        return [layer.weight for layer in self.layers]

    def leaves(self):
        return [layer.parametrizations.weight.original for layer in self.layers]


def _layer(weight):
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias=False)
    with torch.no_grad():
        layer.weight.copy_(weight)
    return layer
