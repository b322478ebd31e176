"""Which ops run where, for the tests of every op, and how these run them."""

import pytest
import torch

import genfast
from genfast import testing
from genfast._native import backends
from genfast.reference import SPECS

OPS = list(SPECS)
CPU_DTYPES = {"reference": (torch.float32, torch.float64, torch.bfloat16)}
# The interpreter's bfloat16 is silently wrong, and it takes a second for a few pixels.
INTERPRETED = genfast.backends()["triton"].available and not torch.cuda.is_available()


def matrix(ops):
    """(op, backend, dtype) that must work here. cpp is always among them: a test fails for an op without it."""
    for op in ops:
        for backend in ("reference", "cpp", "triton"):
            if backend == "triton" and not genfast.backends()["triton"].available:
                continue
            for dtype in CPU_DTYPES.get(backend) or backends.dtypes(op, backend):
                if not (INTERPRETED and backend == "triton" and dtype == torch.bfloat16):
                    yield op, backend, dtype


MATRIX = list(matrix(OPS))
DOUBLE = [(op, backend) for op, backend, dtype in MATRIX if dtype == torch.float64]
TRUE_GRADIENT = [op for op in OPS if not SPECS[op].estimator]
# One entry a backend, in its most precise dtype; and what second derivatives are then held to.
PRECISE = [entry for entry in MATRIX if entry[2] == (torch.float32 if entry[1] == "triton" else torch.float64)]
SECOND = {torch.float64: 1e-10, torch.float32: 1e-4}
NATIVE = [(op, backend, dtype) for op, backend, dtype in MATRIX if backend != "reference"]
CPP = [entry for entry in MATRIX if entry[1] == "cpp"]
CPP_OPS = list(dict.fromkeys((op, backend) for op, backend, _ in CPP))


def label(value):
    if isinstance(value, dict):
        return "-".join(map(str, value.values()))
    return getattr(value, "__name__", str(value).removeprefix("torch."))


def parametrize(names, values):
    return pytest.mark.parametrize(names, values, ids=label)


def innermost(tensor):
    """The same values with what belongs to one pixel together in memory, as torch's channels_last has it."""
    return tensor.movedim((-2, -1), (1, 2)).contiguous().movedim((1, 2), (-2, -1)) if tensor.ndim > 3 else tensor


def device_of(backend):
    return "cuda" if backend == "triton" and not INTERPRETED else "cpu"


def sample(op, backend="cpp", dtype=torch.float32, shape=4):
    sizes = SPECS[op].shapes[shape] if isinstance(shape, int) else shape
    return SPECS[op].inputs(sizes, dtype=dtype, device=device_of(backend))


def run(op, inputs, backend, used=None):
    return testing.evaluate(getattr(genfast.ops, op), inputs, used=used, backend=backend)


def outputs(op, inputs, backend):
    return testing.outputs_of(getattr(genfast.ops, op)(**inputs, backend=backend))


def differentiable_outputs(op, inputs, backend):
    """Those that have a gradient: of one that holds whole numbers it is asked for in vain."""
    return tuple(output for output in outputs(op, inputs, backend) if output.is_floating_point())


def squares(tensors):
    return sum((output**2).sum() for output in tensors)


def small(op):
    return SPECS[op].gradcheck[0]


def crowded(op):
    """The shape of most images: work for every thread."""
    return max(SPECS[op].shapes, key=lambda sizes: sizes["B"])


def first_differentiable(inputs):
    return next(iter(testing.differentiable(inputs).items()))


def with_leaves(inputs, requires_grad=True):
    """`inputs` with fresh leaves for the float tensors, and these leaves by name."""
    leaves = {n: t.detach().clone().requires_grad_(requires_grad) for n, t in testing.differentiable(inputs).items()}
    return {**inputs, **leaves}, leaves


def raw_arguments(op, inputs, backend):
    """The arguments of the op under the function, which may have arranged them otherwise: caught in the act."""
    called, forward = {}, f"{op}_forward"

    class Catch(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            if function is getattr(torch.ops.genfast, forward).default:
                called.update(zip(argument_names(forward), args))
            return function(*args, **(kwargs or {}))

    with Catch(), torch.no_grad():
        getattr(genfast.ops, op)(**inputs, backend=backend)
    return called


def backward_arguments(op, inputs, results):
    """Incoming gradients of ones, what the forward op saved, and that every gradient is wanted, by name, in the order
    of the schema of the backward op."""
    named_results = dict(zip(result_names(f"{op}_forward"), results))
    known = {**inputs, **named_results, "wanted": 2 ** len(testing.differentiable(inputs)) - 1}
    known |= {f"grad_{name}": torch.ones_like(result) for name, result in named_results.items()}
    return {name: known[name] for name in argument_names(f"{op}_backward")}


def result_names(raw):
    return [result.name for result in getattr(torch.ops.genfast, raw).default._schema.returns]


def argument_names(raw):
    schema = getattr(torch.ops.genfast, raw).default._schema
    return [argument.name for argument in schema.arguments if argument.name not in ("save", "backend")]


def run_kernels(op, arguments, backend):
    """What the native ops give for their own arguments by name, forward and backward."""
    forward, backward = (getattr(torch.ops.genfast, f"{op}_{way}") for way in ("forward", "backward"))
    results = testing.outputs_of(forward(*arguments.values(), True, backend=backend))
    gradients = testing.outputs_of(backward(*backward_arguments(op, arguments, results).values(), backend=backend))
    return {f"result {i}": tensor for i, tensor in enumerate((*results, *gradients))}
