#include "core/peak.h"

#include "core/parallel.h"
#include "core/vector.h"

namespace genfast {
namespace GENFAST_ISA {
namespace {

template <class T>
T sum_of_chains(int64_t rounds) {
  Vector<T> chains[kFmaChains];
  for (int i = 0; i < kFmaChains; ++i) chains[i] = broadcast(static_cast<T>(i));
  // Sums that stay near 2^-20 / (1 - (1 - 2^-20)) = 1: subnormal numbers are slow, and infinities too.
  const Vector<T> scale = broadcast(T(1) - T(1) / (1 << 20)), step = broadcast(T(1) / (1 << 20));
  for (int64_t round = 0; round < rounds; ++round) {
#pragma GCC unroll 16
    for (int i = 0; i < kFmaChains; ++i) chains[i] = fma(chains[i], scale, step);
  }
  Vector<T> total = chains[0];
  for (int i = 1; i < kFmaChains; ++i) total += chains[i];
  T sum = 0;
  for (int64_t lane = 0; lane < kLanes<T>; ++lane) sum += total[lane];
  return sum;
}

template <class S>
int peak(const FmaPeak& a) {
  using T = Arithmetic<S>;
  *static_cast<int64_t*>(a.operations) = 2 * a.pieces * a.rounds * kFmaChains * kLanes<T>;
  return parallel(a.pieces, [&](int64_t begin, int64_t end) {
    for (int64_t piece = begin; piece < end; ++piece) static_cast<T*>(a.total)[piece] = sum_of_chains<T>(a.rounds);
    return static_cast<int>(kOk);
  });
}

}  // namespace

GENFAST_KERNEL(fma_peak, FmaPeak, peak)

}  // namespace GENFAST_ISA
}  // namespace genfast
