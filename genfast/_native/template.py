"""The functions that run when an op is called, made for each op from its schema.

One template serves every op. What it makes is straight-line code, with the names of the op's own tensors: a call of a
small op takes half the time that loops over its arguments do. `source(schema)` is the text; tracebacks show it.
"""

from __future__ import annotations

import linecache
import re
import sys
import types
from collections.abc import Iterable
from string import Template
from typing import Any

from genfast._native.schema import OpSchema

# A native function, forward or backward. `run_*` is the op below autograd: where nothing intercepts it, its kernel is
# called at once, which takes a third of the time.
NATIVE = Template('''
def native_$way(backend, $inputs):
    """The function of a native backend, for tensors whose memory holds their values."""
    $arranged
    if backend == "triton":
        return launcher(OP, "$function")($inputs)
    numbers, ($results,) = $allocate($inputs)
    # An empty tensor has the address 0, which is how the C++ side is told not to save.
    backends.cpp.$function(CODES[$lead.dtype], $addresses, *numbers)
    return $results


def kernel_$way($inputs, *, backend="auto"):
    """What the op runs on a device."""
    backend = select(OP, $lead, backend, NATIVE)
    check_$way($inputs)
    return native_$way(backend, $inputs)


def fake_$way($inputs, *, backend="auto"):
    """What the op runs on tensors without memory."""
    check_devices("$function", $tensors)
    _, ($results,) = $allocate($inputs)
    return $results


def run_$way(backend, $inputs):
    """The op, on a backend that serves it, where no derivative is asked for."""
    if is_dynamo_compiling():
        return ${way}_traced(backend, $inputs)
    if dispatch_modes() or function_modes() or transforms() or ${batching}not ($plain):
        return ${way}_op($inputs, backend=backend)
    return native_$way(backend, $inputs)
''')

WITHOUT_GRADIENT = Template('''
def call($inputs, *, backend):
    """`$name` on the backend that serves."""
    $detached
    serving = select(OP, $lead, backend)
    if serving == "reference":
        return reference($inputs)
    if is_dynamo_compiling() or transforms():
        return transformed($inputs, asked=backend, backend=serving)
    return run_forward(serving, $inputs)
''')

# `...OfLevel` is the same under the op, at one level of torch.func: the op goes on to the next level. A backward pass
# under vmap, as torch.func.jacrev makes it, is that of the reference.
WITH_GRADIENT = Template('''
class Forward(Function):
    """`$name`; its derivative is the backward op."""

    @staticmethod
    def forward(backend, $inputs):
        # Grad mode is always off in here, so what to save cannot be asked of torch.
        return run_forward(backend, $inputs, True)

    @staticmethod
    def setup_context(ctx, inputs, output):
        backend, $inputs = inputs
        $results = output
        # Without this torch would build zero gradients as large as the saved tensors.
        ctx.set_materialize_grads(False)
        $marked
        ctx.save_for_backward($kept)
        ctx.options = $options

    @staticmethod
    def backward(ctx, $result_gradients):
        if $none_used:
            return $no_gradients
        $options = ctx.options
        ($kept,) = ctx.saved_tensors
        if transforms() and mapped():
            return None, *first_order(($arguments,), $settings, ($incoming,))$no_setting_gradients
        $wanted
        if is_grad_enabled():
            $gradients = $differentiable_gradients
        else:
            $fill
            $gradients = run_backward(backend, $backward_inputs)
        return $input_gradients


class ForwardOfLevel(FunctionOfLevel):
    setup_context = staticmethod(Forward.setup_context)

    @staticmethod
    def forward(backend, $inputs):
        return next_level(forward_op, backend, $inputs, True)

    @staticmethod
    def backward(ctx, $result_gradients):
        if $none_used:
            return $no_gradients
        $options = ctx.options
        ($kept,) = ctx.saved_tensors
        $wanted
        $fill
        $gradients = backward_op($backward_inputs, backend=backend)
        return $input_gradients


class Gradient(Function):
    """The backward op as a function of the arguments; its derivatives are the reference's."""

    @staticmethod
    def forward($gradient_inputs):
        $fill
        return run_backward(backend, $backward_inputs)

    @staticmethod
    def setup_context(ctx, inputs, output):
        $gradient_inputs = inputs
        ctx.set_materialize_grads(False)
        ctx.save_for_backward($incoming, $arguments)
        ctx.settings = $settings

    @staticmethod
    def backward(ctx, $second_gradients):
        of_incoming, of_arguments = second_order(ctx.saved_tensors, ctx.settings, ($second_gradients,))
        return $second_order


class GradientOfLevel(FunctionOfLevel):
    setup_context = staticmethod(Gradient.setup_context)
    backward = staticmethod(Gradient.backward)

    @staticmethod
    def forward($gradient_inputs):
        $fill
        return next_level(backward_op, backend, $backward_inputs)


apply_forward = bound_apply(Forward)


def call($inputs, *, backend):
    """`$name` on the backend that serves."""
    serving = select(OP, $lead, backend)
    if serving == "reference":
        return reference($inputs)
    if is_dynamo_compiling() or transforms() or forward_ad._current_level >= 0:
        return transformed($inputs, asked=backend, backend=serving)
    if is_grad_enabled() and ($requires_grad):
        $results = apply_forward(serving, $inputs)
    else:
        $results = run_forward(serving, $inputs, False)
    return $outputs
''')

# What the functions above call their own, and what `register` adds to the module.
LOCALS = {
    "backend",
    "ctx",
    "inputs",
    "output",
    "save",
    "wanted",
    "needed",
    "numbers",
    "serving",
    "transformed",
    "adjoint_call",
}
TYPES = {"int": "int", "SymInt": "int", "float": "float", "bool": "bool", "str": "str"}


def source(schema: OpSchema) -> str:
    """The text of the module that runs an op."""
    texts = [f'"""The functions of {schema.name}, made by genfast._native.template."""\n']
    names = {"way": "forward", "function": schema.native_functions[0], "allocate": "allocate", "lead": schema.lead}
    names["batching"] = ""
    forward = _native_fragments(tuple(schema.arguments), schema.forward_settings, schema.results) | names
    texts.append(NATIVE.substitute(forward))
    if schema.has_gradient:
        names = {"way": "backward", "function": schema.native_functions[1], "allocate": "allocate_gradients"}
        # torch.autograd.grad(..., is_grads_batched=True) has a vmap of its own for backward passes.
        names["batching"] = "batching(VMAP_MODE) or "
        tensors, settings = (*schema.incoming, *schema.residuals), schema.backward_settings
        backward = _native_fragments(tensors, settings, schema.gradients) | names | {"lead": schema.backward_lead}
        texts += NATIVE.substitute(backward), WITH_GRADIENT.substitute(_gradient_fragments(schema))
    else:
        texts.append(WITHOUT_GRADIENT.substitute(forward, name=schema.name))
    # A fragment that is empty leaves a line of spaces.
    return re.sub(r"^ +\n", "", "\n".join(texts), flags=re.MULTILINE)


def load(schema: OpSchema, namespace: dict[str, Any]) -> types.ModuleType:
    """The module of an op, in which the names of `namespace` are known."""
    text, file = source(schema), f"<genfast {schema.name}>"
    # Tracebacks, debuggers and inspect read the text here.
    linecache.cache[file] = len(text), None, text.splitlines(True), file
    # torch.compile looks up the globals of a function by the name of its module.
    module = types.ModuleType(f"genfast._native.{schema.name}_call")
    sys.modules[module.__name__] = module
    module.__dict__.update(namespace)
    exec(compile(text, file, "exec"), module.__dict__)
    names = (*schema.arguments, *schema.settings, *schema.results)
    taken = [n for n in names if n in LOCALS or n in module.__dict__ or n.startswith(("grad_", "second_", "of_"))]
    if taken:
        raise ValueError(f"{schema.name}: names must be free; got {', '.join(taken)}")
    return module


def _listed(*names: Iterable[str]) -> str:
    return ", ".join(name for part in names for name in part)


def _native_fragments(tensors: tuple[str, ...], settings: dict[str, str], results: tuple[str, ...]) -> dict[str, str]:
    # What the caller of `run_*` sets itself is of its type.
    given = {name: kind for name, kind in settings.items() if name not in ("save", "wanted")}
    checks = [f"plain({name})" for name in tensors]
    checks += [f"type({name}) is {TYPES[kind]}" for name, kind in given.items()]
    return {
        "inputs": _listed(tensors, settings),
        "tensors": _listed(tensors),
        "results": _listed(results),
        "plain": " and ".join(checks),
        "arranged": f"{_listed(tensors)} = {_listed(f'arrange({name})' for name in tensors)}",
        "detached": f"{_listed(tensors)} = {_listed(f'{name}.detach()' for name in tensors)}",
        "addresses": _listed(f"{name}.data_ptr()" for name in (*tensors, *results)),
    }


def _gradient_fragments(schema: OpSchema) -> dict[str, str]:
    incoming, wanted = schema.incoming, ("wanted",) * bool(schema.optional)
    every_gradient = [f"grad_{result}" for result in schema.results]
    several, constant_results = len(incoming) > 1, schema.non_differentiable
    # The first input is the backend.
    places = [1 + list(schema.arguments).index(name) for name in schema.differentiable]
    bits = [f"needed[{place}] << {bit}" for bit, place in enumerate(places)]
    inputs = (*schema.arguments, *schema.settings)
    gradient_inputs = ("backend", *wanted, *incoming, *schema.kept, *schema.settings)
    if schema.adjoint:
        higher = f"adjoint_call({_listed(('backend',), incoming, inputs)})"
    else:
        higher = f"apply(Gradient, {_listed(gradient_inputs)})"
    after = len(schema.kept) - len(schema.arguments) + len(schema.settings)
    second_order = [*["None"] * (1 + len(wanted)), "*of_incoming", "*of_arguments", *["None"] * after]
    return {
        "name": schema.name,
        "lead": schema.lead,
        "inputs": _listed(inputs),
        "arguments": _listed(schema.arguments),
        "settings": f"({_listed(schema.settings)},)" if schema.settings else "()",
        "results": _listed(schema.results),
        "outputs": _listed(schema.outputs),
        "marked": f"ctx.mark_non_differentiable({_listed(constant_results)})" if constant_results else "",
        "kept": _listed(schema.kept),
        "options": f"({_listed(('backend', *schema.settings))},)",
        "incoming": _listed(incoming),
        "result_gradients": _listed(every_gradient),
        "none_used": " and ".join(f"{grad} is None" for grad in incoming),
        "no_gradients": _listed(["None"] * (1 + len(inputs))),
        "no_setting_gradients": ", None" * len(schema.settings),
        "wanted": f"needed = ctx.needs_input_grad\n        wanted = {' | '.join(bits)}" if wanted else "",
        "fill": f"{_listed(incoming)} = {_listed(f'given({g}, {schema.lead})' for g in incoming)}" if several else "",
        "backward_inputs": _listed(incoming, schema.residuals, schema.backward_settings),
        "gradients": _listed(schema.gradients),
        "differentiable_gradients": higher,
        "input_gradients": _listed(["None"], _argument_gradients(schema), ["None"] * len(schema.settings)),
        "gradient_inputs": _listed(gradient_inputs),
        "second_gradients": _listed(f"second_{name}" for name in schema.differentiable),
        "second_order": _listed(second_order),
        "requires_grad": " or ".join(f"{name}.requires_grad" for name in schema.arguments),
    }


def _argument_gradients(schema: OpSchema) -> Iterable[str]:
    """The gradient of each argument, or None where it has none or is not wanted."""
    for argument in schema.arguments:
        if argument in schema.constants:
            yield "None"
        elif argument in schema.optional:
            yield f"grad_{argument} if wanted & {1 << schema.differentiable.index(argument)} else None"
        else:
            yield f"grad_{argument}"
