"""`torch.nn.utils.parametrizations.spectral_norm`, with genfast's power iteration and division."""

from __future__ import annotations

from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from genfast import ops
from genfast._native.checks import check_whole, wide
from genfast._native.derivatives import within_transform
from genfast._state import Stateful, recomputed

__all__ = ["spectral_norm"]
Module = TypeVar("Module", bound=nn.Module)
EPSILON = 1e-12  # what |x| is clamped to in `genfast.power_iteration`
FIRST = 15  # power iterations of a new weight, as in torch
_TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)


def spectral_norm(
    module: Module, name: str = "weight", n_power_iterations: int = 1, eps: float = EPSILON, dim: int | None = None
) -> Module:
    """Divide a parameter of a module by its largest singular value, in every access to it.

    The state dict is that of torch: `parametrizations.weight.original`, `parametrizations.weight.0._u` and `_v`. u and
    v stay float32 when the module is cast to a half type. `genfast.nn.SpectralNorm` does a whole network in few calls.

    Args:
        module: a layer with the parameter.
        name: of the parameter.
        n_power_iterations: steps of the power method in an access in training mode, at least 1.
        eps: 1e-12, what |x| is clamped to; nothing else is served.
        dim: the dimension of the output features: 0, and 1 of transposed convolutions, if None.
    Returns: the module.
    Raises: ValueError for a module without the parameter, or for numbers out of range.
    Paper: Spectral Normalization for Generative Adversarial Networks, arXiv 1802.05957.
    Example: `spectral_norm(nn.Linear(20, 40))`
    """
    weight = dict(module.named_parameters(recurse=False)).get(name)
    if weight is None:
        names = ", ".join(key for key, _ in module.named_parameters(recurse=False)) or "none"
        raise ValueError(f"spectral_norm: name must be a parameter of the module ({names}); got {name!r}")
    check_whole("spectral_norm", "n_power_iterations", n_power_iterations, 1, 2**31)
    if eps != EPSILON:
        raise ValueError(f"spectral_norm: eps must be {EPSILON}, as no other is served; got {eps!r}")
    if dim is None:
        dim = 1 if isinstance(module, _TRANSPOSED) else 0
    parametrize.register_parametrization(module, name, _SpectralNorm(weight, n_power_iterations, dim))
    return module


class _SpectralNorm(Stateful):
    """The parametrization, with u and v as buffers; a weight of one dimension has none."""

    _u: Tensor
    _v: Tensor

    def __init__(self, weight: Tensor, iterations: int, dim: int) -> None:
        super().__init__()
        if not -weight.ndim <= dim < weight.ndim:
            raise ValueError(f"spectral_norm: dim must be a dimension of the weight {tuple(weight.shape)}; got {dim}")
        self.iterations, self.dim = iterations, dim
        if weight.ndim == 1:
            return
        with torch.no_grad():
            matrix = self._matrix(weight)
            found = [matrix.new_empty(size).normal_() for size in matrix.shape]
            found = [nn.functional.normalize(vector, dim=0, eps=EPSILON) for vector in found]
            u, v = ops.power_iteration(matrix[None], found[0][None], found[1][None], FIRST)
        self.register_buffer("_u", u[0])
        self.register_buffer("_v", v[0])
        self.running = ("_u", "_v")

    def forward(self, weight: Tensor) -> Tensor:
        """The normalised weight."""
        if weight.ndim == 1:
            return nn.functional.normalize(weight, dim=0, eps=EPSILON)
        with torch.autocast(weight.device.type, enabled=False):
            matrix = self._matrix(weight)[None]
            # What torch.utils.checkpoint repeats is computed with the vectors that its first pass has left.
            steps = self.training and not recomputed() and not within_transform()
            u, v = ops.power_iteration(matrix.detach(), self._u[None], self._v[None], self.iterations if steps else 0)
            if steps:
                with torch.no_grad():
                    self._u.copy_(u[0])
                    self._v.copy_(v[0])
            normalized = ops.spectral_norm(matrix, u, v)[0].to(weight.dtype)
        return normalized.view(weight.movedim(self.dim, 0).shape).movedim(0, self.dim)

    def right_inverse(self, value: Tensor) -> Tensor:
        """The weight that is stored where one is assigned: the value itself, as in torch."""
        return value

    def _matrix(self, weight: Tensor) -> Tensor:
        return weight.movedim(self.dim, 0).flatten(1).to(wide(weight.dtype))

    def extra_repr(self) -> str:
        return f"iterations={self.iterations}, dim={self.dim}"
