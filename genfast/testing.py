"""For tests, benchmarks and users: elementwise comparison, unusual memory layouts, poisoned outputs."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

M = TypeVar("M", bound=nn.Module)

# Allowed |actual - expected| is atol + rtol * |expected|, element by element, with `expected` computed in float64.
TOLERANCES = {
    torch.float64: (1e-12, 1e-11),
    torch.float32: (1e-5, 1e-5),
    torch.bfloat16: (1e-2, 2e-2),
    torch.float16: (2e-3, 2e-3),
}


def assert_matches(
    actual: Tensor, expected: Tensor, *, name: str = "result", atol: float | None = None, rtol: float | None = None
) -> None:
    """Raise AssertionError with the worst index and both values unless every element is close.

    NaN never passes. Integers must be equal.
    """
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


def assert_no_worse(actual: Tensor, rival: Tensor, truth: Tensor, *, name: str = "result") -> None:
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


def assert_identical(actual: Tensor, expected: Tensor, *, name: str = "result") -> None:
    """Raise AssertionError unless all values are equal. NaN never passes; the sign of a zero is not compared."""
    assert_matches(actual, expected, name=name, atol=0, rtol=0)


def _poison(tensor: Tensor) -> float:
    return torch.nan if tensor.is_floating_point() else torch.iinfo(tensor.dtype).max


def embedded(tensor: Tensor) -> Tensor:
    """A contiguous copy inside a larger NaN-filled buffer: a read out of bounds gives NaN."""
    guard = 64
    buffer = tensor.new_full((tensor.numel() + 2 * guard,), _poison(tensor))
    view = buffer[guard : guard + tensor.numel()].view(tensor.shape)
    view.copy_(tensor.detach())
    return view


def transposed(tensor: Tensor) -> Tensor:
    """The same values with the order of the dimensions in memory reversed."""
    backward = tuple(reversed(range(tensor.ndim)))
    return tensor.detach().permute(backward).contiguous().permute(backward)


def channels_last(tensor: Tensor) -> Tensor:
    """The same values with dimension 1 innermost in memory, as torch's channels_last has it."""
    return tensor.detach().movedim(1, -1).contiguous().movedim(-1, 1) if tensor.ndim > 2 else transposed(tensor)


def sliced(tensor: Tensor) -> Tensor:
    """The same values as every second element, in every dimension, of a larger NaN-filled buffer."""
    buffer = tensor.new_full([2 * size + 3 for size in tensor.shape], _poison(tensor))
    view = buffer[tuple(slice(1, 1 + 2 * size, 2) for size in tensor.shape)]
    view.copy_(tensor.detach())
    return view


def expanded(tensor: Tensor) -> Tensor:
    """The first entry of dimension 0 repeated with stride 0."""
    return tensor.detach()[:1].expand(tensor.shape)


LAYOUTS = {f.__name__: f for f in (embedded, transposed, channels_last, sliced, expanded)}


@contextlib.contextmanager
def poisoned() -> Iterator[None]:
    """Inside, torch fills the memory of new empty tensors with NaN: an output that a kernel leaves out shows."""
    enabled = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    deterministic: Any = torch.utils.deterministic
    fill = deterministic.fill_uninitialized_memory
    torch.use_deterministic_algorithms(True, warn_only=True)
    deterministic.fill_uninitialized_memory = True
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(enabled, warn_only=warn_only)
        deterministic.fill_uninitialized_memory = fill


@contextlib.contextmanager
def threads(count: int) -> Iterator[None]:
    """Inside, torch and the C++ kernels use `count` threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def awake(module: M, std: float = 0.7) -> M:
    """The module in float64 with random weights: new modules have output projections of zeros, which hide the rest."""
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter, std=std)
    return module.double()


def differentiable(inputs: dict[str, Any]) -> dict[str, Tensor]:
    """The arguments that have a gradient: the float tensors, except a filter."""
    return {name: t for name, t in _floats(inputs).items() if name != "filter"}


def _floats(inputs: dict[str, Any]) -> dict[str, Tensor]:
    return {name: t for name, t in inputs.items() if torch.is_tensor(t) and t.is_floating_point()}


def each_tensor(function: Callable[[Tensor], Any], inputs: dict[str, Any]) -> dict[str, Any]:
    """`inputs` with `function` applied to every tensor."""
    return {name: function(value) if torch.is_tensor(value) else value for name, value in inputs.items()}


def doubled(inputs: dict[str, Any]) -> dict[str, Any]:
    """`inputs` with the float tensors in float64."""
    return {**inputs, **{name: tensor.double() for name, tensor in _floats(inputs).items()}}


def outputs_of(result: Tensor | Sequence[Tensor]) -> tuple[Tensor, ...]:
    """What a function returned, one tensor or several, as a tuple."""
    return (result,) if isinstance(result, Tensor) else tuple(result)


def evaluate(
    function: Callable[..., Any],
    inputs: dict[str, Any],
    seed: int = 1,
    used: Collection[int] | None = None,
    **kwargs: Any,
) -> dict[str, Tensor]:
    """Outputs and gradients of `function(**inputs)` for random incoming gradients, by name; inputs are detached.

    The output is called "output", several are "output0", "output1", ... Integer outputs have no incoming gradient. Nor
    have outputs whose numbers are not in `used`, if that is given. An input that no gradient reaches gets zeros.
    """
    leaves = {name: tensor.detach().requires_grad_() for name, tensor in differentiable(inputs).items()}
    outputs = outputs_of(function(**{**inputs, **leaves}, **kwargs))
    generator = torch.Generator("cpu").manual_seed(seed)
    incoming = {
        i: torch.randn(output.shape, generator=generator, dtype=torch.float64, device="cpu").to(output)
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
    detached = {name: output.detach() for name, output in zip(names, outputs)}
    return detached | {f"grad_{name}": gradient for name, gradient in zip(leaves, gradients)}
