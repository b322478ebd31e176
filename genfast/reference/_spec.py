"""What tests and benchmarks need to know of an op, said once beside its reference."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

Sizes = Mapping[str, int]
Inputs = dict[str, Any]
KINDS = ("differentiable", "sampler", "non_differentiable")


@dataclass(frozen=True)
class Spec:
    """An op in terms of its reference.

    Attributes:
        name: of the op; `getattr(genfast.ops, name)` is the public function.
        reference: the pure PyTorch function.
        make: (sizes, generator) -> the arguments by name, in the order of the signature: float64 tensors, the
            constants (tensors of whole numbers, which have no gradient) and the settings (numbers).
        shapes: sizes that the tests run: ones, primes, one past a block.
        gradcheck: tiny sizes for the numeric gradients.
        bench: benchmark case -> sizes.
        gradients: orders of derivatives, and whether they are deterministic.
        paper: title, equation, arXiv id.
        kind: "differentiable"; or what has no derivative: "sampler", which draws, or "non_differentiable", which does
            not.
        batched: the arguments whose dimension 0 counts images; the first float tensor if not given.
        ranges: letter -> the values that a random test may give it, where that is not what other ops allow.
        estimator: whether stops of the gradient make of it what a numeric derivative is not.
        coupled: whether the images of a batch act on each other.
        compiled: sizes beside those of `bench` for which the Triton kernels must compile: for each other row of the
            launch tables.
    """

    name: str
    reference: Callable
    make: Callable[[Sizes, torch.Generator], Inputs]
    shapes: tuple[Sizes, ...]
    gradcheck: tuple[Sizes, ...]
    bench: Mapping[str, Sizes]
    gradients: str
    paper: str
    kind: str = "differentiable"
    batched: tuple[str, ...] = ()
    ranges: Mapping[str, Sequence[int]] = field(default_factory=dict)
    estimator: bool = False
    coupled: bool = False
    compiled: tuple[Mapping[str, int], ...] = ()

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"{self.name}: kind must be one of {', '.join(KINDS)}; got {self.kind!r}")

    @property
    def stem(self) -> str:
        """The name of the files of the op: that of the module of its reference."""
        return self.reference.__module__.rpartition(".")[2]

    def inputs(
        self,
        sizes: Sizes,
        *,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
        seed: int = 0,
    ) -> Inputs:
        """Random arguments by name. The values depend on `seed` alone, not on the dtype or device."""
        inputs = self.make(sizes, torch.Generator("cpu").manual_seed(seed))
        return {
            name: value.to(device, dtype if value.is_floating_point() else None) if torch.is_tensor(value) else value
            for name, value in inputs.items()
        }


def normal(generator: torch.Generator, *shape: int, scale: float = 1.0) -> Tensor:
    return torch.randn(*shape, generator=generator, dtype=torch.float64, device="cpu") * scale
