"""Every sampler x every backend: the same draws, whatever draws them. What is special to one is in its own file."""

import doctest
import inspect

import pytest
import torch
from support.op_matrix import INTERPRETED, innermost, matrix, parametrize
from torch.utils._python_dispatch import TorchDispatchMode

import genfast
from genfast import testing
from genfast.reference import SAMPLERS

pytestmark = pytest.mark.interpreted
OPS = list(SAMPLERS)
MATRIX = list(matrix(OPS))
FLOAT32 = [(op, backend) for op, backend, dtype in MATRIX if dtype == torch.float32]
NATIVE = [(op, backend) for op, backend in FLOAT32 if backend != "reference"]
SHAPES = [(*entry, shape) for entry in MATRIX for shape in range(len(SAMPLERS[entry[0]].shapes))]
# Many images of several pixels, whatever the op.
BATCH = {"B": 19, "C": 3, "H": 3, "W": 5}


def inputs_of(op, backend="cpp", dtype=torch.float32, sizes=None):
    device = "cuda" if backend == "triton" and not INTERPRETED else "cpu"
    sizes = {**SAMPLERS[op].shapes[3], **BATCH} if sizes is None else sizes
    if INTERPRETED and backend == "triton":
        sizes = {**sizes, "B": min(sizes["B"], 3)}
    return SAMPLERS[op].inputs(sizes, dtype=dtype, device=device)


def draw(op, inputs, backend, **changed):
    return getattr(genfast.ops, op)(**{**inputs, **changed}, backend=backend)


def first_tensor(inputs):
    return next((name, value) for name, value in inputs.items() if torch.is_tensor(value))


def assert_same(got, expected, name="draw"):
    assert got.dtype == expected.dtype == torch.uint8 and got.shape == expected.shape
    wrong = (got != expected).nonzero()
    assert not len(wrong), f"{name}: {len(wrong)} of {got.numel()} differ, first at {wrong[0].tolist()}"


@parametrize("op, backend, dtype, shape", SHAPES)
def test_same_draws_as_the_reference_in_float64(op, backend, dtype, shape):
    """With NaN around the parameters, and 255 in the result before it is written."""
    inputs = inputs_of(op, backend, dtype, SAMPLERS[op].shapes[shape])
    with testing.poisoned():
        got = draw(op, testing.each_tensor(testing.embedded, inputs), backend)
    assert_same(got, draw(op, testing.doubled(inputs), "reference"))


@parametrize("op", OPS)
def test_same_draws_for_threads_and_isas(op):
    inputs = inputs_of(op)
    expected = draw(op, inputs, "reference")
    active = genfast.backends()["cpp"]
    for count, isa in [(2, active.isa), *((1, isa) for isa in active.isas), (3, active.isas[0])]:
        genfast.set_isa(isa)
        try:
            with testing.threads(count):
                got = draw(op, inputs, "cpp")
        finally:
            genfast.set_isa(active.isa)
        assert_same(got, expected, f"{isa}, {count} threads")


@parametrize("op, backend", FLOAT32)
def test_image_depends_on_its_index_alone(op, backend):
    """A batch in parts, each told the index of its first image, is the whole batch."""
    inputs = inputs_of(op, backend)
    name, params = first_tensor(inputs)
    expected = draw(op, inputs, backend)
    for size in (1, 2, 7):
        starts = range(0, len(params), size)
        parts = [params[start : start + size] for start in starts]
        first = inputs["first_index"]
        got = [
            draw(op, inputs, backend, **{name: part, "first_index": first + start})
            for start, part in zip(starts, parts)
        ]
        assert_same(torch.cat(got), expected, f"parts of {size}")


@parametrize("op, backend", FLOAT32)
def test_one_pixel_at_a_time(op, backend):
    """A model draws a pixel when it has its parameters: `first_element` says which pixel it is."""
    inputs = inputs_of(op, backend)
    name, params = first_tensor(inputs)
    expected = draw(op, inputs, backend)
    _, channels, height, width = expected.shape
    got = torch.empty_like(expected)
    for i in range(height):
        for j in range(width):
            element = inputs["first_element"] + (i * width + j) * channels
            pixel = params[..., i : i + 1, j : j + 1]
            got[..., i : i + 1, j : j + 1] = draw(op, inputs, backend, **{name: pixel, "first_element": element})
    assert_same(got, expected)


@parametrize("layout", [*testing.LAYOUTS.values(), innermost])
@parametrize("op, backend", FLOAT32)
def test_strides_change_nothing(op, backend, layout):
    inputs = testing.each_tensor(layout, inputs_of(op, backend, sizes=SAMPLERS[op].gradcheck[0]))
    expected = draw(op, testing.each_tensor(torch.Tensor.contiguous, inputs), backend)
    assert_same(draw(op, inputs, backend), expected)


@parametrize("op, backend", FLOAT32)
def test_every_setting_matters(op, backend):
    inputs = inputs_of(op, backend)
    before = draw(op, inputs, backend)
    changes = {"seed": 1, "first_index": inputs["first_index"] + 50, "first_element": 10**6, "temperature": 30.0}
    for name, value in changes.items():
        assert (draw(op, inputs, backend, **{name: value}) != before).any(), name


def raw_arguments(op, inputs, backend):
    """The arguments of the op under the function, which may have arranged them otherwise: caught in the act."""
    caught = []

    class Catch(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            if function is getattr(torch.ops.genfast, op).default:
                caught.append(args)
            return function(*args, **(kwargs or {}))

    with Catch():
        draw(op, inputs, backend)
    (arguments,) = caught
    return arguments


@parametrize("layout", [torch.Tensor.contiguous, innermost])
@parametrize("op, backend", NATIVE)
def test_opcheck(op, backend, layout):
    inputs = testing.each_tensor(layout, inputs_of(op, backend, sizes=SAMPLERS[op].gradcheck[0]))
    arguments = raw_arguments(op, inputs, backend)
    torch.library.opcheck(getattr(torch.ops.genfast, op).default, arguments, {"backend": backend})


@parametrize("op, backend", FLOAT32)
def test_compiles_as_one_graph(op, backend):
    inputs = inputs_of(op, backend, sizes=SAMPLERS[op].gradcheck[0])
    torch._dynamo.reset()
    compiled = torch.compile(getattr(genfast.ops, op), fullgraph=True, backend="aot_eager")
    assert_same(compiled(**inputs, backend=backend), draw(op, inputs, backend))


@parametrize("op, backend", FLOAT32)
def test_a_draw_has_no_gradient(op, backend):
    inputs = inputs_of(op, backend, sizes=SAMPLERS[op].gradcheck[0])
    name, params = first_tensor(inputs)
    got = draw(op, inputs, backend, **{name: params.clone().requires_grad_()})
    assert not got.requires_grad
    assert_same(got, draw(op, inputs, backend))


BAD = [
    ("seed", -1, ValueError, "seed must lie in [0, 2**64); got -1"),
    ("seed", 2**64, ValueError, f"seed must lie in [0, 2**64); got {2**64}"),
    ("seed", 1.0, TypeError, "seed must be an int; got float"),
    ("first_index", -1, ValueError, "first_index must lie in [0, 2**63); got -1"),
    ("first_index", None, TypeError, "first_index must be an int; got NoneType"),
    ("first_element", 2**32, ValueError, f"first_element must lie in [0, 2**32); got {2**32}"),
    ("first_element", True, TypeError, "first_element must be an int; got bool"),
    ("temperature", 0, ValueError, "temperature must be positive and finite; got 0"),
    ("temperature", -1.0, ValueError, "temperature must be positive and finite; got -1.0"),
    ("temperature", float("inf"), ValueError, "temperature must be positive and finite; got inf"),
    ("temperature", float("nan"), ValueError, "temperature must be positive and finite; got nan"),
    ("temperature", "1", TypeError, "temperature must be a number; got str"),
]


@parametrize("name, value, error, text", BAD)
@parametrize("op, backend", FLOAT32)
def test_bad_settings(op, backend, name, value, error, text):
    """The same text from every backend."""
    inputs = inputs_of(op, backend, sizes=SAMPLERS[op].gradcheck[0])
    with pytest.raises(error) as raised:
        draw(op, inputs, backend, **{name: value})
    assert str(raised.value) == f"{op}: {text}"


@parametrize("op", OPS)
def test_docstring(op):
    function = getattr(genfast.ops, op)
    (examples,) = doctest.DocTestFinder().find(function, op, globs={})
    runner = doctest.DocTestRunner()
    runner.run(examples)
    assert runner.summarize().attempted > 0 and runner.summarize().failed == 0


@parametrize("op", OPS)
def test_function_and_spec_agree(op):
    spec = SAMPLERS[op]
    assert spec.name == op and "arXiv" in spec.paper and spec.bench and spec.gradients == "none"
    assert list(spec.inputs(spec.gradcheck[0])) == list(inspect.signature(getattr(genfast.ops, op)).parameters)[:-1]
