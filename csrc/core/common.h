// What every file of the core shares: element types, the thread hook, scratch memory. No torch, no pybind11.
#pragma once

#include <stdlib.h>

#include "core/arguments.h"

#define GENFAST_INLINE inline __attribute__((always_inline))

namespace genfast {

struct bfloat16 {
  uint16_t bits;
};

// Runs body(begin, end, context) over [0, count) in pieces. Serial until Python hands over torch's own
// `torch_parallel_for`: the core links no thread runtime, since two OpenMP runtimes in one process deadlock.
using Body = void (*)(int64_t begin, int64_t end, void* context);
// A piece is at least `grain` long, as waking a thread for less costs more than it brings.
void parallel_for(int64_t count, Body body, void* context, int64_t grain = 1);

// The grain of a loop whose every step takes `elements` cheap elements.
GENFAST_INLINE int64_t grain_of(int64_t elements) { return elements < 8192 ? 8192 / (elements > 0 ? elements : 1) : 1; }

// Asks the system for huge pages behind a large output that is about to be written for the first time: fresh 4 KB
// pages are faulted in one by one, which took a third of forward + backward at B=64, 28x28, C=16.
void use_huge_pages(void* memory, int64_t bytes);

// Scratch that a kernel takes once per piece of work; `failed` instead of an exception, because kernel files
// are compiled without them. All of it is inlined: a copy of a function would be a symbol that the isas share.
class Scratch {
 public:
  GENFAST_INLINE explicit Scratch(int64_t bytes) : memory_(nullptr), next_(0) {
    if (posix_memalign(&memory_, 64, static_cast<size_t>(bytes > 0 ? bytes : 64))) memory_ = nullptr;
  }
  GENFAST_INLINE ~Scratch() { free(memory_); }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;

  GENFAST_INLINE bool failed() const { return memory_ == nullptr; }

  template <class T>
  GENFAST_INLINE T* take(int64_t count) {
    T* taken = reinterpret_cast<T*>(static_cast<char*>(memory_) + next_);
    next_ += bytes<T>(count);
    return taken;
  }

  template <class T>
  GENFAST_INLINE static int64_t bytes(int64_t count) {
    return (count * static_cast<int64_t>(sizeof(T)) + 63) / 64 * 64;
  }

  // Gives back at its end what was taken within its life.
  class Frame {
   public:
    GENFAST_INLINE explicit Frame(Scratch& of) : of_(of), next_(of.next_) {}
    GENFAST_INLINE ~Frame() { of_.next_ = next_; }
    Frame(const Frame&) = delete;
    Frame& operator=(const Frame&) = delete;

   private:
    Scratch& of_;
    int64_t next_;
  };

 private:
  void* memory_;
  int64_t next_;
};

// Gradients of weights are summed over images in at most this many partial sums, whatever the thread count,
// so that their rounding does not depend on it.
constexpr int64_t kPartialSums = 64;

}  // namespace genfast
