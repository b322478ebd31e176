"""The comparisons of the adversarial family: genfast beside good eager and torch.compile of it."""

from functools import partial

import rivals_adversarial as rivals
import torch
from cases import EAGER, REFERENCE, Comparison, both_ways

from genfast import ops
from genfast.reference import SPECS

GROUPS = {
    "minibatch_discrimination": "minibatch discrimination",
    "minibatch_stddev": "the deviation over a minibatch",
    "bias_act": "bias, activation and gain",
    "upfirdn2d": "upsample, filter, downsample",
}
NORM = "spectral normalisation, one power iteration"
# Other ways to write it that are in use.
OTHERS = {
    "minibatch_discrimination": {"torch.cdist, p=1": rivals.minibatch_discrimination_cdist},
    "upfirdn2d": {"zeros and one convolution": rivals.upfirdn2d_zeros},
}


def comparisons(only=""):
    """Yield every `Comparison` whose name contains `only`, each built when its turn comes."""
    for op, group in GROUPS.items():
        functions = {"genfast": partial(getattr(ops, op), backend="cpp"), EAGER: getattr(rivals, f"{op}_eager")}
        functions |= OTHERS.get(op, {}) | {REFERENCE: partial(getattr(ops, op), backend="reference")}
        for case, sizes in SPECS[op].bench.items():
            modes = [mode for mode in ("forward", "forward+backward") if only in f"{group} {case} {mode}"]
            yield from both_ways(group, op, case, sizes, modes, functions)
    for case, sizes in SPECS["spectral_norm"].bench.items():
        if only in f"{NORM} {case} forward+backward":
            yield from _normalized(case, sizes)


def _normalized(case, sizes):
    """One step of the power method and the normalised weights of all layers, as a forward pass in training has it."""
    torch._dynamo.reset()
    inputs = SPECS["spectral_norm"].inputs(sizes)
    weight, u, v = inputs["weight"].requires_grad_(), inputs["u"], inputs["v"]
    theirs = rivals.Normalized(weight, u, v)
    functions = {
        "genfast": (partial(_ours, weight, u, v, "cpp"), [weight]),
        EAGER: (theirs, theirs.leaves()),
        "torch.compile": (torch.compile(theirs, dynamic=False), theirs.leaves()),
        REFERENCE: (partial(_ours, weight, u, v, "reference"), [weight]),
    }
    for mode in ("forward", "forward+backward"):
        make = (lambda function, _: torch.no_grad()(function)) if mode == "forward" else _derivatives
        runs = {name: make(*contender) for name, contender in functions.items()}
        runs["torch.compile"]()  # compiles
        yield Comparison(NORM, case, mode, runs)


def _ours(weight, u, v, backend):
    new_u, new_v = ops.power_iteration(weight, u, v, backend=backend)
    normalized = ops.spectral_norm(weight, new_u, new_v, backend=backend)
    u.copy_(new_u)
    v.copy_(new_v)
    return normalized.unbind()


def _derivatives(function, leaves):
    incoming = [torch.randn_like(output) for output in function()]
    return lambda: torch.autograd.grad(function(), leaves, incoming)
