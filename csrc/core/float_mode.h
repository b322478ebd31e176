// The floating-point mode that the kernels are written for: rounding to nearest, subnormal numbers as they are, no traps.
// Programs set another (torch.set_flush_denormal), libraries set it on load, and every thread has its own.
#pragma once

#if defined(__aarch64__)
#include <stdint.h>
#elif defined(__SSE2__)
#include <xmmintrin.h>
#else
#include <fenv.h>
#endif

namespace genfast {

// Within its life the thread has that mode; then the mode that it had.
class FloatMode {
 public:
  FloatMode(const FloatMode&) = delete;
  FloatMode& operator=(const FloatMode&) = delete;

#if defined(__aarch64__)
  FloatMode() {
    asm volatile("mrs %0, fpcr" : "=r"(before_));
    if (before_ != kMode) set(kMode);
  }
  ~FloatMode() {
    if (before_ != kMode) set(before_);
  }

 private:
  static constexpr uint64_t kMode = 0;
  uint64_t before_;
  static void set(uint64_t mode) { asm volatile("msr fpcr, %0" : : "r"(mode) : "memory"); }
#elif defined(__SSE2__)
  FloatMode() : before_(_mm_getcsr()) {
    if ((before_ & ~kFlags) != kMode) _mm_setcsr(kMode);
  }
  ~FloatMode() {
    if ((before_ & ~kFlags) != kMode) _mm_setcsr(before_);
  }

 private:
  static constexpr unsigned kMode = 0x1f80, kFlags = 0x3f;  // every exception masked; those that were raised
  unsigned before_;
#else
  FloatMode() {
    fegetenv(&before_);
    fesetenv(FE_DFL_ENV);
  }
  ~FloatMode() { fesetenv(&before_); }

 private:
  fenv_t before_;
#endif
};

}  // namespace genfast
