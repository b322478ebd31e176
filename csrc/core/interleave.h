// Pairs of vectors: even and odd elements taken apart, and put together again.
#pragma once

#include "core/vector.h"

namespace genfast {
namespace GENFAST_ISA {
namespace {

#if defined(__AVX512F__)
template <int bytes>
struct LaneOf {
  using type = int32_t;
};
template <>
struct LaneOf<8> {
  using type = int64_t;
};

// Places in a and b, one after the other. In memory: GCC makes a vector of constants anew, lane by lane, in the loop.
template <class T>
struct Places {
  static constexpr int kCount = 64 / sizeof(T);
  using Integer = typename LaneOf<sizeof(T)>::type;
  Integer low[kCount], high[kCount], even[kCount], odd[kCount];

  constexpr Places() : low(), high(), even(), odd() {
    for (int i = 0; i < kCount; ++i) {
      low[i] = i / 2 + i % 2 * kCount, high[i] = low[i] + kCount / 2;
      even[i] = 2 * i, odd[i] = 2 * i + 1;
    }
  }
};
template <class T>
constexpr Places<T> kPlaces;

template <class T, class I>
GENFAST_INLINE Vector<T> pick(Vector<T> a, Vector<T> b, const I* from) {
  const __m512i places = _mm512_loadu_si512(from);
  if constexpr (sizeof(T) == 4)
    return _mm512_permutex2var_ps(a, places, b);
  else
    return _mm512_permutex2var_pd(a, places, b);
}
#endif

// a and b become a0 b0 a1 b1 ...
template <class T>
GENFAST_INLINE void interleave(Vector<T>& a, Vector<T>& b) {
  Vector<T> low, high;
#if defined(__AVX512F__)
  low = pick<T>(a, b, kPlaces<T>.low), high = pick<T>(a, b, kPlaces<T>.high);
#elif defined(__AVX2__)
  if constexpr (sizeof(T) == 4) {
    const __m256 x = _mm256_unpacklo_ps(a, b), y = _mm256_unpackhi_ps(a, b);
    low = _mm256_permute2f128_ps(x, y, 0x20), high = _mm256_permute2f128_ps(x, y, 0x31);
  } else {
    const __m256d x = _mm256_unpacklo_pd(a, b), y = _mm256_unpackhi_pd(a, b);
    low = _mm256_permute2f128_pd(x, y, 0x20), high = _mm256_permute2f128_pd(x, y, 0x31);
  }
#elif defined(__aarch64__)
  if constexpr (sizeof(T) == 4)
    low = vzip1q_f32(a, b), high = vzip2q_f32(a, b);
  else
    low = vzip1q_f64(a, b), high = vzip2q_f64(a, b);
#else
  constexpr int lanes = kLanes<T>;
  for (int i = 0; i < lanes / 2; ++i) {
    low[2 * i] = a[i], low[2 * i + 1] = b[i];
    high[2 * i] = a[i + lanes / 2], high[2 * i + 1] = b[i + lanes / 2];
  }
#endif
  a = low, b = high;
}

// a and b, elements that follow each other, become the even and the odd ones.
template <class T>
GENFAST_INLINE void separate(Vector<T>& a, Vector<T>& b) {
  Vector<T> even, odd;
#if defined(__AVX512F__)
  even = pick<T>(a, b, kPlaces<T>.even), odd = pick<T>(a, b, kPlaces<T>.odd);
#elif defined(__AVX2__)
  if constexpr (sizeof(T) == 4) {
    const __m256 x = _mm256_permute2f128_ps(a, b, 0x20), y = _mm256_permute2f128_ps(a, b, 0x31);
    even = _mm256_shuffle_ps(x, y, 0x88), odd = _mm256_shuffle_ps(x, y, 0xdd);
  } else {
    const __m256d x = _mm256_permute2f128_pd(a, b, 0x20), y = _mm256_permute2f128_pd(a, b, 0x31);
    even = _mm256_unpacklo_pd(x, y), odd = _mm256_unpackhi_pd(x, y);
  }
#elif defined(__aarch64__)
  if constexpr (sizeof(T) == 4)
    even = vuzp1q_f32(a, b), odd = vuzp2q_f32(a, b);
  else
    even = vuzp1q_f64(a, b), odd = vuzp2q_f64(a, b);
#else
  constexpr int lanes = kLanes<T>;
  for (int i = 0; i < lanes / 2; ++i) {
    even[i] = a[2 * i], odd[i] = a[2 * i + 1];
    even[i + lanes / 2] = b[2 * i], odd[i + lanes / 2] = b[2 * i + 1];
  }
#endif
  a = even, b = odd;
}

}  // namespace
}  // namespace GENFAST_ISA
}  // namespace genfast
