// The discretised mixture of K logistics. x is uint8 [B, C, H, W], `params` S [B, P, H, W] with P = 3K for C = 1 and
// 10K for C = 3. Memory is [B, channels, H W], or [B, H W, channels] where `.._innermost` is 1.
#pragma once

#include "core/arguments.h"

namespace genfast {

GENFAST_ARGUMENTS(LogisticMixtureNllForward,
  const void *x, *params;
  void* nll;  // T [B], out
  int64_t batch, channels, components, pixels, levels, x_innermost, params_innermost;
)

GENFAST_ARGUMENTS(LogisticMixtureNllBackward,
  const void *grad_nll, *x, *params;
  void* grad_params;  // out, in the memory layout of params
  int64_t batch, channels, components, pixels, levels, x_innermost, params_innermost;
)

GENFAST_ARGUMENTS(LogisticMixtureSample,
  const void* params;
  void* draw;  // uint8 [B, C, H W], out
  int64_t batch, channels, components, pixels, levels, params_innermost;
  int64_t seed, first_index, first_element;  // image b is first_index + b, pixel p channel c first_element + p C + c
  double temperature;
)

}  // namespace genfast
