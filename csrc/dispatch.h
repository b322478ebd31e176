// Chooses the instruction-set level whose kernels run.
#pragma once

#include "aggregate_posterior.h"
#include "bernoulli.h"
#include "bias_act.h"
#include "categorical.h"
#include "diagonal_block.h"
#include "diagonal_lstm.h"
#include "gated_activation.h"
#include "gaussian.h"
#include "gaussian_latent.h"
#include "importance_bound.h"
#include "kernel_sum.h"
#include "logistic_mixture.h"
#include "minibatch_discrimination.h"
#include "minibatch_stddev.h"
#include "nearest_neighbors.h"
#include "pixel_program.h"
#include "row_lstm.h"
#include "spectral_norm.h"
#include "upfirdn2d.h"
#include "vector_quantize.h"

namespace genfast {

// Every kernel and its arguments: dispatch.cpp and bindings.cpp are made from this list.
// Arguments are a struct of `Type type`, then members of 8 bytes in the order in which Python passes them.
#define GENFAST_OPS(OP)                                                  \
  OP(diagonal_lstm_forward, DiagonalLstmForward)                         \
  OP(diagonal_lstm_backward, DiagonalLstmBackward)                       \
  OP(diagonal_block_forward, DiagonalBlockForward)                       \
  OP(diagonal_block_backward, DiagonalBlockBackward)                     \
  OP(row_lstm_forward, RowLstmForward)                                   \
  OP(row_lstm_backward, RowLstmBackward)                                 \
  OP(categorical_nll_forward, CategoricalNllForward)                     \
  OP(categorical_nll_backward, CategoricalNllBackward)                   \
  OP(categorical_sample, CategoricalSample)                              \
  OP(bernoulli_nll_forward, BernoulliNllForward)                         \
  OP(bernoulli_nll_backward, BernoulliNllBackward)                       \
  OP(bernoulli_sample, BernoulliSample)                                  \
  OP(gated_activation_forward, GatedActivationForward)                   \
  OP(gated_activation_backward, GatedActivationBackward)                 \
  OP(logistic_mixture_nll_forward, LogisticMixtureNllForward)            \
  OP(logistic_mixture_nll_backward, LogisticMixtureNllBackward)          \
  OP(logistic_mixture_sample, LogisticMixtureSample)                     \
  OP(gaussian_latent_forward, GaussianLatentForward)                     \
  OP(gaussian_latent_backward, GaussianLatentBackward)                   \
  OP(gaussian_nll_forward, GaussianNllForward)                           \
  OP(gaussian_nll_backward, GaussianNllBackward)                         \
  OP(importance_bound_forward, ImportanceBoundForward)                   \
  OP(importance_bound_backward, ImportanceBoundBackward)                 \
  OP(aggregate_posterior_forward, AggregatePosteriorForward)             \
  OP(aggregate_posterior_backward, AggregatePosteriorBackward)           \
  OP(kernel_sum, KernelSum)                                              \
  OP(nearest_neighbors, NearestNeighbors)                                \
  OP(vector_quantize_forward, VectorQuantizeForward)                     \
  OP(vector_quantize_backward, VectorQuantizeBackward)                   \
  OP(codebook_statistics, CodebookStatistics)                            \
  OP(bias_act_forward, BiasActForward)                                   \
  OP(bias_act_backward, BiasActBackward)                                 \
  OP(minibatch_discrimination_forward, MinibatchDiscriminationForward)   \
  OP(minibatch_discrimination_backward, MinibatchDiscriminationBackward) \
  OP(minibatch_stddev_forward, MinibatchStddevForward)                   \
  OP(minibatch_stddev_backward, MinibatchStddevBackward)                 \
  OP(upfirdn2d_forward, Upfirdn2dForward)                                \
  OP(upfirdn2d_backward, Upfirdn2dBackward)                              \
  OP(spectral_norm_forward, SpectralNormForward)                         \
  OP(spectral_norm_backward, SpectralNormBackward)                       \
  OP(power_iteration, PowerIteration)                                    \
  OP(pixel_program, PixelProgram)

struct Kernels {
  const char* level;
  bool (*supported)();
#define OP(name, Arguments) int (*name)(const Arguments&);
  GENFAST_OPS(OP)
#undef OP
};

// Every level that was compiled in, worst first.
const Kernels* compiled_levels(int* count);
// The level in use: the best one that this CPU has, until another is asked for.
const Kernels& kernels();
void use_level(const Kernels& level);

// `hook` is the address of torch_parallel_for(begin, end, grain, body, context); 0 makes loops serial again.
void set_parallel_for(uintptr_t hook);

}  // namespace genfast
