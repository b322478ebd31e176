"""What a registered op refuses when it is called itself: tensors that do not fit each other, numbers out of range."""

import math

import pytest
import torch

import genfast
from genfast import testing
from genfast._native import checks
from genfast._native.kinds import Kind
from genfast._native.register import SCHEMAS
from genfast.reference import NON_DIFFERENTIABLE, SAMPLERS, SPECS

EVERY = SPECS | SAMPLERS | NON_DIFFERENTIABLE
CALLS = [(op, way) for op, schema in SCHEMAS.items() for way in range(1 + schema.has_gradient)]
# Whatever the size of its one tensor is, it fits.
ALONE = {"gated_activation_forward", "importance_bound_forward", "bernoulli_sample", "categorical_sample"}
ALONE |= {"logistic_mixture_sample", "minibatch_stddev_forward", "minibatch_discrimination_forward"}


def arguments_of(op, way):
    """What the public function gives the native op, or autograd its backward op, by name."""
    schema, caught = SCHEMAS[op], {}
    name = schema.native_functions[way]
    tensors = (*schema.incoming, *schema.residuals) if way else tuple(schema.arguments)

    class Catch(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            if function is getattr(torch.ops.genfast, name).default:
                settings = schema.backward_settings if way else schema.forward_settings
                caught.update(zip((*tensors, *settings), args, strict=True))
            return function(*args, **(kwargs or {}))

    sizes = {**EVERY[op].gradcheck[0], "M": 3} if "M" in EVERY[op].gradcheck[0] else EVERY[op].gradcheck[0]
    inputs = EVERY[op].inputs(sizes)
    inputs |= {n: t.requires_grad_() for n, t in testing.differentiable(inputs).items() if way}
    with Catch():
        outputs = testing.outputs_of(getattr(genfast, op)(**inputs, backend="cpp"))
        if way:
            sum(output.sum() for output in outputs if output.requires_grad).backward()
    return caught


def has_nan(results):
    return any(result.isnan().any() for result in testing.outputs_of(results))


def changed(tensor):
    """The tensor in every way that a caller may have mistaken: sizes, dimensions, dtype, device."""
    for dim in range(tensor.ndim):
        yield tensor.narrow(dim, 0, tensor.shape[dim] - 1)
        yield torch.cat((tensor, tensor.narrow(dim, 0, 1)), dim)
    yield tensor[None]
    yield tensor.reshape(-1)[:1]
    if tensor.ndim:
        yield tensor[0]
    yield tensor.to(torch.float64 if tensor.dtype == torch.float32 else torch.float32)
    yield tensor.to(torch.int32)
    yield tensor.to("meta")


@pytest.mark.parametrize("op, way", CALLS)
def test_tensors_that_do_not_fit(op, way):
    """Each in turn: an error in the usual form, or a call that fits as well and reads nothing beyond its tensors."""
    function = SCHEMAS[op].native_functions[way]
    call, arguments = getattr(torch.ops.genfast, function), arguments_of(op, way)
    # Level and code 0, which there always is.
    arguments = {n: t.zero_() if torch.is_tensor(t) and not t.is_floating_point() else t for n, t in arguments.items()}
    arguments = testing.each_tensor(testing.embedded, arguments)
    tensors = {name: tensor for name, tensor in arguments.items() if torch.is_tensor(tensor)}
    refused = 0
    for name, tensor in tensors.items():
        for other in changed(tensor) if tensor.numel() else ():
            other = other if other.is_meta else testing.embedded(other)
            try:
                results = call(*{**arguments, name: other}.values(), backend="cpp")
            except (TypeError, ValueError, RuntimeError) as error:
                assert str(error).startswith((f"{function}: ", f"{op}: backend must be able")), str(error)
                refused += 1
            else:
                assert len(tensors) == 1 if other.is_meta else not has_nan(results), (name, other.shape)
    assert refused or function in ALONE


@pytest.mark.parametrize("op, way", CALLS)
def test_numbers_out_of_range(op, way):
    schema, arguments = SCHEMAS[op], arguments_of(op, way)
    function = schema.native_functions[way]
    for name, (low, high) in schema.limits.items():
        if name not in schema.settings:
            continue
        step = 1 if schema.settings[name] != "float" else 1.0
        wrong = [v for v in (low - step, high + step) if not math.isinf(v) and -(2**63) <= v < 2**63]
        wrong += [math.nan] * (schema.settings[name] == "float")
        for value in wrong:
            if low <= value <= high:  # a float that is too large for the step
                continue
            with pytest.raises(ValueError, match=f"^{function}: {name} must (lie in|be at least) "):
                getattr(torch.ops.genfast, function)(*{**arguments, name: value}.values(), backend="cpp")


def test_strides_are_no_error():
    x = torch.randn(2, 6, 4, 4)
    expected = torch.ops.genfast.gated_activation_forward(x, False)
    assert torch.equal(torch.ops.genfast.gated_activation_forward(testing.sliced(x), False), expected)


@pytest.mark.parametrize("text", ["float", "half [N]", "float [n]", "float [..., N]", "float [N] or other"])
def test_kinds_that_cannot_be_read(text):
    with pytest.raises(ValueError, match=r"^kind of a tensor: expected dtypes and sizes as in .*; got '"):
        Kind.of(text)


class OnGPU(torch.Tensor):
    """A tensor that says it lies on a GPU, and whose values must not be waited for."""

    is_cuda = property(lambda self: True)

    def item(self):
        raise AssertionError("waits for the GPU")

    __int__ = __float__ = __bool__ = item


def test_values_on_a_gpu_are_not_waited_for(monkeypatch):
    asserted = []
    monkeypatch.setattr(torch, "_assert_async", lambda holds, text: asserted.append((holds, text)))
    logits, x = torch.zeros(1, 1, 2, 2), torch.tensor([0, 1, 1, 2], dtype=torch.uint8).view(1, 1, 2, 2)
    checks.check_values("op", x.as_subclass(OnGPU), logits)
    checks.check_weight("op", torch.ones(1, 1, 2, 2).as_subclass(OnGPU), logits)
    checks.check_levels("op", x.as_subclass(OnGPU), logits, 3)
    holds = [bool(value.as_subclass(torch.Tensor)) for value, _ in asserted]
    assert holds == [False, True, True] and asserted[0][1] == "op: x must lie in 0 .. 1"
    with pytest.raises(ValueError, match="^op: x must lie in 0 .. 1; got 2$"):
        checks.check_values("op", x, logits)


@pytest.mark.parametrize("op", [*SAMPLERS, "gaussian_latent"])
def test_places_beyond_the_last(op):
    """The last image and the last value have random numbers of their own, on every backend the same; none is beyond."""
    inputs = EVERY[op].inputs(EVERY[op].gradcheck[0])
    function, first = getattr(genfast, op), next(t for t in inputs.values() if torch.is_tensor(t))
    size = testing.outputs_of(function(**inputs))[0][0].numel()
    last = {"first_index": 2**63 - len(first)} | ({"first_element": 2**32 - size} if op in SAMPLERS else {})
    got, expected = (testing.outputs_of(function(**inputs | last, backend=b)) for b in ("cpp", "reference"))
    for a, b in zip(got, expected):
        testing.assert_matches(a, b)
    for name, value in last.items():
        for backend in ("cpp", "reference"):
            with pytest.raises(ValueError, match=f"^{op}: {name} must be at most 2\\*\\*(63|32) - "):
                function(**inputs | last | {name: value + 1}, backend=backend)


@pytest.mark.parametrize("temperature", [5e-324, 1e-310, 1e-30, 1e30, 1.7e308])
@pytest.mark.parametrize("op", SAMPLERS)
def test_any_temperature(op, temperature):
    inputs = EVERY[op].inputs(EVERY[op].shapes[3]) | {"temperature": temperature}
    assert torch.equal(*(getattr(genfast, op)(**inputs, backend=backend) for backend in ("cpp", "reference")))
