// The residual block of PixelCNN. All tensors are contiguous and of one type.
#pragma once

#include "core/arguments.h"

namespace genfast {

GENFAST_ARGUMENTS(PixelcnnBlockForward,
  const void *x, *down_weight, *down_bias;  // [B, H, W, F], [C, F], [C]
  const void *weight, *bias;                // [C, C, KH, KW], [C]
  const void *up_weight, *up_bias;          // [F, C], [F]
  void* y;                                  // [B, H, W, F], out
  void *inner, *outer;                      // [B, H, W, C], [B, H, W, C], out or null
  int64_t batch, height, width, features, hidden, kernel_height, kernel_width;
)

GENFAST_ARGUMENTS(PixelcnnBlockBackward,
  const void *grad_y, *x, *down_weight, *down_bias, *weight, *bias, *up_weight, *up_bias, *inner, *outer;
  void *grad_x, *grad_down_weight, *grad_down_bias, *grad_weight, *grad_bias, *grad_up_weight,
      *grad_up_bias;  // out, shaped like what they are the gradients of
  int64_t batch, height, width, features, hidden, kernel_height, kernel_width;
)

}  // namespace genfast
