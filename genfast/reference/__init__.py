"""Every op in plain PyTorch: the specification, differentiable to any order; and what has no derivative, samplers that
draw and measures that do not."""

from genfast.reference._spec import Spec
from genfast.reference.aggregate_posterior import SPEC as _aggregate_posterior
from genfast.reference.aggregate_posterior import aggregate_posterior_ref
from genfast.reference.bernoulli import SAMPLER as _bernoulli_sample
from genfast.reference.bernoulli import SPEC as _bernoulli_nll
from genfast.reference.bernoulli import bernoulli_nll_ref, bernoulli_sample_ref
from genfast.reference.bias_act import SPEC as _bias_act
from genfast.reference.bias_act import bias_act_ref
from genfast.reference.categorical import SAMPLER as _categorical_sample
from genfast.reference.categorical import SPEC as _categorical_nll
from genfast.reference.categorical import categorical_nll_ref, categorical_sample_ref
from genfast.reference.diagonal_block import SPEC as _diagonal_block
from genfast.reference.diagonal_block import diagonal_block_ref
from genfast.reference.diagonal_lstm import SPEC as _diagonal_lstm
from genfast.reference.diagonal_lstm import diagonal_lstm_ref
from genfast.reference.gated_activation import SPEC as _gated_activation
from genfast.reference.gated_activation import gated_activation_ref
from genfast.reference.gaussian import SPEC as _gaussian_nll
from genfast.reference.gaussian import gaussian_nll_ref
from genfast.reference.gaussian_latent import SPEC as _gaussian_latent
from genfast.reference.gaussian_latent import gaussian_latent_ref
from genfast.reference.importance_bound import SPEC as _importance_bound
from genfast.reference.importance_bound import importance_bound_ref
from genfast.reference.kernel_sum import SPEC as _kernel_sum
from genfast.reference.kernel_sum import kernel_sum_ref
from genfast.reference.logistic_mixture import SAMPLER as _logistic_mixture_sample
from genfast.reference.logistic_mixture import SPEC as _logistic_mixture_nll
from genfast.reference.logistic_mixture import logistic_mixture_nll_ref, logistic_mixture_sample_ref
from genfast.reference.minibatch_discrimination import SPEC as _minibatch_discrimination
from genfast.reference.minibatch_discrimination import minibatch_discrimination_ref
from genfast.reference.minibatch_stddev import SPEC as _minibatch_stddev
from genfast.reference.minibatch_stddev import minibatch_stddev_ref
from genfast.reference.nearest_neighbors import SPEC as _nearest_neighbors
from genfast.reference.nearest_neighbors import nearest_neighbors_ref
from genfast.reference.row_lstm import SPEC as _row_lstm
from genfast.reference.row_lstm import row_lstm_ref
from genfast.reference.spectral_norm import ITERATION as _power_iteration
from genfast.reference.spectral_norm import SPEC as _spectral_norm
from genfast.reference.spectral_norm import power_iteration_ref, spectral_norm_ref
from genfast.reference.upfirdn2d import SPEC as _upfirdn2d
from genfast.reference.upfirdn2d import upfirdn2d_ref
from genfast.reference.vector_quantize import SPEC as _vector_quantize
from genfast.reference.vector_quantize import STATISTICS as _codebook_statistics
from genfast.reference.vector_quantize import codebook_statistics_ref, vector_quantize_ref

SPECS = {
    spec.name: spec
    for spec in (
        _diagonal_lstm,
        _diagonal_block,
        _row_lstm,
        _categorical_nll,
        _bernoulli_nll,
        _gated_activation,
        _logistic_mixture_nll,
        _gaussian_latent,
        _gaussian_nll,
        _importance_bound,
        _vector_quantize,
        _aggregate_posterior,
        _minibatch_discrimination,
        _minibatch_stddev,
        _bias_act,
        _upfirdn2d,
        _spectral_norm,
    )
}
SAMPLERS = {spec.name: spec for spec in (_categorical_sample, _bernoulli_sample, _logistic_mixture_sample)}
MEASURES = {spec.name: spec for spec in (_codebook_statistics, _nearest_neighbors, _kernel_sum, _power_iteration)}

__all__ = [
    "MEASURES",
    "SAMPLERS",
    "SPECS",
    "Spec",
    "aggregate_posterior_ref",
    "bernoulli_nll_ref",
    "bernoulli_sample_ref",
    "bias_act_ref",
    "categorical_nll_ref",
    "categorical_sample_ref",
    "codebook_statistics_ref",
    "diagonal_block_ref",
    "diagonal_lstm_ref",
    "gated_activation_ref",
    "gaussian_latent_ref",
    "gaussian_nll_ref",
    "importance_bound_ref",
    "kernel_sum_ref",
    "logistic_mixture_nll_ref",
    "logistic_mixture_sample_ref",
    "minibatch_discrimination_ref",
    "minibatch_stddev_ref",
    "nearest_neighbors_ref",
    "power_iteration_ref",
    "row_lstm_ref",
    "spectral_norm_ref",
    "upfirdn2d_ref",
    "vector_quantize_ref",
]
