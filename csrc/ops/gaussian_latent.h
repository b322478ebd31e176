// The Gaussian latent variable. All tensors are contiguous.
#pragma once

#include "core/arguments.h"

namespace genfast {

GENFAST_ARGUMENTS(GaussianLatentForward,
  const void *mean, *log_variance;              // S [B, Z]
  const void *prior_mean, *prior_log_variance;  // S [B, Z], or null for N(0, I)
  void *z, *kl;                                 // S [B, samples, Z] and T [B], or [B, Z] if per_latent, out
  int64_t batch, size, samples;
  int64_t seed, first_index, first_sample, per_latent;
)

GENFAST_ARGUMENTS(GaussianLatentBackward,
  const void *grad_z, *grad_kl;  // shaped like z and kl; null counts as zero
  const void *mean, *log_variance, *prior_mean, *prior_log_variance;
  void *grad_mean, *grad_log_variance;              // out
  void *grad_prior_mean, *grad_prior_log_variance;  // out, null for N(0, I)
  int64_t batch, size, samples;
  int64_t seed, first_index, first_sample, per_latent;
)

}  // namespace genfast
