// A convolution of stride 1 that reads earlier pixels. All tensors are contiguous and of one type.
#pragma once

#include "core/arguments.h"

namespace genfast {

GENFAST_ARGUMENTS(MaskedConv2dForward,
  const void *x, *weight, *bias;  // [B, H, W, C], [O, C, KH, KW], [O] or null
  void* y;                        // [B, H, W, O], out
  int64_t batch, height, width, inputs, outputs, kernel_height, kernel_width, dilation, centre;
)

GENFAST_ARGUMENTS(MaskedConv2dBackward,
  const void *grad_y, *x, *weight, *bias;
  void *grad_x, *grad_weight, *grad_bias;  // out, shaped like what they are of; null: not wanted
  int64_t batch, height, width, inputs, outputs, kernel_height, kernel_width, dilation, centre;
)

}  // namespace genfast
