"""Every op x what torch makes of functions: torch.func, batched gradients, and both compiled."""

import functools

import pytest
import torch
from support.op_matrix import OPS, first_differentiable, outputs, parametrize, squares

from genfast import testing
from genfast.reference import NON_DIFFERENTIABLE, SAMPLERS, SPECS

OTHERS = list(SAMPLERS | NON_DIFFERENTIABLE)


def function_of(op, backend):
    """The op as a function of its first float tensor, and that tensor."""
    spec = (SPECS | SAMPLERS | NON_DIFFERENTIABLE)[op]
    inputs = spec.inputs(spec.gradcheck[0], dtype=torch.float64)
    name, tensor = first_differentiable(inputs)

    def function(x):
        return outputs(op, {**inputs, name: x}, backend)

    return function, tensor


def smooth(function):
    return lambda x: tuple(output for output in function(x) if output.is_floating_point())


def loss(function):
    return lambda x: squares(smooth(function)(x))


def stacked(tensor):
    return torch.stack([tensor, tensor.flip(0), 0.5 * tensor])


def tangent(x):
    return torch.linspace(-1, 1, x.numel(), dtype=x.dtype).view(x.shape)


def vjp(function, x):
    made, pull = torch.func.vjp(smooth(function), x)
    return made, pull(tuple(map(tangent, made)))


def batched_gradients(function, x, create_graph=False):
    x = x.clone().requires_grad_()
    made = smooth(function)(x)[0]
    basis = torch.eye(made.numel(), dtype=x.dtype).view(-1, *made.shape)
    (jacobian,) = torch.autograd.grad(made, x, basis, is_grads_batched=True, create_graph=create_graph)
    return jacobian if not create_graph else (jacobian, *torch.autograd.grad((jacobian**2).sum(), x))


TRANSFORMS = {
    "vmap": lambda f, x: torch.func.vmap(f)(stacked(x)),
    "vmap of grad": lambda f, x: torch.func.vmap(torch.func.grad(loss(f)))(stacked(x)),
    "grad of vmap": lambda f, x: torch.func.grad(loss(torch.func.vmap(f)))(stacked(x)),
    "jvp": lambda f, x: torch.func.jvp(smooth(f), (x,), (tangent(x),)),
    "vjp": vjp,
    "jacrev": lambda f, x: torch.func.jacrev(smooth(f))(x),
    "jacfwd": lambda f, x: torch.func.jacfwd(smooth(f))(x),
    "hessian": lambda f, x: torch.func.hessian(loss(f))(x),
    "jacrev of jacrev": lambda f, x: torch.func.jacrev(torch.func.jacrev(loss(f)))(x),
    "functionalize": lambda f, x: torch.func.functionalize(f)(x),
    "is_grads_batched": batched_gradients,
    "jacobian": lambda f, x: torch.autograd.functional.jacobian(lambda x: smooth(f)(x)[0], x, vectorize=True),
}


def assert_same(got, expected):
    got, expected = (torch.utils._pytree.tree_leaves(value) for value in (got, expected))
    for one, other in zip(got, expected, strict=True):
        scale = max(1, float(other.abs().max())) if other.numel() else 1
        testing.assert_matches(one, other, atol=1e-10 * scale)


@parametrize("transform", TRANSFORMS)
@parametrize("op", OPS)
def test_transforms(op, transform):
    """As the reference has it, which is plain torch; that of vmap is a loop."""
    (function, x), (judge, _) = (function_of(op, backend) for backend in ("auto", "reference"))
    if transform == "vmap":
        expected = [torch.stack(parts) for parts in zip(*map(judge, stacked(x)))]
    else:
        expected = TRANSFORMS[transform](judge, x)
    assert_same(TRANSFORMS[transform](function, x), expected)


@parametrize("op", OTHERS)
def test_vmap_without_a_gradient(op):
    (function, x), (judge, _) = (function_of(op, backend) for backend in ("auto", "reference"))
    assert_same(torch.func.vmap(function)(stacked(x)), [torch.stack(parts) for parts in zip(*map(judge, stacked(x)))])


@parametrize(
    "op, transform", [(op, t) for op in OPS for t in ("vmap", "jvp", "vmap of grad")] + [(op, "vmap") for op in OTHERS]
)
def test_a_native_backend_refuses(op, transform):
    function, x = function_of(op, "cpp")
    text = f"{op}: backend must be 'auto' or 'reference' under vmap and in forward mode, .*; got 'cpp'"
    with pytest.raises(NotImplementedError, match=text):
        TRANSFORMS[transform](function, x)


@parametrize("op, transform", [*((op, "vmap of grad") for op in OPS), ("bias_act", "vmap"), ("bias_act", "jvp")])
def test_compiled_transforms(op, transform):
    torch._dynamo.reset()
    function, x = function_of(op, "auto")
    whole = functools.partial(TRANSFORMS[transform], function)
    assert_same(torch.compile(whole, fullgraph=True, backend="eager")(x), whole(x))
