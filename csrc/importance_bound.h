// The importance-weighted bound. All tensors are contiguous.
#pragma once

#include "common.h"

namespace genfast {

struct ImportanceBoundForward {
  Type type;
  const void* log_weights;  // S [B, samples]
  void* bound;              // T [B], out
  int64_t batch, samples;
};

struct ImportanceBoundBackward {
  Type type;
  const void *grad_bound, *log_weights;
  void* grad_log_weights;  // S [B, samples], out
  int64_t batch, samples;
};

}  // namespace genfast
