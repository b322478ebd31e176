// The floating-point mode that the kernels are written for: rounding to nearest, subnormal numbers as they are, no
// traps. Programs set another (torch.set_flush_denormal), libraries set it on load, and every thread has its own.
#pragma once

#include <stdint.h>

#if defined(__SSE2__)
#include <xmmintrin.h>
#elif !defined(__aarch64__)
#include <fenv.h>
#endif

namespace genfast {

// That of this thread, and another for it. `kFloatFlags` are no part of it: the exceptions that were raised.
#if defined(__aarch64__)
constexpr uint64_t kFloatMode = 0, kFloatFlags = 0;
inline uint64_t float_mode() {
  uint64_t mode;
  asm volatile("mrs %0, fpcr" : "=r"(mode));
  return mode;
}
inline void set_float_mode(uint64_t mode) { asm volatile("msr fpcr, %0" : : "r"(mode) : "memory"); }
#elif defined(__SSE2__)
constexpr uint64_t kFloatMode = 0x1f80, kFloatFlags = 0x3f;
inline uint64_t float_mode() { return _mm_getcsr(); }
inline void set_float_mode(uint64_t mode) { _mm_setcsr(static_cast<unsigned>(mode)); }
#else
constexpr uint64_t kFloatMode = FE_TONEAREST, kFloatFlags = 0;
inline uint64_t float_mode() { return static_cast<uint64_t>(fegetround()); }
inline void set_float_mode(uint64_t mode) { fesetround(static_cast<int>(mode)); }
#endif

// Within its life the thread has the mode of the kernels; then that which it had.
class FloatMode {
 public:
  FloatMode() : before_(float_mode()), differs_((before_ & ~kFloatFlags) != kFloatMode) {
    if (differs_) set_float_mode(kFloatMode);
  }
  ~FloatMode() {
    if (differs_) set_float_mode(before_);
  }
  FloatMode(const FloatMode&) = delete;
  FloatMode& operator=(const FloatMode&) = delete;

 private:
  uint64_t before_;
  bool differs_;
};

}  // namespace genfast
