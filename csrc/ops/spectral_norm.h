// A stack of matrices over their largest singular values, and the power method that finds these. All tensors are
// contiguous. T is the arithmetic type of S.
#pragma once

#include "core/arguments.h"

namespace genfast {

GENFAST_ARGUMENTS(SpectralNormForward,
  const void *weight, *u, *v;  // S [L, R, C], S [L, R], S [L, C]
  void *y, *sigma;             // out; S [L, R, C]; T [L] or null: u^T weight v
  int64_t layers, rows, columns;
)

GENFAST_ARGUMENTS(SpectralNormBackward,
  const void *grad_y, *weight, *u, *v, *sigma;
  void *grad_weight, *grad_u, *grad_v;  // out, shaped like what they are of; null: not wanted
  int64_t layers, rows, columns;
)

GENFAST_ARGUMENTS(PowerIteration,
  const void *weight, *u, *v;
  void *new_u, *new_v;  // out, T [L, R], T [L, C]
  int64_t layers, rows, columns, iterations;
)

}  // namespace genfast
