"""One helper that makes an op, from the names of its arguments: schema, kernels, fakes and gradients.

Three layers, outermost first:
- `call` (returned): picks the backend; the reference is called as itself so that torch.compile can trace it;
- `Forward`, `Gradient`: autograd.Functions around the native ops, entered only when a derivative is wanted;
- `torch.ops.genfast.<op>_forward` and `_backward`: functional ops around the native kernels.

What has no derivative, a sampler or a measure, is one functional op, `torch.ops.genfast.<op>`.
"""

import torch
from torch._functorch.utils import enable_single_level_autograd_function
from torch.autograd import forward_ad

from genfast._native import backends

LIBRARY = torch.library.Library("genfast", "DEF")
# op -> the function that it runs on plain tensors.
_KERNELS = {}
_is_wrapped = torch._C._functorch.is_functorch_wrapped_tensor
_TENSORS, _SETTINGS = {torch.Tensor, torch.nn.Parameter}, {int, float, bool, str}
_CODES = {torch.float32: "float32", torch.float64: "float64", torch.bfloat16: "bfloat16"}


def register(name, reference, *, arguments, results, residuals, numbers, allocate, allocate_gradients, dtypes,
             outputs=1, whole=(), constants=(), optional=(), settings=None, adjoint=None,
             arrange=torch.Tensor.contiguous):  # fmt: skip
    """Register `genfast::<name>_forward` and `genfast::<name>_backward`; return `call(*arguments, backend)`.

    Args:
        name: of the op.
        reference: pure PyTorch function of the tensors and settings; it gives the derivatives of the gradient.
        arguments: names of the tensor arguments; the first that is no constant chooses the backend.
        results: names of what the forward op returns: the outputs, then what is empty unless saved.
        residuals: names of what the backward op reads after the gradients of the outputs, in this order.
        numbers: names of the numbers for the C++ functions, in this order; both take the same.
        allocate: (*tensors, *settings, save) -> (the numbers for the C++ function, empty results).
        allocate_gradients: (gradients of the outputs, *residuals, *settings) -> (numbers, empty gradients of the
            arguments that are no constants). With several outputs the gradient of one that was not used is empty.
        dtypes: backend -> dtypes that it serves.
        outputs: how many results are the function's own.
        whole: those of them that hold whole numbers, and so have no gradient.
        constants: which arguments have no gradient.
        optional: arguments whose gradient is only made where it is wanted: `allocate_gradients` and the backward op
            then end with a setting `wanted`, of which bit i stands for the i-th argument that is no constant.
        settings: name -> schema type (int, float, bool, str; SymInt for a size) of the arguments after the tensors.
        adjoint: of an op that is linear in its one argument that is no constant, and whose gradient is the op itself:
            (gradient of the output, *tensors, *settings) -> the (tensors, settings) to call it with. The higher
            derivatives are then native too.
        arrange: what brings a tensor into a memory layout that the native functions read.
    """
    settings = settings or {}
    count, first = len(arguments), 1 + len(settings)
    learned = [i for i, argument in enumerate(arguments) if argument not in constants]
    smooth = [i for i in range(outputs) if results[i] not in whole]
    backends.serves(name, dtypes)
    flags = {**settings, "save": "bool"}
    forward_op = _define(name, f"{name}_forward", arguments, flags, results, numbers, allocate, arrange, learned[0])
    incoming = [f"grad_{results[i]}" for i in smooth]
    gradients = [f"grad_{arguments[i]}" for i in learned]
    back_flags = {**settings, "wanted": "int"} if optional else settings
    # The gradient of an output may be wider than the arguments are.
    lead = len(smooth) + residuals.index(arguments[learned[0]]) if arguments[learned[0]] in residuals else 0
    backward_op = _define(
        name, f"{name}_backward", (*incoming, *residuals), back_flags, gradients, numbers, allocate_gradients, arrange,
        lead,
    )  # fmt: skip
    # What is kept for the backward pass: the arguments, then the results that it reads; and where its residuals are.
    extra = [results.index(r) for r in residuals if r in results]
    kept = (*arguments, *(results[i] for i in extra))
    places = [kept.index(r) for r in residuals]
    rough = [i for i in range(len(results)) if i not in smooth]

    def backward_args(wanted, chosen, grads, tensors):
        if len(smooth) > 1:
            grads = [tensors[learned[0]].new_empty(0) if grad is None else grad for grad in grads]
        flags = (*chosen, wanted) if optional else chosen
        return *grads, *[tensors[i] for i in places], *flags

    def run_backward(backend, wanted, chosen, grads, tensors):
        return _tuple(_run(backward_op, backend, backward_args(wanted, chosen, grads, tensors)))

    def of_every_argument(gradients, wanted=-1):
        every = [None] * count
        for bit, (i, gradient) in enumerate(zip(learned, gradients)):
            if wanted >> bit & 1 or arguments[i] not in optional:
                every[i] = gradient
        return every

    def asked(ctx, every):
        """The gradients of the smooth outputs, None if there are none, and which gradients are wanted."""
        grads = [every[i] for i in smooth]
        wanted = -1
        if optional:
            wanted = sum(1 << bit for bit, i in enumerate(learned) if ctx.needs_input_grad[first + i])
        return grads if any(grad is not None for grad in grads) else None, wanted

    def forwards(gradients, wanted):
        return *(None,) * first, *of_every_argument(gradients, wanted)

    class Forward(torch.autograd.Function):
        @staticmethod
        def forward(backend, *args):
            chosen, tensors = args[: first - 1], args[first - 1 :]
            # Grad mode is always off in here, so what to save cannot be asked of torch: it is passed in.
            return _tuple(_run(forward_op, backend, (*tensors, *chosen, True)))

        @staticmethod
        def setup_context(ctx, inputs, output):
            ctx.backend, ctx.chosen = inputs[0], inputs[1:first]
            # Without this torch would build zero gradients as large as the saved tensors.
            ctx.set_materialize_grads(False)
            ctx.mark_non_differentiable(*[output[i] for i in rough])
            ctx.save_for_backward(*inputs[first:], *[output[i] for i in extra])

        @staticmethod
        def backward(ctx, *every):
            grads, wanted = asked(ctx, every)
            if grads is None:
                return (None,) * (first + count)
            if torch.is_grad_enabled() and adjoint:
                tensors, chosen = adjoint(*grads, *ctx.saved_tensors[:count], *ctx.chosen)
                gradients = (call(*tensors, *chosen, backend=ctx.backend),)
            elif torch.is_grad_enabled():
                gradients = _apply(Gradient, ctx.backend, wanted, *ctx.chosen, *grads, *ctx.saved_tensors)
            else:
                gradients = run_backward(ctx.backend, wanted, ctx.chosen, grads, ctx.saved_tensors)
            return forwards(gradients, wanted)

    class ForwardOfLevel(Forward):
        """`Forward` under the op, at one level of torch.func: the op goes on to the next level."""

        @staticmethod
        def forward(backend, *args):
            chosen, tensors = args[: first - 1], args[first - 1 :]
            return _tuple(_next_level(forward_op, backend, (*tensors, *chosen, True)))

        @staticmethod
        def backward(ctx, *every):
            grads, wanted = asked(ctx, every)
            if grads is None:
                return (None,) * (first + count)
            args = backward_args(wanted, ctx.chosen, grads, ctx.saved_tensors)
            return forwards(_tuple(backward_op(*args, backend=ctx.backend)), wanted)

    class Gradient(torch.autograd.Function):
        """The native backward op as a function of the arguments; its derivatives are the reference's."""

        @staticmethod
        def forward(backend, wanted, *args):
            chosen, grads, tensors = _split(args, first - 1, len(smooth))
            return run_backward(backend, wanted, chosen, grads, tensors)

        @staticmethod
        def setup_context(ctx, inputs, output):
            ctx.chosen, grads, tensors = _split(inputs[2:], first - 1, len(smooth))
            ctx.set_materialize_grads(False)
            ctx.present = [grad is not None for grad in grads]
            ctx.save_for_backward(*(grad for grad in grads if grad is not None), *tensors[:count])

        @staticmethod
        def backward(ctx, *seconds):
            used = sum(ctx.present)
            grads, tensors = ctx.saved_tensors[:used], ctx.saved_tensors[used:]
            changed = [tensors[i] for i in learned]

            def function(*changed):
                every = list(tensors)
                for i, tensor in zip(learned, changed):
                    every[i] = tensor
                outputs = _tuple(reference(*every, *ctx.chosen))
                return tuple(outputs[i] for i, present in zip(smooth, ctx.present) if present)

            def first_order(grads, *changed):
                return torch.func.vjp(function, *changed)[1](grads)

            # The gradient of an argument that was not wanted is empty, and has no part in this.
            seconds = tuple(
                torch.zeros_like(tensor) if second is None or second.shape != tensor.shape else second
                for second, tensor in zip(seconds, changed)
            )
            of_grads, *of_changed = torch.func.vjp(first_order, tuple(grads), *changed)[1](seconds)
            of_grads = iter(of_grads)
            of_grads = [next(of_grads) if present else None for present in ctx.present]
            rest = (None,) * (len(kept) - count)
            return *(None,) * (first + 1), *of_grads, *of_every_argument(of_changed), *rest

    class GradientOfLevel(Gradient):
        """`Gradient` under the op, at one level of torch.func."""

        @staticmethod
        def forward(backend, wanted, *args):
            chosen, grads, tensors = _split(args, first - 1, len(smooth))
            return _tuple(_next_level(backward_op, backend, backward_args(wanted, chosen, grads, tensors)))

    def formula(*args, backend="auto"):
        tensors, chosen, save = args[:count], args[count:-1], args[-1]
        made = _apply_under_op(Forward, ForwardOfLevel, backend, *chosen, *tensors)
        saved = made[outputs:]
        made = *made[:outputs], *(saved if save else [s.new_empty(0) for s in saved])
        return made if len(made) > 1 else made[0]

    # Whether the backward op is given all that its own derivatives need.
    complete = set(arguments) <= set(residuals)

    def gradient_formula(*args, backend="auto"):
        if not complete:
            raise RuntimeError(f"{name}_backward: expected no input that requires grad; differentiate {name}")
        grads, given, flags = _split(args, len(smooth), len(residuals))
        chosen, wanted = (flags[:-1], flags[-1]) if optional else (flags, -1)
        tensors = [given[residuals.index(r)] if r in residuals else None for r in kept]
        if adjoint:
            tensors, chosen = adjoint(*grads, *tensors[:count], *chosen)
            return forward_op(*tensors, *chosen, False, backend=backend)
        if len(smooth) > 1:
            grads = [grad if grad.numel() else None for grad in grads]
        made = _apply_under_op(Gradient, GradientOfLevel, backend, wanted, *chosen, *grads, *tensors)
        return made if len(made) > 1 else made[0]

    _differentiate(forward_op, formula)
    _differentiate(backward_op, gradient_formula)

    def call(*args, backend):
        tensors, chosen = args[:count], args[count:]
        backend = backends.select(name, tensors[learned[0]], backend)
        within = torch.compiler.is_dynamo_compiling() and _within_transform()
        if backend == "reference" or within and not complete:
            return reference(*args)
        if within:
            made = _tuple(forward_op(*args, True, backend=backend))
        elif _wanted(tensors):
            made = _apply(Forward, backend, *chosen, *tensors)
        else:
            made = _tuple(_run(forward_op, backend, (*args, False)))
        return made[:outputs] if outputs > 1 else made[0]

    return call


def register_without_gradient(
    name, reference, *, arguments, settings, numbers, allocate, dtypes, results=("draw",),
    arrange=torch.Tensor.contiguous,
):  # fmt: skip
    """Register `genfast::<name>`, whose results have no gradient; return `call(*arguments, backend)`.

    Args:
        name: name of the op.
        reference: pure PyTorch function of the tensors and settings.
        arguments: names of the tensor arguments; the first chooses the backend.
        settings: name -> schema type (int, float, bool) of the arguments after the tensors.
        numbers: names of the numbers for the C++ function, in this order.
        allocate: (*tensors, *settings) -> (the numbers for the C++ function, a tuple of the empty results).
        dtypes: backend -> dtypes that it serves.
        results: names of what the op returns.
        arrange: what brings a tensor into a memory layout that the native functions read.
    """
    count = len(arguments)
    backends.serves(name, dtypes)
    op = _define(name, name, arguments, settings, results, numbers, allocate, arrange)

    def call(*args, backend):
        tensors, chosen = [tensor.detach() for tensor in args[:count]], args[count:]
        backend = backends.select(name, tensors[0], backend)
        if backend == "reference":
            return reference(*tensors, *chosen)
        return _run(op, backend, (*tensors, *chosen))

    return call


def _define(op, name, tensors, settings, results, numbers, allocate, arrange, lead=0):
    """Define one functional op; its kernel is the native function of the backend asked for."""
    backends.check_signature(name, (*tensors, *results, *numbers))
    inputs = [f"Tensor {t}" for t in tensors] + [f"{kind} {s}" for s, kind in settings.items()]
    outputs = [f"Tensor {r}" for r in results]
    LIBRARY.define(f'{name}({", ".join(inputs)}, *, str backend="auto") -> ({", ".join(outputs)})')
    count = len(tensors)

    def result(made):
        return made if len(results) > 1 else made[0]

    def kernel(*args, backend="auto"):
        return native(backends.select(op, args[lead], backend, backends.NATIVE), args)

    def native(backend, args):
        tensors, chosen = [arrange(tensor) for tensor in args[:count]], args[count:]
        if backend == "triton":
            return backends.launcher(op, name)(*tensors, *chosen)
        numbers, made = allocate(*tensors, *chosen)
        # An empty tensor has the address 0, which is how the C++ side is told not to save.
        addresses = [tensor.data_ptr() for tensor in (*tensors, *made)]
        getattr(backends.cpp, name)(_CODES[tensors[lead].dtype], *addresses, *numbers)
        return result(made)

    for device in ("CPU", "CUDA"):
        LIBRARY.impl(name, kernel, device)

    def fake(*args, backend="auto"):
        return result(allocate(*args)[1])

    torch.library.register_fake(f"genfast::{name}", fake, lib=LIBRARY)
    defined = getattr(torch.ops.genfast, name).default
    _KERNELS[defined] = native
    return defined


def _run(op, backend, args):
    """`op(*args)` below autograd on a backend that serves it. Where nothing intercepts the op its kernel is called at
    once, which takes a third of the time."""
    if (
        torch.compiler.is_dynamo_compiling()
        or torch._C._len_torch_dispatch_stack()
        or torch._C._are_functorch_transforms_active()
        or not all(map(_plain, args))
    ):
        return op(*args, backend=backend)
    return _KERNELS[op](backend, args)


def _plain(arg):
    """Whether the memory of an argument holds its values: not so of subclasses, lazy negatives and lazy zeros, and what
    a torch.func transform that is over has wrapped."""
    if type(arg) in _TENSORS:
        return not (arg.is_neg() or arg._is_zerotensor() or _is_wrapped(arg))
    return type(arg) in _SETTINGS


def _apply(function, *args):
    """`function.apply(*args)`, without the 20 us that torch takes to look up the names of the arguments."""
    if torch.compiler.is_dynamo_compiling():
        return function.apply(*_distinct(args))
    if torch._C._are_functorch_transforms_active():
        return function.apply(*args)
    return super(torch.autograd.Function, function).apply(*args)


def _distinct(args):
    """`args` with another view of a tensor for each of its repetitions: torch.compile traces no call that is given the
    same tensor twice."""
    made = []
    for arg in args:
        repeated = isinstance(arg, torch.Tensor) and any(arg is other for other in made)
        made.append(arg.view_as(arg) if repeated else arg)
    return made


def _split(args, *counts):
    """Parts of `args` of these lengths, and the rest."""
    parts, start = [], 0
    for count in counts:
        parts.append(args[start : start + count])
        start += count
    return *parts, args[start:]


def _tuple(made):
    """What an op returned, as a tuple: torch unpacks a tuple of one."""
    return (made,) if isinstance(made, torch.Tensor) else tuple(made)


def _apply_under_op(function, of_level, *args):
    """A Function within the op's own kernel for autograd. While torch.func transforms run, each level has its turn."""
    if not torch._C._are_functorch_transforms_active():
        return _apply(function, *args)
    with enable_single_level_autograd_function():
        return super(torch.autograd.Function, of_level).apply(*args)


def _next_level(op, backend, args):
    """The op below autograd, where the next level of torch.func waits; a Function had switched off both modes."""
    forward_mode = forward_ad._set_fwd_grad_enabled(True)
    with torch.enable_grad(), forward_mode, torch._C._AutoDispatchBelowAutograd():
        return op(*args, backend=backend)


def _within_transform():
    """Whether torch.func transforms run. torch.compile then records autograd.Functions without their second order, so
    that the op itself has to stand in the graph."""
    return torch._C._are_functorch_transforms_active()


# What torch.compiler.assume_constant_result sets, without its import of the whole compiler.
_within_transform._dynamo_marked_constant = True


def _differentiate(op, formula):
    """Give `op` itself a derivative, or an error: a bare Library op would only warn and lose the gradient."""

    def autograd(*args, backend="auto"):
        if _wanted([a for a in args if isinstance(a, torch.Tensor)]):
            return formula(*args, backend=backend)
        with torch._C._AutoDispatchBelowAutograd():
            return op(*args, backend=backend)

    LIBRARY.impl(op, autograd, "Autograd")


def _wanted(tensors):
    """Whether a derivative may be asked of this call; in forward mode that leads to an error, not zeros."""
    if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors):
        return True
    return forward_ad._current_level >= 0 and torch._C._is_fwd_grad_enabled()
