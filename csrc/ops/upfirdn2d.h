// Upsample by zeros, pad, filter, downsample. All tensors are contiguous; P planes are images times channels.
#pragma once

#include "core/arguments.h"

namespace genfast {

GENFAST_ARGUMENTS(Upfirdn2dForward,
  const void *x, *filter;  // S [P, H, W], S [KH, KW], or S [KW] where KH is 0: taps along both axes
  void* y;                 // S [P, OH, OW], out
  int64_t planes, height, width, out_height, out_width, taps_v, taps_h;
  int64_t up_v, up_h, down_v, down_h, left, top;
)

GENFAST_ARGUMENTS(Upfirdn2dBackward,
  const void *grad_y, *x, *filter;                                       // S [P, OH, OW]; x is not read
  void* grad_x;                                                          // S [P, H, W], out
  int64_t planes, height, width, out_height, out_width, taps_v, taps_h;  // of the forward op
  int64_t up_v, up_h, down_v, down_h, left, top;
)

}  // namespace genfast
