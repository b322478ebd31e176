"""What genfast is measured against: the same computation in plain torch, done well.

Of every op the reference and torch.compile of it are rivals without a word here; what else there is, is its entry of
RIVALS, at the end.
"""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations

from genfast import ops
from genfast.reference import SPECS

OURS, EAGER, REFERENCE = "genfast", "good eager", "reference backend"
COMPILED, COMPILED_STEP = "torch.compile", "torch.compile of its step"
Pair = tuple[int, int]


@dataclass(frozen=True)
class Rivals:
    """What an op is measured against.

    Attributes:
        eager: the computation as torch does it best, if not the reference; it takes the arguments of the op.
        name: of `eager` in the tables.
        step: of the loop of `eager`, which takes another as `step`: it alone is compiled.
        others: name -> other ways to write it that are in use.
        on_cpu: name -> the same, on a CPU alone.
        compiled: whether torch.compile of `eager`, or of its step, is one.
        reference: whether the reference backend is one, where `eager` is another computation.
    """

    eager: Callable | None = None
    name: str = EAGER
    step: Callable | None = None
    others: Mapping[str, Callable] = field(default_factory=dict)
    on_cpu: Mapping[str, Callable] = field(default_factory=dict)
    compiled: bool = True
    reference: bool = True


def of(op: str) -> Rivals:
    return RIVALS.get(op, Rivals())


def contenders(op: str, backend: str) -> dict[str, Callable]:
    """Functions of the arguments of `op` by name, genfast's on `backend` first.

    "auto": as a user calls it, on the CPU.
    """
    rivals, function = of(op), getattr(ops, op)
    reference = partial(function, backend="reference")
    eager = rivals.eager or reference
    functions = {OURS: partial(function, backend=backend), rivals.name: eager, **rivals.others}
    if backend != "triton" and importlib.util.find_spec("sklearn"):
        functions |= rivals.on_cpu
    if rivals.compiled and op in SPECS:
        if rivals.step:
            functions[COMPILED_STEP] = partial(eager, step=torch.compile(rivals.step, dynamic=False))
        else:
            functions[COMPILED] = torch.compile(eager, dynamic=False)
    if rivals.eager and rivals.reference:
        functions[REFERENCE] = reference
    return functions


def skew(x: Tensor) -> Tensor:
    """Shift row i of [B, H, W, C] right by i: [T, B, H, C] with T = H + W - 1, by padding and one reshape."""
    batch, height, width, size = x.shape
    # A gate of -1e4 is closed: a cell outside the image keeps h = c = 0 exactly.
    padded = F.pad(x, (0, 0, 0, height), value=-1e4).reshape(batch, height * (width + height), size)
    steps = height + width - 1
    return padded[:, : height * steps].reshape(batch, height, steps, size).permute(2, 0, 1, 3).contiguous()


def unskew(x: Tensor, width: int) -> Tensor:
    """[T, B, H, C] -> [B, H, W, C], the inverse of `skew`."""
    steps, batch, height, size = x.shape
    flat = F.pad(x.permute(1, 2, 0, 3).reshape(batch, height * steps, size), (0, 0, 0, height))
    return flat.reshape(batch, height, width + height, size)[:, :, :width]


def step(gates: Tensor, h: Tensor, c: Tensor, taps: Tensor) -> tuple[Tensor, Tensor]:
    """All cells of one anti-diagonal: `gates` [B * H, 4C], `h` and `c` [B, H, C], `taps` [2C, 4C]."""
    batch, height, size = h.shape
    above = F.pad(h, (0, 0, 1, 0))[:, :-1]
    inputs = torch.cat((above, h), 2).view(batch * height, 2 * size)
    i, f, g, o = torch.addmm(gates, inputs, taps).view(batch, height, 4 * size).chunk(4, 2)
    c = torch.addcmul(f.sigmoid() * c, i.sigmoid(), g.tanh())
    return o.sigmoid() * c.tanh(), c


def diagonal_lstm_eager(
    gates: Tensor, weight: Tensor, h0: Tensor | None = None, c0: Tensor | None = None, *, step: Callable = step
) -> Tensor:
    """Good eager: `diagonal_lstm` with one addmm for each anti-diagonal, unbound once.

    The same function as `genfast.ops.diagonal_lstm(gates, weight)`, gradients included: the boundary is zero,
    whatever `h0` and `c0` hold.
    """
    batch, height, width, directions, _ = gates.shape
    size = weight.shape[2]
    maps = []
    for d in range(directions):
        scan = gates[:, :, :, d] if d == 0 else gates[:, :, :, d].flip(2)
        taps = weight[d].reshape(2 * size, 4 * size)
        h = c = gates.new_zeros(batch, height, size)
        hidden = []
        for inputs in skew(scan).flatten(1, 2).unbind(0):
            h, c = step(inputs, h, c, taps)
            hidden.append(h)
        hidden = unskew(torch.stack(hidden), width)
        maps.append(hidden if d == 0 else hidden.flip(2))
    return torch.stack(maps, 3)


def row_step(gates: Tensor, h: Tensor, c: Tensor, taps: Tensor) -> tuple[Tensor, Tensor]:
    """All cells of one row: `gates` [B * W, 4C], `h` and `c` [B, W, C] of the row above, `taps` [3C, 4C]."""
    batch, width, size = h.shape
    above = F.pad(h, (0, 0, 1, 1))
    inputs = torch.cat((above[:, :-2], h, above[:, 2:]), 2).view(batch * width, 3 * size)
    i, f, g, o = torch.addmm(gates, inputs, taps).view(batch, width, 4 * size).chunk(4, 2)
    c = torch.addcmul(f.sigmoid() * c, i.sigmoid(), g.tanh())
    return o.sigmoid() * c.tanh(), c


def row_lstm_eager(
    gates: Tensor, weight: Tensor, h0: Tensor | None = None, c0: Tensor | None = None, *, step: Callable = row_step
) -> Tensor:
    """Good eager: `row_lstm` with one addmm for each row, the rows unbound once.

    The same function as `genfast.ops.row_lstm(gates, weight)`, gradients included: the boundary is zero, whatever
    `h0` and `c0` hold.
    """
    batch, _, width, _ = gates.shape
    h = c = gates.new_zeros(batch, width, weight.shape[1])
    hidden = []
    for inputs in gates.transpose(0, 1).flatten(1, 2).unbind(0):
        h, c = step(inputs, h, c, weight.flatten(0, 1))
        hidden.append(h)
    return torch.stack(hidden, 1)


def diagonal_block_eager(
    x: Tensor,
    input_weight: Tensor,
    input_bias: Tensor,
    weight: Tensor,
    h0: Tensor | None,
    c0: Tensor | None,
    output_weight: Tensor,
    output_bias: Tensor,
) -> Tensor:
    """`diagonal_block` on the good eager scan. The boundary is zero, whatever `h0` and `c0` hold."""
    gates = F.linear(x, input_weight.flatten(1).T, input_bias.flatten()).unflatten(3, input_bias.shape)
    left, right = diagonal_lstm_eager(gates, weight).unbind(3)
    return x + F.linear(left + F.pad(right[:, :-1], (0, 0, 0, 0, 1, 0)), output_weight.T, output_bias)


class SequenceLSTM(nn.Module):
    """torch's bidirectional LSTM with a step for each diagonal: not the same function, the same steps.

    [H + W - 1, B * H, F] -> [H + W - 1, B * H, 2C], input-to-state included.
    """

    def __init__(self, batch: int, height: int, width: int, features: int, size: int):
        super().__init__()
        self.lstm = nn.LSTM(features, size, bidirectional=True)
        self.x = nn.Parameter(torch.randn(height + width - 1, batch * height, features))

    def forward(self) -> Tensor:
        return self.lstm(self.x)[0]


def cross_entropy_of_rows(x: Tensor, logits: Tensor) -> Tensor:
    """`categorical_nll` as people write it: a permuted copy of the logits, one row for each value."""
    rows = logits.permute(0, 1, 3, 4, 2).reshape(-1, logits.shape[2])
    return F.cross_entropy(rows, x.flatten().long(), reduction="none").view(x.shape).sum((1, 2, 3))


def categorical_nll_eager(x: Tensor, logits: Tensor) -> Tensor:
    """`categorical_nll` without the copy: the levels stay dimension 1."""
    return F.cross_entropy(logits.transpose(1, 2), x.long(), reduction="none").sum((1, 2, 3))


def gated_activation_eager(x: Tensor) -> Tensor:
    a, b = x.chunk(2, 1)
    return torch.tanh(a) * torch.sigmoid(b)


def multinomial(logits: Tensor, **_: object) -> Tensor:
    """Draws of the distribution of `categorical_sample`: other numbers, and no say in which."""
    rows = logits.permute(0, 1, 3, 4, 2).reshape(-1, logits.shape[2])
    return torch.multinomial(rows.softmax(1), 1)


def bernoulli(logits: Tensor, **_: object) -> Tensor:
    return torch.bernoulli(torch.sigmoid(logits))


def gaussian_latent_eager(mean: Tensor, log_variance: Tensor, **_: object) -> tuple[Tensor, Tensor]:
    """N(0, I) as the prior, and torch's noise: other numbers, and no say in which."""
    z = mean + (0.5 * log_variance).exp() * torch.randn_like(mean)
    return z, 0.5 * (log_variance.exp() - 1 - log_variance + mean**2).sum(1)


def gaussian_nll_eager(x: Tensor, mean: Tensor, log_variance: Tensor, **_: object) -> Tensor:
    nats = log_variance + (x - mean) ** 2 * (-log_variance).exp()
    return 0.5 * (nats.flatten(1).sum(1) + math.log(2 * math.pi) * x[0].numel())


def bernoulli_nll_eager(x: Tensor, logits: Tensor, **_: object) -> Tensor:
    return F.binary_cross_entropy_with_logits(logits, x.to(logits.dtype), reduction="none").sum((1, 2, 3))


def importance_bound_eager(log_weights: Tensor) -> Tensor:
    return log_weights.logsumexp(1) - math.log(log_weights.shape[1])


def vector_quantize_eager(
    x: Tensor, codebook: Tensor, commitment: float, codebook_weight: float
) -> tuple[Tensor, Tensor, Tensor]:
    """One product, with the matrix of distances."""
    with torch.no_grad():
        codes = torch.addmm((codebook**2).sum(1), x, codebook.T, alpha=-2).argmin(1)
    nearest = F.embedding(codes, codebook)
    loss = codebook_weight * F.mse_loss(nearest, x.detach()) + commitment * F.mse_loss(x, nearest.detach())
    return codes, x + (nearest - x).detach(), loss


def aggregate_posterior_eager(z: Tensor, mean: Tensor, log_variance: Tensor) -> tuple[Tensor, Tensor]:
    """With the tensor of all points, Gaussians and latents."""
    squares = (z[:, None] - mean) ** 2 * (-log_variance).exp()
    log_density = -0.5 * (math.log(2 * math.pi) + log_variance + squares)
    return log_density.sum(2).logsumexp(1), log_density.logsumexp(1)


def codebook_statistics_eager(x: Tensor, codes: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The sums by atomics: in no fixed order."""
    return torch.bincount(codes, minlength=count), x.new_zeros(count, x.shape[1]).index_add_(0, codes, x)


def nearest_neighbors_eager(x: Tensor, y: Tensor, k: int) -> tuple[Tensor, Tensor]:
    parts = [torch.cdist(part, y).topk(k, 1, largest=False) for part in x.float().split(4096)]
    distances, indices = (torch.cat(each) for each in zip(*parts))
    return distances**2, indices


def kernel_sum_eager(x: Tensor, y: Tensor, kernel: str, gamma: float, coef0: float, degree: int) -> Tensor:
    parts = x.float().split(4096)
    if kernel == "polynomial":
        return torch.cat([(gamma * part @ y.T + coef0).pow(degree).sum(1) for part in parts])
    return torch.cat([(-gamma * torch.cdist(part, y) ** 2).exp().sum(1) for part in parts])


def nearest_neighbors_sklearn(x: Tensor, y: Tensor, k: int) -> tuple:
    from sklearn.neighbors import NearestNeighbors

    return NearestNeighbors(n_neighbors=k, algorithm="brute").fit(y.numpy()).kneighbors(x.numpy())


def minibatch_discrimination_eager(features: Tensor, kernel: Tensor, others: Tensor | None) -> Tensor:
    """As every package has it: the tensor of all differences."""
    m = (features @ kernel.flatten(1)).unflatten(1, kernel.shape[1:])
    return (-(m[:, None] - m).abs().sum(3)).exp().sum(1)


def minibatch_discrimination_cdist(features: Tensor, kernel: Tensor, others: Tensor | None) -> Tensor:
    """torch's own matrix of L1 distances, one for each projection."""
    m = (features @ kernel.flatten(1)).unflatten(1, kernel.shape[1:]).transpose(0, 1)
    return (-torch.cdist(m, m, p=1)).exp().sum(2).T


def minibatch_stddev_eager(x: Tensor, group: int, channels: int) -> Tensor:
    batch, features, height, width = x.shape
    parts = x.view(group, batch // group, channels, features // channels, height, width)
    # Not torch.var, which takes 30 times as long over dimension 0.
    deviation = (((parts - parts.mean(0)) ** 2).mean(0) + 1e-8).sqrt().mean((2, 3, 4))
    return torch.cat((x, deviation.repeat(group, 1)[:, :, None, None].expand(-1, -1, height, width)), 1)


def bias_act_eager(x: Tensor, bias: Tensor, activation: str, slope: float, gain: float, limit: float | None) -> Tensor:
    y = x + bias[:, None, None]
    return (F.leaky_relu(y, slope) if activation == "leaky_relu" else y.tanh()) * gain


def upfirdn2d_eager(x: Tensor, filter: Tensor, up: Pair, down: Pair, padding: tuple[int, ...]) -> Tensor:
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


def upfirdn2d_zeros(x: Tensor, filter: Tensor, up: Pair, down: Pair, padding: tuple[int, ...]) -> Tensor:
    """Zeros between the samples and a convolution of all planes, as the resampling of most packages is written."""
    batch, channels, height, width = x.shape
    x = F.pad(x.view(-1, 1, height, 1, width, 1), (0, up[1] - 1, 0, 0, 0, up[0] - 1))
    x = F.pad(x.view(-1, 1, height * up[0], width * up[1]), padding)
    y = F.conv2d(x, (filter[:, None] * filter).flip(0, 1)[None, None], stride=down)
    return y.view(batch, channels, *y.shape[2:])


class Normalized(nn.Module):
    """As many linear layers as there are matrices, each with torch's spectral normalisation in training mode.

    Starts from the state of the arguments `weight` [B, R, C], `u` [B, R] and `v` [B, C] of `spectral_norm`.
    """

    def __init__(self, weight: Tensor, u: Tensor, v: Tensor):
        super().__init__()
        self.layers = nn.ModuleList(parametrizations.spectral_norm(_layer(w)) for w in weight.detach().cpu())
        for layer, left, right in zip(self.layers, u, v):
            state = layer.parametrizations.weight[0]
            state._u.copy_(left.detach())
            state._v.copy_(right.detach())
        self.to(weight.device, weight.dtype)

    def forward(self) -> tuple[Tensor, ...]:
        return tuple(layer.weight for layer in self.layers)

    def leaves(self) -> tuple[Tensor, ...]:
        return tuple(layer.parametrizations.weight.original for layer in self.layers)


def _layer(weight):
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias=False)
    with torch.no_grad():
        layer.weight.copy_(weight)
    return layer


RIVALS = {
    "diagonal_lstm": Rivals(diagonal_lstm_eager, step=step),
    "row_lstm": Rivals(row_lstm_eager, step=row_step),
    # Compiled, its loop over all diagonals would be one graph, which takes minutes to make.
    "diagonal_block": Rivals(diagonal_block_eager, compiled=False, reference=False),
    "categorical_nll": Rivals(
        categorical_nll_eager, others={"cross_entropy of a permuted copy": cross_entropy_of_rows}
    ),
    "gated_activation": Rivals(gated_activation_eager),
    "categorical_sample": Rivals(multinomial, name="torch.multinomial"),
    "bernoulli_sample": Rivals(bernoulli, name="torch.bernoulli"),
    "gaussian_latent": Rivals(gaussian_latent_eager),
    "gaussian_nll": Rivals(gaussian_nll_eager),
    "bernoulli_nll": Rivals(bernoulli_nll_eager),
    "importance_bound": Rivals(importance_bound_eager),
    "vector_quantize": Rivals(vector_quantize_eager),
    "aggregate_posterior": Rivals(aggregate_posterior_eager),
    "codebook_statistics": Rivals(codebook_statistics_eager),
    "nearest_neighbors": Rivals(
        nearest_neighbors_eager, on_cpu={"scikit-learn, brute force": nearest_neighbors_sklearn}, reference=False
    ),
    "kernel_sum": Rivals(kernel_sum_eager),
    "minibatch_discrimination": Rivals(
        minibatch_discrimination_eager, others={"torch.cdist, p=1": minibatch_discrimination_cdist}
    ),
    "minibatch_stddev": Rivals(minibatch_stddev_eager),
    "bias_act": Rivals(bias_act_eager),
    "upfirdn2d": Rivals(upfirdn2d_eager, others={"zeros and one convolution": upfirdn2d_zeros}),
}
