"""Models that attend to the pixels before: PixelSNAIL, ImageGPT, GPTs and torch's own transformer over pixels."""

import math

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from .masked import BufferConv2d, grey_logits, logits_at
from .stranger import Stranger, unit


class AttentionOverPixels(nn.Module):
    """Causal attention over all pixels before, features first; values times transposed weights."""

    def __init__(self, shape, levels, width):
        super().__init__()
        self.conv = BufferConv2d(shape[0], width, 5, "A", padding=2)
        self.queries, self.keys, self.values = (nn.Conv2d(width, width, 1) for _ in range(3))
        count = shape[1] * shape[2]
        self.register_buffer("future", torch.triu(torch.ones(count, count), 1).bool())
        self.out = nn.Conv2d(width, levels, 1)

    def forward(self, x):
        h = F.elu(self.conv(x))
        q, k, v = (layer(h).flatten(2) for layer in (self.queries, self.keys, self.values))
        weights = q.transpose(1, 2) @ k / math.sqrt(q.size(1))
        weights = weights.masked_fill(self.future, float("-inf")).softmax(-1)
        return self.out(h + (v @ weights.transpose(1, 2)).view_as(h))


class SequenceFirstBlock(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.ln_1, self.ln_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attn = nn.MultiheadAttention(width, heads)
        self.mlp = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))

    def forward(self, x):
        mask = torch.full((len(x), len(x)), -float("Inf"), device=x.device, dtype=x.dtype)
        mask = torch.triu(mask, diagonal=1)
        h = self.ln_1(x)
        a, _ = self.attn(h, h, h, attn_mask=mask, need_weights=False)
        x = x + a
        return x + self.mlp(self.ln_2(x))


class ImageGptSequenceFirst(nn.Module):
    """ImageGPT: [length, B, width], a learned start in front, learned positions, nn.MultiheadAttention, pre-norm."""

    def __init__(self, shape, levels, width):
        super().__init__()
        self.sos = nn.Parameter(torch.zeros(width))
        self.token_embeddings = nn.Embedding(levels, width)
        self.position_embeddings = nn.Embedding(shape[1] * shape[2], width)
        self.layers = nn.ModuleList(SequenceFirstBlock(width, 2) for _ in range(2))
        self.ln_f = nn.LayerNorm(width)
        self.head = nn.Linear(width, levels, bias=False)

    def forward(self, x):
        batch, _, height, rows = x.shape
        x = x.flatten(1).transpose(0, 1)
        h = self.token_embeddings(x)
        sos = torch.ones(1, batch, h.size(-1), device=x.device) * self.sos
        h = torch.cat([sos, h[:-1, :, :]], dim=0)
        positions = torch.arange(len(x), device=x.device).unsqueeze(-1)
        h = h + self.position_embeddings(positions).expand_as(h)
        for layer in self.layers:
            h = layer(h)
        return self.head(self.ln_f(h)).permute(1, 2, 0).reshape(batch, -1, height, rows)


class CausalSelfAttention(nn.Module):
    def __init__(self, width, heads, length):
        super().__init__()
        self.heads = heads
        self.key, self.query, self.value = (nn.Linear(width, width) for _ in range(3))
        self.attn_drop, self.resid_drop = nn.Dropout(0.1), nn.Dropout(0.1)
        self.proj = nn.Linear(width, width)
        self.register_buffer("mask", torch.tril(torch.ones(length, length)).view(1, 1, length, length))

    def forward(self, x):
        B, T, C = x.size()
        k, q, v = (
            f(x).view(B, T, self.heads, C // self.heads).transpose(1, 2) for f in (self.key, self.query, self.value)
        )
        att = (q @ k.transpose(-2, -1)) * (1.0 / math.sqrt(k.size(-1)))
        att = att.masked_fill(self.mask[:, :, :T, :T] == 0, float("-inf"))
        att = self.attn_drop(F.softmax(att, dim=-1))
        y = (att @ v).transpose(1, 2).contiguous().view(B, T, C)
        return self.resid_drop(self.proj(y))


class MinGptOverPixels(nn.Module):
    """minGPT over flattened pixels: masked_fill by a tril buffer, dropout; one more token to begin with."""

    attention = CausalSelfAttention

    def __init__(self, shape, levels, width):
        super().__init__()
        length = shape[1] * shape[2]
        self.start = levels
        self.tok_emb = nn.Embedding(levels + 1, width)
        self.pos_emb = nn.Parameter(torch.zeros(1, length, width))
        self.drop = nn.Dropout(0.1)
        self.blocks = nn.ModuleList(self.block(width, length) for _ in range(2))
        self.ln_f = nn.LayerNorm(width)
        self.head = nn.Linear(width, levels, bias=False)

    def block(self, width, length):
        mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width), nn.Dropout(0.1))
        parts = {"ln_1": nn.LayerNorm(width), "attn": self.attention(width, 2, length), "ln_2": nn.LayerNorm(width)}
        return nn.ModuleDict(parts | {"mlp": mlp})

    def forward(self, x):
        idx = x.reshape(x.size(0), -1)
        idx = torch.cat([torch.full_like(idx[:, :1], self.start), idx[:, :-1]], dim=1)
        h = self.drop(self.tok_emb(idx) + self.pos_emb[:, : idx.size(1)])
        for block in self.blocks:
            h = h + block["attn"](block["ln_1"](h))
            h = h + block["mlp"](block["ln_2"](h))
        return self.head(self.ln_f(h)).transpose(1, 2).view(x.size(0), -1, *x.shape[2:])


class FlashAttention(nn.Module):
    def __init__(self, width, heads, length):
        super().__init__()
        self.heads, self.dropout = heads, 0.1
        self.c_attn = nn.Linear(width, 3 * width, bias=False)
        self.c_proj = nn.Linear(width, width, bias=False)

    def forward(self, x):
        B, T, C = x.size()
        q, k, v = self.c_attn(x).split(C, dim=2)
        q, k, v = (t.view(B, T, self.heads, C // self.heads).transpose(1, 2) for t in (q, k, v))
        dropout = self.dropout if self.training else 0
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=None, dropout_p=dropout, is_causal=True)
        return self.c_proj(y.transpose(1, 2).contiguous().view(B, T, C))


class NanoGptOverPixels(MinGptOverPixels):
    """nanoGPT over flattened pixels: one Linear for query, key and value, F.scaled_dot_product_attention(is_causal)."""

    attention = FlashAttention


class EncoderOfTorch(nn.Module):
    """nn.TransformerEncoder with a square subsequent mask, post-norm, sinusoidal positions; floats, moved by one."""

    def __init__(self, shape, levels, width):
        super().__init__()
        length = shape[1] * shape[2]
        self.embed = nn.Linear(1, width)
        angles = torch.arange(length)[:, None] / 100 ** (torch.arange(0, width, 2) / width)
        self.register_buffer("positions", torch.stack([angles.sin(), angles.cos()], -1).flatten(1))
        layer = nn.TransformerEncoderLayer(width, 2, 2 * width, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2)
        self.out = nn.Linear(width, levels)

    def forward(self, x):
        sequence = F.pad(x.flatten(1), (1, -1)).unsqueeze(-1)
        h = self.embed(sequence) + self.positions
        mask = nn.Transformer.generate_square_subsequent_mask(h.size(1), device=x.device)
        h = self.encoder(h, mask=mask, is_causal=True)
        return self.out(h).transpose(1, 2).reshape(x.size(0), -1, *x.shape[2:])


class SnailAttention(nn.Module):
    """Keys and values of what is concatenated; -1e4 where masked; the first row of weights is set to zero."""

    def __init__(self, of_query, of_key, width, heads, length):
        super().__init__()
        self.query, self.key, self.value = (nn.Linear(n, width) for n in (of_query, of_key, of_key))
        self.heads, self.size = heads, width // heads
        mask = np.triu(np.ones((length, length)), k=1).astype(np.uint8).T
        start = np.ones(length).astype(np.float32)
        start[0] = 0
        self.mask, self.start = torch.from_numpy(mask).unsqueeze(0), torch.from_numpy(start).unsqueeze(1)

    def forward(self, query, key):
        batch, _, height, width = key.shape

        def split(x):
            return x.view(batch, -1, self.heads, self.size).transpose(1, 2)

        q, k = (x.view(batch, x.shape[1], -1).transpose(1, 2) for x in (query, key))
        query, value = split(self.query(q)), split(self.value(k))
        attn = torch.matmul(query, split(self.key(k)).transpose(2, 3)) / math.sqrt(self.size)
        attn = attn.masked_fill(self.mask.to(attn.device) == 0, -1e4)
        attn = torch.softmax(attn, 3) * self.start.to(attn.device)
        out = (attn @ value).transpose(1, 2).reshape(batch, height, width, self.size * self.heads)
        return out.permute(0, 3, 1, 2)


class PixelSnailBlocks(nn.Module):
    """PixelSNAIL: gated convolutions, coordinates as background, attention strictly to what lies before."""

    def __init__(self, shape, levels, width):
        super().__init__()
        self.horizontal = BufferConv2d(shape[0], width, 5, "A", padding=2)
        self.gates = nn.ModuleList(BufferConv2d(width, 2 * width, 3, "B", padding=1) for _ in range(2))
        rows = ((torch.arange(shape[1]) - shape[1] / 2) / shape[1]).view(1, 1, -1, 1).expand(1, 1, *shape[1:])
        columns = ((torch.arange(shape[2]) - shape[2] / 2) / shape[2]).view(1, 1, 1, -1).expand(1, 1, *shape[1:])
        self.register_buffer("background", torch.cat([rows, columns], 1))
        self.attention = SnailAttention(width + 2, shape[0] + width + 2, width, 2, shape[1] * shape[2])
        self.out = nn.Conv2d(2 * width, levels, 1)

    def forward(self, x):
        h = F.elu(self.horizontal(x))
        for gate in self.gates:
            a, b = gate(F.elu(h)).chunk(2, 1)
            h = h + a * torch.sigmoid(b)
        background = self.background.expand(x.shape[0], 2, x.shape[2], x.shape[3])
        query, key = torch.cat([h, background], 1), torch.cat([x, h, background], 1)
        return self.out(F.elu(torch.cat([h, self.attention(query, key)], 1)))


class MaskedByArithmetic(nn.Module):
    """`scores * mask - 1e10 * (1 - mask)` and `weights * mask`, as the first PixelSNAIL; keys of the pixel itself."""

    def __init__(self, shape, levels, width):
        super().__init__()
        self.below = BufferConv2d(shape[0], width, 3, "A", padding=1)
        self.q, self.k, self.v = nn.Conv2d(width, 4, 1), nn.Conv2d(shape[0], 4, 1), nn.Conv2d(shape[0], width, 1)
        length = shape[1] * shape[2]
        self.register_buffer("mask", torch.tril(torch.ones(length, length), -1))
        self.out = nn.Conv2d(width, levels, 1)

    def forward(self, x):
        h = F.elu(self.below(x))
        q, k, v = (t.flatten(2) for t in (self.q(h), self.k(x), self.v(x)))
        dot = torch.bmm(q.permute(0, 2, 1), k)
        dot = dot * self.mask - 1e10 * (1.0 - self.mask)
        weights = torch.softmax(dot, dim=-1) * self.mask
        out = torch.bmm(weights, v.permute(0, 2, 1)).permute(0, 2, 1).view_as(h)
        return self.out(F.elu(h + out))


def rotated(x, cos, sin):
    """Rotary positions, halves as LLaMA has them."""
    a, b = x.chunk(2, dim=-1)
    return x * cos + torch.cat((-b, a), dim=-1) * sin


class RotaryGroups(nn.Module):
    """Rotary positions, groups of heads by repeat_interleave, RMSNorm, SwiGLU, a window of the last pixels; einsum."""

    def __init__(self, shape, levels, width):
        super().__init__()
        length, self.heads, self.size = shape[1] * shape[2], 4, 4
        self.embed, self.start = nn.Embedding(levels, width), nn.Parameter(torch.zeros(1, 1, width))
        self.norm, self.ffn_norm = nn.RMSNorm(width), nn.RMSNorm(width)
        self.wq, self.wo = nn.Linear(width, 16, bias=False), nn.Linear(16, width, bias=False)
        self.wk, self.wv = (nn.Linear(width, 8, bias=False) for _ in range(2))
        self.w1, self.w3 = (nn.Linear(width, 2 * width, bias=False) for _ in range(2))
        self.w2, self.out = nn.Linear(2 * width, width, bias=False), nn.Linear(width, levels)
        angles = torch.arange(length)[:, None] / 50 ** torch.linspace(0, 1, self.size // 2)
        self.register_buffer("cos", torch.cat([angles, angles], -1).cos())
        self.register_buffer("sin", torch.cat([angles, angles], -1).sin())
        distance = torch.arange(length)[:, None] - torch.arange(length)
        self.register_buffer("window", (distance >= 0) & (distance < 9))

    def forward(self, x):
        tokens = x.flatten(1)
        h = torch.cat([self.start.expand(len(x), -1, -1), self.embed(tokens)[:, :-1]], 1)
        y = self.norm(h)
        q, k, v = (w(y).unflatten(-1, (-1, self.size)).transpose(1, 2) for w in (self.wq, self.wk, self.wv))
        q, k = (rotated(t, self.cos, self.sin) for t in (q, k))
        k, v = (t.repeat_interleave(2, dim=1) for t in (k, v))
        scores = torch.einsum("bhid,bhjd->bhij", q, k) * self.size**-0.5
        scores = scores.masked_fill(~self.window, -torch.finfo(scores.dtype).max)
        y = torch.einsum("bhij,bhjd->bhid", scores.softmax(dim=-1), v)
        h = h + self.wo(y.transpose(1, 2).flatten(2))
        y = self.ffn_norm(h)
        h = h + self.w2(F.silu(self.w1(y)) * self.w3(y))
        return self.out(h).transpose(1, 2).view(len(x), -1, *x.shape[2:])


class AlibiStrict(nn.Module):
    """Heads in the batch, as torch has them; linear biases by distance; no key for the first pixel, and nan_to_num."""

    def __init__(self, shape, levels, width):
        super().__init__()
        length, self.heads = shape[1] * shape[2], 2
        self.features = nn.Sequential(nn.Conv2d(shape[0], width, 1), nn.Tanh())
        self.position = nn.Parameter(torch.zeros(1, width, *shape[1:]))
        self.before = BufferConv2d(shape[0], width, 3, "A", padding=1)
        self.query, self.pair = nn.Conv2d(width, width, 1), nn.Conv2d(width, 2 * width, 1)
        distance = torch.arange(length)[:, None] - torch.arange(length)
        slopes = 2.0 ** -torch.arange(1.0, 3)[:, None, None]
        self.register_buffer("bias", (-slopes * distance).masked_fill(distance < 1, -math.inf))
        self.out = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, levels))

    def forward(self, x):
        b, _, height, width = x.shape
        q = self.query(self.before(x) + self.position)
        k, v = self.pair(self.features(x) + self.position).chunk(2, 1)
        q, k, v = (t.reshape(b * self.heads, -1, height * width).transpose(1, 2) for t in (q, k, v))
        scores = torch.baddbmm(self.bias.repeat(b, 1, 1), q, k.transpose(1, 2), alpha=q.size(-1) ** -0.5)
        weights = scores.softmax(-1).nan_to_num(0.0)
        out = torch.bmm(weights, v).transpose(1, 2).reshape(b, -1, height * width).transpose(1, 2)
        return self.out(out).transpose(1, 2).reshape(b, -1, height, width)


def levels_of(levels, count):
    return levels


FLOATS = {"gain": 1.2, "wrong": ({"input_range": (-1, 1)}, r"input_range")}
TOKENS = {"gain": 1.2, "wrong": ({"head": "probabilities"}, r"head"), "shape": (1, 6, 6)}


def of_floats(model, **options):
    conventions = {"input_range": (0, 1)}
    return Stranger(model, lambda shape, levels: conventions, unit, grey_logits, logits_at, **(FLOATS | options))


def of_tokens(model, **options):
    conventions = {"inputs": "levels"}
    return Stranger(model, lambda shape, levels: conventions, levels_of, grey_logits, logits_at, **(TOKENS | options))


MODELS = [
    of_floats(AttentionOverPixels),
    of_tokens(ImageGptSequenceFirst),
    of_tokens(MinGptOverPixels),
    of_tokens(NanoGptOverPixels),
    of_floats(EncoderOfTorch),
    of_floats(PixelSnailBlocks),
    of_floats(MaskedByArithmetic),
    of_tokens(RotaryGroups, gain=1.8),
    of_floats(AlibiStrict),
]
