// The diagonal Gaussian likelihood. All tensors are contiguous.
#pragma once

#include "core/arguments.h"

namespace genfast {

GENFAST_ARGUMENTS(GaussianNllForward,
  const void *x, *mean, *log_variance;   // S [B, N]
  const void* weight;                    // uint8 or S [B, N], or null
  void* nll;                             // T [B], out
  int64_t batch, size, weight_is_bytes;  // size = N
)

GENFAST_ARGUMENTS(GaussianNllBackward,
  const void *grad_nll, *x, *mean, *log_variance, *weight;
  void *grad_x, *grad_mean, *grad_log_variance;  // S [B, N], out; grad_x may be null
  int64_t batch, size, weight_is_bytes;
)

}  // namespace genfast
