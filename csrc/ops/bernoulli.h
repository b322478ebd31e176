// The Bernoulli distribution. All tensors are contiguous. N counts the places before the channels' pixels and M those
// after: [B, C, H, W] is N = C, M = H W, and with the channels last, [B, H, W, C], it is N = H W C, M = 1.
#pragma once

#include "core/arguments.h"

namespace genfast {

GENFAST_ARGUMENTS(BernoulliNllForward,
  const void *x, *logits;                            // uint8 or S [B, N, M], S [B, N, M]
  const void* weight;                                // uint8 or S [B, N, M], or null
  void* nll;                                         // T [B], out
  // size = N M. Terms are summed in the order c, h, w: `channels` is C where the channels are last, and 1 where not.
  int64_t batch, size, x_is_bytes, weight_is_bytes, channels;
)

GENFAST_ARGUMENTS(BernoulliNllBackward,
  const void *grad_nll, *x, *logits, *weight;
  void* grad_logits;  // out, shaped like logits
  int64_t batch, size, x_is_bytes, weight_is_bytes, channels;
)

GENFAST_ARGUMENTS(BernoulliSample,
  const void* logits;
  void* draw;  // uint8 [B, N, M], out
  int64_t batch, places, inner;
  int64_t seed, first_index, first_element;  // image b is first_index + b; place (n, m) first_element + m N + n
  double temperature;
)

}  // namespace genfast
