// Philox4x32-10: random numbers as a pure function of their place, the same integers as genfast/sampling/philox.py.
#pragma once

#include <stdint.h>

namespace genfast {
namespace GENFAST_LEVEL {
namespace {

struct PhiloxWords {
  uint32_t a, b, c, d;
};

// The block of counter (draw, element, low half of image, high half of image) under the key `seed`.
inline __attribute__((always_inline)) PhiloxWords philox_words(uint64_t seed, uint64_t image, uint32_t element,
                                                               uint32_t draw) {
  uint32_t a = draw, b = element, c = static_cast<uint32_t>(image), d = static_cast<uint32_t>(image >> 32);
  uint32_t low = static_cast<uint32_t>(seed), high = static_cast<uint32_t>(seed >> 32);
#pragma GCC unroll 10
  for (int round = 0; round < 10; ++round) {
    const uint64_t p = uint64_t{0xD2511F53} * a, q = uint64_t{0xCD9E8D57} * c;
    a = static_cast<uint32_t>(q >> 32) ^ b ^ low;
    c = static_cast<uint32_t>(p >> 32) ^ d ^ high;
    b = static_cast<uint32_t>(q), d = static_cast<uint32_t>(p);
    low += 0x9E3779B9, high += 0xBB67AE85;
  }
  return {a, b, c, d};
}

// Word 0 of it.
inline __attribute__((always_inline)) uint32_t philox(uint64_t seed, uint64_t image, uint32_t element, uint32_t draw) {
  return philox_words(seed, image, element, draw).a;
}

// In [0, 1), a multiple of 2^-24: exact in float too.
inline __attribute__((always_inline)) double uniform(uint64_t seed, uint64_t image, uint32_t element, uint32_t draw) {
  return static_cast<double>(philox(seed, image, element, draw) >> 8) * 0x1p-24;
}

// What elements first, first + step, ... of one image draw. Branch-free, so that the compiler makes vectors of it.
inline void uniforms(uint64_t seed, uint64_t image, uint32_t first, uint32_t step, uint32_t draw, int64_t count,
                     double* u) {
  for (int64_t n = 0; n < count; ++n) {
    const uint32_t word = philox(seed, image, first + static_cast<uint32_t>(n) * step, draw);
    u[n] = static_cast<double>(static_cast<int32_t>(word >> 8)) * 0x1p-24;
  }
}

}  // namespace
}  // namespace GENFAST_LEVEL
}  // namespace genfast
