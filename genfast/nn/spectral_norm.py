"""Spectral normalisation of a whole network, with one batched call for all layers of one shape."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from genfast import ops
from genfast._native.derivatives import within_transform

KINDS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
# id of a weight -> the layers that use it, with their names.
Group = dict[int, list[tuple[str, nn.Module]]]
_TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)


class SpectralNorm(nn.Module):
    """Divides the weight of every linear and convolutional layer of a network by its largest singular value.

    ::

        u <- W v / |W v|,  v <- W^T u / |W^T u|,  W_sn = W / (u^T W v)      (gradients flow through W only)

    W is the weight as a matrix whose rows are the output features. The weights of all layers of one shape are stacked
    in one parameter [L, *shape] and normalised in one call; biases and other parameters stay in `module`. Each forward
    pass in training mode takes one step of power iteration. In evaluation mode, and within `torch.func` transforms such
    as the gradient penalties of `genfast.losses`, u and v do not change. Every pass uses its own copy of u and v, so
    D(real), D(fake) and then one backward pass give the correct gradients. Initialise the network before wrapping it,
    and make the optimizer after.

    Args:
        module: the network. It is modified; call it through the wrapper only.
        kinds: types of the layers whose `weight` is normalised. Tied weights stay tied.
    Shape: as `module`.
    Raises: TypeError for an object that is not a module; ValueError for a module without such layers, or with a layer
        whose weight is already computed from other tensors, or all zeros.
    Paper: Spectral Normalization for Generative Adversarial Networks, arXiv 1802.05957.
    Example: `SpectralNorm(nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 1)))(torch.randn(4, 8))`
    """

    def __init__(self, module: nn.Module, kinds: Iterable[type[nn.Module]] = KINDS) -> None:
        super().__init__()
        if not isinstance(module, nn.Module):
            raise TypeError(f"SpectralNorm: module must be a torch.nn.Module; got {type(module).__name__}")
        groups = _grouped(module, tuple(kinds))
        self.module = module
        self.weights = nn.ParameterList()
        # For each stack: whether dimension 1 holds the output features, and the layers that use each of its weights.
        self._transposed = [key[0] for key in groups]
        self._layers = [[[path for path, _ in uses] for uses in group.values()] for group in groups.values()]
        for index, group in enumerate(groups.values()):
            weights = [uses[0][1].get_parameter("weight") for uses in group.values()]
            stack = nn.Parameter(torch.stack([weight.detach() for weight in weights]), weights[0].requires_grad)
            self.weights.append(stack)
            matrices = _matrices(stack.detach(), self._transposed[index])
            for matrix, uses in zip(matrices, group.values()):
                if not matrix.any():
                    path = uses[0][0]
                    raise ValueError(f"SpectralNorm: a weight must have a singular value above 0; {path!r} has none")
            u, v = (
                nn.functional.normalize(torch.randn_like(part), dim=1) for part in (matrices[:, :, 0], matrices[:, 0])
            )
            # 15 steps, as in torch: with random u and v the first estimate would be far too small.
            u, v = ops.power_iteration(matrices, u, v, 15)
            self.register_buffer(f"u_{index}", u.to(stack.dtype))
            self.register_buffer(f"v_{index}", v.to(stack.dtype))
            for uses in group.values():
                for _, layer in uses:
                    layer.register_parameter("weight", None)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        update = self.training and not within_transform()
        return torch.func.functional_call(self.module, self._normalized(update), args, kwargs)

    def remove(self) -> nn.Module:
        """A copy of the network without the wrapper; its weights are the normalised ones for the current u and v."""
        network = copy.deepcopy(self.module)
        with torch.no_grad():
            normalized = self._normalized(update=False)
        layers = {path: network.get_submodule(path) for paths in self._layers for same in paths for path in same}
        for index, paths in enumerate(self._layers):
            for same in paths:
                weight = normalized[_name(same[0])].detach().clone(memory_format=torch.contiguous_format)
                weight = nn.Parameter(weight, self.weights[index].requires_grad)
                for path in same:
                    layers[path].weight = weight
        return network

    def sigma(self) -> dict[str, Tensor]:
        """Estimates of the largest singular value of each layer, by the current u and v: name of the layer -> []."""
        sigmas = {}
        for index, paths in enumerate(self._layers):
            matrices = _matrices(self.weights[index].detach(), self._transposed[index])
            u, v = (getattr(self, f"{name}_{index}") for name in "uv")
            values = torch.einsum("lr,lrc,lc->l", u, matrices, v)
            sigmas.update({path: value for same, value in zip(paths, values) for path in same})
        return sigmas

    def _normalized(self, update: bool) -> dict[str, Tensor]:
        """Name of a parameter of `module` -> normalised weight; `update`: after one step of power iteration."""
        weights = {}
        for index, paths in enumerate(self._layers):
            stack = self.weights[index]
            for same, weight in zip(paths, self._stack(index, stack, update).unbind(0)):
                weights.update({_name(path): weight for path in same})
        return weights

    def _stack(self, index: int, stack: Tensor, update: bool) -> Tensor:
        transposed = self._transposed[index]
        matrices = _matrices(stack, transposed)
        buffers = getattr(self, f"u_{index}"), getattr(self, f"v_{index}")
        with torch.autocast(stack.device.type, enabled=False):
            # New tensors: a later pass updates the buffers before the backward pass of this one.
            u, v = ops.power_iteration(matrices.detach(), *buffers, int(update))
            u, v = u.to(stack.dtype), v.to(stack.dtype)
            normalized = ops.spectral_norm(matrices, u, v)
        if update:
            for buffer, vector in zip(buffers, (u, v)):
                buffer.copy_(vector)
        if not transposed:
            return normalized.view(stack.shape)
        inputs, outputs = stack.shape[1:3]
        return normalized.unflatten(2, (inputs, *stack.shape[3:])).transpose(1, 2)

    def extra_repr(self) -> str:
        return f"layers={sum(len(paths) for paths in self._layers)}, stacks={len(self._layers)}"


def _grouped(module: nn.Module, kinds: tuple[type[nn.Module], ...]) -> dict[Any, Group]:
    """(is transposed, shape, dtype, device, requires_grad) -> {id of a weight: [(path, layer), ...]}."""
    groups: dict[Any, Group] = {}
    for path, layer in module.named_modules():
        if not isinstance(layer, kinds):
            continue
        weight = layer._parameters.get("weight")
        if weight is None or isinstance(weight, nn.parameter.UninitializedParameter) or weight.dim() < 2:
            where = f"layer {path!r} ({type(layer).__name__})" if path else f"the {type(layer).__name__}"
            raise ValueError(
                f"SpectralNorm: every layer must have a weight of its own of two dimensions or more, neither lazy nor "
                f"normalised already; {where} has none"
            )
        key = isinstance(layer, _TRANSPOSED), tuple(weight.shape), weight.dtype, weight.device, weight.requires_grad
        groups.setdefault(key, {}).setdefault(id(weight), []).append((path, layer))
    if not groups:
        names = ", ".join(kind.__name__ for kind in kinds)
        raise ValueError(f"SpectralNorm: module must have a layer among {names}; got {type(module).__name__}")
    return groups


def _matrices(stack: Tensor, transposed: bool) -> Tensor:
    """[L, *shape] -> [L, rows, columns], where the rows are the output features."""
    return (stack.transpose(1, 2) if transposed else stack).flatten(2)


def _name(path: str) -> str:
    return f"{path}.weight" if path else "weight"
