// Sums of a kernel over all rows of y. All tensors are contiguous.
#pragma once

#include "core/arguments.h"

namespace genfast {

GENFAST_ARGUMENTS(KernelSum,
  const void *x, *y;                        // S [N, D], S [M, D]
  void* total;                              // double [N], out
  int64_t rows, count, depth, is_gaussian;  // the kernel: 0 polynomial, 1 Gaussian
  double gamma, coef0;
  int64_t degree;
)

}  // namespace genfast
