// Sums of exp(-L1 distance) between the rows of a batch. All tensors are contiguous: M rows of B projections with C
// elements each; the first `rows` of them are summed for.
#pragma once

#include "core/arguments.h"

namespace genfast {

GENFAST_ARGUMENTS(MinibatchDiscriminationForward,
  const void* projected;  // S [M, B, C]
  void* y;                // S [rows, B], out
  int64_t count, kernels, dim, rows;
)

GENFAST_ARGUMENTS(MinibatchDiscriminationBackward,
  const void *grad_y, *projected;
  void* grad_projected;  // out, shaped like projected
  int64_t count, kernels, dim, rows;
)

}  // namespace genfast
