#include "dispatch.h"

#include <sys/mman.h>

#include <atomic>

namespace genfast {

namespace {

// What each level's compiler flags let the compiler use. __builtin_cpu_supports asks the system too (xgetbv).
bool supports_plain() { return true; }
#if defined(__x86_64__)
bool supports_v2() {
  return __builtin_cpu_supports("sse4.2") && __builtin_cpu_supports("ssse3") && __builtin_cpu_supports("popcnt");
}
bool supports_v3() {
  return supports_v2() && __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
         __builtin_cpu_supports("bmi") && __builtin_cpu_supports("bmi2");
}
bool supports_v4() {
  return supports_v3() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512cd") && __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
}
bool supports_v4_bf16() { return supports_v4() && __builtin_cpu_supports("avx512bf16"); }
#endif

#define NAME_plain "plain"
#define NAME_v2 "x86-64-v2"
#define NAME_v3 "x86-64-v3"
#define NAME_v4 "x86-64-v4"
#define NAME_v4_bf16 "x86-64-v4-bf16"

}  // namespace

#define DECLARE(name, Arguments) int name(const Arguments&);
#define ADDRESS(name, Arguments) name,
#define X(level)                                                                              \
  namespace level {                                                                           \
  GENFAST_OPS(DECLARE)                                                                        \
  static constexpr Kernels kKernels = {NAME_##level, supports_##level, GENFAST_OPS(ADDRESS)}; \
  }
GENFAST_LEVELS
#undef X
#undef ADDRESS
#undef DECLARE

namespace {

#define X(level) level::kKernels,
const Kernels kLevels[] = {GENFAST_LEVELS};
#undef X
constexpr int kLevelCount = sizeof kLevels / sizeof *kLevels;

const Kernels* best_level() {
  const Kernels* best = kLevels;
  for (const Kernels& level : kLevels)
    if (level.supported()) best = &level;
  return best;
}

std::atomic<const Kernels*> current{best_level()};

using TorchParallelFor = int32_t (*)(int64_t, int64_t, int64_t, Body, void*);
std::atomic<TorchParallelFor> torch_parallel_for{nullptr};

}  // namespace

const Kernels* compiled_levels(int* count) {
  *count = kLevelCount;
  return kLevels;
}
const Kernels& kernels() { return *current.load(std::memory_order_relaxed); }
void use_level(const Kernels& level) { current.store(&level, std::memory_order_relaxed); }
void set_parallel_for(uintptr_t hook) { torch_parallel_for.store(reinterpret_cast<TorchParallelFor>(hook)); }

void use_huge_pages(void* memory, int64_t bytes) {
#if defined(MADV_HUGEPAGE)
  constexpr uintptr_t page = uintptr_t{2} << 20;
  const uintptr_t begin = (reinterpret_cast<uintptr_t>(memory) + page - 1) / page * page;
  const uintptr_t end = (reinterpret_cast<uintptr_t>(memory) + static_cast<uintptr_t>(bytes)) / page * page;
  // Advice only: where it is refused, nothing changes.
  if (memory && end > begin) madvise(reinterpret_cast<void*>(begin), end - begin, MADV_HUGEPAGE);
#endif
}

void parallel_for(int64_t count, Body body, void* context, int64_t grain) {
  const TorchParallelFor hook = torch_parallel_for.load();
  // A failing hook has run nothing of ours that threw (bodies do not throw), so the loop is still to be done.
  if (count > grain && hook && hook(0, count, grain, body, context) == 0) return;
  if (count > 0) body(0, count, context);
}

}  // namespace genfast
