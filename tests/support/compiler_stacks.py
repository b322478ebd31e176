"""Random stacks of layers for the fuzz of the plan compiler: each is causal, however its layers follow one another."""

import torch
from torch import nn
from torch.nn import functional as F

from genfast.nn import DiagonalBiLSTM, MaskedConv2d, RowLSTM, ShiftedConv2d, ShiftedConvTranspose2d

FEATURES = 6


class Layer(nn.Module):
    """A layer of `kind` on [B, 6, H, W]; `a` and `b` (0 to 5) vary it."""

    def __init__(self, kind, a, b):
        super().__init__()
        self.kind, self.a, self.b = kind, a, b
        make = getattr(self, f"make_{kind}", None)
        if make:
            make()

    def forward(self, x, earlier):
        return getattr(self, self.kind)(x, earlier)

    def make_masked(self):
        size = (1 + 2 * (self.a % 2), 1 + 2 * (self.b % 3))
        self.conv = MaskedConv2d(FEATURES, FEATURES, size, "B", bias=self.a > 2)

    def masked(self, x, earlier):
        return self.conv(x)

    def make_everyday(self):
        self.conv = nn.Conv2d(
            FEATURES, FEATURES, 3, padding=1 + self.a % 2, dilation=1 + self.a % 2, groups=1 + self.b % 2
        )
        mask = torch.ones_like(self.conv.weight)
        mask[:, :, 1, 2:] = 0
        mask[:, :, 2:] = 0
        self.register_buffer("mask", mask)

    def everyday(self, x, earlier):
        c = self.conv
        return F.conv2d(x, c.weight * self.mask, c.bias, padding=c.padding, dilation=c.dilation, groups=c.groups)

    def make_above(self):
        # Padded on all sides and cropped; with an odd a the whole row is read, and the result moved down by one.
        self.conv = nn.Conv2d(FEATURES, FEATURES, (2, 3), padding=(2, 1))

    def above(self, x, earlier):
        height = x.shape[2]
        y = self.conv(x)
        if self.a % 2:
            return F.pad(y[:, :, 1 : height + 1], (0, 0, 1, 0))[:, :, :-1]
        return y[:, :, :height]

    def make_columns(self):
        self.conv = nn.Conv2d(FEATURES, FEATURES, (1 + self.a % 3, 1))

    def columns(self, x, earlier):
        return self.conv(F.pad(x, (0, 0, self.a % 3, 0)))

    def make_left(self):
        self.conv = nn.Conv2d(FEATURES, FEATURES, (1, 2), padding=(0, 1))

    def left(self, x, earlier):
        return self.conv(x)[..., : x.shape[3]]

    def make_pointwise(self):
        self.linear = nn.Linear(FEATURES, FEATURES, bias=self.a % 2 == 0)

    def pointwise(self, x, earlier):
        return self.linear(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)

    def activation(self, x, earlier):
        kinds = (torch.relu, F.elu, torch.tanh, torch.sigmoid, F.silu, F.leaky_relu)
        return kinds[self.a](x)

    def make_gate(self):
        self.conv = nn.Conv2d(FEATURES, 2 * FEATURES, 1)

    def gate(self, x, earlier):
        a, b = self.conv(x).chunk(2, 1)
        if self.a % 3 == 2:
            return x + a * torch.sigmoid(b)
        return torch.sigmoid(b) * torch.tanh(a) if self.a % 3 else a.tanh() * b.sigmoid()

    def smooth(self, x, earlier):
        kinds = (F.gelu, F.softplus, F.mish, F.selu, F.hardswish, lambda x: F.gelu(x, approximate="tanh"))
        return kinds[self.a](x)

    def bounded(self, x, earlier):
        other = earlier[self.b % len(earlier)]
        kinds = (
            lambda x: x.clamp(-0.5, 0.7),
            lambda x: torch.maximum(x, other),
            lambda x: torch.where(other > 0.1, x, 0.5 * other),
            lambda x: x.masked_fill(x < -0.2, 0.1),
            lambda x: x / (1 + other.abs()),
            lambda x: (1 + x.square()).log() * (x.abs() + 0.1).rsqrt(),
        )
        return kinds[self.a](x)

    def make_glu(self):
        self.conv = nn.Conv2d(FEATURES, 2 * FEATURES, 1)

    def glu(self, x, earlier):
        return F.glu(self.conv(x), 1)

    def statistics(self, x, earlier):
        y = x.permute(0, 2, 3, 1)
        kinds = (
            lambda y: F.layer_norm(y, (FEATURES,)),
            lambda y: F.rms_norm(y, (FEATURES,), eps=1e-2),
            lambda y: F.group_norm(y.reshape(-1, FEATURES), 1 + self.b % 3).view(y.shape),
            lambda y: y.softmax(-1),
            lambda y: y - y.mean(-1, keepdim=True),
            lambda y: y - y.amax(-1, keepdim=True) + y.var(-1, keepdim=True),
        )
        return kinds[self.a](y).permute(0, 3, 1, 2)

    def make_named(self):
        self.weight = nn.Parameter(torch.randn(FEATURES, FEATURES) * 0.4)
        self.batch = nn.BatchNorm1d(FEATURES)

    def named(self, x, earlier):
        if self.a % 3 == 0:
            return torch.einsum("oc,bchw->bohw", self.weight, x)
        if self.a % 3 == 1:
            return self.batch(x.flatten(2)).view_as(x)
        return (self.weight @ x.flatten(2)).view_as(x)

    def scattered(self, x, earlier):
        order = torch.tensor([3, 1, 0, 5, 2, 4])
        y = x[:, order] if self.a % 2 else x[:, :2].repeat_interleave(3, 1)
        other = earlier[self.b % len(earlier)]
        return (y.tanh(), y * other, y.exp().clamp(max=2))[self.a % 3]

    def join(self, x, earlier):
        other = earlier[self.b % len(earlier)]
        return (x + other, x - other, other + 0.5 * x, x * other, other - x, x + x)[self.a]

    def make_concatenated(self):
        self.conv = nn.Conv2d(2 * FEATURES, FEATURES, 1)

    def concatenated(self, x, earlier):
        other = -x if self.a % 2 else earlier[self.b % len(earlier)]
        return self.conv(F.elu(torch.cat((x, other), 1)))

    def make_norm(self):
        self.bn = nn.BatchNorm2d(FEATURES, affine=self.a % 2 == 0)
        self.bn.running_mean.normal_()
        self.bn.running_var.uniform_(0.5, 2)

    def norm(self, x, earlier):
        return self.bn(x)

    def numbers(self, x, earlier):
        return (x * 0.5 + 0.25, x / 2 - 1, 1 - x, x + torch.arange(6.0).view(6, 1, 1), -x, 2 * x)[self.a]

    def moved(self, x, earlier):
        # By rows or by columns, once with zeros by cat.
        if self.a % 3 == 0:
            return F.pad(x, (0, 0, 1, 0))[:, :, :-1]
        if self.a % 3 == 1:
            return F.pad(x[..., :-1], (1, 0))
        return torch.cat((torch.zeros_like(x[:, :, :1]), x[:, :, :-1]), 2)

    def framed(self, x, earlier):
        # Zeros on one side: what others read of the same map is not cut.
        top, bottom = self.a % 2, self.b % 2 * (x.shape[2] > 1)
        return F.pad(x[:, :, top : x.shape[2] - bottom], (0, 0, top, bottom)) + (x if self.b > 3 else 0)

    def shuffled(self, x, earlier):
        b, _, h, w = x.shape
        y = x.view(b, 2, 3, h, w).transpose(1, 2).reshape(b, FEATURES, h, w)
        first, *rest = y.split((1, 2, 3), 1)
        return torch.cat((*rest, first), 1) if self.a % 2 else torch.stack(y.unbind(1), 1).flip(1)

    def make_coarse(self):
        shift = "down" if self.a % 2 else "down-right"
        self.down = ShiftedConv2d(FEATURES, FEATURES, (2, 3) if self.a % 2 else (2, 2), shift, stride=2)
        self.middle = ShiftedConv2d(FEATURES, FEATURES, (2, 3) if self.a % 2 else (2, 2), shift)
        self.up = ShiftedConvTranspose2d(FEATURES, FEATURES, shift)

    def coarse(self, x, earlier):
        # What is "down" must hold the rows above alone.
        x = F.pad(x, (0, 0, 1, 0))[:, :, :-1] if self.a % 2 else x
        height, width = x.shape[2:]
        y = self.down(F.pad(x, (0, width % 2, 0, height % 2)))
        y = self.up(F.elu(self.middle(y)) if self.b % 2 else y)
        return y[:, :, :height, :width]

    def make_diagonal(self):
        self.scan = DiagonalBiLSTM(FEATURES, FEATURES)
        nn.init.normal_(self.scan.h0)
        nn.init.normal_(self.scan.c0)

    def diagonal(self, x, earlier):
        return self.scan(F.pad(x, (0, 1)))[..., :-1] if self.a % 2 else self.scan(x)

    def make_rows(self):
        self.scan = RowLSTM(FEATURES, FEATURES)
        nn.init.normal_(self.scan.h0)
        nn.init.normal_(self.scan.c0)

    def rows(self, x, earlier):
        return self.scan(x)

    def make_attend(self):
        self.query, self.pair = nn.Linear(FEATURES, FEATURES), nn.Linear(FEATURES, 2 * FEATURES)
        self.heads = nn.MultiheadAttention(FEATURES, 1 + self.b % 3, batch_first=self.b > 2)

    def attend(self, x, earlier):
        """Attention to all pixels before, and, but for one form, to the pixel itself."""
        batch, _, height, width = x.shape
        n, heads = height * width, 1 + self.b % 3
        if n == 1:
            return x
        mask, distance = torch.tril(torch.ones(n, n)), torch.arange(n)[:, None] - torch.arange(n)
        of_query, of_key = ((earlier[0] if self.b > 3 else x).flatten(2).mT, x.flatten(2).mT)
        if self.a == 2:
            q, k = (t if self.b > 2 else t.transpose(0, 1) for t in (of_query, of_key))
            y, _ = self.heads(q, k, k, attn_mask=torch.log(mask), need_weights=self.b % 2 == 0)
            return (y if self.b > 2 else y.transpose(0, 1)).mT.reshape(x.shape)
        q, k, v = self.query(of_query), *self.pair(of_key).chunk(2, -1)
        q, k, v = (t.view(batch, n, heads, -1).transpose(1, 2) for t in (q, k, v))
        if self.a == 0:
            y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        elif self.a == 1:
            y = torch.softmax((q @ k.mT / 2).masked_fill(mask == 0, float("-inf")), -1) @ v
        elif self.a == 3:
            mask, start = torch.tril(mask, -1), (torch.arange(n) > 0).float()[:, None]
            y = torch.softmax((q @ k.mT).masked_fill_(mask == 0, -1e4), 3) * start @ v
        elif self.a == 4:
            bias = torch.where((distance >= 0) & (distance < 4 + self.b), -0.1 * distance, -torch.inf)
            y = F.scaled_dot_product_attention(q, k, v, attn_mask=bias, scale=0.7)
        else:
            scores = torch.einsum("bhjd,bhid->bhji", k, q) - 1e9 * (1 - mask.T)
            y = torch.einsum("bhji,bhjd->bhid", scores.softmax(2), v)
        return y.transpose(1, 2).reshape(batch, n, -1).mT.reshape(x.shape)


KINDS = sorted(name.removeprefix("make_") for name in vars(Layer) if not name.startswith("_") and name != "forward")
KINDS = sorted(set(KINDS))


class Stack(nn.Module):
    """Mask A, the layers, and logits of 4 levels."""

    def __init__(self, layers, first=3):
        super().__init__()
        self.input = MaskedConv2d(1, FEATURES, first, "A")
        self.layers = nn.ModuleList(Layer(*layer) for layer in layers)
        self.output = nn.Conv2d(FEATURES, 4, 1)

    def forward(self, x):
        x = self.input(x)
        earlier = [x]
        for layer in self.layers:
            x = layer(x, earlier)
            earlier.append(x)
        return self.output(x)


class ColorStack(nn.Module):
    """Masked layers for RGB; a layer is a (kind, number) of 0 to 5."""

    def __init__(self, layers, features):
        super().__init__()
        self.input = MaskedConv2d(3, features, 3, "A", 3)
        self.convs = nn.ModuleList(MaskedConv2d(features, features, 1 + 2 * (n % 2), "B", 3) for _, n in layers)
        self.norms = nn.ModuleList(nn.BatchNorm2d(features) for _ in layers)
        self.output = MaskedConv2d(features, 9, 1, "B", 3)
        self.layers = layers

    def forward(self, x):
        x = first = self.input(x)
        for (kind, number), conv, norm in zip(self.layers, self.convs, self.norms):
            if kind == 0:
                x = (torch.relu, F.gelu, F.mish)[number % 3](conv(x))
            elif kind == 1:
                x = x + conv(torch.relu(x))
            elif kind == 2:
                x = norm(conv(x))
            elif kind == 3:
                x = torch.tanh(conv(x)) * torch.sigmoid(x)
            elif kind == 4:
                x = torch.cat((x[:, :1], first[:, 1:]), 1) + conv(x)
            else:
                x = conv(F.pad(x[:, :, :-1], (0, 0, 1, 0))) * 0.5 - x
        return self.output(x).unflatten(1, (3, 3))
