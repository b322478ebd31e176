// The rate at which this machine multiplies and adds: what a benchmark holds a kernel against.
#pragma once

#include "core/arguments.h"

namespace genfast {

GENFAST_ARGUMENTS(FmaPeak,
  void* total;             // T [pieces], out: what the sums come to, so that they are made
  void* operations;        // int64 [1], out: multiplications and additions in all
  int64_t pieces, rounds;  // a thread takes a piece: `rounds` times kFmaChains fused multiply-adds of a vector
)

// Fused multiply-adds that do not wait for one another: two a cycle, each of which takes four cycles or five.
constexpr int kFmaChains = 12;

}  // namespace genfast
