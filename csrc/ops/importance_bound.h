// The importance-weighted bound. All tensors are contiguous.
#pragma once

#include "core/arguments.h"

namespace genfast {

GENFAST_ARGUMENTS(ImportanceBoundForward,
  const void* log_weights;  // S [B, samples]
  void* bound;              // T [B], out
  int64_t batch, samples;
)

GENFAST_ARGUMENTS(ImportanceBoundBackward,
  const void *grad_bound, *log_weights;
  void* grad_log_weights;  // S [B, samples], out
  int64_t batch, samples;
)

}  // namespace genfast
