#include "ops/importance_bound.h"

#include "core/lane_sum.h"
#include "core/parallel.h"

namespace genfast {
namespace GENFAST_ISA {
namespace {

// The largest log-weight of an image and the sum of e^(log-weight - largest). Where all are -inf the largest reads as
// 0.
template <class T>
struct Normaliser {
  T largest, sum;

  template <class S>
  Normaliser(const S* log_weights, int64_t samples) {
    const T nothing = -kInfinity<T>;
    Vector<T> most = broadcast(nothing);
    for (int64_t s = 0; s < samples; s += kLanes<T>) {
      const Vector<T> x = first_or(load(log_weights + s, samples - s), samples - s, nothing);
      most = (x > most) | (x != x) ? x : most;  // a NaN replaces what is there, and only a NaN replaces it
    }
    largest = nothing;
    for (int64_t i = 0; i < kLanes<T>; ++i) largest = most[i] > largest || most[i] != most[i] ? most[i] : largest;
    if (largest == nothing) largest = 0;
    LaneSum<T> total;
    for (int64_t s = 0; s < samples; s += kSumLanes)
      for (int64_t part = 0; part < LaneSum<T>::kParts; ++part)
        total.add(part, weights(log_weights, s + part * kLanes<T>, samples));
    sum = total.total();
  }

  // e^(log-weight - largest) from sample s on; 0 past the last.
  template <class S>
  GENFAST_INLINE Vector<T> weights(const S* log_weights, int64_t s, int64_t samples) const {
    const int64_t n = samples - s;
    if (n <= 0) return broadcast(T(0));
    const Vector<T> x = exp_neg<T>(load(log_weights + s, n) - broadcast(largest));
    return n < kLanes<T> ? first_or(x, n, T(0)) : x;
  }

 private:
  // The first n lanes of x, and `other` in the rest.
  static GENFAST_INLINE Vector<T> first_or(Vector<T> x, int64_t n, T other) {
    static constexpr T kNumbers[] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
    return load(kNumbers) < broadcast(static_cast<T>(n)) ? x : broadcast(other);
  }
};

template <class S>
void forward_images(const ImportanceBoundForward& a, int64_t begin, int64_t end) {
  using T = Arithmetic<S>;
  for (int64_t b = begin; b < end; ++b) {
    const Normaliser<T> n(static_cast<const S*>(a.log_weights) + b * a.samples, a.samples);
    const Vector<T> mean = broadcast(n.sum / static_cast<T>(a.samples));
    static_cast<T*>(a.bound)[b] = n.largest == kInfinity<T> ? kInfinity<T>
                                  : n.sum == 0              ? -kInfinity<T>
                                                            : n.largest + logarithm<T>(mean)[0];
  }
}

template <class S>
void backward_images(const ImportanceBoundBackward& a, int64_t begin, int64_t end) {
  using T = Arithmetic<S>;
  for (int64_t b = begin; b < end; ++b) {
    const S* log_weights = static_cast<const S*>(a.log_weights) + b * a.samples;
    const Normaliser<T> n(log_weights, a.samples);
    const Vector<T> scale = broadcast(static_cast<const T*>(a.grad_bound)[b] / n.sum);
    for (int64_t s = 0; s < a.samples; s += kLanes<T>)
      store(static_cast<S*>(a.grad_log_weights) + b * a.samples + s, scale * n.weights(log_weights, s, a.samples),
            a.samples - s);
  }
}

template <class S>
int forward(const ImportanceBoundForward& a) {
  return parallel(a.batch, [&](int64_t begin, int64_t end) { forward_images<S>(a, begin, end); }, grain_of(a.samples));
}

template <class S>
int backward(const ImportanceBoundBackward& a) {
  return parallel(a.batch, [&](int64_t begin, int64_t end) { backward_images<S>(a, begin, end); }, grain_of(a.samples));
}

}  // namespace

GENFAST_KERNEL(importance_bound_forward, ImportanceBoundForward, forward)
GENFAST_KERNEL(importance_bound_backward, ImportanceBoundBackward, backward)

}  // namespace GENFAST_ISA
}  // namespace genfast
