"""What tests and benchmarks need to know of an op, said once beside its reference."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch


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
        batched: the arguments whose dimension 0 counts images; the first float tensor if not given.
        ranges: letter -> the values that a random test may give it, where that is not what other ops allow.
        estimator: whether stops of the gradient make of it what a numeric derivative is not.
        coupled: whether the images of a batch act on each other.
        compiled: sizes beside those of `bench` for which the Triton kernels must compile: for each other row of the
            launch tables.
    """

    name: str
    reference: Callable
    make: Callable[[Mapping[str, int], torch.Generator], dict[str, torch.Tensor | float]]
    shapes: tuple[Mapping[str, int], ...]
    gradcheck: tuple[Mapping[str, int], ...]
    bench: Mapping[str, Mapping[str, int]]
    gradients: str
    paper: str
    batched: tuple[str, ...] = ()
    ranges: Mapping[str, Sequence[int]] = field(default_factory=dict)
    estimator: bool = False
    coupled: bool = False
    compiled: tuple[Mapping[str, int], ...] = ()

    def inputs(self, sizes, *, dtype=torch.float32, device="cpu", seed=0):
        """Random arguments by name. The values depend on `seed` alone, not on the dtype or device."""
        made = self.make(sizes, torch.Generator().manual_seed(seed))
        return {
            name: value.to(device, dtype if value.is_floating_point() else None) if torch.is_tensor(value) else value
            for name, value in made.items()
        }


def normal(generator, *shape, scale=1.0):
    return torch.randn(*shape, generator=generator, dtype=torch.float64) * scale
