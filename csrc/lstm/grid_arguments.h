// What the scans of the grid LSTM family take. All tensors are contiguous; S is the storage type, T float for bfloat16
// and else S. K taps: 2 for the diagonal scan, 3 for the row scan, which has one direction.
#pragma once

#include "core/arguments.h"

namespace genfast {

GENFAST_ARGUMENTS(ScanForward,
  const void *gates, *weight, *h0, *c0;  // S [B, H, W, D, 4C], [D, K, C, 4C], [D, C], [D, C]
  void* hidden;                          // S [B, H, W, D, C], out
  void *saved_gates, *saved_cells;  // S [B, H, W, D, 4C] and T [B, H, W, D, C], out or null; for the backward only: in
                                    // the order of the scan
  int64_t batch, height, width, directions, hidden_size;
)

GENFAST_ARGUMENTS(ScanBackward,
  const void *grad_hidden, *hidden, *saved_gates, *saved_cells, *weight, *h0, *c0;
  void *grad_gates, *grad_weight, *grad_h0, *grad_c0;  // out, shaped like what they are the gradients of
  int64_t batch, height, width, directions, hidden_size;
)

}  // namespace genfast
