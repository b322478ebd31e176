"""Every operation of torch that a pixel program computes, in a small causal model, against the model's own forward."""

import math

import pytest
import torch
from support.compiled import Function, assert_compiled, causal
from torch import nn
from torch.nn import functional as F

from genfast.engine.compiler import compile_program
from genfast.engine.compiler.plan import NotIncremental


def constant(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def last(function):
    """A function of [B, H, W, F], between permutations."""
    return lambda x: function(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


def rows(function):
    """A function of [B * H * W, F]."""

    def flattened(x):
        y = x.permute(0, 2, 3, 1)
        return function(y.reshape(-1, y.shape[-1])).view(*y.shape[:3], -1).permute(0, 3, 1, 2)

    return flattened


def pixels(function):
    """A function of [B, F, H * W]."""
    return lambda x: function(x.flatten(2)).unflatten(2, x.shape[2:])


W = constant(6, 6) * 0.4
V, WIDE = constant(6, seed=1), constant(6, 12, seed=2) * 0.3
ORDER = torch.tensor([2, 0, 1, 5, 4, 3])
MASK = torch.tensor([True, False, True, True, False, False])
LN, BN1, BN2 = nn.LayerNorm(6), nn.BatchNorm1d(6).eval(), nn.BatchNorm1d(6).eval()
for norm in (LN, BN1, BN2):
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
for norm in (BN1, BN2):
    norm.running_mean.normal_()
    norm.running_var.uniform_(0.5, 2)
SLOPES = nn.Parameter(constant(6, seed=3).abs())

ACTIVATIONS = {
    "glu": lambda x: F.glu(torch.cat((x, x * 2), 1), 1),
    "glu of the last features": last(lambda x: F.glu(x.repeat(1, 1, 1, 2), -1)),
    "gelu": F.gelu,
    "gelu by tanh": lambda x: F.gelu(x, approximate="tanh"),
    "silu": F.silu,
    "softplus": F.softplus,
    "softplus of beta": lambda x: F.softplus(x, beta=3.0),
    "softplus with a low threshold": lambda x: F.softplus(x, beta=2.0, threshold=0.5),
    "mish": F.mish,
    "prelu": lambda x: F.prelu(x, SLOPES),
    "prelu of one slope": lambda x: F.prelu(x, SLOPES[:1]),
    "selu": F.selu,
    "celu": lambda x: F.celu(x, 0.4),
    "elu": lambda x: F.elu(x, 0.3),
    "relu6": lambda x: F.relu6(x * 8),
    "hardtanh": F.hardtanh,
    "hardtanh of a range": lambda x: F.hardtanh(x, -0.2, 0.4),
    "hardswish": lambda x: F.hardswish(x * 4),
    "hardsigmoid": lambda x: F.hardsigmoid(x * 4),
    "hardshrink": F.hardshrink,
    "softshrink": lambda x: F.softshrink(x, 0.2),
    "softsign": F.softsign,
    "tanhshrink": F.tanhshrink,
    "threshold": lambda x: F.threshold(x, 0.1, -0.3),
    "leaky_relu": lambda x: F.leaky_relu(x, 0.2),
    "rrelu": F.rrelu,
    "log_sigmoid": F.logsigmoid,
    "in place": lambda x: F.silu(F.hardtanh(x * 2, inplace=True), inplace=True),
}
ARITHMETIC = {
    "exp": torch.exp,
    "exp2": torch.exp2,
    "expm1": torch.expm1,
    "log": lambda x: (x.abs() + 0.1).log(),
    "log1p": lambda x: x.square().log1p(),
    "log2": lambda x: (x.exp()).log2() + (x.exp()).log10(),
    "pow": lambda x: x**2 + x.pow(3) - x**5 + x**0 + x**1,
    "pow of fractions": lambda x: x.abs() ** 0.5 + x.abs() ** 1.5 + (x.abs() + 0.2) ** -0.7 + (x.abs() + 1) ** -2,
    "pow of a constant": lambda x: 3**x,
    "rsqrt": lambda x: (x**2 + 0.1).rsqrt(),
    "sqrt": lambda x: (x**2 + 0.1).sqrt(),
    "reciprocal": lambda x: 1 / (x.abs() + 1) + (x.abs() + 2).reciprocal(),
    "division": lambda x: x / (x.abs() + 0.5) + x.div(2 + x.sigmoid()) + V.view(6, 1, 1) / (2 + x.sigmoid()),
    "abs": torch.abs,
    "sign": torch.sign,
    "addcmul": lambda x: torch.addcmul(x, x, V.view(6, 1, 1), value=0.5) + torch.addcdiv(x, x, x.exp()),
    "lerp": lambda x: torch.lerp(x, x.tanh(), 0.3) + torch.lerp(x, V.view(6, 1, 1), 0.2) + x.lerp(-x, x.sigmoid()),
    "logaddexp": lambda x: torch.logaddexp(x, -2 * x),
    "erf": torch.erf,
}
CHOICES = {
    "clamp": lambda x: x.clamp(-0.2, 0.3) + x.clamp(min=0.1) + x.clamp_max(0.2) + x.clamp_min(-0.1),
    "clamp by constants": lambda x: x.clamp(-V.abs().view(6, 1, 1), V.abs().view(6, 1, 1)),
    "maximum": lambda x: torch.maximum(x, 0.3 * x) + torch.max(x, x.flip(1)) + torch.maximum(x, V.view(6, 1, 1)),
    "minimum": lambda x: torch.minimum(x, 0.3 * x) + torch.min(x, x.roll(1, 1)),
    "where": lambda x: torch.where(x > 0, x, 0.1 * x) + torch.where(x.ge(0.1), 1.0, x),
    "where of numbers": lambda x: torch.where(x < 0.1, 1.0, -1.0) * x,
    "where nothing else is finite": lambda x: torch.where(x > 0, x.log(), x),
    "where by a constant": lambda x: torch.where(MASK.view(6, 1, 1), x, -x) + torch.where(MASK.view(6, 1, 1), x, 0.5),
    "masked_fill": lambda x: x.masked_fill(x < 0, 0.2) + x.masked_fill(MASK.view(6, 1, 1), -1.0),
    "comparisons": lambda x: x * (x > 0) + (x <= 0.1).float() + (x == x.relu()).float() - (x != x.relu()).float(),
    "logic": lambda x: x * ((x > 0) & (x < 0.3) | ~(x > -0.2)) + torch.logical_not(x > 0).float() + (x > 0).bool() * x,
}
STATISTICS = {
    "layer norm": last(lambda x: F.layer_norm(x, (6,))),
    "layer norm with weights": last(LN),
    "layer norm of rows": rows(LN),
    "layer norm of two dimensions": lambda x: (
        F.layer_norm(x.unflatten(1, (2, 3)).permute(0, 3, 4, 1, 2), (2, 3)).flatten(3).permute(0, 3, 1, 2)
    ),
    "layer norm of parts": lambda x: (
        F.layer_norm(x.unflatten(1, (2, 3)).permute(0, 3, 4, 1, 2), (3,)).flatten(3).permute(0, 3, 1, 2)
    ),
    "native layer norm": last(lambda x: torch.native_layer_norm(x, (6,), LN.weight, LN.bias, 1e-5)[0]),
    "rms norm": last(lambda x: F.rms_norm(x, (6,))),
    "rms norm with weights": last(lambda x: F.rms_norm(x, (6,), V, 1e-3)),
    "rms norm by hand": lambda x: x * torch.rsqrt(x.pow(2).mean(1, keepdim=True) + 1e-6) * V.view(6, 1, 1),
    "layer norm by hand": lambda x: (
        (x - x.mean(1, keepdim=True)) / (x.var(1, keepdim=True, unbiased=False) + 1e-5).sqrt()
    ),
    "group norm of rows": rows(lambda x: F.group_norm(x, 3, V, V)),
    "batch norm of rows": rows(BN1),
    "batch norm of pixels": pixels(BN2),
    "mean": lambda x: x - x.mean(1, keepdim=True) + x.mean(1)[:, None] + x.mean((1,), True),
    "sum": last(lambda x: x - x.sum(-1, keepdim=True) + x.sum(3).unsqueeze(-1)),
    "var": lambda x: x * x.var(1, keepdim=True) + x.std(1, keepdim=True) + x.std(1, unbiased=False)[:, None],
    "norm": lambda x: F.normalize(x, dim=1) + x.norm(dim=1, keepdim=True) + x.norm(p=1, dim=1, keepdim=True),
    "largest": lambda x: (
        x - x.amax(1, keepdim=True) + x.max(1, keepdim=True)[0] + x.min(1)[0][:, None] + x.amin(1, True)
    ),
    "softmax": lambda x: x.softmax(1) + F.log_softmax(2 * x, 1),
    "softmax of the last features": last(lambda x: x.softmax(-1)),
    "softmax of parts": lambda x: (
        x.unflatten(1, (2, 3)).softmax(2).flatten(1, 2) + x.unflatten(1, (2, 3)).softmax(1).flatten(1, 2)
    ),
    "softmax of a masked input": lambda x: x.masked_fill(MASK.view(6, 1, 1), -math.inf).softmax(1),
    "logsumexp": lambda x: x - x.logsumexp(1, keepdim=True) + x.logsumexp(1)[:, None],
    "variance and mean": lambda x: x - torch.var_mean(x, 1, keepdim=True)[1] * torch.std_mean(x, 1, keepdim=True)[0],
    "linalg norm": lambda x: x / torch.linalg.norm(x, dim=1, keepdim=True),
    "prod": lambda x: x * x[:, :3].prod(1, keepdim=True),
    "cumsum": lambda x: x.cumsum(1),
    "cosine": lambda x: x * F.cosine_similarity(x, x.flip(1) + 1, 1)[:, None],
}
PRODUCTS = {
    "einsum": lambda x: torch.einsum("bchw,oc->bohw", x, W) + torch.einsum("oc, bchw -> bohw", W, x),
    "einsum of the last features": last(lambda x: torch.einsum("...c,cd->...d", x, W)),
    "einsum of parts": lambda x: torch.einsum("bgchw,gco->bgohw", x.unflatten(1, (2, 3)), W.view(2, 3, 6)).sum(1),
    "einsum of weights alone": lambda x: torch.einsum("bchw,c->bchw", x, V),
    "einsum without an arrow": lambda x: torch.einsum("bhwc,cd", x.permute(0, 2, 3, 1), W),
    "einsum of one": lambda x: (
        torch.einsum("bchw->bhwc", x).permute(0, 3, 1, 2) + torch.einsum("bchw->bhw", x)[:, None]
    ),
    "einsum of two values": lambda x: x * torch.einsum("bchw,bchw->bhw", x, x.tanh())[:, None],
    "einsum to an outer product": lambda x: torch.einsum("bchw,bdhw->bcdhw", x, x.tanh()).mean(2),
    "matmul": last(lambda x: x @ W),
    "matmul from the left": pixels(lambda x: W @ x),
    "matmul with a vector": lambda x: x + (x.permute(0, 2, 3, 1) @ V)[:, None],
    "matmul of parts": lambda x: (
        (x.unflatten(1, (2, 3)).permute(0, 3, 4, 1, 2).unsqueeze(-2) @ W.view(2, 3, 6))
        .sum(3)
        .squeeze(3)
        .permute(0, 3, 1, 2)
    ),
    "bmm": pixels(lambda x: torch.bmm(W.expand(x.shape[0], 6, 6), x)),
    "baddbmm": pixels(lambda x: torch.baddbmm(x, W.expand(x.shape[0], 6, 6), x, beta=0.5, alpha=2)),
    "mm": rows(lambda x: torch.mm(x, W)),
    "addmm": rows(lambda x: torch.addmm(V, x, W, beta=0.5, alpha=2)),
    "tensordot": last(lambda x: torch.tensordot(x, W, dims=([3], [1]))),
    "linear": last(lambda x: F.linear(x, W, V)),
    "_convolution": lambda x: torch.ops.aten._convolution(
        F.pad(x, (1, 0)), constant(6, 6, 1, 2), V, [1, 1], [0, 0], [1, 1], False, [0, 0], 1, False, False, True, True
    ),
    "conv1d of pixels": pixels(lambda x: F.conv1d(x, W[:, :, None], V)),
}
REARRANGED = {
    "index": lambda x: x[:, ORDER] + x[:, [5, 4, 3, 0, 1, 2]],
    "index of two dimensions": lambda x: x[:, ORDER.view(2, 3)].flatten(1, 2),
    "index_select": lambda x: x.index_select(1, ORDER),
    "gather": lambda x: x.gather(1, ORDER.view(1, 6, 1, 1).expand(x.shape)),
    "take_along_dim": lambda x: x.take_along_dim(ORDER.view(1, 6, 1, 1), 1),
    "axes": lambda x: torch.concatenate((x.swapdims(1, 2).swapdims(1, 2), x.moveaxis(1, 3).moveaxis(3, 1)), 1)[:, 3:9],
    "flip": lambda x: x.flip(1) + x.roll(2, 1),
    "repeat": lambda x: x[:, :3].repeat(1, 2, 1, 1) + x[:, :2].tile((3, 1, 1)),
    "repeat_interleave": lambda x: x[:, :3].repeat_interleave(2, 1),
    "view_as": lambda x: x.flatten(2).view_as(x) + x.flatten(2).reshape_as(x),
    "expand": lambda x: x[:, :1].expand(-1, 6, -1, -1) + x[:, :1].expand_as(x) * x,
    "shuffle": lambda x: F.channel_shuffle(x, 2),
    "turned": rows(lambda x: x.t().t()),
    "windows": lambda x: (
        F.unfold(x, 3, padding=1).unflatten(1, (6, 9))[:, :, :5].mean(2).unflatten(2, x.shape[2:])
        + F.unfold(x, (2, 3), dilation=(2, 1), padding=(1, 1))[:, ::6].unflatten(2, x.shape[2:])
    ),
    "functions of what is scattered": lambda x: x[:, ORDER].exp() + x[:, ORDER].sigmoid() * x + 2 * x.flip(1) + 1,
}
OPERATIONS = {**ACTIVATIONS, **ARITHMETIC, **CHOICES, **STATISTICS, **PRODUCTS, **REARRANGED}


@pytest.mark.parametrize("name", OPERATIONS)
def test_operations(name):
    torch.manual_seed(0)
    model = causal(Function(OPERATIONS[name]))
    model[0].weight.data *= 3
    assert_compiled(model, input_range=(-1, 1))


@pytest.mark.parametrize(
    "name", ["layer norm", "rms norm by hand", "softmax", "gelu", "functions of what is scattered"]
)
def test_few_instructions_for_many_features(name):
    """A value that serves all features is copied to them by one instruction, not by one for each."""
    torch.manual_seed(0)
    function = OPERATIONS[name]
    wide = {"layer norm": last(lambda x: F.layer_norm(x, (64,))), "softmax": lambda x: x.softmax(1)}
    wide["rms norm by hand"] = lambda x: x * torch.rsqrt(x.pow(2).mean(1, keepdim=True) + 1e-6)
    order = torch.randperm(64)
    wide["functions of what is scattered"] = lambda x: x[:, order].exp() + x[:, order] * x
    model = nn.Sequential(*causal()[:1], nn.Conv2d(6, 64, 1), Function(wide.get(name, function)), nn.Conv2d(64, 4, 1))
    program = assert_compiled(model.eval())
    assert sum(map(len, program.pixel)) <= 24


class Line(nn.Module):
    """A causal Conv1d stack on images of one row, or of one column."""

    def __init__(self):
        super().__init__()
        self.first, self.second, self.last = nn.Conv1d(1, 6, 5, padding=2), nn.Conv1d(6, 6, 2), nn.Conv1d(6, 4, 1)
        self.norm = nn.BatchNorm1d(6)
        self.first.weight.data[..., 2:] = 0

    def forward(self, x):
        size = x.shape[2:]
        x = F.relu(self.norm(self.first(x.flatten(2))))
        x = F.conv1d(F.pad(x, (2, 0)), self.second.weight, self.second.bias, dilation=2)
        return self.last(x).unflatten(2, size)


@pytest.mark.parametrize("shape", [(1, 1, 7), (1, 6, 1)])
def test_convolutions_of_lines(shape):
    torch.manual_seed(0)
    assert_compiled(Line().eval(), shape)


REFUSED = {
    "group_norm .*later pixels": lambda x: F.group_norm(x, 2),
    "instance_norm .*later pixels": F.instance_norm,
    "layer_norm .*later pixels": lambda x: F.layer_norm(x, x.shape[1:]),
    "mean .*later pixels": lambda x: x - x.mean((2, 3), keepdim=True),
    "sum .*later pixels": lambda x: x + x.sum(),
    "amax .*later pixels": lambda x: x - x.amax(3, keepdim=True),
    "softmax .*later pixels": lambda x: x.softmax(3),
    "einsum .*later pixels": lambda x: x + torch.einsum("bchw->bc", x)[..., None, None],
    "index .*of batch, rows or columns": lambda x: x[:, :, [4, 3, 2, 1, 0]],
    "roll .*of batch, rows or columns": lambda x: x.roll(1, 3),
    "a norm of order 3": lambda x: x.norm(p=3, dim=1, keepdim=True) + x,
    "powers with different exponents": lambda x: x ** torch.arange(6.0).view(6, 1, 1),
    "more than two operands": lambda x: torch.einsum("bchw,c,c->bchw", x, V, V),
    "windows with strides": lambda x: x + F.unfold(x, 3, padding=1, stride=5).mean(),
    "more than a function of one value": lambda x: x.div(2, rounding_mode="floor"),
}


@pytest.mark.parametrize("message", REFUSED)
def test_what_is_refused_by_name(message):
    with pytest.raises(NotIncremental, match=message):
        compile_program(causal(Function(REFUSED[message])), shape=(1, 5, 5), levels=4, input_range=(0, 1))
