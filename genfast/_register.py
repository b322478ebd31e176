"""One helper that makes an op, from the names of its tensors: schema, kernels, fakes and gradients.

Three layers, outermost first:
- `call` (returned): picks the backend; the reference is called as itself so that torch.compile can trace it;
- `Forward`, `Gradient`: autograd.Functions around the native ops, entered only when a derivative is wanted;
- `torch.ops.genfast.<op>_forward` and `_backward`: functional ops around the native kernels.
"""

import torch
from torch.autograd import forward_ad

from genfast import _backends

LIBRARY = torch.library.Library("genfast", "DEF")
_CODES = {torch.float32: "float32", torch.float64: "float64", torch.bfloat16: "bfloat16"}


def register(name, reference, *, arguments, results, residuals, allocate, allocate_gradients, dtypes):
    """Register `genfast::<name>_forward` and `genfast::<name>_backward`; return `call(*tensors, backend)`.

    Args:
        name: stem of the op.
        reference: pure PyTorch function of `arguments`; it gives the derivatives of the gradient.
        arguments: names of the tensor arguments.
        results: names of what the forward op returns: the output, then what is empty unless saved.
        residuals: names of what the backward op reads after the gradient of the output, in this order.
        allocate: (*arguments, save) -> (the integers for the C++ function, empty results).
        allocate_gradients: (output's gradient, *residuals) -> (integers, empty gradients of the arguments).
        dtypes: backend -> dtypes that it serves.
    """
    _backends.serves(name, dtypes)
    incoming = f"grad_{results[0]}"
    forward_op = _define(name, "forward", arguments, ", bool save", len(results), allocate)
    backward_op = _define(name, "backward", (incoming, *residuals), "", len(arguments), allocate_gradients)
    kept = (*arguments, *(r for r in residuals if r in results))

    def run_backward(grad, tensors, backend):
        values = dict(zip(kept, tensors))
        return backward_op(grad, *(values[r] for r in residuals), backend=backend)

    class Forward(torch.autograd.Function):
        @staticmethod
        def forward(backend, *tensors):
            # Grad mode is always off in here, so what to save cannot be asked of torch: it is passed in.
            return forward_op(*tensors, True, backend=backend)

        @staticmethod
        def setup_context(ctx, inputs, output):
            ctx.backend, *tensors = inputs
            values = dict(zip(results, output))
            # Without this torch would build zero gradients as large as the saved tensors.
            ctx.set_materialize_grads(False)
            ctx.mark_non_differentiable(*output[1:])
            ctx.save_for_backward(*tensors, *(values[k] for k in kept if k in values))

        @staticmethod
        def backward(ctx, grad, *_):
            if grad is None:
                return (None,) * (1 + len(arguments))
            if torch.is_grad_enabled():
                return None, *Gradient.apply(ctx.backend, grad, *ctx.saved_tensors)
            return None, *run_backward(grad, ctx.saved_tensors, ctx.backend)

    class Gradient(torch.autograd.Function):
        """The native backward op as a function of the arguments; its derivatives are the reference's."""

        @staticmethod
        def forward(backend, grad, *tensors):
            return run_backward(grad, tensors, backend)

        @staticmethod
        def setup_context(ctx, inputs, output):
            ctx.save_for_backward(*inputs[1 : 2 + len(arguments)])

        @staticmethod
        def backward(ctx, *grads):
            def gradient(grad, *tensors):
                return torch.func.vjp(reference, *tensors)[1](grad)

            second = torch.func.vjp(gradient, *ctx.saved_tensors)[1](grads)
            return None, *second, *(None,) * (len(kept) - len(arguments))

    def formula(*args, backend="auto"):
        *tensors, save = args
        output, *saved = Forward.apply(backend, *tensors)
        return output, *(saved if save else [s.new_empty(0) for s in saved])

    def no_formula(*args, backend="auto"):
        raise RuntimeError(f"{name}_backward: expected no input that requires grad; differentiate {name}")

    _differentiate(forward_op, f"{name}_forward", formula)
    _differentiate(backward_op, f"{name}_backward", no_formula)

    def call(*tensors, backend):
        backend = _backends.select(name, tensors[0], backend)
        if backend == "reference":
            return reference(*tensors)
        if _wanted(tensors):
            return Forward.apply(backend, *tensors)[0]
        return forward_op(*tensors, False, backend=backend)[0]

    return call


def _define(op, direction, inputs, flags, outputs, allocate):
    """Define one functional op; its kernel is the native function of the backend asked for."""
    name = f"{op}_{direction}"
    schema = ", ".join(f"Tensor {i}" for i in inputs) + flags
    LIBRARY.define(f'{name}({schema}, *, str backend="auto") -> ({", ".join(["Tensor"] * outputs)})')
    count = len(inputs)

    def kernel(*args, backend="auto"):
        tensors, flags = [tensor.contiguous() for tensor in args[:count]], args[count:]
        backend = _backends.select(op, tensors[0], backend, _backends.NATIVE)
        if backend == "triton":
            return _backends.launcher(op, name)(*tensors, *flags)
        sizes, made = allocate(*tensors, *flags)
        # An empty tensor has the address 0, which is how the C++ side is told not to save.
        addresses = [tensor.data_ptr() for tensor in (*tensors, *made)]
        getattr(_backends.cpp, name)(_CODES[tensors[0].dtype], *addresses, *sizes)
        return made

    for device in ("CPU", "CUDA"):
        LIBRARY.impl(name, kernel, device)

    def fake(*args, backend="auto"):
        return allocate(*args)[1]

    torch.library.register_fake(f"genfast::{name}", fake, lib=LIBRARY)
    return getattr(torch.ops.genfast, name).default


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
