// Philox4x32-10: random numbers as a pure function of their place, the same integers as genfast/random/philox.py.
#pragma once

#include "core/vector.h"

namespace genfast {
namespace GENFAST_ISA {
namespace {

// Word 0 of the block of counter (draw, element, low half of image, high half of image) under the key `seed`.
GENFAST_INLINE uint32_t philox(uint64_t seed, uint64_t image, uint32_t element, uint32_t draw) {
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
  return a;
}

// Both halves of the products of every lane with one factor. Compilers make scalar code of the plain loop.
#if defined(__AVX512F__)
GENFAST_INLINE void wide_product(Bits x, uint32_t factor, Bits& high, Bits& low) {
  const __m512i f = _mm512_set1_epi32(static_cast<int>(factor)), even = _mm512_mul_epu32((__m512i)x, f);
  const __m512i odd = _mm512_mul_epu32(_mm512_srli_epi64((__m512i)x, 32), f);
  high = (Bits)_mm512_mask_blend_epi32(0xaaaa, _mm512_srli_epi64(even, 32), odd);
  low = (Bits)_mm512_mask_blend_epi32(0xaaaa, even, _mm512_slli_epi64(odd, 32));
}
#elif defined(__AVX2__)
GENFAST_INLINE void wide_product(Bits x, uint32_t factor, Bits& high, Bits& low) {
  const __m256i f = _mm256_set1_epi32(static_cast<int>(factor)), even = _mm256_mul_epu32((__m256i)x, f);
  const __m256i odd = _mm256_mul_epu32(_mm256_srli_epi64((__m256i)x, 32), f);
  high = (Bits)_mm256_blend_epi32(_mm256_srli_epi64(even, 32), odd, 0xaa);
  low = (Bits)_mm256_blend_epi32(even, _mm256_slli_epi64(odd, 32), 0xaa);
}
#else
GENFAST_INLINE void wide_product(Bits x, uint32_t factor, Bits& high, Bits& low) {
  for (int i = 0; i < kLanes<float>; ++i) {
    const uint64_t product = uint64_t{factor} * x[i];
    high[i] = static_cast<uint32_t>(product >> 32), low[i] = static_cast<uint32_t>(product);
  }
}
#endif

// All words, of a vector of counters (a, b, c, d) = (draw, element, low half of image, high half of image).
struct PhiloxLanes {
  Bits a, b, c, d;

  GENFAST_INLINE void run(uint64_t seed) {
    uint32_t key = static_cast<uint32_t>(seed), other = static_cast<uint32_t>(seed >> 32);
#pragma GCC unroll 10
    for (int round = 0; round < 10; ++round) {
      Bits high, low, upper, lower;
      wide_product(a, 0xD2511F53, high, low);
      wide_product(c, 0xCD9E8D57, upper, lower);
      a = upper ^ b ^ key, c = high ^ d ^ other;
      b = lower, d = low;
      key += 0x9E3779B9, other += 0xBB67AE85;
    }
  }
};

// In [0, 1), a multiple of 2^-24: exact in float too.
GENFAST_INLINE double uniform(uint64_t seed, uint64_t image, uint32_t element, uint32_t draw) {
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
}  // namespace GENFAST_ISA
}  // namespace genfast
