"""Layers of adversarial networks: minibatch statistics, bias and activation, resampling."""

import math

import pytest
import torch
from scipy import signal
from support.ranks import run_two_ranks
from torch import nn

from genfast.nn import BiasAct, Blur2d, Downsample2d, MinibatchDiscrimination, MinibatchStddev, Upsample2d


def images(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def test_minibatch_discrimination_by_loops():
    layer = MinibatchDiscrimination(4, 3, 2).double()
    x = images(5, 4)
    outputs = layer(x).detach()
    assert outputs.shape == (5, 7) and torch.equal(outputs[:, :4], x), "closeness stands beside the features"
    rows = torch.einsum("na,abc->nbc", x, layer.weight.detach()).tolist()
    for i in range(5):
        for b in range(3):
            distances = [sum(abs(rows[i][b][c] - rows[j][b][c]) for c in range(2)) for j in range(5)]
            assert float(outputs[i, 4 + b]) == pytest.approx(sum(math.exp(-d) for d in distances))
    assert float(layer(x[:1])[0, 4].detach()) == pytest.approx(1.0), "one image is close to itself"


def test_minibatch_discrimination_begins_where_distances_count():
    torch.manual_seed(0)
    for features, dim in ((16, 5), (512, 16)):
        layer = MinibatchDiscrimination(features, 50, dim)
        closeness = (layer(torch.randn(32, features))[:, features:].detach() - 1) / 31
        assert 0.2 < float(closeness.mean()) < 0.6


def test_minibatch_discrimination_precision():
    layer, x = MinibatchDiscrimination(4, 3, 2), images(5, 4, dtype=torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(layer(x), layer(x)) and layer(x).dtype == torch.float32
        assert layer(x.bfloat16()).dtype == torch.bfloat16
        outputs = layer(x)
    assert torch.equal(outputs, layer(x)), "distances are taken in float32"


def test_minibatch_stddev_by_loops():
    x = images(6, 4, 2, 3)
    outputs = MinibatchStddev(group=3, channels=2)(x)
    assert outputs.shape == (6, 6, 2, 3) and torch.equal(outputs[:, :4], x)
    for n in range(6):
        members = [n % 2, n % 2 + 2, n % 2 + 4]
        for f in range(2):
            total = 0.0
            for c in (2 * f, 2 * f + 1):
                for place in range(6):
                    values = [float(x[m, c].flatten()[place]) for m in members]
                    mean = sum(values) / 3
                    total += math.sqrt(sum((v - mean) ** 2 for v in values) / 3 + 1e-8) / 12
            torch.testing.assert_close(outputs[n, 4 + f], torch.full((2, 3), total, dtype=torch.float64))
    same = x[:1].expand(4, -1, -1, -1)
    assert float(MinibatchStddev()(same)[:, 4].max()) < 1e-3


@pytest.mark.parametrize(
    ("activation", "judge"),
    [
        ("linear", nn.Identity()),
        ("relu", nn.ReLU()),
        ("leaky_relu", nn.LeakyReLU(0.3)),
        ("tanh", nn.Tanh()),
        ("sigmoid", nn.Sigmoid()),
        ("swish", nn.SiLU()),
    ],
)
def test_bias_act(activation, judge):
    layer = BiasAct(3, activation, slope=0.3, gain=1.5, limit=0.9).double()
    nn.init.normal_(layer.bias)
    for shape in ((4, 3), (4, 3, 5), (4, 3, 2, 5)):
        x = images(*shape)
        bias = layer.bias.view(3, *[1] * (len(shape) - 2))
        torch.testing.assert_close(layer(x), (1.5 * judge(x + bias)).clamp(-0.9, 0.9))
    with torch.autocast("cpu", torch.bfloat16):
        assert BiasAct(3)(images(2, 3).bfloat16()).dtype == torch.bfloat16
    assert torch.autograd.gradgradcheck(layer, images(2, 3).requires_grad_())


FILTERS = [(1, 3, 3, 1), (1, 2, 1), (1, 1), (1, 4, 6, 4, 1), (2, 1, 5)]


@pytest.mark.parametrize("taps", FILTERS)
@pytest.mark.parametrize("factor", [1, 2, 3])
def test_resampling_against_scipy(taps, factor):
    """A full convolution of the zero-stuffed image, from which the layers keep a window of the promised size."""
    x = images(1, 1, 4, 6)
    filter = torch.tensor(taps, dtype=torch.float64) / sum(taps)
    kernel, k = torch.outer(filter, filter).numpy(), len(taps)
    stuffed = torch.zeros(4 * factor, 6 * factor, dtype=torch.float64)
    stuffed[::factor, ::factor] = x[0, 0]
    full = torch.from_numpy(signal.convolve2d(stuffed.numpy(), kernel * factor**2))
    # The centre of a pixel, (factor - 1) / 2 in its block, stays where it is, up to half a pixel.
    start = (k - 1) - (k + factor - 1) // 2
    window = torch.zeros(4 * factor + 9, 6 * factor + 9, dtype=torch.float64)
    window[4 : 4 + min(full.shape[0], 4 * factor + 5), 4 : 4 + full.shape[1]] = full[: 4 * factor + 5, : 6 * factor + 5]
    expected = window[4 + start : 4 + start + 4 * factor, 4 + start : 4 + start + 6 * factor]
    torch.testing.assert_close(Upsample2d(taps, factor).double()(x)[0, 0], expected, atol=1e-6, rtol=1e-6)

    x = images(1, 1, 6, 12)
    full = torch.zeros(26, 32, dtype=torch.float64)
    convolved = torch.from_numpy(signal.convolve2d(x[0, 0].numpy(), kernel))
    full[6 : 6 + convolved.shape[0], 6 : 6 + convolved.shape[1]] = convolved
    start = 6 + (k - 1) - (k - factor + 1) // 2
    expected = full[start : start + 6 : factor, start : start + 12 : factor]
    torch.testing.assert_close(Downsample2d(taps, factor).double()(x)[0, 0], expected, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("taps", FILTERS[:4])
def test_resampling_keeps_brightness_and_place(taps):
    flat = torch.ones(1, 2, 12, 12)
    inner = (..., slice(4, -4), slice(4, -4))
    even = len(taps) % 2 == 0
    torch.testing.assert_close(
        Upsample2d(taps)(flat)[inner], torch.ones(1, 2, 16, 16), atol=0.0 if even else 1.0, rtol=1e-5
    )
    torch.testing.assert_close(Downsample2d(taps)(flat)[..., 2:-2, 2:-2], torch.ones(1, 2, 2, 2))
    torch.testing.assert_close(Blur2d(taps)(flat)[inner], torch.ones(1, 2, 4, 4))
    x = images(2, 3, 6, 6)
    mirrored = x.flip(2, 3)
    for layer in (Upsample2d(taps), Downsample2d(taps)) if even else (Blur2d(taps),):
        layer = layer.double()
        torch.testing.assert_close(layer(mirrored), layer(x).flip(2, 3))


def test_a_filter_of_two_dimensions():
    taps = torch.outer(torch.tensor([1.0, 3, 3, 1]), torch.tensor([1.0, 3, 3, 1])).tolist()
    x = images(2, 3, 4, 6)
    for kind in (Upsample2d, Downsample2d, Blur2d):
        torch.testing.assert_close(kind(taps).double()(x), kind().double()(x))
    assert Blur2d([[1.0, 2, 1]]).double()(x).shape == x.shape


def test_state_dicts_hold_no_filters():
    layers = nn.Sequential(Upsample2d(), Downsample2d(), Blur2d(), MinibatchStddev())
    assert not layers.state_dict() and Upsample2d().double()(images(1, 1, 2, 2)).dtype == torch.float64
    assert Upsample2d()(images(1, 1, 2, 2).bfloat16()).dtype == torch.bfloat16


def test_compiles_as_one_graph():
    net = nn.Sequential(
        nn.Conv2d(1, 2, 1), BiasAct(2), Downsample2d(), MinibatchStddev(), nn.Flatten(), nn.Linear(12, 3)
    )
    net = nn.Sequential(*net, MinibatchDiscrimination(3, 2, 2)).double()
    x = images(4, 1, 4, 4)
    torch.testing.assert_close(torch.compile(net, fullgraph=True, backend="eager")(x), net(x))


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (lambda: MinibatchDiscrimination(0, 3, 2), ValueError, "features must be at least 1; got 0"),
        (lambda: MinibatchDiscrimination(4, 3.0, 2), TypeError, "kernels must be an int; got 3.0"),
        (lambda: MinibatchDiscrimination(4, 3, 2)(torch.zeros(2, 4, 1, 1)), ValueError, r"x must have shape \[B, A\]"),
        (lambda: MinibatchStddev(group=1), ValueError, "group must be at least 2"),
        (lambda: MinibatchStddev()(torch.zeros(1, 2, 4, 4)), ValueError, "minibatch_stddev: .*2"),
        (lambda: MinibatchStddev()(torch.zeros(6, 2, 4, 4)), ValueError, "minibatch_stddev: "),
        (lambda: MinibatchStddev(channels=3)(torch.zeros(4, 2, 4, 4)), ValueError, "minibatch_stddev: "),
        (lambda: BiasAct(3, "gelu"), ValueError, "activation must be one of linear, relu.*; got 'gelu'"),
        (lambda: BiasAct(3, limit=-1.0), ValueError, "limit"),
        (lambda: BiasAct(3)(torch.zeros(2, 4)), ValueError, r"bias must have shape \[C\] with C=4; got \(3,\)"),
        (lambda: Upsample2d(factor=0), ValueError, "Upsample2d: factor must be at least 1; got 0"),
        (lambda: Downsample2d(factor=2.0), TypeError, "Downsample2d: factor must be an int; got 2.0"),
        (lambda: Downsample2d()(torch.zeros(1, 1, 5, 4)), ValueError, "H and W multiples of 2; got"),
        (lambda: Blur2d((1, -1)), ValueError, "Blur2d: filter must be .* with a sum other than 0; got"),
        (lambda: Blur2d(()), ValueError, "Blur2d: filter must be"),
    ],
)
def test_bad_input(call, error, text):
    with pytest.raises(error, match=text):
        call()


RANK = """
import sys, torch
from torch import distributed
from genfast.nn import MinibatchDiscrimination

rank, path = int(sys.argv[1]), sys.argv[2]
torch.set_num_threads(1)
distributed.init_process_group("gloo", init_method=f"file://{path}", rank=rank, world_size=2)
torch.manual_seed(0)
whole = torch.randn(6, 4, dtype=torch.float64)
layer = MinibatchDiscrimination(4, 3, 2, gather=True).double()
target = torch.randn(6, 7, dtype=torch.float64)

def step(x, target):
    return ((layer(x) - target) ** 2).mean()

def averaged(tensor):
    tensor = tensor.clone()
    distributed.all_reduce(tensor)
    return tensor / 2

mine = slice(3 * rank, 3 * rank + 3)
x = whole[mine].clone().requires_grad_()
made = layer(x).detach()
loss = step(x, target[mine])
loss.backward()
gradient, kernel = x.grad / 2, averaged(layer.weight.grad)
layer.zero_grad()

# Second order: the squared gradients of one loss over all processes.
x = whole[mine].clone().requires_grad_()
(slope,) = torch.autograd.grad(step(x, target[mine]) / 2, x, create_graph=True)
slope.square().sum().backward()
second, second_kernel = x.grad, 2 * averaged(layer.weight.grad)
layer.zero_grad()
total = 2 * averaged(loss.detach())
distributed.barrier()
distributed.destroy_process_group()

x = whole.clone().requires_grad_()
torch.testing.assert_close(made, layer(x).detach()[mine])
judge = step(x, target)
judge.backward()
torch.testing.assert_close(total / 2, judge.detach())
torch.testing.assert_close(gradient, x.grad[mine])
torch.testing.assert_close(kernel, layer.weight.grad)
assert gradient.abs().min() > 0
layer.zero_grad()
x = whole.clone().requires_grad_()
(slope,) = torch.autograd.grad(step(x, target), x, create_graph=True)
slope.square().sum().backward()
torch.testing.assert_close(second, x.grad[mine])
torch.testing.assert_close(second_kernel, layer.weight.grad)
assert not torch.allclose(layer(whole[mine]), made), "alone it is another layer"
"""


def test_gather_is_one_process_with_the_whole_batch(tmp_path):
    run_two_ranks(RANK, tmp_path)
