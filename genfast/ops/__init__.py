"""The accelerated ops: plain functions of tensors, each with a native and a pure PyTorch implementation."""

from genfast.ops.aggregate_posterior import aggregate_posterior
from genfast.ops.bernoulli import bernoulli_nll, bernoulli_sample
from genfast.ops.categorical import categorical_nll, categorical_sample
from genfast.ops.diagonal_block import diagonal_block
from genfast.ops.diagonal_lstm import diagonal_lstm
from genfast.ops.gated_activation import gated_activation
from genfast.ops.gaussian import gaussian_nll
from genfast.ops.gaussian_latent import gaussian_latent
from genfast.ops.importance_bound import importance_bound
from genfast.ops.kernel_sum import kernel_sum
from genfast.ops.logistic_mixture import logistic_mixture_nll, logistic_mixture_sample
from genfast.ops.nearest_neighbors import nearest_neighbors
from genfast.ops.row_lstm import row_lstm
from genfast.ops.vector_quantize import codebook_statistics, vector_quantize

__all__ = [
    "aggregate_posterior",
    "bernoulli_nll",
    "bernoulli_sample",
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
    "nearest_neighbors",
    "row_lstm",
    "vector_quantize",
]
