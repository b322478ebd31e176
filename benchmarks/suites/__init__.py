"""What `genfast bench` measures: a file for each suite, which gives its cases."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from genfast.benchmarks.runner import Case
from genfast.benchmarks.suites import compress, layers, ops, sampling, training

Cases = Callable[[bool, Sequence[str]], list[Case]]


@dataclass(frozen=True)
class Suite:
    """A part of the benchmark.

    Attributes:
        help: what it measures.
        cases: (whether few small cases, contenders beside genfast) -> the cases.
    """

    help: str
    cases: Cases


SUITES = {
    "ops": Suite("every op on the shapes of its SPEC, beside good eager PyTorch and torch.compile", ops.cases),
    "layers": Suite("layers of genfast.nn, beside the same layers in plain PyTorch", layers.cases),
    "sampling": Suite("images a second of autoregressive models, beside a forward pass for each pixel", sampling.cases),
    "training": Suite("a training step of each model, beside the same in plain PyTorch", training.cases),
    "compress": Suite("images a second to a compressed file and back", compress.cases),
}
