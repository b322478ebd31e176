# Written by `make stubs`: type checkers do not see what is found at import.
from genfast.ops.aggregate_posterior import aggregate_posterior as aggregate_posterior
from genfast.ops.bernoulli import bernoulli_nll as bernoulli_nll
from genfast.ops.bernoulli import bernoulli_sample as bernoulli_sample
from genfast.ops.bias_act import bias_act as bias_act
from genfast.ops.categorical import categorical_nll as categorical_nll
from genfast.ops.categorical import categorical_sample as categorical_sample
from genfast.ops.diagonal_block import diagonal_block as diagonal_block
from genfast.ops.diagonal_lstm import diagonal_lstm as diagonal_lstm
from genfast.ops.gated_activation import gated_activation as gated_activation
from genfast.ops.gaussian import gaussian_nll as gaussian_nll
from genfast.ops.gaussian_latent import gaussian_latent as gaussian_latent
from genfast.ops.importance_bound import importance_bound as importance_bound
from genfast.ops.kernel_sum import kernel_sum as kernel_sum
from genfast.ops.logistic_mixture import logistic_mixture_nll as logistic_mixture_nll
from genfast.ops.logistic_mixture import logistic_mixture_sample as logistic_mixture_sample
from genfast.ops.masked_conv2d import masked_conv2d as masked_conv2d
from genfast.ops.minibatch_discrimination import minibatch_discrimination as minibatch_discrimination
from genfast.ops.minibatch_stddev import minibatch_stddev as minibatch_stddev
from genfast.ops.nearest_neighbors import nearest_neighbors as nearest_neighbors
from genfast.ops.pixelcnn_block import pixelcnn_block as pixelcnn_block
from genfast.ops.row_lstm import row_lstm as row_lstm
from genfast.ops.spectral_norm import power_iteration as power_iteration
from genfast.ops.spectral_norm import spectral_norm as spectral_norm
from genfast.ops.upfirdn2d import upfirdn2d as upfirdn2d
from genfast.ops.vector_quantize import codebook_statistics as codebook_statistics
from genfast.ops.vector_quantize import vector_quantize as vector_quantize

__all__ = [
    "aggregate_posterior",
    "bernoulli_nll",
    "bernoulli_sample",
    "bias_act",
    "categorical_nll",
    "categorical_sample",
    "diagonal_block",
    "diagonal_lstm",
    "gated_activation",
    "gaussian_nll",
    "gaussian_latent",
    "importance_bound",
    "kernel_sum",
    "logistic_mixture_nll",
    "logistic_mixture_sample",
    "masked_conv2d",
    "minibatch_discrimination",
    "minibatch_stddev",
    "nearest_neighbors",
    "pixelcnn_block",
    "row_lstm",
    "power_iteration",
    "spectral_norm",
    "upfirdn2d",
    "codebook_statistics",
    "vector_quantize",
]
