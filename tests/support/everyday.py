"""Two models as people write them every day: nothing of genfast in them.

Both take floats [B, C, H, W] and return logits [B, 256, H, W] for grey images, [B, 256, C, H, W] for colours, the
order of `torch.nn.CrossEntropyLoss`.
"""

import torch
from torch import nn
from torch.nn import functional as F


class MaskedConv2d(nn.Conv2d):
    """Convolution of the pixels above and at the left; with mask B also of the present one."""

    def __init__(self, mask_type, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.register_buffer("mask", self.weight.data.clone())
        _, _, height, width = self.weight.size()
        self.mask.fill_(1)
        self.mask[:, :, height // 2, width // 2 + (mask_type == "B") :] = 0
        self.mask[:, :, height // 2 + 1 :] = 0

    def forward(self, x):
        self.weight.data *= self.mask
        return super().forward(x)


class PlainPixelCNN(nn.Sequential):
    """Masked convolutions, batch norm and ReLU, and 256 logits for every pixel."""

    def __init__(self, features=32, layers=7, levels=256):
        def block(mask_type, inputs, size):
            conv = MaskedConv2d(mask_type, inputs, features, size, 1, size // 2, bias=False)
            return [conv, nn.BatchNorm2d(features), nn.ReLU(True)]

        body = [block("A", 1, 7), *(block("B", features, 3) for _ in range(layers - 1))]
        super().__init__(*(module for part in body for module in part), nn.Conv2d(features, levels, 1))


class ColorConv2d(nn.Conv2d):
    """A masked convolution whose features belong to red, green and blue in turn: a third of them each."""

    def __init__(self, mask_type, inputs, outputs, size, colors):
        super().__init__(inputs, outputs, size, padding=size // 2)
        mask = torch.zeros_like(self.weight)
        mask[:, :, : size // 2] = 1
        mask[:, :, size // 2, : size // 2] = 1
        into, out_of = torch.arange(outputs) * colors // outputs, torch.arange(inputs) * colors // inputs
        allowed = out_of < into[:, None] if mask_type == "A" else out_of <= into[:, None]
        mask[:, :, size // 2, size // 2] = allowed.float()
        self.register_buffer("mask", mask)

    def forward(self, x):
        return F.conv2d(x, self.weight * self.mask, self.bias, padding=self.padding)


class ColorPixelCNN(nn.Module):
    """Residual blocks of masked convolutions for RGB."""

    def __init__(self, features=24, layers=3, levels=256, colors=3):
        super().__init__()
        self.levels, self.colors = levels, colors
        self.first = ColorConv2d("A", colors, features, 7, colors)
        self.blocks = nn.ModuleList(
            nn.Sequential(
                nn.ReLU(),
                ColorConv2d("B", features, features // 2, 1, colors),
                nn.BatchNorm2d(features // 2),
                nn.ReLU(),
                ColorConv2d("B", features // 2, features // 2, 3, colors),
                nn.ReLU(),
                ColorConv2d("B", features // 2, features, 1, colors),
            )
            for _ in range(layers)
        )
        self.out = ColorConv2d("B", features, colors * levels, 1, colors)

    def forward(self, x):
        x = self.first(x)
        for block in self.blocks:
            x = x + block(x)
        out = self.out(F.relu(x))
        batch, _, height, width = out.shape
        return out.view(batch, self.colors, self.levels, height, width).transpose(1, 2)


class GatedLayer(nn.Module):
    """A vertical stack, which sees all that is above, and a horizontal one, which sees what is at the left too."""

    def __init__(self, inputs, features, size, mask_type):
        super().__init__()
        self.mask_type, self.size = mask_type, size
        self.vertical = nn.Conv2d(inputs, 2 * features, (size // 2 + 1, size), padding=(size // 2, size // 2))
        self.horizontal = nn.Conv2d(inputs, 2 * features, (1, size // 2 + 1), padding=(0, size // 2))
        self.vertical_to_horizontal = nn.Conv2d(2 * features, 2 * features, 1)
        self.residual = nn.Conv2d(features, features, 1)
        self.skip = nn.Conv2d(features, features, 1)
        if mask_type == "A":
            with torch.no_grad():
                self.horizontal.weight[..., -1] = 0

    def forward(self, v, h):
        height, width = v.shape[-2:]
        above = self.vertical(v)[:, :, :height]
        # Down by one row: the horizontal stack must not see its own row in the vertical one.
        shifted = F.pad(above, (0, 0, 1, 0))[:, :, :-1]
        left = self.horizontal(h)[:, :, :, :width] + self.vertical_to_horizontal(shifted)
        a, b = above.chunk(2, dim=1)
        v = torch.tanh(a) * torch.sigmoid(b)
        a, b = left.chunk(2, dim=1)
        g = torch.tanh(a) * torch.sigmoid(b)
        out = self.residual(g)
        return v, out if self.mask_type == "A" else out + h, self.skip(g)


class GatedPixelCNN(nn.Module):
    """Gated layers, the sum of their skips, and 256 logits."""

    def __init__(self, features=32, layers=5, levels=256):
        super().__init__()
        self.first = GatedLayer(1, features, 7, "A")
        self.layers = nn.ModuleList(GatedLayer(features, features, 3, "B") for _ in range(layers))
        self.head = nn.Sequential(nn.ReLU(), nn.Conv2d(features, 64, 1), nn.ReLU(), nn.Conv2d(64, levels, 1))

    def forward(self, x):
        v, h, skips = self.first(x, x)
        for layer in self.layers:
            v, h, skip = layer(v, h)
            skips = skips + skip
        return self.head(skips)
