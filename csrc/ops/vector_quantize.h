// Vector quantisation: the nearest code of every row, its gradients, and the statistics of moving averages. All tensors
// are contiguous. W is the arithmetic type of S.
#pragma once

#include "core/arguments.h"

namespace genfast {

GENFAST_ARGUMENTS(VectorQuantizeForward,
  const void *x, *codebook;        // S [N, D], S [K, D]
  void *codes, *quantized, *loss;  // int64 [N], S [N, D], W []; out
  int64_t rows, depth, count;
  double commitment, codebook_weight;
)

GENFAST_ARGUMENTS(VectorQuantizeBackward,
  const void *grad_quantized, *grad_loss;  // S [N, D], W []; either may be null, which is zero
  const void *x, *codebook, *codes;
  void *grad_x, *grad_codebook;  // S [N, D], S [K, D], out; the latter may be null
  int64_t rows, depth, count;
  double commitment, codebook_weight;
)

GENFAST_ARGUMENTS(CodebookStatistics,
  const void *x, *codes;  // S [N, D], int64 [N]; a code that is none counts nowhere
  void *counts, *sums;    // W [K], W [K, D], out
  int64_t rows, depth, count;
)

}  // namespace genfast
