"""The accelerated ops: plain functions of tensors, each with a native and a pure PyTorch implementation."""

from genfast.ops.aggregate_posterior import aggregate_posterior
from genfast.ops.bernoulli import bernoulli_nll, bernoulli_sample
from genfast.ops.bias_act import bias_act
from genfast.ops.categorical import categorical_nll, categorical_sample
from genfast.ops.diagonal_block import diagonal_block
from genfast.ops.diagonal_lstm import diagonal_lstm
from genfast.ops.gated_activation import gated_activation
from genfast.ops.gaussian import gaussian_nll
from genfast.ops.gaussian_latent import gaussian_latent
from genfast.ops.importance_bound import importance_bound
from genfast.ops.kernel_sum import kernel_sum
from genfast.ops.logistic_mixture import logistic_mixture_nll, logistic_mixture_sample
from genfast.ops.minibatch_discrimination import minibatch_discrimination
from genfast.ops.minibatch_stddev import minibatch_stddev
from genfast.ops.nearest_neighbors import nearest_neighbors
from genfast.ops.row_lstm import row_lstm
from genfast.ops.spectral_norm import power_iteration, spectral_norm
from genfast.ops.upfirdn2d import upfirdn2d
from genfast.ops.vector_quantize import codebook_statistics, vector_quantize

__all__ = [
    "aggregate_posterior",
    "bernoulli_nll",
    "bernoulli_sample",
    "bias_act",
    "categorical_nll",
    "categorical_sample",
    "codebook_statistics",
    "diagonal_block",
    "diagonal_lstm",
    "gated_activation",
    "gaussian_latent",
    "gaussian_nll",
    "importance_bound",
    "kernel_sum",
    "logistic_mixture_nll",
    "logistic_mixture_sample",
    "minibatch_discrimination",
    "minibatch_stddev",
    "nearest_neighbors",
    "power_iteration",
    "row_lstm",
    "spectral_norm",
    "upfirdn2d",
    "vector_quantize",
]
