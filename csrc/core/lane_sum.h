// Sums whose order does not depend on the width of a vector: term i goes to lane i % 16, then lanes are added in
// halves.
#pragma once

#include "core/math.h"

namespace genfast {
namespace GENFAST_ISA {
namespace {

constexpr int64_t kSumLanes = 16;

template <class E>
GENFAST_INLINE E sum_of_lanes(E* lanes) {
#pragma GCC unroll 4
  for (int64_t half = kSumLanes / 2; half; half /= 2)
    for (int64_t i = 0; i < half; ++i) lanes[i] += lanes[i + half];
  return lanes[0];
}

template <class T>
class LaneSum {
 public:
  static constexpr int64_t kParts = kSumLanes / kLanes<T>;

  LaneSum() {
    for (int64_t i = 0; i < kParts; ++i) parts_[i] = broadcast(T(0));
  }
  // Terms [16 n + part * kLanes, 16 n + (part + 1) * kLanes) for some n; n ascends from call to call.
  GENFAST_INLINE void add(int64_t part, Vector<T> terms) { parts_[part] += terms; }

  GENFAST_INLINE T total() const {
    T lanes[kSumLanes];
    for (int64_t i = 0; i < kParts; ++i) store(lanes + i * kLanes<T>, parts_[i]);
    return sum_of_lanes(lanes);
  }

 private:
  Vector<T> parts_[kParts];
};

// Replaces `count` values, whole rounds of kSumLanes, by exp(value - top). Gives their sum.
template <class T>
GENFAST_INLINE T exponentials_below(T* values, int64_t count, Vector<T> top) {
  LaneSum<T> sum;
  for (int64_t n = 0; n < count; n += kSumLanes) {
#pragma GCC unroll 8
    for (int64_t part = 0; part < LaneSum<T>::kParts; ++part) {
      T* at = values + n + part * kLanes<T>;
      const Vector<T> e = exp_neg<T>(load(at) - top);
      store(at, e);
      sum.add(part, e);
    }
  }
  return sum.total();
}

}  // namespace
}  // namespace GENFAST_ISA
}  // namespace genfast
