"""The comparisons: genfast and its rivals on the shapes of each SPEC, and one training step of the model.

A new op is compared without a word here. What is special about one is a small entry of a table below, and what it is
measured against is in rivals.py.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn

from genfast import ops, testing
from genfast._native import backends
from genfast.benchmarks import machine, rivals
from genfast.benchmarks.rivals import COMPILED, COMPILED_STEP, EAGER, OURS, REFERENCE
from genfast.models import PixelRNN, PixelRNNConfig
from genfast.reference import NON_DIFFERENTIABLE, SAMPLERS, SPECS, Spec
from genfast.train.config import TrainConfig
from genfast.train.memory import keep_freed_memory
from genfast.train.optim import make_optimizer

SEQUENCE = "input-to-state and both directions, beside nn.LSTM"
STEP = "PixelRNN, 7 layers, h=16, 28x28 binary, training step"
# What the table of an op is called, if not by the op's name.
TITLES = {
    "diagonal_lstm": "the scan, one direction",
    "row_lstm": "the row scan",
    "diagonal_block": "the residual block",
    "categorical_nll": "the categorical likelihood, logits in channels_last memory",
    "gated_activation": "tanh(a) * sigmoid(b), channels_last",
    "categorical_sample": "draws from a categorical distribution, logits in channels_last memory",
    "bernoulli_sample": "draws from a Bernoulli distribution",
    "logistic_mixture_nll": "logistic mixture",
    "logistic_mixture_sample": "logistic mixture",
    "gaussian_latent": "the Gaussian latent, draw and KL divergence",
    "gaussian_nll": "the Gaussian likelihood",
    "bernoulli_nll": "the Bernoulli likelihood",
    "importance_bound": "the importance-weighted bound",
    "vector_quantize": "vector quantisation with its losses",
    "aggregate_posterior": "the aggregate posterior of beta-TC",
    "codebook_statistics": "sums of a codebook's moving averages",
    "nearest_neighbors": "nearest neighbours",
    "kernel_sum": "sums of a kernel, as MMD and KID need them",
    "minibatch_discrimination": "minibatch discrimination",
    "minibatch_stddev": "the deviation over a minibatch",
    "bias_act": "bias, activation and gain",
    "upfirdn2d": "upsample, filter, downsample",
    "spectral_norm": "spectral normalisation, one power iteration",
}
# Cases beside those of the SPECs.
MORE = {"bernoulli_nll": {"B=256 3x64x64": {"B": 256, "C": 3, "H": 64, "W": 64, "M": 0}}}
# Float arguments that have no gradient: data.
FIXED = {"gaussian_nll": ("x",)}
# Ops that are measured as part of another.
WITHIN = {"power_iteration": "spectral_norm"}
# Ops of which the memory of a process is measured in which a contender runs alone.
PEAKS = ("nearest_neighbors",)


def pixels_together(tensor: Tensor) -> Tensor:
    """What belongs to one pixel together in memory, as a convolution in channels_last leaves it."""
    return tensor.movedim((-2, -1), (1, 2)).contiguous().movedim((1, 2), (-2, -1))


# How the arguments lie in memory, by what is added to the name of the case.
CHANNELS_LAST = {"": pixels_together}
LAYOUTS: dict[str, dict[str, Any]] = {
    "categorical_nll": CHANNELS_LAST,
    "categorical_sample": CHANNELS_LAST,
    "gated_activation": CHANNELS_LAST,
    "bernoulli_sample": CHANNELS_LAST,
    "logistic_mixture_nll": {" contiguous": Tensor.contiguous, " channels_last": pixels_together},
}


@dataclass
class Comparison:
    """Contenders at the same work; `work` holds the FLOPs of those whose rate is worth stating; `peak_bytes`, if given,
    tells the most memory that a process holds in which the contender of that name runs alone."""

    group: str
    case: str
    mode: str
    contenders: dict[str, Callable]
    work: dict[str, int] = field(default_factory=dict)
    images: int = 0
    peak_bytes: Callable[[str], int] | None = None


def measured_ops() -> list[str]:
    """Every op that is measured by itself, those of one stem together."""
    names = [op for op in (*SPECS, *SAMPLERS, *NON_DIFFERENTIABLE) if op not in WITHIN]
    stems = [backends.stem(op) for op in names]
    return sorted(names, key=lambda op: stems.index(backends.stem(op)))


def spec_of(op: str) -> Spec:
    return (SPECS | SAMPLERS | NON_DIFFERENTIABLE)[op]


def shapes(op: str) -> dict[str, Mapping[str, int]]:
    """Case -> sizes."""
    return {**spec_of(op).bench, **MORE.get(op, {})}


def modes(op: str) -> tuple[str, ...]:
    return ("forward", "forward+backward") if op in SPECS else ("draw",) if op in SAMPLERS else ("forward",)


def leaves_of(op: str, inputs: Mapping) -> list[Tensor]:
    """The arguments that are differentiated, which they are told."""
    fixed = FIXED.get(op, ())
    return [tensor.requires_grad_() for name, tensor in testing.differentiable(inputs).items() if name not in fixed]


def comparisons(only: str = "") -> Iterator[Comparison]:
    """Yield every `Comparison` whose name contains `only`, each built when its turn comes."""
    for op in measured_ops():
        for case, sizes in shapes(op).items():
            yield from _of_op(op, case, sizes, only)
    if only in f"{STEP} B=64 training step":
        yield _training_step(64)


def _of_op(op, case, sizes, only):
    two_ways = op == "diagonal_lstm" and sizes["D"] == 2
    group = SEQUENCE if two_ways else TITLES.get(op, op)
    build = _sequence if two_ways else _builder(op)
    for added, arrange in LAYOUTS.get(op, {"": None}).items():
        name = f"{case}{added}"
        wanted = [mode for mode in modes(op) if only in f"{group} {name} {mode}"]
        if wanted:
            torch._dynamo.reset()
            inputs = spec_of(op).inputs(sizes)
            inputs = testing.each_tensor(arrange, inputs) if arrange else inputs
            yield from build(op, Comparison(group, name, "", {}, images=sizes.get("B", 0)), sizes, inputs, wanted)


def _builder(op):
    if op == "spectral_norm":
        return _normalized
    if op not in SPECS:
        return _once
    return _scan if rivals.of(op).step else _both_ways


def _both_ways(op, about, sizes, inputs, wanted):
    leaves = leaves_of(op, inputs)
    functions = {name: (partial(f, **inputs), leaves) for name, f in rivals.contenders(op, "cpp").items()}
    return _in_modes(about, functions, wanted)


def _scan(op, about, sizes, inputs, wanted):
    """The rates of all contenders as well, beside that of sgemm; and genfast in bfloat16."""
    leaves = leaves_of(op, inputs)
    low = {name: tensor.detach().bfloat16().requires_grad_() for name, tensor in inputs.items()}
    functions = {}
    for name, function in rivals.contenders(op, "cpp").items():
        functions[name] = partial(function, **inputs), leaves
        if name == OURS:
            functions[f"{OURS} bfloat16"] = partial(function, **low), tuple(low.values())
    flops = 2 * sizes["B"] * sizes["H"] * sizes["W"] * inputs["weight"].numel()
    for comparison in _in_modes(about, functions, wanted):
        passes = 1 if comparison.mode == "forward" else 3
        comparison.work = dict.fromkeys(comparison.contenders, passes * flops)
        comparison.contenders["sgemm"], comparison.work["sgemm"] = machine.sgemm()
        yield comparison


def _sequence(op, about, sizes, inputs, wanted):
    batch, height, width, size = (sizes[letter] for letter in "BHWC")
    weight, features = inputs["weight"].requires_grad_(), 2 * size
    x = torch.randn(batch, height, width, features, dtype=torch.float32, device="cpu", requires_grad=True)
    linear = nn.Linear(features, 8 * size)

    def layer() -> Tensor:
        return ops.diagonal_lstm(linear(x).unflatten(3, (2, -1)), weight, backend="cpp")

    lstm = rivals.SequenceLSTM(batch, height, width, features, size)
    functions = {OURS: (layer, (x, weight, *linear.parameters())), "nn.LSTM": (lstm, tuple(lstm.parameters()))}
    return _in_modes(about, functions, wanted)


def _normalized(op, about, sizes, inputs, wanted):
    about.images = 0  # layers are no images
    return _in_modes(about, normalizations(inputs, "cpp"), wanted)


def normalizations(inputs: Mapping[str, Tensor], backend: str) -> dict[str, tuple[Callable, Iterable[Tensor]]]:
    """One step of the power method and the normalised weights of all layers, as a forward pass in training has it: the
    contenders by name, each with what it has gradients of."""
    weight, u, v = inputs["weight"].requires_grad_(), inputs["u"], inputs["v"]

    def ours(backend: str) -> tuple[Tensor, ...]:
        left, right = ops.power_iteration(weight, u, v, backend=backend)
        normalized = ops.spectral_norm(weight, left.to(u.dtype), right.to(v.dtype), backend=backend)
        u.copy_(left)
        v.copy_(right)
        return normalized.unbind()

    theirs = rivals.Normalized(weight, u, v)
    return {
        OURS: (partial(ours, backend), [weight]),
        EAGER: (theirs, theirs.leaves()),
        COMPILED: (torch.compile(theirs, dynamic=False), theirs.leaves()),
        REFERENCE: (partial(ours, "reference"), [weight]),
    }


def _once(op, about, sizes, inputs, wanted):
    """A draw, or a measure."""
    about.mode = wanted[0]
    about.contenders = {name: partial(f, **inputs) for name, f in rivals.contenders(op, "cpp").items()}
    about.peak_bytes = partial(_peak_bytes, op, sizes) if op in PEAKS else None
    yield about


def _in_modes(about, functions, wanted):
    """`about` with the contenders of every mode; `functions`: name -> the call, and what it has gradients of."""
    for mode in wanted:
        runs = {name: run_in(mode, function, tuple(leaves)) for name, (function, leaves) in functions.items()}
        for name in (COMPILED, COMPILED_STEP):
            if name in runs:
                runs[name]()  # compiles
        yield Comparison(about.group, about.case, mode, runs, images=about.images)


def run_in(mode: str, function: Callable, leaves: tuple[Tensor, ...]) -> Callable:
    """A call of `function`, or of it and for the gradients of `leaves`, incoming ones of all its outputs given."""
    if mode == "forward":
        return torch.no_grad()(function)
    incoming = [torch.randn_like(output) for output in _smooth(function)]
    return lambda: torch.autograd.grad(_smooth(function), leaves, incoming, allow_unused=True)


def _smooth(function):
    return [output for output in testing.outputs_of(function()) if output.requires_grad]


def _training_step(batch):
    keep_freed_memory()  # as `genfast train` does, here for every contender
    torch.manual_seed(0)
    model = PixelRNN(PixelRNNConfig(channels=1, height=28, width=28, levels=2, hidden=16, layers=7))
    optimizer = make_optimizer(model, TrainConfig())
    images = torch.randint(2, (batch, 1, 28, 28), dtype=torch.uint8, device="cpu")

    def train(block: Callable) -> None:
        with mock.patch.object(ops, "diagonal_block", block):
            loss = -model.log_prob(images).mean()
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()

    blocks = {
        OURS: ops.diagonal_block,
        EAGER: rivals.diagonal_block_eager,
        REFERENCE: partial(ops.diagonal_block, backend="reference"),
    }
    contenders = {name: partial(train, block) for name, block in blocks.items()}
    return Comparison(STEP, f"B={batch}", "training step", contenders, images=batch)


def _peak_bytes(op, sizes, contender):
    """The most memory that a process of its own ever held, torch and the arguments included."""
    what = json.dumps([op, dict(sizes), contender, torch.get_num_threads()])
    command = [sys.executable, "-m", "genfast.benchmarks.peak_memory", what]
    return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
