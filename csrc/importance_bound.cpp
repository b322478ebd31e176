#include "importance_bound.h"

#include "lane_sum.h"
#include "vector.h"

namespace genfast {
namespace GENFAST_LEVEL {
namespace {

// The largest log-weight of an image and the sum of e^(log-weight - largest). Where all are -inf the largest reads as
// 0.
template <class T>
struct Normaliser {
  T largest, sum;

  template <class S>
  Normaliser(const S* log_weights, int64_t samples) {
    largest = to_arithmetic(log_weights[0]);
    for (int64_t s = 1; s < samples; ++s) {
      const T x = to_arithmetic(log_weights[s]);
      largest = x > largest || x != x ? x : largest;  // a NaN stays
    }
    if (largest == -__builtin_inf()) largest = 0;
    LaneSum<T> total;
    for (int64_t s = 0; s < samples; s += kSumLanes)
      for (int64_t part = 0; part < LaneSum<T>::kParts; ++part)
        total.add(part, weights(log_weights, s + part * kLanes<T>, samples));
    sum = total.total();
  }

  // e^(log-weight - largest) from sample s on; 0 past the last.
  template <class S>
  GENFAST_INLINE Vector<T> weights(const S* log_weights, int64_t s, int64_t samples) const {
    if (s >= samples) return broadcast(T(0));
    Vector<T> x = decay<T>(load(log_weights + s, samples - s) - broadcast(largest));
    for (int64_t i = samples - s; i < kLanes<T>; ++i) x[i] = 0;
    return x;
  }
};

template <class S>
void forward_images(int64_t begin, int64_t end, void* context) {
  using T = Arithmetic<S>;
  const ImportanceBoundForward& a = *static_cast<const ImportanceBoundForward*>(context);
  for (int64_t b = begin; b < end; ++b) {
    const Normaliser<T> n(static_cast<const S*>(a.log_weights) + b * a.samples, a.samples);
    const Vector<T> mean = broadcast(n.sum / static_cast<T>(a.samples));
    static_cast<T*>(a.bound)[b] = n.sum == 0 ? -static_cast<T>(__builtin_inf()) : n.largest + logarithm<T>(mean)[0];
  }
}

template <class S>
void backward_images(int64_t begin, int64_t end, void* context) {
  using T = Arithmetic<S>;
  const ImportanceBoundBackward& a = *static_cast<const ImportanceBoundBackward*>(context);
  for (int64_t b = begin; b < end; ++b) {
    const S* log_weights = static_cast<const S*>(a.log_weights) + b * a.samples;
    const Normaliser<T> n(log_weights, a.samples);
    const Vector<T> scale = broadcast(static_cast<const T*>(a.grad_bound)[b] / n.sum);
    for (int64_t s = 0; s < a.samples; s += kLanes<T>)
      store(static_cast<S*>(a.grad_log_weights) + b * a.samples + s, scale * n.weights(log_weights, s, a.samples),
            a.samples - s);
  }
}

}  // namespace

int importance_bound_forward(const ImportanceBoundForward& a) {
  return by_type(a.type, [&](auto s) {
    ImportanceBoundForward job = a;
    parallel_for(a.batch, forward_images<decltype(s)>, &job);
    return int{kOk};
  });
}

int importance_bound_backward(const ImportanceBoundBackward& a) {
  return by_type(a.type, [&](auto s) {
    ImportanceBoundBackward job = a;
    parallel_for(a.batch, backward_images<decltype(s)>, &job);
    return int{kOk};
  });
}

}  // namespace GENFAST_LEVEL
}  // namespace genfast
