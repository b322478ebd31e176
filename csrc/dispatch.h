// Chooses the isa (instruction set) whose kernels run.
#pragma once

#include <stdint.h>

#include "core/arguments.h"

namespace genfast {

// An entry of ops.def: its name, and the text that declares its arguments.
struct Entry {
  const char *name, *members;
};
const Entry* entries(int* count);

struct Isa {
  const char* name;
  bool (*supported)();
  const Kernel* kernels;  // of the entries, in their order
};

// Every isa that was compiled in, worst first.
const Isa* compiled_isas(int* count);
// The isa in use: the best one that this CPU has, until another is asked for. Null if it has none of them.
const Isa* isa();
void use_isa(const Isa& isa);

// Runs the kernel of an entry, by its place in ops.def, on that isa, in the floating-point mode that it is written for.
// Gives its Status.
int run(int entry, const void* arguments);

// Exchanges `modes`, one for each piece of a loop of `count`, for those of the threads that these pieces run on.
void exchange_float_modes(uint64_t* modes, int64_t count);
// The mode that the kernels are written for.
extern const uint64_t kKernelFloatMode;

// `hook` is the address of torch_parallel_for(begin, end, grain, body, context); 0 makes loops serial again.
void set_parallel_for(uintptr_t hook);

}  // namespace genfast
