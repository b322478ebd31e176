"""One helper that makes an op, from the names of its arguments: schema, kernels, fakes and gradients.

Three layers, outermost first:
- `call` (returned): picks the backend; the reference is called as itself so that torch.compile can trace it;
- `Forward`, `Gradient`: autograd.Functions around the native ops, entered only when a derivative is wanted;
- `torch.ops.genfast.<op>_forward` and `_backward`: functional ops around the native kernels.

A sampler has one functional op, `torch.ops.genfast.<op>`, and no derivative.
"""

import torch
from torch.autograd import forward_ad

from genfast import _backends

LIBRARY = torch.library.Library("genfast", "DEF")
_CODES = {torch.float32: "float32", torch.float64: "float64", torch.bfloat16: "bfloat16"}


def register(name, reference, *, arguments, results, residuals, allocate, allocate_gradients, dtypes,
             constants=(), settings=None, arrange=torch.Tensor.contiguous):  # fmt: skip
    """Register `genfast::<name>_forward` and `genfast::<name>_backward`; return `call(*arguments, backend)`.

    Args:
        name: of the op.
        reference: pure PyTorch function of the tensors and settings; it gives the derivatives of the gradient.
        arguments: names of the tensor arguments; the first that is no constant chooses the backend.
        results: names of what the forward op returns: the output, then what is empty unless saved.
        residuals: names of what the backward op reads after the gradient of the output, in this order.
        allocate: (*tensors, *settings, save) -> (the numbers for the C++ function, empty results).
        allocate_gradients: (output's gradient, *residuals, *settings) -> (numbers, empty gradients of the
            arguments that are no constants).
        dtypes: backend -> dtypes that it serves.
        constants: which arguments have no gradient.
        settings: name -> schema type (int, float, bool) of the arguments after the tensors.
        arrange: what brings a tensor into a memory layout that the native functions read.
    """
    settings = settings or {}
    count, first = len(arguments), 1 + len(settings)
    learned = [i for i, argument in enumerate(arguments) if argument not in constants]
    _backends.serves(name, dtypes)
    flags = {**settings, "save": "bool"}
    forward_op = _define(name, f"{name}_forward", arguments, flags, results, allocate, arrange, learned[0])
    incoming = f"grad_{results[0]}"
    gradients = [f"grad_{arguments[i]}" for i in learned]
    backward_op = _define(
        name, f"{name}_backward", (incoming, *residuals), settings, gradients, allocate_gradients, arrange
    )
    kept = (*arguments, *(r for r in residuals if r in results))

    def run_backward(backend, chosen, grad, tensors):
        values = dict(zip(kept, tensors))
        return _tuple(backward_op(grad, *(values[r] for r in residuals), *chosen, backend=backend))

    def of_every_argument(gradients):
        every = [None] * count
        for i, gradient in zip(learned, gradients):
            every[i] = gradient
        return every

    class Forward(torch.autograd.Function):
        @staticmethod
        def forward(backend, *args):
            chosen, tensors = args[: first - 1], args[first - 1 :]
            # Grad mode is always off in here, so what to save cannot be asked of torch: it is passed in.
            return _tuple(forward_op(*tensors, *chosen, True, backend=backend))

        @staticmethod
        def setup_context(ctx, inputs, output):
            ctx.backend, ctx.chosen = inputs[0], inputs[1:first]
            values = dict(zip(results, output))
            # Without this torch would build zero gradients as large as the saved tensors.
            ctx.set_materialize_grads(False)
            ctx.mark_non_differentiable(*output[1:])
            ctx.save_for_backward(*inputs[first:], *(values[k] for k in kept if k in values))

        @staticmethod
        def backward(ctx, grad, *_):
            if grad is None:
                return (None,) * (first + count)
            if torch.is_grad_enabled():
                gradients = Gradient.apply(ctx.backend, *ctx.chosen, grad, *ctx.saved_tensors)
            else:
                gradients = run_backward(ctx.backend, ctx.chosen, grad, ctx.saved_tensors)
            return *(None,) * first, *of_every_argument(gradients)

    class Gradient(torch.autograd.Function):
        """The native backward op as a function of the arguments; its derivatives are the reference's."""

        @staticmethod
        def forward(backend, *args):
            chosen, grad, *tensors = args[: first - 1], *args[first - 1 :]
            return run_backward(backend, chosen, grad, tensors)

        @staticmethod
        def setup_context(ctx, inputs, output):
            ctx.chosen = inputs[1:first]
            ctx.save_for_backward(*inputs[first : first + 1 + count])

        @staticmethod
        def backward(ctx, *grads):
            grad, *tensors = ctx.saved_tensors

            def function(*changed):
                every = list(tensors)
                for i, tensor in zip(learned, changed):
                    every[i] = tensor
                return reference(*every, *ctx.chosen)

            def gradient(grad, *changed):
                return torch.func.vjp(function, *changed)[1](grad)

            second = torch.func.vjp(gradient, grad, *(tensors[i] for i in learned))[1](grads)
            rest = (None,) * (len(kept) - count)
            return *(None,) * first, second[0], *of_every_argument(second[1:]), *rest

    def formula(*args, backend="auto"):
        tensors, chosen, save = args[:count], args[count:-1], args[-1]
        output, *saved = Forward.apply(backend, *chosen, *tensors)
        made = output, *(saved if save else [s.new_empty(0) for s in saved])
        return made if len(made) > 1 else output

    def no_formula(*args, backend="auto"):
        raise RuntimeError(f"{name}_backward: expected no input that requires grad; differentiate {name}")

    _differentiate(forward_op, f"{name}_forward", formula)
    _differentiate(backward_op, f"{name}_backward", no_formula)

    def call(*args, backend):
        tensors, chosen = args[:count], args[count:]
        backend = _backends.select(name, tensors[learned[0]], backend)
        if backend == "reference":
            return reference(*args)
        if _wanted(tensors):
            return Forward.apply(backend, *chosen, *tensors)[0]
        return _tuple(forward_op(*args, False, backend=backend))[0]

    return call


def register_sampler(
    name, reference, *, arguments, settings, allocate, dtypes, arrange=torch.Tensor.contiguous
):  # fmt: skip
    """Register `genfast::<name>`, whose result has no gradient; return `call(*arguments, backend)`.

    Args:
        name: name of the op.
        reference: pure PyTorch function of the tensors and settings.
        arguments: names of the tensor arguments; the first chooses the backend.
        settings: name -> schema type (int, float, bool) of the arguments after the tensors.
        allocate: (*tensors, *settings) -> (the numbers for the C++ function, a tuple of the empty result).
        dtypes: backend -> dtypes that it serves.
        arrange: what brings a tensor into a memory layout that the native functions read.
    """
    count = len(arguments)
    _backends.serves(name, dtypes)
    op = _define(name, name, arguments, settings, ["draw"], allocate, arrange)

    def call(*args, backend):
        tensors, chosen = [tensor.detach() for tensor in args[:count]], args[count:]
        backend = _backends.select(name, tensors[0], backend)
        if backend == "reference":
            return reference(*tensors, *chosen)
        return op(*tensors, *chosen, backend=backend)

    return call


def _define(op, name, tensors, settings, results, allocate, arrange, lead=0):
    """Define one functional op; its kernel is the native function of the backend asked for."""
    inputs = [f"Tensor {t}" for t in tensors] + [f"{kind} {s}" for s, kind in settings.items()]
    outputs = [f"Tensor {r}" for r in results]
    LIBRARY.define(f'{name}({", ".join(inputs)}, *, str backend="auto") -> ({", ".join(outputs)})')
    count = len(tensors)

    def result(made):
        return made if len(results) > 1 else made[0]

    def kernel(*args, backend="auto"):
        tensors, chosen = [arrange(tensor) for tensor in args[:count]], args[count:]
        backend = _backends.select(op, tensors[lead], backend, _backends.NATIVE)
        if backend == "triton":
            return _backends.launcher(op, name)(*tensors, *chosen)
        numbers, made = allocate(*tensors, *chosen)
        # An empty tensor has the address 0, which is how the C++ side is told not to save.
        addresses = [tensor.data_ptr() for tensor in (*tensors, *made)]
        getattr(_backends.cpp, name)(_CODES[tensors[lead].dtype], *addresses, *numbers)
        return result(made)

    for device in ("CPU", "CUDA"):
        LIBRARY.impl(name, kernel, device)

    def fake(*args, backend="auto"):
        return result(allocate(*args)[1])

    torch.library.register_fake(f"genfast::{name}", fake, lib=LIBRARY)
    return getattr(torch.ops.genfast, name).default


def _tuple(made):
    """What an op returned, as a tuple: torch unpacks a tuple of one."""
    return (made,) if isinstance(made, torch.Tensor) else tuple(made)


def _differentiate(op, name, formula):
    """Give `op` itself a derivative, or an error: a bare Library op would only warn and lose the gradient."""

    def autograd(*args, backend="auto"):
        if _wanted([a for a in args if isinstance(a, torch.Tensor)]):
            return formula(*args, backend=backend)
        with torch._C._AutoDispatchBelowAutograd():
            return op(*args, backend=backend)

    LIBRARY.impl(name, autograd, "Autograd")


def _wanted(tensors):
    """Whether a derivative may be asked of this call; in forward mode that leads to an error, not zeros."""
    if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors):
        return True
    return forward_ad._current_level >= 0 and torch._C._is_fwd_grad_enabled()
