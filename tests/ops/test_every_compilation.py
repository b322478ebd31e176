"""Every op x every number that it takes: torch.compile makes two graphs for all values, one for the first alone."""

import torch
import torch._dynamo.testing
from support.op_matrix import parametrize
from torch.fx.experimental.proxy_tensor import make_fx

import genfast
from genfast import nn, testing
from genfast.reference import NON_DIFFERENTIABLE, SAMPLERS, SPECS

EVERY = SPECS | SAMPLERS | NON_DIFFERENTIABLE
REAL = (0.3, 1.5, 0.25, 1.0, 2.0, 0.7, 3.5, 0.1, 5.0, 0.9)
PLACES = (7, 0, 1, 2**31, 3, 100, 2**20, 2, 12345, 4)
# Of a setting: ten values, or as many as it has.
VALUES = {
    "seed": (7, 0, 1, 2**63, 2**64 - 1, 2**63 - 1, 2**32, 2, 12345, 3),
    **dict.fromkeys(("first_index", "first_element", "first_sample"), PLACES),
    **dict.fromkeys(("temperature", "gamma", "coef0", "slope", "gain", "limit", "commitment", "codebook_weight"), REAL),
    **dict.fromkeys(("samples", "iterations"), (3, 1, 2, 4, 5, 6, 7, 8, 9, 10)),
    "levels": (200, 256, 255, 199, 198, 197, 196, 195, 194, 193),
    "count": (70, 71, 72, 73, 74, 75, 76, 77, 78, 79),
    "degree": (3, 1, 2, 4, 5, 6, 7, 8),
    "k": (3, 2, 4),
    "group": (3, 2, 4, 6, 12),
    "up": (3, 2, 4, 5),
    "down": (3, 2, 4),
    "padding": (5, 4, 6, 7, 8),
    "colors": (3, 2, 4, 5),  # one colour needs no mask, and is a graph of its own
    "dilation": (1, 2, 3, 4, 5, 6, 7, 8, 9, 10),
}
# Sizes that every value fits.
SIZES = {
    "minibatch_stddev": {"B": 6, "G": 2, "F": 1},
    "upfirdn2d": {"H": 24, "W": 25},
    "bias_act": {"K": 8},
    "masked_conv2d": {"C": 5, "O": 5},
}
CASES = [
    (op, name)
    for op, spec in EVERY.items()
    for name, value in spec.inputs(spec.gradcheck[0]).items()
    # The channels of a result follow from the shape of an argument.
    if not torch.is_tensor(value) and not isinstance(value, (bool, str, type(None))) and name != "channels"
]


def compiled(function):
    torch._dynamo.reset()
    counts = torch._dynamo.testing.CompileCounterWithBackend("aot_eager")
    return torch.compile(function, fullgraph=True, backend=counts), counts


@parametrize("op, name", CASES)
def test_two_graphs(op, name):
    spec = EVERY[op]
    inputs = spec.inputs({**spec.gradcheck[0], **SIZES.get(op, {})})
    leaves = {n: t.requires_grad_() for n, t in testing.differentiable(inputs).items() if op in SPECS}
    function = getattr(genfast.ops, op)
    call, counts = compiled(function)
    for value in VALUES[name]:
        changed = {**inputs, name: value}
        for got, expected in zip(results(call, changed, leaves), results(function, changed, leaves), strict=True):
            testing.assert_identical(got, expected, name=f"{name}={value}")
    assert counts.frame_count <= 2


@parametrize("op", EVERY)
def test_traced_before_dispatch(op):
    """make_fx leaves its tensors plain there: an op that went straight to its kernel would be no part of the graph."""
    inputs = EVERY[op].inputs({**EVERY[op].gradcheck[0], **SIZES.get(op, {})})
    tensors = {name: value for name, value in inputs.items() if torch.is_tensor(value)}
    settings = {name: value for name, value in inputs.items() if name not in tensors}

    def copied(tensors):
        """The outputs, written into memory that the function made itself."""
        made = testing.outputs_of(getattr(genfast.ops, op)(**tensors, **settings))
        return [torch.zeros_like(output).copy_(output) for output in made]

    with torch.no_grad():
        traced = make_fx(copied, pre_dispatch=True)(tensors)
        assert any("genfast" in str(node.target) for node in traced.graph.nodes)
        others = {name: value.flip(0) if value.is_floating_point() else value for name, value in tensors.items()}
        for got, expected in zip(traced(others), copied(others), strict=True):
            testing.assert_identical(got, expected, name=op)


def results(function, inputs, leaves):
    made = testing.outputs_of(function(**inputs))
    smooth = [output for output in made if output.requires_grad]
    gradients = torch.autograd.grad(sum(t.sum() for t in smooth), list(leaves.values())) if smooth else ()
    return *made, *gradients


def test_every_setting_is_here():
    assert {name for _, name in CASES} <= set(VALUES)


def test_layers():
    """The seed of a latent, and a model of several ops."""
    layer = nn.GaussianLatent(2)
    call, counts = compiled(layer)
    mean = torch.randn(3, 4)
    for seed in VALUES["seed"]:
        for got, expected in zip(call(mean, mean, seed), layer(mean, mean, seed), strict=True):
            testing.assert_identical(got, expected)
    assert counts.frame_count <= 2
