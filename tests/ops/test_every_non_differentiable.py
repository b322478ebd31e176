"""Every op without draws or gradients x every backend. What is special to one is in its own file."""

import doctest
import inspect

import pytest
import torch
from support.op_matrix import INTERPRETED, matrix, parametrize

import genfast
from genfast import testing
from genfast._native import backends
from genfast.reference import NON_DIFFERENTIABLE

pytestmark = pytest.mark.interpreted
OPS = list(NON_DIFFERENTIABLE)
MATRIX = list(matrix(OPS))
FLOAT32 = [(op, backend) for op, backend, dtype in MATRIX if dtype == torch.float32]
NATIVE = [(op, backend) for op, backend in FLOAT32 if backend != "reference"]
CPP = [entry for entry in MATRIX if entry[1] == "cpp"]
SHAPES = [(*entry, shape) for entry in MATRIX for shape in range(len(NON_DIFFERENTIABLE[entry[0]].shapes))]


def inputs_of(op, backend="cpp", dtype=torch.float32, shape=0):
    sizes = NON_DIFFERENTIABLE[op].shapes[shape] if isinstance(shape, int) else shape
    device = "cuda" if backend == "triton" and not INTERPRETED else "cpu"
    return NON_DIFFERENTIABLE[op].inputs(sizes, dtype=dtype, device=device)


def outputs(op, inputs, backend):
    return testing.outputs_of(getattr(genfast.ops, op)(**inputs, backend=backend))


def crowded(op):
    return max(NON_DIFFERENTIABLE[op].shapes, key=lambda sizes: sizes["B"])


def small(op):
    return NON_DIFFERENTIABLE[op].gradcheck[0]


def lead(inputs):
    """The name of the first argument, whose rows are measured."""
    return next(iter(inputs))


def assert_agrees(got, expected, dtype):
    """Whole numbers are equal; sums have the precision of their terms, which is that of `dtype` or of float32."""
    atol, rtol = testing.TOLERANCES[torch.promote_types(dtype, torch.float32)]
    for i, (a, b) in enumerate(zip(got, expected, strict=True)):
        if a.is_floating_point():
            scale = max(1, float(b.abs().max())) if b.numel() else 1
            testing.assert_matches(a, b, name=f"result {i}", atol=atol * scale, rtol=rtol)
        else:
            testing.assert_identical(a, b, name=f"result {i}")


def assert_same(got, expected, name):
    for i, (a, b) in enumerate(zip(got, expected, strict=True)):
        assert a.dtype == b.dtype
        testing.assert_identical(a, b, name=f"result {i} ({name})")


@parametrize("op", OPS)
def test_cpp_serves(op):
    assert {torch.float32, torch.float64} <= set(backends.dtypes(op, "cpp"))


@parametrize("op, backend, dtype, shape", SHAPES)
def test_matches_the_reference_in_float64(op, backend, dtype, shape):
    """With NaN around the inputs, and in the results before they are written; in the dtypes of the reference."""
    inputs = inputs_of(op, backend, dtype, shape)
    with testing.poisoned():
        got = outputs(op, testing.each_tensor(testing.embedded, inputs), backend)
    assert_agrees(got, outputs(op, testing.doubled(inputs), "reference"), dtype)
    assert [t.dtype for t in got] == [t.dtype for t in outputs(op, inputs, "reference")]


@parametrize("layout", testing.LAYOUTS.values())
@parametrize("op, backend", FLOAT32)
def test_strides_change_nothing(op, backend, layout):
    inputs = testing.each_tensor(layout, inputs_of(op, backend, shape=small(op)))
    contiguous = testing.each_tensor(torch.Tensor.contiguous, inputs)
    assert_same(outputs(op, inputs, backend), outputs(op, contiguous, backend), layout.__name__)


@parametrize("shape", (1, 3, 4, 5))
@parametrize("op, backend, dtype", CPP)
def test_same_bits_for_threads_and_isas(op, backend, dtype, shape):
    inputs = inputs_of(op, backend, dtype, shape)
    with testing.threads(1):
        expected = outputs(op, inputs, backend)
    active = genfast.backends()["cpp"]
    for count, isa in [(2, active.isa), *((1, isa) for isa in active.isas), (3, active.isas[0])]:
        genfast.set_isa(isa)
        try:
            with testing.threads(count):
                assert_same(outputs(op, inputs, backend), expected, f"{isa}, {count} threads")
        finally:
            genfast.set_isa(active.isa)


@parametrize("op, backend, dtype", [entry for entry in CPP if entry[0] != "codebook_statistics"])
def test_same_bits_for_batch_splits(op, backend, dtype):
    """What a row of x gives depends on that row alone, and on what stands beside it."""
    inputs = inputs_of(op, backend, dtype, crowded(op))
    expected = outputs(op, inputs, backend)
    together = NON_DIFFERENTIABLE[op].batched or (lead(inputs),)
    for size in (1, 7, 16, 32):
        split = (dict(zip(together, part)) for part in zip(*(inputs[name].split(size) for name in together)))
        parts = [outputs(op, inputs | part, backend) for part in split]
        assert_same([torch.cat(results) for results in zip(*parts)], expected, f"parts of {size}")


@parametrize("op, backend", NATIVE)
def test_opcheck(op, backend):
    caught = []

    class Catch(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            if function is getattr(torch.ops.genfast, op).default:
                caught.append(args)
            return function(*args, **(kwargs or {}))

    with Catch():
        outputs(op, inputs_of(op, backend, shape=small(op)), backend)
    (arguments,) = caught
    torch.library.opcheck(getattr(torch.ops.genfast, op).default, arguments, {"backend": backend})


@parametrize("op, backend", FLOAT32)
def test_compiles_as_one_graph(op, backend):
    inputs = inputs_of(op, backend, shape=small(op))
    torch._dynamo.reset()
    compiled = torch.compile(getattr(genfast.ops, op), fullgraph=True, backend="aot_eager")
    got = testing.outputs_of(compiled(**inputs, backend=backend))
    assert_agrees(got, outputs(op, inputs, backend), torch.float32)


@parametrize("op, backend", FLOAT32)
def test_has_no_gradient(op, backend):
    inputs = inputs_of(op, backend, shape=small(op))
    leaves = {name: tensor.clone().requires_grad_() for name, tensor in testing.differentiable(inputs).items()}
    got = outputs(op, {**inputs, **leaves}, backend)
    assert not any(output.requires_grad for output in got)
    assert_same(got, outputs(op, inputs, backend), "requires_grad")


@parametrize("op, backend", FLOAT32)
def test_nan_shows(op, backend):
    """A NaN in a row of x is in what that row gives, or in the sums that it is part of, and nowhere else."""
    inputs = inputs_of(op, backend, shape=small(op))
    clean = outputs(op, inputs, backend)[-1 if op == "codebook_statistics" else 0]
    inputs[lead(inputs)] = inputs[lead(inputs)].clone()
    inputs[lead(inputs)][1] = torch.nan
    got = outputs(op, inputs, backend)[-1 if op == "codebook_statistics" else 0]
    row = int(inputs["codes"][1]) if "codes" in inputs else 1
    assert got[row].isnan().all()
    others = torch.arange(len(got)) != row
    testing.assert_identical(got[others], clean[others])


@parametrize("op", OPS)
def test_docstring(op):
    function = getattr(genfast.ops, op)
    (examples,) = doctest.DocTestFinder().find(function, op, globs={})
    runner = doctest.DocTestRunner()
    runner.run(examples)
    assert runner.summarize().attempted > 0 and runner.summarize().failed == 0


@parametrize("op", OPS)
def test_function_and_spec_agree(op):
    spec = NON_DIFFERENTIABLE[op]
    assert spec.name == op and "arXiv" in spec.paper and spec.bench and spec.gradients == "none"
    assert list(spec.inputs(small(op))) == list(inspect.signature(getattr(genfast.ops, op)).parameters)[:-1]


@parametrize("op, backend", FLOAT32)
def test_bad_arguments(op, backend):
    """One clear error each, the same from every backend."""
    inputs = inputs_of(op, backend, shape=small(op))
    name = lead(inputs)
    x, size = inputs[name], inputs[name].shape[1]
    with pytest.raises(TypeError, match=f"{op}: {name} must have dtype float32, float64, bfloat16 or float16; got"):
        outputs(op, {**inputs, name: x.long()}, backend)
    with pytest.raises(TypeError, match=f"{op}: {name} must be a torch.Tensor; got list"):
        outputs(op, {**inputs, name: x.tolist()}, backend)
    for wrong in (x[0], x[:, :0]):
        with pytest.raises(ValueError, match=rf"{op}: {name} must have shape \[[LN], .*\] with .*>=1; got \("):
            outputs(op, {**inputs, name: wrong}, backend)
    if "y" in inputs:
        with pytest.raises(ValueError, match=rf"{op}: y must have shape \[M, D\] with D={size}; got \("):
            outputs(op, {**inputs, "y": inputs["y"][:, 1:]}, backend)
        with pytest.raises(TypeError, match=f"{op}: y must have the dtype of x, torch.float32; got torch.float64"):
            outputs(op, {**inputs, "y": inputs["y"].double()}, backend)
    with pytest.raises(ValueError, match=f"{op}: backend must be one of"):
        outputs(op, inputs, "cuda")
