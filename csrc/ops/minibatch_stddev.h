// The standard deviation over groups of images as constant maps behind their channels. All tensors are contiguous.
#pragma once

#include "core/arguments.h"

namespace genfast {

GENFAST_ARGUMENTS(MinibatchStddevForward,
  const void* x;  // S [N, C, H, W]
  void* y;        // S [N, C + maps, H, W], out
  int64_t batch, channels, height, width, group, maps;
)

GENFAST_ARGUMENTS(MinibatchStddevBackward,
  const void *grad_y, *x;
  void* grad_x;  // out, shaped like x
  int64_t batch, channels, height, width, group, maps;
)

}  // namespace genfast
