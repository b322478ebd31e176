// Sums whose order does not depend on the width of a vector: term i goes to lane i % 16, then lanes are added in
// halves.
#pragma once

#include "core/vector.h"

namespace genfast {
namespace GENFAST_ISA {
namespace {

constexpr int64_t kSumLanes = 16;

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
#pragma GCC unroll 4
    for (int64_t half = kSumLanes / 2; half; half /= 2)
      for (int64_t i = 0; i < half; ++i) lanes[i] += lanes[i + half];
    return lanes[0];
  }

 private:
  Vector<T> parts_[kParts];
};

// e^x for x <= 0, and 0 where that is no normal number; a NaN stays a NaN.
template <class T>
GENFAST_INLINE Vector<T> decay(Vector<T> x) {
  const Vector<T> least = broadcast(-Exponential<T>::kLimit);
  Vector<T> e = exponential<T>(x < least ? least : x);
  return x < least ? broadcast(T(0)) : e;
}

}  // namespace
}  // namespace GENFAST_ISA
}  // namespace genfast
