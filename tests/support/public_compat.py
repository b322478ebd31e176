"""A call of everything of `genfast.compat`, as `support.public` has one of everything."""

import copy
import functools

import torch
from support.pieces import integers, levels, normal
from torch import nn

from genfast import compat
from genfast.compat.stylegan3 import bias_act, upfirdn2d

ROOMS = {
    "stylegan2": compat.stylegan2,
    "bias_act": bias_act,
    "upfirdn2d": upfirdn2d,
    "parametrizations": compat.parametrizations,
    "pixelcnn_plus_plus": compat.pixelcnn_plus_plus,
    "torch_fidelity": compat.torch_fidelity,
    "torchmetrics": compat.torchmetrics,
    "vector_quantize_pytorch": compat.vector_quantize_pytorch,
}


@functools.cache
def layer(name):
    torch.manual_seed(1)
    makers = {
        "activation": lambda: compat.stylegan2.FusedLeakyReLU(3),
        "quantizer": lambda: compat.vector_quantize_pytorch.VectorQuantize(3, 5),
        "normalized": lambda: compat.parametrizations.spectral_norm(nn.Linear(3, 4)),
    }
    return makers[name]()


def passed(name, *size):
    """Outputs, gradients and state after a forward in training mode."""
    module, x = copy.deepcopy(layer(name)), normal(*size).requires_grad_()
    outputs = module(x)
    floats = [y for y in (outputs if isinstance(outputs, tuple) else (outputs,)) if y.is_floating_point()]
    return outputs, torch.autograd.grad(sum(y.square().sum() for y in floats), x), module.state_dict()


def pixels(channels):
    return levels(2, channels, 3, 3).float() * (2 / 255) - 1


def distance(metric, **options):
    made = metric(nn.Identity(), **options)
    made.update(normal(9, 3), real=True)
    made.update(normal(8, 3, seed=1), real=False)
    torch.manual_seed(2)
    return made.compute()


def statistics():
    return compat.torch_fidelity.fid_features_to_statistics(normal(9, 3))


def image():
    return normal(1, 2, 6, 6)


def taps():
    return upfirdn2d.setup_filter([1, 3, 3, 1])


_MIXTURE, _FEATURES = compat.pixelcnn_plus_plus, compat.torch_fidelity
CALLS = {
    "stylegan2.upfirdn2d": lambda: compat.stylegan2.upfirdn2d(image(), normal(3, 3), 2, pad=(2, 1)),
    "stylegan2.fused_leaky_relu": lambda: compat.stylegan2.fused_leaky_relu(image(), normal(2)),
    "stylegan2.FusedLeakyReLU": lambda: passed("activation", 2, 3, 4),
    "bias_act.bias_act": lambda: bias_act.bias_act(image(), normal(2), act="swish", clamp=1),
    "upfirdn2d.setup_filter": taps,
    "upfirdn2d.upfirdn2d": lambda: upfirdn2d.upfirdn2d(image(), taps(), up=2, padding=2, gain=4),
    "upfirdn2d.filter2d": lambda: upfirdn2d.filter2d(image(), taps()),
    "upfirdn2d.upsample2d": lambda: upfirdn2d.upsample2d(image(), taps()),
    "upfirdn2d.downsample2d": lambda: upfirdn2d.downsample2d(image(), taps()),
    "parametrizations.spectral_norm": lambda: passed("normalized", 2, 3),
    "pixelcnn_plus_plus.discretized_mix_logistic_loss": lambda: _MIXTURE.discretized_mix_logistic_loss(
        pixels(3), normal(2, 20, 3, 3)
    ),
    "pixelcnn_plus_plus.discretized_mix_logistic_loss_1d": lambda: _MIXTURE.discretized_mix_logistic_loss_1d(
        pixels(1), normal(2, 6, 3, 3)
    ),
    "pixelcnn_plus_plus.sample_from_discretized_mix_logistic": lambda: _MIXTURE.sample_from_discretized_mix_logistic(
        normal(2, 20, 3, 3), 2
    ),
    "pixelcnn_plus_plus.sample_from_discretized_mix_logistic_1d": lambda: (
        _MIXTURE.sample_from_discretized_mix_logistic_1d(normal(2, 6, 3, 3), 2)
    ),
    "torch_fidelity.fid_features_to_statistics": statistics,
    "torch_fidelity.fid_statistics_to_metric": lambda: _FEATURES.fid_statistics_to_metric(statistics(), statistics()),
    "torch_fidelity.kid_features_to_metric": lambda: _FEATURES.kid_features_to_metric(
        normal(9, 3), normal(8, 3, seed=1), kid_subsets=2, kid_subset_size=5
    ),
    "torchmetrics.FrechetInceptionDistance": lambda: distance(compat.torchmetrics.FrechetInceptionDistance),
    "torchmetrics.KernelInceptionDistance": lambda: distance(
        compat.torchmetrics.KernelInceptionDistance, subsets=2, subset_size=4
    ),
    "vector_quantize_pytorch.VectorQuantize": lambda: passed("quantizer", 2, 4, 3),
    "vector_quantize_pytorch.codes": lambda: layer("quantizer").get_codes_from_indices(integers(2, 3, below=5)),
}
