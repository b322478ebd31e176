"""Spectral normalisation of a whole network: layers of one shape are one stack of matrices."""

import copy

import torch
from torch import nn

from genfast import ops
from genfast._native.derivatives import within_transform

KINDS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
_TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)


class SpectralNorm(nn.Module):
    """A network of which every linear and convolutional layer works with its weight over the largest singular value.

    ::

        u <- W v / |W v|,  v <- W^T u / |W^T u|,  W_sn = W / (u^T W v)      (a gradient flows through W alone)

    W is the weight as a matrix whose rows are the output features. The weights of all layers of one shape are ONE
    parameter [L, *shape], normalised in one call; biases and other parameters stay in `module`. Each forward pass in
    training mode takes one step of the power method; in evaluation mode, and within `torch.func` transforms such as the
    gradient penalties of `genfast.losses`, u and v stay as they are. Every pass computes with its own copies, so
    D(real), D(fake) and then one backward pass are right. Make optimizers after wrapping, and initialise before it.

    Args:
        module: the network; it is changed, and should from now on be called through the wrapper only.
        kinds: types of layers whose `weight` is normalised, `nn.Embedding` for instance added to the default. A weight
            that several layers share stays shared.
    Shape: that of `module`, whatever its arguments.
    Raises: ValueError for a module without such layers, or with one whose weight is computed already or all zeros.
    Paper: Spectral Normalization for Generative Adversarial Networks, arXiv 1802.05957.
    Example: `SpectralNorm(nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 1)))(torch.randn(4, 8))`
    """

    def __init__(self, module, kinds=KINDS):
        super().__init__()
        if not isinstance(module, nn.Module):
            raise TypeError(f"SpectralNorm: module must be a torch.nn.Module; got {type(module).__name__}")
        groups = _grouped(module, tuple(kinds))
        self.module = module
        self.weights = nn.ParameterList()
        # Of every stack: whether rows are dimension 1; and the layers of each of its weights.
        self._transposed = [key[0] for key in groups]
        self._layers = [[[path for path, _ in uses] for uses in group.values()] for group in groups.values()]
        for index, group in enumerate(groups.values()):
            weights = [uses[0][1].weight for uses in group.values()]
            stack = nn.Parameter(torch.stack([weight.detach() for weight in weights]), weights[0].requires_grad)
            self.weights.append(stack)
            matrices = _matrices(stack.detach(), self._transposed[index])
            for matrix, uses in zip(matrices, group.values()):
                if not matrix.any():
                    layer = uses[0][0]
                    raise ValueError(f"SpectralNorm: a weight must have a singular value above 0; {layer!r} has none")
            u, v = (
                nn.functional.normalize(torch.randn_like(part), dim=1) for part in (matrices[:, :, 0], matrices[:, 0])
            )
            # As torch does: the first step of training would divide by far too little.
            u, v = ops.power_iteration(matrices, u, v, 15)
            self.register_buffer(f"u_{index}", u.to(stack.dtype))
            self.register_buffer(f"v_{index}", v.to(stack.dtype))
            for uses in group.values():
                for _, layer in uses:
                    layer.weight = None

    def forward(self, *args, **kwargs):
        update = self.training and not within_transform()
        return torch.func.functional_call(self.module, self._normalized(update), args, kwargs)

    def remove(self):
        """A copy of the plain network with the normalised weights of the present u and v as its parameters."""
        network = copy.deepcopy(self.module)
        with torch.no_grad():
            made = self._normalized(update=False)
        layers = {path: network.get_submodule(path) for paths in self._layers for same in paths for path in same}
        for index, paths in enumerate(self._layers):
            for same in paths:
                weight = made[_name(same[0])].detach().clone(memory_format=torch.contiguous_format)
                weight = nn.Parameter(weight, self.weights[index].requires_grad)
                for path in same:
                    layers[path].weight = weight
        return network

    def sigma(self):
        """The largest singular value of every layer as u and v give it: name of the layer -> []."""
        found = {}
        for index, paths in enumerate(self._layers):
            matrices = _matrices(self.weights[index].detach(), self._transposed[index])
            u, v = (getattr(self, f"{name}_{index}") for name in "uv")
            values = torch.einsum("lr,lrc,lc->l", u, matrices, v)
            found.update({path: value for same, value in zip(paths, values) for path in same})
        return found

    def _normalized(self, update):
        """Name of a parameter of `module` -> its normalised weight; `update`: by one more step of the power method."""
        made = {}
        for index, paths in enumerate(self._layers):
            stack = self.weights[index]
            for same, weight in zip(paths, self._stack(index, stack, update).unbind(0)):
                made.update({_name(path): weight for path in same})
        return made

    def _stack(self, index, stack, update):
        transposed = self._transposed[index]
        matrices = _matrices(stack, transposed)
        held = getattr(self, f"u_{index}"), getattr(self, f"v_{index}")
        with torch.autocast(stack.device.type, enabled=False):
            # Always memory of their own: a later pass changes what is held, and this one has yet to go backward.
            vectors = ops.power_iteration(matrices.detach(), *held, int(update))
            vectors = [vector.to(stack.dtype) for vector in vectors]
            normalized = ops.spectral_norm(matrices, *vectors)
        if update:
            for buffer, vector in zip(held, vectors):
                buffer.copy_(vector)
        if not transposed:
            return normalized.view(stack.shape)
        inputs, outputs = stack.shape[1:3]
        return normalized.unflatten(2, (inputs, *stack.shape[3:])).transpose(1, 2)

    def extra_repr(self):
        return f"layers={sum(len(paths) for paths in self._layers)}, stacks={len(self._layers)}"


def _grouped(module, kinds):
    """(rows are dimension 1, shape, dtype, device, trained) -> {id of a weight: [(path, layer), ...]}."""
    groups = {}
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


def _matrices(stack, transposed):
    """[L, *shape] -> [L, rows, columns], the rows being output features."""
    return (stack.transpose(1, 2) if transposed else stack).flatten(2)


def _name(path):
    return f"{path}.weight" if path else "weight"
