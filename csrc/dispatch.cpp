#include "dispatch.h"

#include <sys/mman.h>

#include <atomic>

#include "core/common.h"
#include "core/float_mode.h"
#include "op_headers.h"

namespace genfast {

namespace {

// What each isa's compiler flags let the compiler use. __builtin_cpu_supports asks the system too (xgetbv).
[[maybe_unused]] bool supports_plain() { return true; }
#if defined(__x86_64__)
[[maybe_unused]] bool supports_v3() {
  return __builtin_cpu_supports("sse4.2") && __builtin_cpu_supports("popcnt") && __builtin_cpu_supports("avx2") &&
         __builtin_cpu_supports("fma") && __builtin_cpu_supports("bmi") && __builtin_cpu_supports("bmi2");
}
[[maybe_unused]] bool supports_v4() {
  return supports_v3() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512cd") && __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
}
[[maybe_unused]] bool supports_v4_bf16() { return supports_v4() && __builtin_cpu_supports("avx512bf16"); }
#elif defined(__aarch64__)
[[maybe_unused]] bool supports_neon() { return true; }
#endif

#define NAME_plain "plain"
#define NAME_v3 "x86-64-v3"
#define NAME_v4 "x86-64-v4"
#define NAME_v4_bf16 "x86-64-v4-bf16"
#define NAME_neon "neon"

#define OP(entry, Arguments) {#entry, Arguments::kMembers},
#define KERNEL(file, ...) __VA_ARGS__
const Entry kEntries[] = {
#include "ops.def"
};
constexpr int kEntryCount = sizeof kEntries / sizeof *kEntries;

}  // namespace

#define X(isa)                               \
  namespace isa {                            \
  extern const Kernel kKernels[kEntryCount]; \
  }
GENFAST_ISAS
#undef X

namespace {

#define X(isa) {NAME_##isa, supports_##isa, isa::kKernels},
const Isa kIsas[] = {GENFAST_ISAS};
#undef X
constexpr int kIsaCount = sizeof kIsas / sizeof *kIsas;

// Null where there is none: a build for one CPU that runs on another.
const Isa* best_isa() {
  const Isa* best = nullptr;
  for (const Isa& isa : kIsas)
    if (isa.supported()) best = &isa;
  return best;
}

std::atomic<const Isa*> current{best_isa()};

using TorchParallelFor = int32_t (*)(int64_t, int64_t, int64_t, Body, void*);
std::atomic<TorchParallelFor> torch_parallel_for{nullptr};

}  // namespace

const Entry* entries(int* count) {
  *count = kEntryCount;
  return kEntries;
}
const Isa* compiled_isas(int* count) {
  *count = kIsaCount;
  return kIsas;
}
const Isa* isa() { return current.load(std::memory_order_relaxed); }
void use_isa(const Isa& isa) { current.store(&isa, std::memory_order_relaxed); }
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

int run(int entry, const void* arguments) {
  const FloatMode mode;
  return isa()->kernels[entry](arguments);
}

const uint64_t kKernelFloatMode = kFloatMode;

void exchange_float_modes(uint64_t* modes, int64_t count) {
  const Body exchange = [](int64_t begin, int64_t, void* at) {
    uint64_t& mode = static_cast<uint64_t*>(at)[begin];
    const uint64_t before = float_mode();
    set_float_mode(mode);
    mode = before;
  };
  const TorchParallelFor hook = torch_parallel_for.load();
  if (count > 1 && hook && hook(0, count, 1, exchange, modes) == 0) return;
  exchange(0, count, modes);
}

void parallel_for(int64_t count, Body body, void* context, int64_t grain) {
  struct Loop {
    Body body;
    void* context;
  } loop{body, context};
  const Body piece = [](int64_t begin, int64_t end, void* at) {
    const FloatMode mode;  // that of a worker is its own
    static_cast<Loop*>(at)->body(begin, end, static_cast<Loop*>(at)->context);
  };
  const TorchParallelFor hook = torch_parallel_for.load();
  // A failing hook has run nothing of ours that threw (bodies do not throw), so the loop is still to be done.
  if (count > grain && hook && hook(0, count, grain, piece, &loop) == 0) return;
  if (count > 0) body(0, count, context);
}

}  // namespace genfast
