// tanh(a) sigmoid(b) of two halves. All tensors are contiguous: R rows of a and then b, N elements each. A batch of
// images [B, 2C, H, W] is R = B, N = C H W, and with the channels last, [B, H, W, 2C], it is R = B H W, N = C.
#pragma once

#include "core/arguments.h"

namespace genfast {

GENFAST_ARGUMENTS(GatedActivationForward,
  const void* x;  // S [R, 2, N]
  void* y;        // S [R, N], out
  int64_t rows, size;
)

GENFAST_ARGUMENTS(GatedActivationBackward,
  const void *grad_y, *x;
  void* grad_x;  // out, shaped like x
  int64_t rows, size;
)

}  // namespace genfast
