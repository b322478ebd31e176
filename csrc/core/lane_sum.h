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

}  // namespace
}  // namespace GENFAST_ISA
}  // namespace genfast
