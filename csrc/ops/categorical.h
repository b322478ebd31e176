// The categorical distribution. All tensors are contiguous. N counts the places before the levels and M those after
// them: [B, C, L, H, W] is N = C, M = H W, and with the levels last, [B, H, W, C, L], it is N = H W C, M = 1.
#pragma once

#include "core/arguments.h"

namespace genfast {

GENFAST_ARGUMENTS(CategoricalNllForward,
  const void *x, *logits;  // uint8 [B, N, M], S [B, N, L, M]
  void* nll;               // T [B], out; NaN for an image with a level out of range
  // Terms are summed in the order c, h, w: `channels` is C where the levels are last, and 1 where not.
  int64_t batch, places, levels, inner, channels;
)

GENFAST_ARGUMENTS(CategoricalNllBackward,
  const void *grad_nll, *x, *logits;
  void* grad_logits;  // out, shaped like logits
  int64_t batch, places, levels, inner, channels;
)

GENFAST_ARGUMENTS(CategoricalSample,
  const void* logits;
  void* draw;  // uint8 [B, N, M], out
  int64_t batch, places, levels, inner;
  int64_t seed, first_index, first_element;  // image b is first_index + b; place (n, m) first_element + m N + n
  double temperature;
)

}  // namespace genfast
