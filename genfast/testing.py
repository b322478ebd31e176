"""What tests, benchmarks and users share: elementwise comparison, awkward memory layouts, poisoned outputs."""

import contextlib

import torch

# Allowed |actual - expected| is atol + rtol * |expected|, element by element, with `expected` computed in float64.
TOLERANCES = {
    torch.float64: (1e-12, 1e-11),
    torch.float32: (1e-5, 1e-5),
    torch.bfloat16: (1e-2, 2e-2),
    torch.float16: (2e-3, 2e-3),
}


def assert_matches(actual, expected, *, name="result", atol=None, rtol=None):
    """Raise AssertionError with the worst index and both values unless every element is close. NaN never passes, and
    whole numbers must be equal."""
    if actual.shape != expected.shape:
        raise AssertionError(f"{name}: expected shape {tuple(expected.shape)}; got {tuple(actual.shape)}")
    if actual.numel() == 0:
        return
    default_atol, default_rtol = TOLERANCES.get(actual.dtype, (0, 0))
    atol = default_atol if atol is None else atol
    rtol = default_rtol if rtol is None else rtol
    a, e = actual.detach().cpu().double(), expected.detach().cpu().double()
    excess = (a - e).abs() - (atol + rtol * e.abs())
    excess = torch.where(excess.isnan(), torch.inf, excess)
    if (excess > 0).any():
        worst = torch.unravel_index(excess.argmax(), a.shape)
        index, wrong = tuple(int(i) for i in worst), int((excess > 0).sum())
        raise AssertionError(
            f"{name}: expected {e[worst].item():.9g} at {index}; got {a[worst].item():.9g} "
            f"(atol {atol:g}, rtol {rtol:g}; {wrong} of {a.numel()} elements differ)"
        )


def assert_no_worse(actual, rival, truth, *, name="result"):
    """The rule for low precision: the worst error is at most twice that of `rival`, which has the same dtype."""
    if actual.shape != truth.shape or actual.dtype != rival.dtype:
        expected, got = (tuple(truth.shape), rival.dtype), (tuple(actual.shape), actual.dtype)
        raise AssertionError(f"{name}: expected shape and dtype {expected}; got {got}")
    if actual.numel() == 0:
        return
    error, allowed = ((t.detach().cpu().double() - truth.detach().cpu().double()).abs() for t in (actual, rival))
    limit = 2 * allowed.max().item() + TOLERANCES[actual.dtype][0]
    if not error.max().item() <= limit:
        worst = torch.unravel_index(torch.where(error.isnan(), torch.inf, error).argmax(), error.shape)
        index = tuple(int(i) for i in worst)
        raise AssertionError(
            f"{name}: expected {truth[worst].item():.6g} within {limit:.3g} at {index}; got {actual[worst].item():.6g}"
        )


def assert_identical(actual, expected, *, name="result"):
    """Raise AssertionError unless both have the same bits, NaN and signed zero apart."""
    assert_matches(actual, expected, name=name, atol=0, rtol=0)


def _poison(tensor):
    return torch.nan if tensor.is_floating_point() else torch.iinfo(tensor.dtype).max


def embedded(tensor):
    """A contiguous copy inside a larger NaN-filled buffer: what reads outside its input, reads NaN."""
    guard = 64
    buffer = tensor.new_full((tensor.numel() + 2 * guard,), _poison(tensor))
    view = buffer[guard : guard + tensor.numel()].view(tensor.shape)
    view.copy_(tensor.detach())
    return view


def transposed(tensor):
    """The same values with the order of the dimensions in memory reversed."""
    backward = tuple(reversed(range(tensor.ndim)))
    return tensor.detach().permute(backward).contiguous().permute(backward)


def channels_last(tensor):
    """The same values with dimension 1 innermost in memory, as torch's channels_last has it."""
    return tensor.detach().movedim(1, -1).contiguous().movedim(-1, 1) if tensor.ndim > 2 else transposed(tensor)


def sliced(tensor):
    """The same values as every second element, in every dimension, of a larger NaN-filled buffer."""
    buffer = tensor.new_full([2 * size + 3 for size in tensor.shape], _poison(tensor))
    view = buffer[tuple(slice(1, 1 + 2 * size, 2) for size in tensor.shape)]
    view.copy_(tensor.detach())
    return view


def expanded(tensor):
    """The first entry of dimension 0 repeated with stride 0."""
    return tensor.detach()[:1].expand(tensor.shape)


LAYOUTS = {f.__name__: f for f in (embedded, transposed, channels_last, sliced, expanded)}


@contextlib.contextmanager
def poisoned():
    """Inside, torch fills the memory of new empty tensors with NaN: an output that a kernel leaves out shows."""
    enabled = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    fill = torch.utils.deterministic.fill_uninitialized_memory
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.utils.deterministic.fill_uninitialized_memory = True
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(enabled, warn_only=warn_only)
        torch.utils.deterministic.fill_uninitialized_memory = fill


@contextlib.contextmanager
def threads(count):
    """Inside, torch and the C++ kernels use `count` threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def awake(module, std=0.7):
    """The module in float64 with all its weights at work: new ones have output projections that are zero."""
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter, std=std)
    return module.double()


def learned(inputs):
    """The arguments that have a gradient: the float tensors, but for a filter."""
    return {name: t for name, t in _floats(inputs).items() if name != "filter"}


def _floats(inputs):
    return {name: t for name, t in inputs.items() if torch.is_tensor(t) and t.is_floating_point()}


def each_tensor(function, inputs):
    """`inputs` with `function` applied to every tensor."""
    return {name: function(value) if torch.is_tensor(value) else value for name, value in inputs.items()}


def doubled(inputs):
    """`inputs` with the float tensors in float64."""
    return {**inputs, **{name: tensor.double() for name, tensor in _floats(inputs).items()}}


def outputs_of(made):
    """What a function returned, one tensor or several, as a tuple."""
    return (made,) if torch.is_tensor(made) else tuple(made)


def evaluate(function, inputs, seed=1, used=None, **kwargs):
    """Outputs and gradients of `function(**inputs)` for random incoming gradients, by name; inputs are detached.

    The output is called "output", of several they are "output0", "output1" and so on; those of whole numbers have no
    incoming gradient, nor have those that are not in `used`, if it is given: their numbers. What no gradient reaches
    has one of zeros.
    """
    leaves = {name: tensor.detach().requires_grad_() for name, tensor in learned(inputs).items()}
    outputs = outputs_of(function(**{**inputs, **leaves}, **kwargs))
    generator = torch.Generator().manual_seed(seed)
    incoming = {
        i: torch.randn(output.shape, generator=generator, dtype=torch.float64).to(output.device, output.dtype)
        for i, output in enumerate(outputs)
        if output.is_floating_point() and (used is None or i in used)
    }
    # An output that no leaf reaches has no gradient to ask for.
    incoming = {i: gradient for i, gradient in incoming.items() if outputs[i].requires_grad}
    differentiated = [outputs[i] for i in incoming]
    gradients = torch.autograd.grad(
        differentiated, tuple(leaves.values()), tuple(incoming.values()), materialize_grads=True
    )
    names = ["output"] if len(outputs) == 1 else [f"output{i}" for i in range(len(outputs))]
    made = {name: output.detach() for name, output in zip(names, outputs)}
    return made | {f"grad_{name}": gradient for name, gradient in zip(leaves, gradients)}
