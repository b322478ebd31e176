"""The Triton kernels of the adversarial family in Triton's interpreter, with guards around every tensor, through the
public functions. Run by test_triton.py in a process of its own, as triton_interpreted.py is."""

import contextlib

import pytest
import torch
from triton_interpreted import _addresses  # noqa: F401
from triton_interpreted_latent import check, guarded

import genfast
from genfast import testing
from genfast.reference import NON_DIFFERENTIABLE, SPECS
from genfast.reference.bias_act import ACTIVATIONS

OPS = ("minibatch_discrimination", "minibatch_stddev", "bias_act", "upfirdn2d", "spectral_norm")
CASES = [(op, shape, torch.float32) for op in OPS for shape in range(len(SPECS[op].shapes))]
CASES += [(op, shape, torch.float16) for op in OPS for shape in range(1, 5)]
POWER = NON_DIFFERENTIABLE["power_iteration"]


@pytest.mark.parametrize("op, shape, dtype", CASES)
def test_matches_reference(op, shape, dtype):
    spec = SPECS[op]
    check(op, testing.each_tensor(testing.embedded, spec.inputs(spec.shapes[shape], dtype=dtype)))


def check_sums(op, inputs):
    """As `check`, where sums of many terms round in any float32: the error scales with the largest."""
    with guarded(op):
        got = testing.evaluate(getattr(genfast.ops, op), inputs, backend="triton")
    truth = testing.evaluate(getattr(genfast.ops, op), testing.doubled(inputs), backend="reference")
    for name, value in got.items():
        testing.assert_matches(value, truth[name], name=name, atol=1e-5 * max(1.0, truth[name].abs().max().item()))


@pytest.mark.parametrize("shape", range(len(POWER.shapes)))
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
def test_power_iteration(shape, dtype):
    inputs = testing.each_tensor(testing.embedded, POWER.inputs(POWER.shapes[shape], dtype=dtype))
    idle = not inputs["iterations"] or not len(inputs["weight"])
    with contextlib.nullcontext() if idle else guarded("power_iteration"):
        made = genfast.power_iteration(**inputs, backend="triton")
    expected = genfast.power_iteration(**testing.doubled(inputs), backend="reference")
    for given, value, truth in zip((inputs["u"], inputs["v"]), made, expected):
        testing.assert_matches(value, truth)
        assert value.dtype == torch.float32 and (value.data_ptr() != given.data_ptr() or not value.numel())


@pytest.mark.parametrize("op", OPS)
def test_second_order(op):
    """The gradient of the gradient's square: by the reference's formula, of a filter by the kernel itself."""
    inputs = SPECS[op].inputs(SPECS[op].gradcheck[0])

    def penalty(inputs, backend):
        leaves = {name: tensor.clone().requires_grad_() for name, tensor in testing.learned(inputs).items()}
        made = getattr(genfast.ops, op)(**{**inputs, **leaves}, backend=backend)
        first = torch.autograd.grad(made.square().sum(), tuple(leaves.values()), create_graph=True)
        total = sum(gradient.square().sum() for gradient in first)
        return torch.autograd.grad(total, tuple(leaves.values()))

    for name, value, truth in zip(inputs, penalty(inputs, "triton"), penalty(testing.doubled(inputs), "reference")):
        testing.assert_matches(value, truth, name=name, atol=1e-5 * max(1.0, truth.abs().max().item()))


@pytest.mark.parametrize("op", OPS)
def test_same_bits(op):
    inputs = SPECS[op].inputs(SPECS[op].shapes[3])
    first, second = (testing.evaluate(getattr(genfast.ops, op), inputs, backend="triton") for _ in range(2))
    for name, value in first.items():
        testing.assert_identical(second[name], value, name=name)


@pytest.mark.parametrize("op, wanted", [("bias_act", "x"), ("bias_act", "bias"), *(("spectral_norm", w) for w in "uv")])
def test_gradient_of_one_argument(op, wanted):
    inputs = SPECS[op].inputs(SPECS[op].shapes[2])
    leaf, truth = (inputs[wanted].to(dtype, copy=True).requires_grad_() for dtype in (torch.float32, torch.float64))
    with guarded(op):
        getattr(genfast, op)(**{**inputs, wanted: leaf}, backend="triton").square().sum().backward()
    getattr(genfast, op)(**{**testing.doubled(inputs), wanted: truth}, backend="reference").square().sum().backward()
    testing.assert_matches(leaf.grad, truth.grad)
    assert all(tensor.grad is None for name, tensor in testing.learned(inputs).items() if name != wanted)


@pytest.mark.parametrize("size", [8, 9, 20])
@pytest.mark.parametrize("others", [0, 5])
def test_many_values_of_a_projection(size, others):
    """As many as stay on chip, and more: a part of the gradient by each program."""
    check("minibatch_discrimination", SPECS["minibatch_discrimination"].inputs(
        {"B": 9, "A": 3, "K": 3, "C": size, "M": others}
    ))  # fmt: skip


def test_equal_images():
    """An image counts itself, and no gradient leads away from what is the same."""
    features = torch.randn(1, 3).expand(6, 3).clone().requires_grad_()
    made = genfast.minibatch_discrimination(features, torch.randn(3, 4, 2), backend="triton")
    assert (made == 6).all()
    made.sum().backward()
    assert (features.grad == 0).all()


def test_only_others():
    """A process without images still sends gradients to those of the others."""
    kernel, others = torch.randn(3, 4, 2), torch.randn(5, 3)
    with guarded("minibatch_discrimination"):
        made = genfast.minibatch_discrimination(torch.empty(0, 3), kernel.requires_grad_(), others, backend="triton")
        made.sum().backward()
    assert made.shape == (0, 4) and (kernel.grad == 0).all()


@pytest.mark.parametrize("group", [2, 16, 17])
def test_groups_of_one_tile_and_of_more(group):
    x = torch.randn(group * 2, 2, 3, 50)
    check("minibatch_stddev", {"x": x, "group": group, "channels": 2})


def test_images_without_variety():
    x = torch.randn(1, 3, 4, 4).expand(8, 3, 4, 4).clone().requires_grad_()
    made = genfast.minibatch_stddev(x, backend="triton")
    testing.assert_matches(made[:, 3], torch.full((8, 4, 4), 1e-4), atol=1e-9)
    made.sum().backward()
    testing.assert_matches(x.grad, torch.ones_like(x))


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("shape", [(5, 3), (3, 4, 7), (70, 130), (2, 3, 2100)], ids=str)
def test_activations_of_any_shape(activation, shape):
    """A matrix, pixels in and past a tile, more channels than one, more pixels than a program has tiles."""
    inputs = {"x": 3 * torch.randn(shape), "bias": torch.randn(shape[1]), "activation": activation}
    check_sums("bias_act", {**inputs, "slope": 0.1, "gain": 1.5, "limit": 2.0})


def test_channels_last():
    """Read in place: one row for each pixel, and more rows than a program has."""
    x = testing.channels_last(torch.randn(3, 5, 19, 23))
    check_sums("bias_act", {"x": x, "bias": torch.randn(5), "activation": "swish"})
    made = genfast.bias_act(x, torch.randn(5), "relu", backend="triton")
    assert made.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("limit", [None, 0.5, 0.0])
def test_where_the_slope_changes(activation, limit):
    """0 and the limit are part of what has a gradient as torch has it; what is no number stays none."""
    points = torch.tensor([[0.0, -0.0, 0.5, -0.5, 3.0, -3.0, 1e30, -1e30, torch.inf, -torch.inf, torch.nan]])
    if activation == "swish":
        points = points[:, :6]
    results = []
    for x, backend in ((points.clone(), "triton"), (points.double(), "reference")):
        x.requires_grad_()
        y = genfast.bias_act(x, None, activation, limit=limit, backend=backend)
        (gradient,) = torch.autograd.grad(y, x, torch.full_like(y, 2.0))
        results.append((y, gradient))
    for value, truth in zip(*results):
        known = ~points.isnan()
        assert (value.isnan() == truth.isnan())[known].all()
        finite = truth.isfinite() & known
        testing.assert_matches(value[finite], truth[finite])
        assert torch.equal(value[~finite & known].double(), truth[~finite & known])
    assert results[0][0][points.isnan()].isnan().all()


FILTERS = [
    {"up": (3, 2), "down": (2, 3), "padding": (4, -1, -2, 5)},
    {"up": 5, "down": 4, "padding": 7},
    {"up": 1, "down": 3, "padding": (-2, 1, 3, -1)},
    {"up": (1, 2), "down": (2, 1), "padding": (10, 13, 20, 9)},
]


@pytest.mark.parametrize("taps", [(4,), (3, 2), (1, 6)], ids=str)
@pytest.mark.parametrize("settings", FILTERS, ids=str)
def test_factors_and_paddings(settings, taps):
    """Cropped, and padded far beyond the image; maps of one program, and rows and columns of several."""
    check("upfirdn2d", {"x": torch.randn(2, 3, 9, 11), "filter": torch.randn(taps), **settings})
    check("upfirdn2d", {"x": torch.randn(1, 1, 37, 20), "filter": torch.randn(taps), **settings})


def test_filter_of_third_order():
    """The gradient's gradient is the op again."""
    x, weights = torch.randn(1, 2, 6, 5, requires_grad=True), torch.randn(4)
    made = genfast.upfirdn2d(x.sin(), weights, up=2, padding=2, backend="triton")
    exact = genfast.upfirdn2d(x.double().sin(), weights.double(), up=2, padding=2, backend="reference")
    for _ in range(3):
        made, exact = (torch.autograd.grad(y.square().sum(), x, create_graph=True)[0] for y in (made, exact))
    testing.assert_matches(made, exact, atol=1e-5 * exact.abs().max().item())


def test_vectors_of_no_length():
    """A matrix of zeros: no division by 0."""
    made = genfast.power_iteration(torch.zeros(2, 3, 5), torch.ones(2, 3), torch.ones(2, 5), 2, backend="triton")
    assert all((vector == 0).all() for vector in made)


def test_long_vectors():
    """More rows, columns and values of a vector than one tile holds."""
    check("spectral_norm", SPECS["spectral_norm"].inputs({"B": 1, "R": 3, "C": 300, "N": 1}))
    for rows, columns in ((1030, 2), (2, 1030)):
        inputs = SPECS["spectral_norm"].inputs({"B": 1, "R": rows, "C": columns, "N": 1})
        with guarded("power_iteration"):
            made = genfast.power_iteration(**inputs, backend="triton")
        for value, truth in zip(made, genfast.power_iteration(**testing.doubled(inputs), backend="reference")):
            testing.assert_matches(value, truth)
            testing.assert_matches(value.norm(dim=1), torch.ones(1))
