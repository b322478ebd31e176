"""What makes an op of a schema and a reference: native ops, fakes, gradients and the call.

Three layers, outermost first:
- `call` (returned): picks the backend; the reference is called as itself so that torch.compile can trace it;
- `Forward`, `Gradient`: autograd.Functions around the native ops, entered only when a derivative is wanted;
- `torch.ops.genfast.<op>_forward` and `_backward`: functional ops around the native kernels.

What has no derivative, a sampler or a statistic, is one functional op, `torch.ops.genfast.<op>`.
"""

from __future__ import annotations

import functools
import types
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch._ops import OpOverload

from genfast._native import backends, derivatives, template, transforms
from genfast._native.kinds import check_devices
from genfast._native.schema import OpSchema

LIBRARY = torch.library.Library("genfast", "DEF")
# Every registered op by name.
SCHEMAS: dict[str, OpSchema] = {}
_CODES = {torch.float32: "float32", torch.float64: "float64", torch.bfloat16: "bfloat16"}
_is_wrapped = torch._C._functorch.is_functorch_wrapped_tensor


def register(schema: OpSchema, reference: Callable) -> Callable:
    """Define the native ops of `schema`; return `call(*arguments, *settings, backend)`.

    Args:
        schema: names, and the functions that make room for results.
        reference: pure PyTorch function of the arguments and settings. It gives the derivatives of the gradient, and
            its module the name of the op's files.
    """
    backends.serves(schema.name, schema.dtypes, stem=reference.__module__.rpartition(".")[2])
    ways = [(tuple(schema.arguments), schema.forward_settings, schema.results)]
    ways.append(((*schema.incoming, *schema.residuals), schema.backward_settings, schema.gradients))
    ops = []
    for function, (tensors, settings, results) in zip(schema.native_functions, ways):
        backends.check_signature(function, (*tensors, *results, *schema.numbers))
        ops.append(_define(function, tensors, settings, results))
    module: Any = template.load(schema, _namespace(schema, reference, ops))
    for op, way, (tensors, _, _) in zip(ops, ("forward", "backward"), ways):
        for device in ("CPU", "CUDA"):
            LIBRARY.impl(op, getattr(module, f"kernel_{way}"), device)
        torch.library.register_fake(op, getattr(module, f"fake_{way}"), lib=LIBRARY)
        setattr(module, f"{way}_traced", _traced(op, way, schema, tensors, module))
    if not schema.has_gradient:
        module.transformed = _transformed_draw(schema, reference, module)
    else:
        module.transformed = _transformed(schema, reference, module)
        module.adjoint_call = _adjoint_call(schema, module)
        _differentiate(module.forward_op, module.check_forward, _formula(schema, module))
        _differentiate(module.backward_op, module.check_backward, _gradient_formula(schema, module))
    SCHEMAS[schema.name] = schema
    return module.call


def _define(name: str, tensors: tuple[str, ...], settings: Mapping[str, str], results: tuple[str, ...]) -> OpOverload:
    """A functional op without kernels."""
    inputs = [f"Tensor {t}" for t in tensors] + [f"{kind} {s}" for s, kind in settings.items()]
    outputs = [f"Tensor {r}" for r in results]
    LIBRARY.define(f'{name}({", ".join(inputs)}, *, str backend="auto") -> ({", ".join(outputs)})')
    name, _, overload = name.partition(".")
    return getattr(getattr(torch.ops.genfast, name), overload or "default")


def _namespace(schema: OpSchema, reference: Callable, ops: Sequence[Callable]) -> dict[str, Any]:
    """What the template of an op refers to."""
    return {
        "OP": schema.name,
        "CODES": _CODES,
        "NATIVE": backends.NATIVE,
        "Function": torch.autograd.Function,
        "FunctionOfLevel": derivatives.FunctionOfLevel,
        "VMAP_MODE": torch._C._dispatch_key_parse("VmapMode"),
        "allocate": schema.allocate,
        "allocate_gradients": schema.allocate_gradients,
        "apply": derivatives.apply,
        "arrange": schema.arrange,
        "backends": backends,
        "batching": torch._C._dispatch_tls_is_dispatch_key_included,
        "check_devices": check_devices,
        "bound_apply": derivatives.bound_apply,
        "dispatch_modes": torch._C._len_torch_dispatch_stack,
        "first_order": functools.partial(derivatives.first_order, schema, reference),
        "forward_ad": torch.autograd.forward_ad,
        # Tracing before dispatch (make_fx) leaves tensors plain, and has a mode of functions: it must see the op.
        "function_modes": torch._C._len_torch_function_stack,
        "given": derivatives.given,
        "is_dynamo_compiling": torch.compiler.is_dynamo_compiling,
        "is_grad_enabled": torch.is_grad_enabled,
        "launcher": backends.launcher,
        "mapped": transforms.mapped,
        "needs_reference": derivatives.needs_reference,
        "next_level": derivatives.next_level,
        "plain": _is_plain,
        "reference": reference,
        "second_order": functools.partial(derivatives.second_order, schema, reference),
        "select": backends.select,
        "transforms": transforms.transforms_run,
        **dict(zip(("forward_op", "backward_op"), ops)),
        **{f"check_{way}": schema.checker(i) for i, way in enumerate(("forward", "backward")[: len(ops)])},
    }


def _is_plain(tensor: Tensor) -> bool:
    """Whether the memory of a tensor holds its values: not so of subclasses, lazy negatives and lazy zeros, and what a
    torch.func transform that is over has wrapped."""
    if type(tensor) is not Tensor and type(tensor) is not torch.nn.Parameter:
        return False
    return not (tensor.is_neg() or tensor._is_zerotensor() or _is_wrapped(tensor))


def _transformed(schema: OpSchema, reference: Callable, module: types.ModuleType) -> Callable:
    """The call that a native backend serves under torch.compile, torch.func or in forward mode."""
    count, outputs, is_complete = len(schema.arguments), len(schema.outputs), schema.is_complete

    def transformed(*inputs: Any, asked: str, backend: str) -> Tensor | tuple[Tensor, ...]:
        if derivatives.needs_reference(schema.name, asked, inputs[:count]):
            return reference(*inputs)
        if derivatives.within_transform() and torch.compiler.is_dynamo_compiling():
            if not is_complete:
                return reference(*inputs)
            results = module.forward_op(*inputs, True, backend=backend)
        elif derivatives.is_wanted(inputs[:count]):
            results = derivatives.apply(module.Forward, backend, *inputs)
        else:
            results = module.run_forward(backend, *inputs, False)
        results = derivatives.as_tuple(results)
        return results[:outputs] if outputs > 1 else results[0]

    return transformed


def _transformed_draw(schema: OpSchema, reference: Callable, module: types.ModuleType) -> Callable:
    """The same of an op without a gradient."""

    def transformed(*inputs: Any, asked: str, backend: str) -> Any:
        if derivatives.needs_reference(schema.name, asked, ()):
            return reference(*inputs)
        return module.run_forward(backend, *inputs)

    return transformed


def _traced(op: OpOverload, way: str, schema: OpSchema, tensors: tuple[str, ...], module: types.ModuleType) -> Callable:
    """The op as torch.compile records it.

    A graph holds for one value of a number that an op is given, and for all values of a tensor: an overload of the op
    takes its real numbers as tensors of no dimensions.
    """
    settings, results = getattr(schema, f"{way}_settings"), schema.results if way == "forward" else schema.gradients
    kernel, numbers = getattr(module, f"kernel_{way}"), [kind == "float" for kind in settings.values()]
    if not any(numbers):
        return lambda backend, *inputs: op(*inputs, backend=backend)
    kinds = {name: "Tensor" if kind == "float" else kind for name, kind in settings.items()}
    of_tensors = _define(f"{op._schema.name.partition('::')[2]}.of_tensors", tensors, kinds, results)
    count = len(tensors)

    def kernel_of_tensors(*inputs: Any, backend: str = "auto") -> Any:
        numbers = (value.item() if isinstance(value, Tensor) else value for value in inputs[count:])
        return kernel(*inputs[:count], *numbers, backend=backend)

    def traced(backend: str, *inputs: Any) -> Any:
        one = torch.ones((), dtype=torch.float64, device="cpu")
        values = (one * value if number else value for value, number in zip(inputs[count:], numbers))
        return of_tensors(*inputs[:count], *values, backend=backend)

    for device in ("CPU", "CUDA"):
        LIBRARY.impl(of_tensors, kernel_of_tensors, device)
    torch.library.register_fake(of_tensors, getattr(module, f"fake_{way}"), lib=LIBRARY)
    return traced


def _adjoint_call(schema: OpSchema, module: types.ModuleType) -> Callable:
    """The gradient as another call of the same op."""

    adjoint: Any = schema.adjoint

    def adjoint_call(backend: str, *inputs: Any) -> Tensor:
        tensors, settings = adjoint(*inputs)
        return module.call(*tensors, *settings, backend=backend)

    return adjoint_call


def _formula(schema: OpSchema, module: types.ModuleType) -> Callable:
    """The forward op where a derivative is wanted of the op itself."""
    outputs = len(schema.outputs)

    def formula(*args: Any, backend: str) -> Tensor | tuple[Tensor, ...]:
        *inputs, save = args
        results = derivatives.apply_under_op(module.Forward, module.ForwardOfLevel, backend, *inputs)
        results = derivatives.as_tuple(results)
        saved = results[outputs:] if save else [result.new_empty(0) for result in results[outputs:]]
        return (*results[:outputs], *saved) if len(results) > 1 else results[0]

    return formula


def _gradient_formula(schema: OpSchema, module: types.ModuleType) -> Callable:
    """The backward op where a derivative is wanted of the op itself."""
    names = (*schema.incoming, *schema.residuals)

    def formula(*args: Any, backend: str) -> Tensor | tuple[Tensor, ...]:
        if not schema.is_complete:
            function = schema.native_functions[1]
            raise RuntimeError(f"{function}: expected no input that requires grad; differentiate {schema.name}")
        tensors, flags = dict(zip(names, args)), args[len(names) :]
        settings, wanted = (flags[:-1], flags[-1:]) if schema.optional else (flags, ())
        incoming = [tensors[name] for name in schema.incoming]
        if schema.adjoint:
            arguments = [tensors[name] for name in schema.arguments]
            transposed, options = schema.adjoint(*incoming, *arguments, *settings)
            return module.forward_op(*transposed, *options, False, backend=backend)
        if len(incoming) > 1:
            incoming = [grad if grad.numel() else None for grad in incoming]
        kept = [tensors[name] for name in schema.kept]
        return derivatives.apply_under_op(
            module.Gradient, module.GradientOfLevel, backend, *wanted, *incoming, *kept, *settings
        )

    return formula


def _differentiate(op: Callable, check: Callable, formula: Callable) -> None:
    """Give `op` itself a derivative, or an error: a bare Library op would only warn and lose the gradient. The formula
    calls the kernels without the `check` of the op."""

    def autograd(*args: Any, backend: str = "auto") -> Any:
        if derivatives.is_wanted([arg for arg in args if isinstance(arg, Tensor)]):
            check(*args)
            return formula(*args, backend=backend)
        with torch._C._AutoDispatchBelowAutograd():
            return op(*args, backend=backend)

    LIBRARY.impl(op, autograd, "Autograd")
