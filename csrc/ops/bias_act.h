// clamp(activation(x + bias) * gain). All tensors are contiguous, x is [N, C, size]; the bias may be missing.
#pragma once

#include "core/arguments.h"

namespace genfast {

GENFAST_ARGUMENTS(BiasActForward,
  const void *x, *bias;  // S [N, C, size], S [C] or null
  void* y;               // S, out, shaped like x
  int64_t batch, channels, size, activation;
  double slope, gain, limit;
)

GENFAST_ARGUMENTS(BiasActBackward,
  const void *grad_y, *x, *bias;
  void *grad_x, *grad_bias;  // out, shaped like x and bias; grad_bias may be null
  int64_t batch, channels, size, activation;
  double slope, gain, limit;
)

}  // namespace genfast
