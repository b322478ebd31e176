// The fused residual Diagonal BiLSTM layer. All tensors are contiguous and of one type, float32 or float64.
#pragma once

#include "core/arguments.h"

namespace genfast {

GENFAST_ARGUMENTS(DiagonalBlockForward,
  const void *x, *input_weight, *input_bias;  // [B, H, W, F], [F, 2, 4C], [2, 4C]
  const void *weight, *h0, *c0;               // [2, 2, C, 4C], [2, C], [2, C]
  const void *output_weight, *output_bias;    // [C, F], [F]
  void* y;                                    // [B, H, W, F], out
  void *hidden, *saved_gates, *saved_cells;   // [B, H, W, 2, C], [B, H, W, 2, 4C], [B, H, W, 2, C], out or null
  int64_t batch, height, width, features, hidden_size;
)

GENFAST_ARGUMENTS(DiagonalBlockBackward,
  const void *grad_y, *x, *hidden, *saved_gates, *saved_cells;
  const void *input_weight, *weight, *h0, *c0, *output_weight;
  void *grad_x, *grad_input_weight, *grad_input_bias, *grad_weight, *grad_h0, *grad_c0, *grad_output_weight,
      *grad_output_bias;  // out, shaped like what they are the gradients of
  int64_t batch, height, width, features, hidden_size;
)

}  // namespace genfast
