"""Every op under torch.autocast, with tensors of mixed dtypes: the rule of the torch function that it replaces."""

import pytest
import torch
from support.op_matrix import first_differentiable, parametrize

import genfast
from genfast import testing
from genfast._native.register import SCHEMAS
from genfast.reference import NON_DIFFERENTIABLE, SAMPLERS, SPECS

EVERY = SPECS | SAMPLERS | NON_DIFFERENTIABLE
HALF = [torch.bfloat16, torch.float16]
RULES = {
    "lower": {  # torch.nn.LSTM, conv2d
        *("diagonal_block", "diagonal_lstm", "masked_conv2d", "pixelcnn_block", "row_lstm", "upfirdn2d"),
    },
    "float32": {  # cdist, norm
        *("codebook_statistics", "kernel_sum", "minibatch_discrimination", "nearest_neighbors"),
        *("power_iteration", "spectral_norm", "vector_quantize"),
    },
}


def outputs(op, inputs):
    return testing.outputs_of(getattr(genfast.ops, op)(**inputs))


def mixed(op, half, first):
    """Inputs of which the first float tensor, or all the others, are of a half type."""
    inputs = EVERY[op].inputs(EVERY[op].gradcheck[0])
    name, _ = first_differentiable(inputs)
    return {
        n: t.to(half) if torch.is_tensor(t) and t.is_floating_point() and (n == name) == first else t
        for n, t in inputs.items()
    }


def cast(op, inputs, half):
    """The same by hand."""
    rule = next((rule for rule, ops in RULES.items() if op in ops), "widest")
    dtypes = {value.dtype for value in testing.differentiable(inputs).values()}
    dtype = {"lower": half, "float32": torch.float32, "widest": torch.float32 if torch.float32 in dtypes else half}[
        rule
    ]
    return testing.each_tensor(lambda t: t.to(dtype) if t.is_floating_point() else t, inputs)


@parametrize("first", [True, False])
@parametrize("half", HALF)
@parametrize("op", EVERY)
def test_mixed_dtypes(op, half, first):
    """Values and gradients are those of the call with the dtypes that the rule gives; a gradient has the dtype of its
    argument."""
    inputs = mixed(op, half, first)
    by_hand = cast(op, inputs, half)
    with torch.autocast("cpu", half):
        got = outputs(op, inputs)
        assert torch.is_autocast_enabled("cpu")
    for one, other in zip(got, outputs(op, by_hand), strict=True):
        assert one.dtype == other.dtype
        testing.assert_identical(one, other)
    if op in SPECS:
        gradients, expected = gradients_of(op, inputs, half), gradients_of(op, by_hand)
        for name, one in gradients.items():
            assert one.dtype == inputs[name].dtype
            testing.assert_identical(one, expected[name].to(one.dtype), name=name)


def gradients_of(op, inputs, half=None):
    leaves = {name: tensor.clone().requires_grad_() for name, tensor in testing.differentiable(inputs).items()}
    with torch.autocast("cpu", half or torch.bfloat16, enabled=half is not None):
        made = [output for output in outputs(op, {**inputs, **leaves}) if output.is_floating_point()]
    gradients = torch.autograd.grad(
        made, list(leaves.values()), list(map(torch.ones_like, made)), materialize_grads=True
    )
    return dict(zip(leaves, gradients))


@parametrize("op", EVERY)
def test_compiled(op):
    inputs = mixed(op, torch.bfloat16, True)
    torch._dynamo.reset()
    compiled = torch.compile(getattr(genfast.ops, op), fullgraph=True, backend="aot_eager")
    with torch.autocast("cpu", torch.bfloat16):
        for one, other in zip(testing.outputs_of(compiled(**inputs)), outputs(op, inputs), strict=True):
            assert one.dtype == other.dtype
            testing.assert_matches(one, other)


@parametrize("op", EVERY)
def test_float64_stays(op):
    inputs = EVERY[op].inputs(EVERY[op].gradcheck[0], dtype=torch.float64)
    with torch.autocast("cpu", torch.bfloat16):
        got = outputs(op, inputs)
    for one, other in zip(got, outputs(op, inputs), strict=True):
        testing.assert_identical(one, other)


@parametrize("op", [op for op in EVERY if len(testing.differentiable(EVERY[op].inputs(EVERY[op].gradcheck[0]))) > 1])
def test_mixed_dtypes_without_autocast(op):
    with pytest.raises(TypeError, match=f"{op}: .* must have the dtype"):
        outputs(op, mixed(op, torch.bfloat16, True))


def test_rules():
    assert {op for ops in RULES.values() for op in ops} == {
        op for op, schema in SCHEMAS.items() if schema.autocast in ("lower", "float32")
    }
    assert SCHEMAS["importance_bound"].autocast == "as given"
