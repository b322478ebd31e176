# Written by `make stubs`: type checkers do not see what is found at import.
from genfast.reference._spec import Spec as Spec
from genfast.reference.aggregate_posterior import aggregate_posterior_ref as aggregate_posterior_ref
from genfast.reference.bernoulli import bernoulli_nll_ref as bernoulli_nll_ref
from genfast.reference.bernoulli import bernoulli_sample_ref as bernoulli_sample_ref
from genfast.reference.bias_act import bias_act_ref as bias_act_ref
from genfast.reference.categorical import categorical_nll_ref as categorical_nll_ref
from genfast.reference.categorical import categorical_sample_ref as categorical_sample_ref
from genfast.reference.diagonal_block import diagonal_block_ref as diagonal_block_ref
from genfast.reference.diagonal_lstm import diagonal_lstm_ref as diagonal_lstm_ref
from genfast.reference.gated_activation import gated_activation_ref as gated_activation_ref
from genfast.reference.gaussian import gaussian_nll_ref as gaussian_nll_ref
from genfast.reference.gaussian_latent import gaussian_latent_ref as gaussian_latent_ref
from genfast.reference.importance_bound import importance_bound_ref as importance_bound_ref
from genfast.reference.kernel_sum import kernel_sum_ref as kernel_sum_ref
from genfast.reference.logistic_mixture import logistic_mixture_nll_ref as logistic_mixture_nll_ref
from genfast.reference.logistic_mixture import logistic_mixture_sample_ref as logistic_mixture_sample_ref
from genfast.reference.masked_conv2d import masked_conv2d_ref as masked_conv2d_ref
from genfast.reference.minibatch_discrimination import minibatch_discrimination_ref as minibatch_discrimination_ref
from genfast.reference.minibatch_stddev import minibatch_stddev_ref as minibatch_stddev_ref
from genfast.reference.nearest_neighbors import nearest_neighbors_ref as nearest_neighbors_ref
from genfast.reference.pixelcnn_block import pixelcnn_block_ref as pixelcnn_block_ref
from genfast.reference.row_lstm import row_lstm_ref as row_lstm_ref
from genfast.reference.spectral_norm import power_iteration_ref as power_iteration_ref
from genfast.reference.spectral_norm import spectral_norm_ref as spectral_norm_ref
from genfast.reference.upfirdn2d import upfirdn2d_ref as upfirdn2d_ref
from genfast.reference.vector_quantize import codebook_statistics_ref as codebook_statistics_ref
from genfast.reference.vector_quantize import vector_quantize_ref as vector_quantize_ref

SPECS: dict[str, Spec]
SAMPLERS: dict[str, Spec]
NON_DIFFERENTIABLE: dict[str, Spec]
