// Loops over pieces of work, on the threads that Python lent.
#pragma once

#include "core/common.h"

namespace genfast {
namespace GENFAST_ISA {
namespace {

// Runs body(begin, end) over [0, count) as parallel_for does. Gives kOk, or what a piece gave that could not be done.
template <class F>
GENFAST_INLINE int parallel(int64_t count, const F& body, int64_t grain = 1) {
  struct Context {
    const F& body;
    int status;
  } context{body, kOk};
  const auto run = [](int64_t begin, int64_t end, void* at) {
    Context& c = *static_cast<Context*>(at);
    if constexpr (__is_same(decltype(c.body(begin, end)), void))
      c.body(begin, end);
    else if (const int status = c.body(begin, end); status != kOk)
      __atomic_store_n(&c.status, status, __ATOMIC_RELAXED);
  };
  parallel_for(count, run, &context, grain);
  return context.status;
}

}  // namespace
}  // namespace GENFAST_ISA
}  // namespace genfast
