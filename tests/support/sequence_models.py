"""Models of sequences as others write them."""

import torch
from torch import nn
from torch.nn import functional as F

V = 5  # symbols


class Recurrent(nn.Module):
    """Embedding, a recurrent layer and a linear one; returns (logits [B, T, V], state), of the next symbol."""

    def __init__(self, kind=nn.LSTM, vocabulary=V, width=12, layers=2, rows=0, **options):
        super().__init__()
        self.embedding = nn.Embedding(vocabulary + rows, width)
        self.layers = kind(width, width, layers, batch_first=True, **options)
        self.out = nn.Linear(width * (1 + self.layers.bidirectional), vocabulary)

    def forward(self, x, hidden=None):
        y, hidden = self.layers(self.embedding(x), hidden)
        return self.out(y), hidden


class WaveNet(nn.Module):
    """Gated dilated convolutions that are made causal by padding, cropping or shifting; logits [B, V, T]."""

    def __init__(self, way="pad", inputs=None, width=12, dilations=(1, 2, 4)):
        super().__init__()
        self.way = way
        self.entrance = nn.Embedding(V, width) if inputs is None else nn.Conv1d(inputs, width, 1)
        padding = {"pad": 0, "crop": 1, "shift": 0}[way]
        self.layers = nn.ModuleList(nn.Conv1d(width, 2 * width, 2, dilation=d, padding=padding * d) for d in dilations)
        self.norm, self.out = nn.LayerNorm(width), nn.Conv1d(width, V, 1)

    def forward(self, x):
        embeds = isinstance(self.entrance, nn.Embedding)
        x = self.entrance(x).transpose(1, 2) if embeds else self.entrance(x)
        for layer in self.layers:
            (d,) = layer.dilation
            if self.way == "pad":
                y = layer(F.pad(x, (d, 0)))
            elif self.way == "crop":
                y = layer(x)[..., :-d]
            else:
                earlier = torch.cat([x.new_zeros(*x.shape[:2], d), x], 2)[..., : x.shape[2]]
                weight = layer.weight
                y = F.conv1d(earlier, weight[..., :1], layer.bias) + F.conv1d(x, weight[..., 1:])
            a, b = y.chunk(2, 1)
            x = x + torch.tanh(a) * torch.sigmoid(b)
        return self.out(F.relu(self.norm(x.transpose(1, 2)).transpose(1, 2)))


class Own(Recurrent):
    """Recurrent, whose output at t is of symbol t: it shifts what it is given itself."""

    def __init__(self, **options):
        super().__init__(rows=1, **options)

    def forward(self, x):
        return super().forward(torch.cat([torch.full_like(x[:, :1], V), x[:, :-1]], 1))[0]


class WithLoss(Recurrent):
    """Returns all logits beside a loss where targets are given, else those of the last position alone, as nanoGPT."""

    def forward(self, x, targets=None):
        logits = super().forward(x)[0]
        if targets is None:
            return logits[:, [-1]], None
        return logits, F.cross_entropy(logits.view(-1, V), targets.view(-1))


class Windowed(Recurrent):
    """Crops what it is given to its last four symbols."""

    def forward(self, x):
        return super().forward(x[:, -4:])[0]


class Reversed(Recurrent):
    """Runs from the right: it looks ahead."""

    def forward(self, x):
        return super().forward(x.flip(1))[0].flip(1)


class Learned(Recurrent):
    """Adds learned positions."""

    def __init__(self, positions=4096):
        super().__init__()
        self.positions = nn.Embedding(positions, 12)

    def forward(self, x):
        places = self.positions(torch.arange(x.shape[1]))
        return self.out(self.layers(self.embedding(x) + places)[0])


class Centred(nn.Module):
    """A convolution that looks a symbol ahead."""

    def __init__(self, width=12):
        super().__init__()
        self.embedding, self.layer = nn.Embedding(V, width), nn.Conv1d(width, V, 3, padding=1)

    def forward(self, x):
        return self.layer(self.embedding(x).transpose(1, 2))


class Made(nn.Module):
    """A masked Linear layer over all symbols at once."""

    def __init__(self, length):
        super().__init__()
        self.layer = nn.Linear(length * V, length * V)
        earlier = torch.ones(length, length).tril(-1)
        self.register_buffer("mask", earlier.repeat_interleave(V, 0).repeat_interleave(V, 1))

    def forward(self, x):
        h = F.one_hot(x, V).float().flatten(1)
        return F.linear(h, self.layer.weight * self.mask, self.layer.bias).view(len(x), -1, V)


class Masked(nn.Module):
    """A model whose symbol 0 is never drawn: its logit is far below all others."""

    def __init__(self, model, low=-1e9):
        super().__init__()
        self.model, self.low = model, low

    def forward(self, x):
        logits = self.model(x)
        return torch.cat([torch.full_like(logits[..., :1], self.low), logits[..., 1:]], -1)


class Mixing(nn.Module):
    """Adds the mean over the sequences of a batch, as a layer does that takes [T, B, C] for [B, T, C]."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, x):
        logits = self.model(x)
        return logits + logits.mean(0, keepdim=True).sigmoid().cumsum(1)


class Block(nn.Module):
    """Of a transformer, as nanoGPT writes it."""

    def __init__(self, width, heads):
        super().__init__()
        self.heads, self.before, self.after = heads, nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.project = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x):
        B, T, C = x.size()
        q, k, v = (y.view(B, T, self.heads, -1).transpose(1, 2) for y in self.qkv(self.before(x)).split(C, dim=2))
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.project(y.transpose(1, 2).contiguous().view(B, T, C))
        return x + self.mlp(self.after(x))


class Transformer(nn.Module):
    """Embeddings of symbols and positions, and two blocks; logits [B, T, V] of the next symbol."""

    def __init__(self, positions=4096, width=16):
        super().__init__()
        self.symbols, self.positions = nn.Embedding(V, width), nn.Embedding(positions, width)
        self.blocks = nn.Sequential(*(Block(width, 2) for _ in range(2)))
        self.norm, self.out = nn.LayerNorm(width), nn.Linear(width, V, bias=False)

    def forward(self, x):
        x = self.symbols(x) + self.positions(torch.arange(x.shape[1], device=x.device))
        return self.out(self.norm(self.blocks(x)))
