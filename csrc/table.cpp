// The kernels of one isa in the order of ops.def. Those that have no version of their own for it are those of its base.
#include "op_headers.h"

namespace genfast {

#define OP(entry, Arguments) int entry(const Arguments&);
#define KERNEL(file, ...)  \
  namespace GENFAST_BASE { \
  __VA_ARGS__              \
  }
#define PAIRED(file, ...) \
  namespace GENFAST_ISA { \
  __VA_ARGS__             \
  }
#include "ops.def"

namespace GENFAST_ISA {

using namespace GENFAST_BASE;

namespace {

#define OP(entry, Arguments) \
  int call_##entry(const void* a) { return entry(*static_cast<const Arguments*>(a)); }
#define KERNEL(file, ...) __VA_ARGS__
#include "ops.def"

}  // namespace

extern const Kernel kKernels[];

#define OP(entry, Arguments) call_##entry,
#define KERNEL(file, ...) __VA_ARGS__
const Kernel kKernels[] = {
#include "ops.def"
};

}  // namespace GENFAST_ISA
}  // namespace genfast
