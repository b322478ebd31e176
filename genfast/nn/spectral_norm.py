"""Spectral normalisation of a whole network, with one batched call for all layers of one shape."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from genfast import ops
from genfast._native.checks import wide
from genfast._native.derivatives import within_transform
from genfast._state import Passes, Stateful, recomputed, zero_of_first_pass

KINDS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
# Power iterations that find u and v of new weights, as in torch: the first estimate of random ones is far too small.
FIRST = 15
# id of a weight -> the layers that use it, with their names.
Group = dict[int, list[tuple[str, nn.Module]]]
_TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)


class SpectralNorm(Stateful):
    """Divides the weight of every linear and convolutional layer of a network by its largest singular value.

    ::

        u <- W v / |W v|,  v <- W^T u / |W^T u|,  W_sn = W / (u^T W v)      (gradients flow through W only)

    W is the weight as a matrix whose rows are the output features. The weights of all layers of one shape are stacked
    in one parameter [L, *shape] and normalised in one call; biases and other parameters stay in `module`. Each forward
    pass in training mode takes one step of power iteration. In evaluation mode, and within `torch.func` transforms such
    as the gradient penalties of `genfast.losses`, u and v do not change. Every pass uses its own copy of u and v, so
    D(real), D(fake) and then one backward pass give the correct gradients; so does `torch.utils.checkpoint` around the
    wrapper, which beside `torch.compile` is a RuntimeError. u and v stay float32 when the module is cast to a half
    type. Make the optimizer after wrapping.

    `layer.weight` of a wrapped layer is W, a view of its place in the stack. An initialiser may change it in place:
    `apply(initialise)` finds u and v of the new weights; after a change of `layer.weight.data` call `find_vectors`. A
    wrapped layer that is called outside of the wrapper raises a RuntimeError, and so does one whose `weight` was
    replaced.

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
        self._passes = Passes()
        self.weights = nn.ParameterList()
        # For each stack: whether dimension 1 holds the output features, and the layers that use each of its weights.
        self._transposed = [key[0] for key in groups]
        self._layers = [[[path for path, _ in uses] for uses in group.values()] for group in groups.values()]
        for index, group in enumerate(groups.values()):
            weights = [uses[0][1].get_parameter("weight") for uses in group.values()]
            stack = nn.Parameter(torch.stack([weight.detach() for weight in weights]), weights[0].requires_grad)
            self.weights.append(stack)
            matrices = _matrices(stack.detach(), self._transposed[index])
            for name, size in (("u", matrices.shape[1]), ("v", matrices.shape[2])):
                held = stack.new_empty(len(stack), size, dtype=wide(stack.dtype))
                self.register_buffer(f"{name}_{index}", held.detach())
            for uses in group.values():
                for _, layer in uses:
                    del layer._parameters["weight"]
                    layer.register_forward_pre_hook(_refuse_raw_weight)
        self.running = tuple(f"{name}_{index}" for index in range(len(groups)) for name in "uv")
        self._held = self._hold()
        self._versions: list[int] = []
        self.register_load_state_dict_post_hook(_hold_again)
        self.find_vectors()

    @torch.no_grad()
    def find_vectors(self, generator: torch.Generator | None = None) -> None:
        """Find u and v of the present weights by 15 steps of power iteration from random ones.

        Raises: ValueError for a weight that is all zeros.
        """
        for index, (stack, transposed) in enumerate(zip(self.weights, self._transposed, strict=True)):
            if stack.is_meta:
                continue
            matrices = _matrices(stack.detach(), transposed).to(wide(stack.dtype))
            if not bool((nonzero := matrices.flatten(1).any(1)).all()):
                path = self._layers[index][int(nonzero.int().argmin())][0]
                raise ValueError(f"SpectralNorm: a weight must have a singular value above 0; {path!r} has none")
            for held in self._vectors(index):
                held.copy_(nn.functional.normalize(held.normal_(generator=generator), dim=1))
            vectors = ops.power_iteration(matrices, *self._vectors(index), FIRST)
            for held, found in zip(self._vectors(index), vectors, strict=True):
                held.copy_(found)

    def apply(self, fn: Callable[[nn.Module], object]) -> SpectralNorm:
        """As `torch.nn.Module.apply`; if fn changes a normalised weight, u and v are found anew."""
        before = [stack.detach().clone() for stack in self.weights]
        super().apply(fn)  # type: ignore[arg-type]  # what fn returns is not used
        if any(old.is_meta or not torch.equal(old, stack) for old, stack in zip(before, self.weights, strict=True)):
            self._find_vectors_anew()
        return self

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        weights = self._normalized(self._vectors_of_pass((*args, *kwargs.values())))
        if torch.compiler.is_compiling():
            return torch.func.functional_call(self.module, weights, args, kwargs)
        # What functional_call does, 10 us faster for each layer: weights are plain attributes, not parameters.
        layers = [(vars(self.module.get_submodule(path)), path, raw) for path, raw in self._held]
        for attributes, path, raw in layers:
            if attributes.get("weight") is not raw:
                raise RuntimeError(
                    f"SpectralNorm: the weight of a layer must be changed in place; that of layer {path!r} was replaced"
                )
        try:
            for attributes, path, _ in layers:
                attributes["weight"] = weights[_name(path)]
            return self.module(*args, **kwargs)
        finally:
            for attributes, _, raw in layers:
                attributes["weight"] = raw

    def remove(self) -> nn.Module:
        """A copy of the network without the wrapper; its weights are the normalised ones for the current u and v."""
        network = copy.deepcopy(self.module)
        with torch.no_grad():
            normalized = self._normalized(self._all_vectors())
        layers = {path: network.get_submodule(path) for paths in self._layers for same in paths for path in same}
        for index, paths in enumerate(self._layers):
            for same in paths:
                weight = normalized[_name(same[0])].detach().clone(memory_format=torch.contiguous_format)
                weight = nn.Parameter(weight, self.weights[index].requires_grad)
                for path in same:
                    layers[path].weight = weight
                    hooks = layers[path]._forward_pre_hooks
                    for key in [key for key, hook in hooks.items() if hook is _refuse_raw_weight]:
                        del hooks[key]
        return network

    def sigma(self) -> dict[str, Tensor]:
        """Estimates of the largest singular value of each layer, by the current u and v: name of the layer -> []."""
        sigmas = {}
        for index, paths in enumerate(self._layers):
            u, v = self._vectors(index)
            matrices = _matrices(self.weights[index].detach(), self._transposed[index]).to(u.dtype)
            values = torch.einsum("lr,lrc,lc->l", u, matrices, v)
            sigmas.update({path: value for same, value in zip(paths, values) for path in same})
        return sigmas

    def _vectors(self, index: int) -> tuple[Tensor, Tensor]:
        """u and v of a stack, as they are held."""
        return getattr(self, f"u_{index}"), getattr(self, f"v_{index}")

    def _all_vectors(self, steps: int = 0) -> list[tuple[Tensor, Tensor]]:
        """u and v of each stack after so many steps of power iteration. They are new tensors: a later pass updates the
        buffers before the backward pass of this one."""
        vectors = []
        for index, (stack, transposed) in enumerate(zip(self.weights, self._transposed, strict=True)):
            u, v = self._vectors(index)
            with torch.autocast(stack.device.type, enabled=False):
                matrices = _matrices(stack.detach(), transposed).to(u.dtype)
                vectors.append(ops.power_iteration(matrices, u, v, steps))
        return vectors

    def _vectors_of_pass(self, inputs: tuple[Any, ...]) -> list[tuple[Tensor, Tensor]]:
        """u and v that a forward pass uses, which become those that are held in training mode."""
        if not self.training or within_transform():
            if not torch.compiler.is_compiling() and not within_transform() and self._are_foreign():
                self._find_vectors_anew()
            return self._all_vectors()
        if recomputed():
            return self._passes.recall("SpectralNorm", inputs)
        vectors = self._all_vectors(steps=1)
        if torch.compiler.is_compiling():
            vectors = [(u + zero_of_first_pass(u, "SpectralNorm"), v) for u, v in vectors]
        with torch.no_grad():
            for index, found in enumerate(vectors):
                for held, vector in zip(self._vectors(index), found, strict=True):
                    held.copy_(vector)
        self._passes.keep(inputs, vectors)
        return vectors

    @torch.no_grad()
    def _are_foreign(self) -> bool:
        """Whether weights were changed in place, and so much that u and v are no longer theirs."""
        versions = [0 if stack.is_inference() else stack._version for stack in self.weights]
        if versions == self._versions or self.weights[0].is_meta:
            return False
        self._versions = versions
        found = self._all_vectors(steps=1)
        cosines = [(u * self._vectors(index)[0]).sum(1).min() for index, (u, _) in enumerate(found)]
        return not bool(torch.stack(cosines).min() >= 0.5)  # not even for NaN

    def _find_vectors_anew(self) -> None:
        """Find u and v without a change to torch's random state."""
        device = self.weights[0].device
        self.find_vectors(None if device.type == "meta" else torch.Generator(device).manual_seed(0))

    def _normalized(self, vectors: list[tuple[Tensor, Tensor]]) -> dict[str, Tensor]:
        """Name of a parameter of `module` -> normalised weight."""
        weights = {}
        for index, paths in enumerate(self._layers):
            stack = self._normalized_stack(self.weights[index], self._transposed[index], *vectors[index])
            for same, weight in zip(paths, stack.unbind(0), strict=True):
                weights.update({_name(path): weight for path in same})
        return weights

    def _normalized_stack(self, stack: Tensor, transposed: bool, u: Tensor, v: Tensor) -> Tensor:
        with torch.autocast(stack.device.type, enabled=False):
            normalized = ops.spectral_norm(_matrices(stack, transposed).to(u.dtype), u, v).to(stack.dtype)
        if not transposed:
            return normalized.view(stack.shape)
        inputs, outputs = stack.shape[1:3]
        return normalized.unflatten(2, (inputs, *stack.shape[3:])).transpose(1, 2)

    def _hold(self) -> list[tuple[str, Tensor]]:
        """Give each layer its weight, a view of the stack, and return (path of the layer, weight)."""
        held = []
        for stack, paths in zip(self.weights, self._layers, strict=True):
            for weight, same in zip(stack.detach().unbind(0), paths, strict=True):
                weight.is_raw = True
                for path in same:
                    self.module.get_submodule(path).weight = weight
                    held.append((path, weight))
        return held

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> SpectralNorm:
        super()._apply(fn, recurse)
        self._held = self._hold()
        return self

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._held = self._hold()

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


def _hold_again(norm: SpectralNorm, keys: object) -> None:
    norm._held = norm._hold()  # load_state_dict(assign=True) has put others in the place of the stacks


def _refuse_raw_weight(layer: nn.Module, inputs: object) -> None:
    if not torch.compiler.is_compiling() and "is_raw" in vars(layer.weight):
        raise RuntimeError(
            "SpectralNorm: its layers must be called through it, with torch.utils.checkpoint around it and not within; "
            f"got a call of a {type(layer).__name__} whose weight is not normalised"
        )


def _matrices(stack: Tensor, transposed: bool) -> Tensor:
    """[L, *shape] -> [L, rows, columns], where the rows are the output features."""
    return (stack.transpose(1, 2) if transposed else stack).flatten(2)


def _name(path: str) -> str:
    return f"{path}.weight" if path else "weight"
