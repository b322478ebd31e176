"""The comparisons: genfast and its rivals on the shapes of each SPEC, and one training step of the model."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from unittest import mock

import machine
import rivals
import torch
from torch import nn

from genfast import ops, testing
from genfast.models import PixelRNN, PixelRNNConfig
from genfast.reference import SAMPLERS, SPECS
from genfast.train.config import TrainConfig
from genfast.train.memory import keep_freed_memory
from genfast.train.optim import make_optimizer

SCAN, ROWS, SEQUENCE, BLOCK, STEP = (
    "the scan, one direction",
    "the row scan",
    "input-to-state and both directions, beside nn.LSTM",
    "the residual block",
    "PixelRNN, 7 layers, h=16, 28x28 binary, training step",
)
PIXELWISE = {
    "categorical_nll": "the categorical likelihood, logits in channels_last memory",
    "gated_activation": "tanh(a) * sigmoid(b), channels_last",
    "categorical_sample": "draws from a categorical distribution, logits in channels_last memory",
    "bernoulli_sample": "draws from a Bernoulli distribution",
}
MIXTURE = "logistic mixture"
EAGER, COMPILED, REFERENCE = "good eager", "torch.compile of its step", "reference backend"


@dataclass
class Comparison:
    """Contenders at the same work; `work` holds the FLOPs of those whose rate is worth stating; `peak_bytes`, if given,
    tells the most memory that a process holds in which the contender of that name runs alone."""

    group: str
    case: str
    mode: str
    contenders: dict
    work: dict = field(default_factory=dict)
    images: int = 0
    peak_bytes: Callable[[str], int] | None = None


def comparisons():
    """Yield every `Comparison`, each built when its turn comes."""
    for case, sizes in SPECS["diagonal_lstm"].bench.items():
        if sizes["D"] == 1:
            yield from _scan(SCAN, "diagonal_lstm", rivals.step, case, sizes)
        else:
            yield from _sequence(case, sizes)
    for case, sizes in SPECS["row_lstm"].bench.items():
        yield from _scan(ROWS, "row_lstm", rivals.row_step, case, sizes)
    for case, sizes in SPECS["diagonal_block"].bench.items():
        yield from _block(case, sizes)
    for op in ("categorical_nll", "gated_activation"):
        for case, sizes in SPECS[op].bench.items():
            yield from _pixelwise(op, case, sizes)
    for op, rival in (("categorical_sample", rivals.multinomial), ("bernoulli_sample", rivals.bernoulli)):
        for case, sizes in SAMPLERS[op].bench.items():
            yield _draws(op, rival, case, sizes)
    for case, sizes in SPECS["logistic_mixture_nll"].bench.items():
        yield from _mixture(case, sizes)
    yield _training_step(64)


def both_ways(group, op, case, sizes, modes, functions, fixed=()):
    """Yield a comparison of `functions`, and of torch.compile of the eager one, for each of `modes`; of the arguments
    that could have a gradient those in `fixed` have none."""
    torch._dynamo.reset()
    inputs = SPECS[op].inputs(sizes)
    leaves = [tensor.requires_grad_() for name, tensor in testing.learned(inputs).items() if name not in fixed]
    functions = {**functions, "torch.compile": torch.compile(functions[EAGER], dynamic=False)}
    bound = {name: partial(function, **inputs) for name, function in functions.items()}
    for mode in modes:
        make = torch.no_grad() if mode == "forward" else partial(_derivatives, leaves=tuple(leaves))
        runs = {name: make(function) for name, function in bound.items()}
        runs["torch.compile"]()  # compiles
        yield Comparison(group, case, mode, runs, images=sizes["B"])


def _derivatives(function, leaves):
    """`function()` and the gradients of `leaves` for incoming ones of all its outputs."""
    incoming = [torch.randn_like(output) for output in _smooth(function)]
    return lambda: torch.autograd.grad(_smooth(function), leaves, incoming)


def _smooth(function):
    return [output for output in testing.outputs_of(function()) if output.requires_grad]


def _scan(group, op, step, case, sizes):
    torch._dynamo.reset()
    function, eager = getattr(ops, op), getattr(rivals, f"{op}_eager")
    compiled_step = torch.compile(step, dynamic=False)
    inputs = _inputs(op, sizes)
    gates, weight = inputs["gates"], inputs["weight"]
    low = {name: tensor.detach().bfloat16().requires_grad_() for name, tensor in inputs.items()}
    functions = {
        "genfast": (partial(function, backend="cpp", **inputs), inputs.values()),
        "genfast bfloat16": (partial(function, backend="cpp", **low), low.values()),
        EAGER: (partial(eager, gates, weight), (gates, weight)),
        COMPILED: (partial(eager, gates, weight, step=compiled_step), (gates, weight)),
        REFERENCE: (partial(function, backend="reference", **inputs), inputs.values()),
    }
    cells = sizes["B"] * sizes["H"] * sizes["W"]
    flops = 2 * cells * weight.numel()
    for mode in ("forward", "forward+backward"):
        contenders = _contenders(functions, mode)
        work = dict.fromkeys(contenders, flops * (1 if mode == "forward" else 3))
        contenders["sgemm"], work["sgemm"] = machine.sgemm()
        yield Comparison(group, case, mode, contenders, work, sizes["B"])


def _sequence(case, sizes):
    inputs = _inputs("diagonal_lstm", sizes)
    weight, size, features = inputs["weight"], sizes["C"], 2 * sizes["C"]
    x = torch.randn(sizes["B"], sizes["H"], sizes["W"], features, requires_grad=True)
    linear = nn.Linear(features, 8 * size)

    def layer():
        return ops.diagonal_lstm(linear(x).unflatten(3, (2, -1)), weight, backend="cpp")

    lstm = rivals.SequenceLSTM(sizes["B"], sizes["H"], sizes["W"], features, size)
    functions = {
        "genfast": (layer, (x, weight, *linear.parameters())),
        "nn.LSTM": (lstm, tuple(lstm.parameters())),
    }
    for mode in ("forward", "forward+backward"):
        yield Comparison(SEQUENCE, case, mode, _contenders(functions, mode), images=sizes["B"])


def _block(case, sizes):
    inputs = _inputs("diagonal_block", sizes)
    learned = [tensor for name, tensor in inputs.items() if name not in ("h0", "c0")]
    functions = {
        "genfast": (partial(ops.diagonal_block, backend="cpp", **inputs), inputs.values()),
        EAGER: (partial(rivals.diagonal_block_eager, **inputs), learned),
    }
    for mode in ("forward", "forward+backward"):
        yield Comparison(BLOCK, case, mode, _contenders(functions, mode), images=sizes["B"])


def _pixelwise(op, case, sizes):
    torch._dynamo.reset()
    inputs = {n: _pixels_together(t) for n, t in SPECS[op].inputs(sizes).items() if torch.is_tensor(t)}
    name, leaf = next((name, tensor) for name, tensor in inputs.items() if tensor.is_floating_point())
    inputs[name] = leaf = leaf.requires_grad_()
    eager = getattr(rivals, f"{op}_eager")
    functions = {
        "genfast": partial(getattr(ops, op), backend="cpp"),
        EAGER: eager,
        "torch.compile": torch.compile(eager, dynamic=False),
        REFERENCE: partial(getattr(ops, op), backend="reference"),
    }
    if op == "categorical_nll":
        functions["cross_entropy of a permuted copy"] = rivals.cross_entropy_of_rows
    bound = {contender: (partial(function, **inputs), (leaf,)) for contender, function in functions.items()}
    for mode in ("forward", "forward+backward"):
        yield Comparison(PIXELWISE[op], case, mode, _contenders(bound, mode), images=sizes["B"])


def _draws(op, rival, case, sizes):
    inputs = {n: _pixels_together(v) if torch.is_tensor(v) else v for n, v in SAMPLERS[op].inputs(sizes).items()}
    contenders = {
        "genfast": partial(getattr(ops, op), **inputs, backend="cpp"),
        REFERENCE: partial(getattr(ops, op), **inputs, backend="reference"),
        f"torch.{rival.__name__}": partial(rival, inputs["logits"]),
    }
    return Comparison(PIXELWISE[op], case, "draw", contenders, images=sizes["B"])


def _mixture(case, sizes):
    """The likelihood in both memory layouts, then draws; the reference is the good eager of both."""
    for layout, arrange in (("contiguous", torch.Tensor.contiguous), ("channels_last", _pixels_together)):
        torch._dynamo.reset()
        x, params, levels = SPECS["logistic_mixture_nll"].inputs(sizes).values()
        x, params = arrange(x), arrange(params).requires_grad_()
        eager = partial(ops.logistic_mixture_nll, backend="reference")
        functions = {
            "genfast": partial(ops.logistic_mixture_nll, backend="cpp"),
            EAGER: eager,
            "torch.compile": torch.compile(eager, dynamic=False),
        }
        bound = {name: (partial(function, x, params, levels), (params,)) for name, function in functions.items()}
        for mode in ("forward", "forward+backward"):
            contenders = _contenders(bound, mode)
            yield Comparison(MIXTURE, f"{case} {layout}", mode, contenders, images=sizes["B"])
    inputs = SAMPLERS["logistic_mixture_sample"].inputs(sizes)
    draws = {"genfast": "cpp", EAGER: "reference"}
    contenders = {
        name: partial(ops.logistic_mixture_sample, **inputs, backend=backend) for name, backend in draws.items()
    }
    yield Comparison(MIXTURE, case, "draw", contenders, images=sizes["B"])


def _pixels_together(tensor):
    """What belongs to one pixel together in memory, as a convolution in channels_last leaves it."""
    return tensor.movedim((-2, -1), (1, 2)).contiguous().movedim((1, 2), (-2, -1))


def _training_step(batch):
    keep_freed_memory()  # as `genfast train` does, here for every contender
    torch.manual_seed(0)
    model = PixelRNN(PixelRNNConfig(channels=1, height=28, width=28, levels=2, hidden=16, layers=7))
    optimizer = make_optimizer(model, TrainConfig())
    images = torch.randint(2, (batch, 1, 28, 28), dtype=torch.uint8)

    def train(block):
        with mock.patch.object(ops, "diagonal_block", block):
            loss = -model.log_prob(images).mean()
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()

    blocks = {
        "genfast": ops.diagonal_block,
        EAGER: rivals.diagonal_block_eager,
        REFERENCE: partial(ops.diagonal_block, backend="reference"),
    }
    contenders = {name: partial(train, block) for name, block in blocks.items()}
    return Comparison(STEP, f"B={batch}", "training step", contenders, images=batch)


def _inputs(op, sizes):
    return {name: tensor.requires_grad_() for name, tensor in SPECS[op].inputs(sizes).items()}


def _contenders(functions, mode):
    return {name: _run(function, tuple(leaves), mode) for name, (function, leaves) in functions.items()}


def _run(function, leaves, mode):
    if mode == "forward":
        return torch.no_grad()(function)
    with torch.no_grad():
        grad = torch.randn_like(function())
    return lambda: torch.autograd.grad(function(), leaves, grad)
