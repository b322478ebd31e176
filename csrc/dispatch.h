// Chooses the instruction-set level whose kernels run.
#pragma once

#include "diagonal_block.h"
#include "diagonal_lstm.h"

namespace genfast {

struct Kernels {
  const char* level;
  bool (*supported)();
  int (*diagonal_lstm_forward)(const DiagonalLstmForward&);
  int (*diagonal_lstm_backward)(const DiagonalLstmBackward&);
  int (*diagonal_block_forward)(const DiagonalBlockForward&);
  int (*diagonal_block_backward)(const DiagonalBlockBackward&);
};

// Every level that was compiled in, worst first.
const Kernels* compiled_levels(int* count);
// The level in use: the best one that this CPU has, until another is asked for.
const Kernels& kernels();
void use_level(const Kernels& level);

// `hook` is the address of torch_parallel_for(begin, end, grain, body, context); 0 makes loops serial again.
void set_parallel_for(uintptr_t hook);

}  // namespace genfast
