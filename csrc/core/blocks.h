// What the likelihoods that sum over an image share: blocks of elements in the arithmetic type, and log-variances.
#pragma once

#include "core/lane_sum.h"
#include "core/vector.h"

namespace genfast {
namespace GENFAST_ISA {
namespace {

constexpr int64_t kBlock = 1024;  // elements of one piece of work

// A multiple of every vector too.
GENFAST_INLINE int64_t whole_lanes(int64_t count) { return (count + kSumLanes - 1) / kSumLanes * kSumLanes; }
GENFAST_INLINE int64_t blocks(int64_t size) { return (size + kBlock - 1) / kBlock; }

GENFAST_INLINE int64_t grain_of_blocks(int64_t size) { return grain_of(size < kBlock ? size : kBlock); }

GENFAST_INLINE int to_arithmetic(uint8_t x) { return x; }

// `count` elements in the arithmetic type, and zeros up to whole lanes.
template <class T, class S>
GENFAST_INLINE void read_block(const S* from, int64_t count, T* to) {
  for (int64_t i = 0; i < count; ++i) to[i] = static_cast<T>(to_arithmetic(from[i]));
  for (int64_t i = count; i < whole_lanes(count); ++i) to[i] = 0;
}

// The sum of `count` terms.
template <class T>
GENFAST_INLINE T sum_of_terms(const T* terms, int64_t count) {
  LaneSum<T> sum;
  for (int64_t i = 0; i < count; i += kSumLanes)
    for (int64_t part = 0; part < LaneSum<T>::kParts; ++part) {
      const int64_t at = i + part * kLanes<T>;
      if (at < count) sum.add(part, load(terms + at, count - at));
    }
  return sum.total();
}

// to[b] = the sums of the blocks of image b, in order.
template <class T>
GENFAST_INLINE void add_blocks(const double* sums, int64_t batch, int64_t count, T* to) {
  for (int64_t b = 0; b < batch; ++b) {
    double total = 0;
    for (int64_t i = 0; i < count; ++i) total += sums[b * count + i];
    to[b] = static_cast<T>(total);
  }
}

// Weights of elements: none, bytes 0 and 1, or of the storage type. A weight of 0 hides what stands there.
template <class S>
struct Weights {
  const void* at;
  bool bytes;

  // The weights of a block in the arithmetic type; ones if there are none.
  template <class T>
  GENFAST_INLINE void read(int64_t first, int64_t count, T* to) const {
    if (!at) return;
    if (bytes)
      read_block(static_cast<const uint8_t*>(at) + first, count, to);
    else
      read_block(static_cast<const S*>(at) + first, count, to);
  }
  template <class T>
  static GENFAST_INLINE Vector<T> times(Vector<T> weight, Vector<T> x) {
    return weight > broadcast(T(0)) ? weight * x : broadcast(T(0));
  }
};

// A log-variance held to [-30, 20], and whether that changed it. A NaN passes.
template <class T>
GENFAST_INLINE Vector<T> held(Vector<T> log_variance) {
  const Vector<T> lowest = broadcast(T(-30)), highest = broadcast(T(20));
  log_variance = log_variance > highest ? highest : log_variance;
  return log_variance < lowest ? lowest : log_variance;
}
template <class T>
GENFAST_INLINE auto is_held(Vector<T> log_variance) {
  return (log_variance < broadcast(T(-30))) | (log_variance > broadcast(T(20)));
}

}  // namespace
}  // namespace GENFAST_ISA
}  // namespace genfast
