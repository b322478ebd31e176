"""Every op x every backend x every property. What is special to one op is in its own file."""

import doctest
import inspect
import math
import warnings

import pytest
import torch
import torch._dynamo.testing
from hypothesis import given, settings, strategies
from support.op_matrix import (
    CPP,
    DOUBLE,
    INTERPRETED,
    MATRIX,
    NATIVE,
    OPS,
    PRECISE,
    SECOND,
    TRUE_GRADIENT,
    backward_arguments,
    differentiable_outputs,
    first_differentiable,
    outputs,
    parametrize,
    raw_arguments,
    run,
    sample,
    small,
    squares,
    with_leaves,
)

import genfast
from genfast import testing
from genfast._native import backends
from genfast.reference import SPECS


@parametrize("op", OPS)
def test_cpp_serves(op):
    assert {torch.float32, torch.float64} <= set(backends.dtypes(op, "cpp"))


SHAPES = [(*entry, shape) for entry in MATRIX for shape in range(len(SPECS[entry[0]].shapes))]


@pytest.mark.interpreted
@parametrize("op, backend, dtype, shape", SHAPES)
def test_matches_reference(op, backend, dtype, shape):
    """Outputs and every gradient, with NaN around the inputs and in the outputs before they are written."""
    sizes = SPECS[op].shapes[shape]
    if INTERPRETED and backend == "triton" and {"H", "S"} & set(sizes) and not SPECS[op].coupled:
        # Few images, which the interpreter walks one by one.
        sizes = sizes if math.prod(sizes.get(k, 1) for k in "BHWS") < 60 else {**sizes, "B": 1}
    inputs = testing.each_tensor(testing.embedded, sample(op, backend, dtype, sizes))
    with testing.poisoned():
        got = run(op, inputs, backend)
    assert_agrees(got, op, inputs, dtype)


def assert_agrees(got, op, inputs, dtype, used=None):
    """`got` has the dtypes of the reference, and its values in float64. Half precision is held to be no worse than the
    reference in half precision; what is wider than the arguments, to what its own dtype can hold."""
    truth = run(op, testing.doubled(inputs), "reference", used)
    rival = run(op, inputs, "reference", used) if dtype.itemsize == 2 else {}
    for name, value in got.items():
        expected = rival[name].dtype if rival else dtype
        assert value.dtype == (expected if truth[name].is_floating_point() else truth[name].dtype), name
        if value.dtype.itemsize == 2:
            testing.assert_no_worse(value, rival[name], truth[name], name=name)
        else:
            testing.assert_matches(value, truth[name], name=name)


def has_several_outputs(op):
    return len(outputs(op, sample(op, shape=small(op)), "reference")) > 1


@pytest.mark.interpreted
@parametrize("op, backend, dtype", [entry for entry in MATRIX if has_several_outputs(entry[0])])
def test_gradient_of_one_output(op, backend, dtype):
    """Where the others are not used: their incoming gradient is missing, to the second order."""
    inputs = sample(op, backend, dtype, small(op))
    for used, output in enumerate(outputs(op, inputs, backend)):
        if output.is_floating_point():
            assert_agrees(run(op, inputs, backend, [used]), op, inputs, dtype, [used])
            if dtype == torch.float64:
                expected = second(op, inputs, "reference", used)
                for name, a, b in zip(testing.differentiable(inputs), second(op, inputs, backend, used), expected):
                    testing.assert_matches(a, b, name=f"second derivative in {name}", atol=SECOND[dtype])


def second(op, inputs, backend, used):
    arguments, leaves = with_leaves(inputs)
    output, tensors = outputs(op, arguments, backend)[used], tuple(leaves.values())
    first = torch.autograd.grad((output**2).sum(), tensors, create_graph=True, materialize_grads=True)
    return torch.autograd.grad(squares(first), tensors, materialize_grads=True)


@parametrize("op, backend, dtype", [entry for entry in CPP if entry[2] != torch.bfloat16])
@settings(max_examples=40, deadline=None, derandomize=True, database=None)
@given(data=strategies.data())
def test_any_shape(op, backend, dtype, data):
    """Shapes that nobody chose, without and with gradients."""
    ranges = {"B": range(7), "H": range(8), "W": range(8), "D": (1, 2), "C": range(1, 41), "F": range(1, 41)}
    ranges |= SPECS[op].ranges
    sizes = {letter: data.draw(strategies.sampled_from(ranges[letter]), letter) for letter in small(op)}
    inputs = testing.each_tensor(testing.embedded, sample(op, backend, dtype, sizes))
    truth = run(op, testing.doubled(inputs), "reference")
    with testing.poisoned():
        got = run(op, inputs, backend)
        alone = outputs(op, inputs, backend)
    for a, (name, b) in zip(alone, got.items()):
        testing.assert_identical(a, b, name=f"{name} without gradient")
    for name, value in got.items():
        testing.assert_matches(value, truth[name], name=name)


@parametrize("layout", list(testing.LAYOUTS))
@parametrize(
    "op, backend, dtype",
    [entry for entry in MATRIX if entry[2] in (torch.float32, torch.float64)],
)
def test_layouts(op, backend, dtype, layout):
    """Strides change nothing: neither those of the inputs nor those of the incoming gradient."""
    inputs = testing.each_tensor(testing.LAYOUTS[layout], sample(op, backend, dtype, small(op)))
    got = run(op, inputs, backend)
    expected = run(op, testing.each_tensor(torch.Tensor.contiguous, inputs), backend)
    for name in expected:
        testing.assert_matches(got[name], expected[name], name=name)
    arguments, leaves = with_leaves(testing.each_tensor(torch.Tensor.contiguous, inputs))
    smooth = differentiable_outputs(op, arguments, backend)
    incoming = [testing.LAYOUTS[layout](t) if t.ndim else t for t in map(torch.randn_like, smooth)]

    def gradients(incoming):
        return torch.autograd.grad(smooth, tuple(leaves.values()), incoming, retain_graph=True, materialize_grads=True)

    for name, a, b in zip(leaves, gradients(incoming), gradients([t.contiguous() for t in incoming])):
        testing.assert_matches(a, b, name=f"grad_{name}")


@parametrize("case", range(2))
@parametrize("op, backend", [(op, backend) for op, backend in DOUBLE if op in TRUE_GRADIENT])
def test_gradcheck(op, backend, case):
    inputs, leaves = with_leaves(sample(op, backend, torch.float64, SPECS[op].gradcheck[case]))

    def function(*tensors):
        return differentiable_outputs(op, {**inputs, **dict(zip(leaves, tensors))}, backend)

    assert torch.autograd.gradcheck(function, tuple(leaves.values()))
    assert torch.autograd.gradgradcheck(function, tuple(leaves.values()), fast_mode=case == 0)


@parametrize("case", range(2))
@parametrize(
    "op, backend", [(op, backend) for op, backend in DOUBLE if op not in TRUE_GRADIENT and backend != "reference"]
)
def test_estimator(op, backend, case):
    """No numeric derivative is that of an estimator: to the second order it is the reference's own, which torch makes,
    in the arguments and in the incoming gradients."""
    inputs = sample(op, backend, torch.float64, SPECS[op].gradcheck[case])

    def derivatives(backend):
        arguments, leaves = with_leaves(inputs)
        smooth = differentiable_outputs(op, arguments, backend)
        generator = torch.Generator().manual_seed(2)
        incoming = [torch.randn(t.shape, generator=generator, dtype=t.dtype).requires_grad_() for t in smooth]
        tensors = tuple(leaves.values())
        first = torch.autograd.grad(smooth, tensors, incoming, create_graph=True, materialize_grads=True)
        return *first, *torch.autograd.grad(squares(first), (*tensors, *incoming), materialize_grads=True)

    for i, (got, expected) in enumerate(zip(derivatives(backend), derivatives("reference"), strict=True)):
        testing.assert_matches(got, expected, name=f"derivative {i}")


def scale_of(*tensors):
    """Small elements of a derivative are left from large terms: its error scales with the largest."""
    return max(1, *(float(t.abs().max()) for t in tensors if t.numel()))


@pytest.mark.interpreted
@parametrize("op, backend, dtype", PRECISE)
def test_gradient_of_one_argument(op, backend, dtype):
    """Each argument may be the only one that requires a gradient, to the second order."""
    inputs = sample(op, backend, dtype, small(op))
    for name, tensor in testing.differentiable(inputs).items():
        leaf = tensor.clone().requires_grad_()

        def derivatives(backend):
            smooth = differentiable_outputs(op, {**inputs, name: leaf}, backend)  # noqa: B023
            (first,) = torch.autograd.grad(squares(smooth), leaf, create_graph=True)  # noqa: B023
            return first, *torch.autograd.grad((first**2).sum(), leaf)  # noqa: B023

        for got, expected in zip(derivatives(backend), derivatives("reference")):
            testing.assert_matches(got, expected, name=name, atol=SECOND[dtype] * scale_of(expected))


@parametrize("op, backend, dtype", NATIVE)
def test_opcheck(op, backend, dtype):
    forward = getattr(torch.ops.genfast, f"{op}_forward").default
    backward = getattr(torch.ops.genfast, f"{op}_backward").default
    inputs = sample(op, backend, dtype, small(op))
    inputs = raw_arguments(op, inputs, backend)
    results = testing.outputs_of(forward(*inputs.values(), True, backend=backend))
    checks = ["test_schema", "test_autograd_registration", "test_faketensor"]
    # Of the registration nothing but the dtypes of the results depends on that of the arguments.
    graph = ["test_aot_dispatch_dynamic"] * ((op, backend, dtype) in PRECISE)

    def check(function, *args, checks):
        torch.library.opcheck(function, args, {"backend": backend}, test_utils=checks)

    for gradient in (False, True):
        arguments, _ = with_leaves(inputs, gradient)
        for save in (False, True):
            # The check of the graph adds up the outputs in the dtype of the first, which whole numbers do not have.
            graphs = graph * results[0].is_floating_point()
            check(forward, *arguments.values(), save, checks=checks + graphs)
    arguments = backward_arguments(op, inputs, results)
    for changed in ({}, *fewer(op, inputs, arguments)):
        check(backward, *{**arguments, **changed}.values(), checks=checks + graph)


def fewer(op, inputs, arguments):
    """What else the backward op may be given: an output that was not used, gradients that are not wanted."""
    incoming = [name for name in arguments if name.startswith("grad_")]
    if len(incoming) > 1:
        yield from ({name: arguments[name].new_empty(0)} for name in incoming)
    if "wanted" in arguments:
        yield from ({"wanted": arguments["wanted"] ^ 1 << bit} for bit in range(len(testing.differentiable(inputs))))


@pytest.mark.interpreted
@parametrize("op, backend, dtype", NATIVE)
def test_same_results_when_nothing_is_saved(op, backend, dtype):
    inputs = raw_arguments(op, sample(op, backend, dtype, small(op)), backend)
    forward = getattr(torch.ops.genfast, f"{op}_forward")
    lean, full = (testing.outputs_of(forward(*inputs.values(), save, backend=backend)) for save in (False, True))
    count = len(outputs(op, sample(op, backend, dtype, small(op)), backend))
    for i, (a, b) in enumerate(zip(lean[:count], full)):
        testing.assert_identical(a, b, name=f"output {i}")
    assert all(saved.numel() == 0 for saved in lean[count:])


@parametrize("op, backend, dtype", NATIVE)
def test_raw_op_differentiates_or_raises(op, backend, dtype):
    inputs = raw_arguments(op, sample(op, backend, dtype, small(op)), backend)
    arguments, leaves = with_leaves(inputs)
    forward = getattr(torch.ops.genfast, f"{op}_forward")
    results_of_leaves = testing.outputs_of(forward(*arguments.values(), True, backend=backend))
    count = len(outputs(op, sample(op, backend, dtype, small(op)), backend))
    assert not any(saved.requires_grad for saved in results_of_leaves[count:])
    smooth = [output for output in results_of_leaves[:count] if output.is_floating_point()]
    got = torch.autograd.grad(sum(output.sum() for output in smooth), tuple(leaves.values()))
    backward = getattr(torch.ops.genfast, f"{op}_backward")
    results = testing.outputs_of(forward(*inputs.values(), True, backend=backend))
    given = backward_arguments(op, inputs, results)
    expected = testing.outputs_of(backward(*given.values(), backend=backend))
    for name, a, b in zip(leaves, got, expected, strict=True):
        testing.assert_identical(a, b, name=name)
    given = backward_arguments(op, arguments, [result.detach() for result in results_of_leaves])
    if not set(arguments) <= set(given):  # an argument of the function that its gradient is made without
        with pytest.raises(RuntimeError, match=f"{op}_backward: expected no input that requires grad"):
            backward(*given.values(), backend=backend)
        return
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        gradients = testing.outputs_of(backward(*given.values(), backend=backend))
    got = derivatives_of(gradients, leaves)
    # The same by the function: its gradients for the same incoming ones, differentiated.
    float_outputs = testing.outputs_of(forward(*arguments.values(), True, backend=backend))[:count]
    float_outputs = [output for output in float_outputs if output.is_floating_point()]
    ones = [torch.ones_like(output) for output in float_outputs]
    gradients = torch.autograd.grad(float_outputs, tuple(leaves.values()), ones, create_graph=True)
    for name, a, b in zip(leaves, got, derivatives_of(gradients, leaves), strict=True):
        testing.assert_identical(a, b, name=f"second derivative in {name}")


def derivatives_of(gradients, leaves):
    """Of the sum of their squares; zeros where the gradients are the same for all values, as those of a linear op."""
    gradients = [gradient for gradient in gradients if gradient.requires_grad]
    if not gradients:
        return [torch.zeros_like(leaf) for leaf in leaves.values()]
    return torch.autograd.grad(squares(gradients), tuple(leaves.values()), materialize_grads=True)


@parametrize("op, backend, dtype", PRECISE)
def test_compiles_as_one_graph(op, backend, dtype):
    inputs = sample(op, backend, dtype, small(op))

    def function(**tensors):
        return tuple(output * 2 for output in outputs(op, tensors, backend))

    torch._dynamo.reset()
    compiled = torch.compile(function, fullgraph=True, backend="aot_eager")
    got, expected = testing.evaluate(compiled, inputs), testing.evaluate(function, inputs)
    for name in expected:
        testing.assert_matches(got[name], expected[name], name=name)
    with torch.no_grad():
        for got, name in zip(compiled(**inputs), expected):
            testing.assert_matches(got, expected[name], name=name)


@parametrize("op, backend", [entry[:2] for entry in PRECISE if entry[1] == "cpp"])
def test_one_graph_for_every_batch(op, backend):
    """With dynamic shapes the number of images is no constant of the graph."""
    torch._dynamo.reset()
    counts = torch._dynamo.testing.CompileCounter()
    compiled = torch.compile(getattr(genfast.ops, op), fullgraph=True, dynamic=True, backend=counts)
    for count in (4, 6, 8, 10):
        inputs = sample(op, backend, torch.float32, {**small(op), "B": count})
        for got, expected in zip(testing.outputs_of(compiled(**inputs, backend=backend)), outputs(op, inputs, backend)):
            testing.assert_matches(got, expected)
    # Sizes that happen to be equal are first taken for one.
    assert counts.frame_count <= 2


@parametrize("op, backend, dtype", PRECISE)
def test_second_order_in_one_graph(op, backend, dtype):
    """A gradient penalty, as the adversarial family has it: a gradient by torch.func within the graph, and that of its
    squares in all arguments outside."""
    inputs = sample(op, backend, dtype, small(op))
    first, _ = first_differentiable(inputs)

    def penalty(arguments, backend):
        def loss(tensor):
            return squares(differentiable_outputs(op, {**arguments, first: tensor}, backend))

        return (torch.func.grad(loss)(arguments[first]) ** 2).sum()

    def derivatives(function, backend):
        arguments, leaves = with_leaves(inputs)
        return torch.autograd.grad(function(arguments, backend), tuple(leaves.values()), materialize_grads=True)

    torch._dynamo.reset()
    compiled = torch.compile(penalty, fullgraph=True, backend="aot_eager")
    expected = derivatives(penalty, "reference")
    scale = scale_of(*expected)
    for name, a, b in zip(testing.differentiable(inputs), derivatives(compiled, backend), expected):
        testing.assert_matches(a, b, name=name, atol=SECOND[dtype] * scale)


@parametrize("op, backend, dtype", PRECISE)
def test_functional_gradients(op, backend, dtype):
    inputs = sample(op, backend, dtype, small(op))
    first, _ = first_differentiable(inputs)

    def loss(tensor, backend=backend):
        return squares(differentiable_outputs(op, {**inputs, first: tensor}, backend))

    def loss_ref(tensor):
        return loss(tensor, "reference")

    got, expected = torch.func.grad(loss)(inputs[first]), torch.func.grad(loss_ref)(inputs[first])
    testing.assert_matches(got, expected, atol=SECOND[dtype])

    def twice(f):
        return torch.func.grad(lambda x: (torch.func.grad(f)(x) ** 2).sum())(inputs[first])

    expected = twice(loss_ref)
    testing.assert_matches(twice(loss), expected, atol=SECOND[dtype] * scale_of(expected))


@parametrize("op, backend, dtype", NATIVE)
def test_forward_mode_raises(op, backend, dtype):
    """Nothing is silently zero: neither from the function nor from the op under it."""
    inputs = sample(op, backend, dtype, small(op))
    function, (first, primal) = getattr(genfast.ops, op), first_differentiable(inputs)
    with pytest.raises(NotImplementedError, match="forward mode"):
        torch.func.jvp(lambda x: function(**{**inputs, first: x}, backend=backend), (primal,), (primal,))
    arguments = raw_arguments(op, inputs, backend)
    raw_first, raw_primal = first_differentiable(arguments)
    raw = getattr(torch.ops.genfast, f"{op}_forward")

    def gradient(x):  # forward over reverse
        def loss(x):
            results = testing.outputs_of(raw(*{**arguments, raw_first: x}.values(), True, backend=backend))
            return squares([output for output in results if output.is_floating_point()][:1])

        return torch.func.grad(loss)(x)

    with pytest.raises(NotImplementedError, match="forward mode"):
        torch.func.jvp(gradient, (raw_primal,), (raw_primal,))
    with torch.autograd.forward_ad.dual_level():
        dual = torch.autograd.forward_ad.make_dual(primal, torch.ones_like(primal))
        with pytest.raises(NotImplementedError, match="forward mode"):
            function(**{**inputs, first: dual}, backend=backend)
        dual = torch.autograd.forward_ad.make_dual(raw_primal, torch.ones_like(raw_primal))
        with pytest.raises(NotImplementedError, match="forward mode"):
            raw(*{**arguments, raw_first: dual}.values(), False, backend=backend)


@parametrize("op", TRUE_GRADIENT)
def test_reference_has_forward_mode(op):
    inputs = sample(op, "reference", torch.float64, small(op))
    first, primal = first_differentiable(inputs)

    def function(x):
        return differentiable_outputs(op, {**inputs, first: x}, "reference")

    _, got = torch.func.jvp(function, (primal,), (torch.ones_like(primal),))
    step = 1e-6
    for tangent, above, below in zip(got, function(primal + step), function(primal - step)):
        testing.assert_matches(tangent, (above - below) / (2 * step), atol=1e-8)


@parametrize("op", OPS)
def test_docstring(op):
    """The example runs, and every part of the docstring is there in its order."""
    function = getattr(genfast.ops, op)
    parts = ["Args:", "Returns:", "Raises:", "Gradients:", "Paper:", "Example:"]
    places = [function.__doc__.index(part) for part in parts]
    assert places == sorted(places)
    (examples,) = doctest.DocTestFinder().find(function, op, globs={})
    runner = doctest.DocTestRunner()
    runner.run(examples)
    assert runner.summarize().attempted > 0 and runner.summarize().failed == 0


@parametrize("op", OPS)
def test_function_and_spec_agree(op):
    spec = SPECS[op]
    inputs = spec.inputs(small(op))
    assert spec.name == op and "arXiv" in spec.paper and spec.bench
    parameters = inspect.signature(getattr(genfast.ops, op)).parameters
    assert list(inputs) == [name for name in parameters if name in inputs]
    assert all(parameters[name].default in (None, "auto") for name in parameters if name not in inputs)


@parametrize("op, backend, dtype", PRECISE)
def test_lazy_negatives_and_zeros(op, backend, dtype):
    """Tensors whose memory holds something else than their values: torch resolves them before a kernel looks."""
    inputs = sample(op, backend, dtype, small(op))
    first, tensor = first_differentiable(inputs)
    zeros = torch._efficientzerotensor(tensor.shape, dtype=dtype, device=tensor.device)
    for lazy, plain in ((torch._neg_view(-tensor), tensor), (zeros, torch.zeros_like(tensor))):
        got, expected = (run(op, {**inputs, first: value}, backend) for value in (lazy, plain))
        if op == "spectral_norm" and not plain.any():
            continue  # a norm of zeros is 0 / 0, which torch takes for 0 where the zeros are lazy
        for name in expected:
            testing.assert_identical(got[name], expected[name], name=name)
