// The k nearest rows of y for every row of x. All tensors are contiguous. W is the arithmetic type of S.
#pragma once

#include "core/arguments.h"

namespace genfast {

GENFAST_ARGUMENTS(NearestNeighbors,
  const void *x, *y;                  // S [N, D], S [M, D]
  void *squared_distances, *indices;  // W [N, k], int64 [N, k], out
  int64_t rows, count, depth, k;      // 1 <= k <= M
)

}  // namespace genfast
