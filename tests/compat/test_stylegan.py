"""The calls of StyleGAN2 and StyleGAN3 code beside their formulas in torch: outputs, gradients of two orders."""

import pytest
import torch
from torch.nn import functional as F

from genfast import testing
from genfast.compat import stylegan2
from genfast.compat.stylegan3 import bias_act, upfirdn2d

parametrize = pytest.mark.parametrize
ACTIVATIONS = {
    "linear": (lambda x: x, 1),
    "relu": (torch.relu, 2**0.5),
    "lrelu": (lambda x: F.leaky_relu(x, 0.2), 2**0.5),
    "tanh": (torch.tanh, 1),
    "sigmoid": (torch.sigmoid, 1),
    "swish": (lambda x: x * torch.sigmoid(x), 2**0.5),
}


def plain(x, f, up=(1, 1), down=(1, 1), sides=(0, 0, 0, 0), flip=False, gain=1.0):
    """Zeros between the pixels, padding, a convolution of every channel, every down-th pixel; factors (x, y)."""
    n, c, h, w = x.shape
    spread = x.new_zeros(n, c, h, up[1], w, up[0])
    spread[:, :, :, 0, :, 0] = x
    spread = F.pad(spread.reshape(n, c, h * up[1], w * up[0]), sides)
    f = f if f.ndim == 2 else torch.outer(f, f)
    f = (f if flip else f.flip(0, 1)).to(x) * gain
    return F.conv2d(spread, f.expand(c, 1, *f.shape), groups=c)[:, :, :: down[1], :: down[0]]


def compare(call, expected, *inputs, tolerance=1e-5):
    """The outputs, the gradients of a random projection and those of their squares."""
    results = []
    for function in (call, expected):
        given = [x.detach().clone().requires_grad_() for x in inputs]
        y = function(*given)
        first = torch.autograd.grad(
            (y * torch.cos(torch.arange(y.numel()).view(y.shape))).sum(), given, create_graph=True
        )
        penalty = sum(g.square().sum() for g in first) + (y**3).sum()
        second = torch.autograd.grad(penalty, given)
        results.append([y, *first, *second])
    for mine, other in zip(*results):
        torch.testing.assert_close(mine, other, rtol=tolerance, atol=tolerance)


CASES = [
    {"f": (1, 3, 3, 1)},
    {"f": (1, 3, 3, 1), "up": 2, "padding": (2, 1)},
    {"f": (1, 3, 3, 1), "down": 2, "padding": (1, 1, 2, 0), "gain": 3},
    {"f": (1, 2, 5), "up": (3, 2), "down": (1, 2), "padding": (3, 0, -1, 2), "flip_filter": True},
    {"f": tuple(range(1, 13)), "up": 2, "down": 2, "padding": 6, "gain": 4},
    {"f": ((1, 2, 3), (4, 5, 6)), "down": (2, 1), "padding": -1},
]


@parametrize("case", CASES)
def test_upfirdn2d_of_stylegan3(case):
    options = dict(case)
    f = upfirdn2d.setup_filter(options.pop("f"))
    pair = lambda v: (v, v) if isinstance(v, int) else v  # noqa: E731
    padding = options.get("padding", 0)
    sides = pair(padding) if len(pair(padding)) == 4 else (*[pair(padding)[0]] * 2, *[pair(padding)[1]] * 2)
    x = torch.randn(2, 3, 9, 11)

    def expected(x):
        up, down = pair(options.get("up", 1)), pair(options.get("down", 1))
        return plain(x, f, up, down, sides, options.get("flip_filter", False), options.get("gain", 1))

    for impl in ("cuda", "ref"):
        compare(lambda x, impl=impl: upfirdn2d.upfirdn2d(x, f, impl=impl, **options), expected, x, tolerance=2e-5)


@parametrize("taps", [(1, 3, 3, 1), (1, 2, 1), tuple(range(1, 10))])
def test_sizes_of_the_three_wrappers(taps):
    """Twice, half and the same size, and the mean of a constant image stays where no border is seen."""
    x, f = torch.ones(1, 2, 24, 26), upfirdn2d.setup_filter(taps)
    for y, size in (
        (upfirdn2d.upsample2d(x, f), (48, 52)),
        (upfirdn2d.downsample2d(x, f), (12, 13)),
        (upfirdn2d.filter2d(x, f), (24, 26)),
        (upfirdn2d.upsample2d(x, f, up=(3, 1), padding=1), (26, 80)),
    ):
        assert y.shape[2:] == size
        inside = y[:, :, size[0] // 2 - 3 : size[0] // 2 + 3, size[1] // 2 - 3 : size[1] // 2 + 3]
        assert float(inside.mean()) == pytest.approx(1, abs=1e-5)  # over whole periods of zeros between pixels
    noise = torch.randn(1, 2, 24, 26)
    assert upfirdn2d.filter2d(noise, f, padding=2).shape == (1, 2, 28, 30)
    torch.testing.assert_close(upfirdn2d.filter2d(noise, None), noise)
    torch.testing.assert_close(
        upfirdn2d.upsample2d(noise, f, flip_filter=True, gain=2),
        2 * upfirdn2d.upsample2d(noise, f.flip(tuple(range(f.ndim)))),
    )


def test_setup_filter():
    assert upfirdn2d.setup_filter([1, 3, 3, 1]).shape == (4, 4)
    assert upfirdn2d.setup_filter([1] * 8).shape == (8,)
    assert upfirdn2d.setup_filter([1, 1], separable=True).shape == (2,)
    assert upfirdn2d.setup_filter(None).tolist() == [[1]]
    for taps in ([1, 2], [1] * 9, [[1, 2], [3, 4]]):
        f = upfirdn2d.setup_filter(taps, gain=4)
        assert float((f if f.ndim == 2 else torch.outer(f, f)).sum()) == pytest.approx(4)
    assert upfirdn2d.setup_filter([[1, 2], [3, 4]], normalize=False, flip_filter=True).tolist() == [[4, 3], [2, 1]]
    with pytest.raises(ValueError, match="f must have shape"):
        upfirdn2d.setup_filter([[1, 2]], separable=True)


@parametrize("act", ACTIVATIONS)
@parametrize("shape, dim", [((5, 3), 1), ((2, 3, 4, 5), 1), ((2, 4, 3), 2), ((3, 4, 2, 2), 0)])
def test_bias_act_of_stylegan3(act, shape, dim):
    function, gain = ACTIVATIONS[act]
    view = [-1 if axis == dim else 1 for axis in range(len(shape))]

    def expected(x, b):
        return (function(x + b.view(view)) * gain).clamp(-0.9, 0.9)

    compare(lambda x, b: bias_act.bias_act(x, b, dim, act, clamp=0.9), expected, torch.randn(shape), torch.randn(3))


def test_gains_as_layers_read_them():
    gains = {act: entry.def_gain for act, entry in bias_act.activation_funcs.items()}
    x = torch.randn(2, 3)
    for act, gain in gains.items():
        torch.testing.assert_close(bias_act.bias_act(x, act=act), bias_act.bias_act(x, act=act, gain=gain))
    assert gains["linear"] == 1 and gains["lrelu"] == gains["relu"] == 2**0.5


def test_options_of_bias_act():
    x = torch.randn(2, 3)
    torch.testing.assert_close(bias_act.bias_act(x, act="lrelu", alpha=0.5, gain=3), 3 * F.leaky_relu(x, 0.5))
    torch.testing.assert_close(bias_act.bias_act(x, impl="ref"), x)
    for options in ({"act": "softplus"}, {"act": "relu", "alpha": 0.2}, {"impl": "triton"}):
        name = next(iter({**options}.keys() - ({"act"} if "alpha" in options else set())))
        with pytest.raises(ValueError, match=f"bias_act: {name} must be .*; got"):
            bias_act.bias_act(x, **options)


@parametrize("up, down, pad", [(1, 1, (2, 1)), (2, 1, (2, 1)), (1, 2, (1, 1)), ((2, 3), (1, 2), (1, 2, 3, 4))])
def test_upfirdn2d_of_stylegan2(up, down, pad):
    kernel, x = torch.rand(4, 3), torch.randn(2, 3, 7, 8)
    sides = (*pad, *pad) if len(pad) == 2 else pad
    factors = [(v, v) if isinstance(v, int) else v for v in (up, down)]
    compare(
        lambda x: stylegan2.upfirdn2d(x, kernel, up=up, down=down, pad=pad),
        lambda x: plain(x, kernel, *factors, sides),
        x,
    )
    with pytest.raises(ValueError, match=r"upfirdn2d: kernel must have shape \[KH, KW\]; got \(4,\)"):
        stylegan2.upfirdn2d(x, kernel[:, 0])


@parametrize("shape", [(5, 3), (2, 3, 4, 4), (2, 3, 6)])
def test_fused_leaky_relu(shape):
    def expected(x, b, slope=0.2, scale=2**0.5):
        return F.leaky_relu(x + b.view(1, -1, *[1] * (len(shape) - 2)), slope) * scale

    x, b = torch.randn(shape), torch.randn(3)
    compare(stylegan2.fused_leaky_relu, expected, x, b)
    compare(lambda x, b: stylegan2.fused_leaky_relu(x, b, 0.3, 2), lambda x, b: expected(x, b, 0.3, 2), x, b)
    layer = stylegan2.FusedLeakyReLU(3)
    assert list(layer.state_dict()) == ["bias"]
    layer.load_state_dict({"bias": b})
    torch.testing.assert_close(layer(x), expected(x, b))
    without = stylegan2.FusedLeakyReLU(3, bias=False)
    assert not without.state_dict()
    torch.testing.assert_close(without(x), expected(x, torch.zeros(3)))
    with pytest.raises(TypeError, match="FusedLeakyReLU: bias must be True or False; got 0.2"):
        stylegan2.FusedLeakyReLU(3, 0.2)


def test_half_types():
    x, b = torch.randn(2, 3, 8, 8, dtype=torch.bfloat16), torch.randn(3)
    assert stylegan2.fused_leaky_relu(x, b).dtype == torch.bfloat16
    assert upfirdn2d.upsample2d(x, upfirdn2d.setup_filter([1, 3, 3, 1])).dtype == torch.bfloat16
    testing.assert_matches(stylegan2.upfirdn2d(x, torch.ones(1, 1)), x)
