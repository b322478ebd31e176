"""How the autograd Functions of an op are entered, and the derivatives of its gradient."""

from __future__ import annotations

import contextlib
import contextvars
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch._functorch.utils import enable_single_level_autograd_function
from torch.autograd import Function, forward_ad

from genfast._native.schema import OpSchema
from genfast._native.transforms import mapped, transforms_run

# What stands at one level of torch.func, where a Function is taken apart into all of them.
FunctionOfLevel: Any = torch.autograd.function._SingleLevelFunction
_WITHIN_PENALTY = contextvars.ContextVar("within_penalty", default=False)


def bound_apply(function: Any) -> Callable:
    """`function.apply` for eager mode without torch.func. Until torch 2.14 its own looks up the names of the arguments,
    which takes 20 us."""
    return super(Function, function).apply if issubclass(function, Function) else function.apply


def apply(function: type[Function], *args: Any) -> Any:
    """`function.apply(*args)` in every mode."""
    if torch.compiler.is_dynamo_compiling():
        return function.apply(*_distinct(args))
    if transforms_run():
        return function.apply(*args)
    return bound_apply(function)(*args)


def _distinct(args: Sequence[Any]) -> list[Any]:
    """`args` with another view of a tensor for each of its repetitions: torch.compile traces no call that is given the
    same tensor twice."""
    seen: list[Any] = []
    for arg in args:
        repeated = isinstance(arg, Tensor) and any(arg is other for other in seen)
        seen.append(arg.view_as(arg) if repeated else arg)
    return seen


def apply_under_op(function: type[Function], of_level: Any, *args: Any) -> Any:
    """A Function within the op's own kernel for autograd. While torch.func transforms run, each level has its turn."""
    if not transforms_run():
        return apply(function, *args)
    with enable_single_level_autograd_function():
        return bound_apply(of_level)(*args)


def next_level(op: Callable, backend: str, *args: Any) -> Any:
    """The op below autograd, where the next level of torch.func waits; a Function had switched off both modes."""
    forward_mode = forward_ad._set_fwd_grad_enabled(True)
    with torch.enable_grad(), forward_mode, torch._C._AutoDispatchBelowAutograd():
        return op(*args, backend=backend)


def needs_reference(op: str, asked: str, tensors: Sequence[Tensor]) -> bool:
    """Whether vmap or forward mode is at work, where only the reference serves; an error if another was asked for."""
    if not mapped():
        duals = in_forward_mode() and [t for t in tensors if forward_ad.unpack_dual(t).tangent is not None]
        if not duals:
            return False
    if asked != "auto":
        expected = "'auto' or 'reference' under vmap and in forward mode, which run the reference"
        raise NotImplementedError(f"{op}: backend must be {expected}; got {asked!r}")
    return True


def in_forward_mode() -> bool:
    """Whether forward-mode derivatives may be asked for. The Functions then raise, where an op alone gives zeros."""
    return forward_ad._current_level >= 0 and torch._C._is_fwd_grad_enabled()


def is_wanted(tensors: Sequence[Tensor]) -> bool:
    """Whether a derivative may be asked of a call with these tensors."""
    return torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors) or in_forward_mode()


def within_transform() -> bool:
    """Whether torch.func transforms run, or the gradient of a penalty is taken: layers then leave their state as it is.
    torch.compile records autograd.Functions there without their second order: the op itself stands in the graph."""
    return transforms_run() or _WITHIN_PENALTY.get()


@contextlib.contextmanager
def within_penalty() -> Iterator[None]:
    """While torch.autograd.grad takes the gradient of a penalty."""
    token = _WITHIN_PENALTY.set(True)
    try:
        yield
    finally:
        _WITHIN_PENALTY.reset(token)


# What torch.compiler.assume_constant_result sets, without its import of the whole compiler.
within_transform._dynamo_marked_constant = True  # type: ignore[attr-defined]


def given(grad: Tensor | None, like: Tensor) -> Tensor:
    """The gradient of an output as the backward op takes it: of one that was not used it is empty."""
    return like.new_empty(0) if grad is None else grad


def as_tuple(results: Tensor | Sequence[Tensor]) -> tuple[Tensor, ...]:
    """What an op returned, as a tuple: torch unpacks a tuple of one."""
    return (results,) if isinstance(results, Tensor) else tuple(results)


def second_order(
    schema: OpSchema,
    reference: Callable,
    saved: Sequence[Tensor | None],
    settings: Sequence[Any],
    seconds: Sequence[Tensor | None],
) -> tuple[list[Tensor | None], list[Tensor | None]]:
    """The derivatives of the gradients of an op, which are those of its reference.

    Args:
        schema: of the op.
        reference: its pure PyTorch function.
        saved: the gradients of the differentiable outputs, None where there was none, then the arguments.
        settings: of the call.
        seconds: the incoming gradient of each gradient, or None.

    Returns:
        The gradients of the gradients of the differentiable outputs, and those of the arguments; None where there is
        none.
    """
    count = len(schema.incoming)
    arguments: dict[str, Any] = dict(zip(schema.arguments, saved[count:]))
    present = [grad is not None for grad in saved[:count]]
    grads = tuple(grad for grad in saved[:count] if grad is not None)
    function, differentiable = _differentiable(schema, reference, arguments, settings, present)

    def first_order(grads: tuple[Tensor, ...], *tensors: Tensor) -> tuple[Tensor, ...]:
        return torch.func.vjp(function, *tensors)[1](grads)

    # The gradient of an argument that was not wanted is empty, and has no part in this.
    seconds = tuple(
        torch.zeros_like(tensor) if second is None or second.shape != tensor.shape else second
        for second, tensor in zip(seconds, differentiable)
    )
    of_grads, *of_tensors = torch.func.vjp(first_order, grads, *differentiable)[1](seconds)
    remaining, of_arguments = iter(of_grads), dict(zip(schema.differentiable, of_tensors))
    return [next(remaining) if used else None for used in present], [of_arguments.get(n) for n in schema.arguments]


def first_order(
    schema: OpSchema,
    reference: Callable,
    arguments: Sequence[Tensor],
    settings: Sequence[Any],
    grads: Sequence[Tensor | None],
) -> list[Tensor | None]:
    """The gradients of the arguments of an op, which are those of its reference; None where there is none."""
    named, present = dict(zip(schema.arguments, arguments)), [grad is not None for grad in grads]
    function, differentiable = _differentiable(schema, reference, named, settings, present)
    gradients = torch.func.vjp(function, *differentiable)[1](tuple(grad for grad in grads if grad is not None))
    of_arguments = dict(zip(schema.differentiable, gradients))
    return [of_arguments.get(name) for name in schema.arguments]


def _differentiable(
    schema: OpSchema,
    reference: Callable,
    arguments: Mapping[str, Any],
    settings: Sequence[Any],
    present: Sequence[bool],
) -> tuple[Callable, list[Tensor]]:
    """The reference from the differentiable arguments to the outputs whose gradient is present; and these arguments."""
    places = [list(schema.outputs).index(output) for output in schema.differentiable_outputs]

    def function(*tensors: Tensor) -> tuple[Tensor, ...]:
        every = {**arguments, **dict(zip(schema.differentiable, tensors))}
        outputs = as_tuple(reference(*every.values(), *settings))
        return tuple(outputs[place] for place, used in zip(places, present) if used)

    return function, [arguments[name] for name in schema.differentiable]
