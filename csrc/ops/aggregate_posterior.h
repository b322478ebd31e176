// The log-density of a sum of diagonal Gaussians at points: of all latents together and of each alone. All tensors are
// contiguous. W is the arithmetic type of S.
#pragma once

#include "core/arguments.h"

namespace genfast {

GENFAST_ARGUMENTS(AggregatePosteriorForward,
  const void *z, *mean, *log_variance;  // S [N, Z], S [M, Z] twice
  void *joint, *marginals;              // W [N], W [N, Z], out
  int64_t points, count, latents;
)

GENFAST_ARGUMENTS(AggregatePosteriorBackward,
  const void *grad_joint, *grad_marginals;  // W [N], W [N, Z]; either may be null, which is zero
  const void *z, *mean, *log_variance, *joint, *marginals;
  void *grad_z, *grad_mean, *grad_log_variance;  // shaped and typed like their arguments, out
  int64_t points, count, latents;
)

}  // namespace genfast
