"""Foreign models of images of many levels, such as the codes of a VQ-VAE, and of single values with any logits."""

import torch
from torch import nn

from genfast.engine.program import Buffer, Program, Read
from genfast.engine.protocols import ImageSpec
from genfast.likelihoods import Categorical


class Causal(nn.Module):
    """A masked convolution and a softmax over the levels: [B, 1, H, W] -> [B, L, H, W]."""

    def __init__(self, levels, features=6, seed=0):
        super().__init__()
        self.conv, self.head = nn.Conv2d(1, features, 3, padding=1), nn.Conv2d(features, levels, 1)
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.copy_(torch.randn(parameter.shape, generator=generator))
            self.conv.weight[:, :, 1, 1:] = self.conv.weight[:, :, 2] = 0

    def forward(self, x):
        return self.head(self.conv(x).tanh())


def of_logits(logits):
    """The program of images [C, 1, 1] whose values have the logits [C, L], whatever was drawn before."""
    channels, levels = logits.shape
    buffers, pixel = [Buffer(channels, 1)], []
    for channel in range(channels):
        buffers.append(Buffer(levels, 1, fill=logits[channel].numpy()))
        pixel.append([])
    return Program(
        ImageSpec(channels, 1, 1, levels),
        Categorical(channels, levels),
        1,
        1 / (levels - 1),
        0.0,
        0,
        buffers,
        [],
        [*pixel, []],
        [Read(1 + channel, 0, 0, 0, levels) for channel in range(channels)],
    )
