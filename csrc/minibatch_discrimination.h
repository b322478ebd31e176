// Sums of exp(-L1 distance) between the rows of a batch. All tensors are contiguous: M rows of B projections with C
// elements each; the first `rows` of them are summed for.
#pragma once

#include "common.h"

namespace genfast {

struct MinibatchDiscriminationForward {
  Type type;
  const void* projected;  // S [M, B, C]
  void* y;                // S [rows, B], out
  int64_t count, kernels, dim, rows;
};

struct MinibatchDiscriminationBackward {
  Type type;
  const void *grad_y, *projected;
  void* grad_projected;  // out, shaped like projected
  int64_t count, kernels, dim, rows;
};

}  // namespace genfast
