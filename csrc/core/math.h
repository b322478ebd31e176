// What many kernels compute: on sizes, and on vectors lane by lane.
#pragma once

#include "core/vector.h"

namespace genfast {
namespace GENFAST_ISA {
namespace {

GENFAST_INLINE int64_t min(int64_t a, int64_t b) { return a < b ? a : b; }
GENFAST_INLINE int64_t max(int64_t a, int64_t b) { return a > b ? a : b; }
GENFAST_INLINE int64_t pieces_of(int64_t n, int64_t size) { return (n + size - 1) / size; }
GENFAST_INLINE int64_t round_up(int64_t n, int64_t to) { return pieces_of(n, to) * to; }

template <class T>
constexpr T kInfinity = static_cast<T>(__builtin_inff());

// `b` where one of them is a NaN.
template <class T>
GENFAST_INLINE Vector<T> larger(Vector<T> a, Vector<T> b) {
  return a > b ? a : b;
}

// The largest of `count` vectors, `step` elements apart.
template <class T>
GENFAST_INLINE Vector<T> largest_of(const T* at, int64_t count, int64_t step) {
  Vector<T> largest = load(at);
  for (int64_t i = 1; i < count; ++i) largest = larger<T>(load(at + i * step), largest);
  return largest;
}

template <class T>
GENFAST_INLINE typename VectorOf<T>::integer bits_of(Vector<T> x) {
  typename VectorOf<T>::integer bits;
  memcpy(&bits, &x, sizeof bits);
  return bits;
}

template <class T>
GENFAST_INLINE Vector<T> magnitude(Vector<T> x) {
  const auto bits = bits_of<T>(x) & ~bits_of<T>(broadcast(T(-0.0)));
  memcpy(&x, &bits, sizeof x);
  return x;
}

// e^x for x <= 0, and 0 where that is no normal number; a NaN stays a NaN.
template <class T>
GENFAST_INLINE Vector<T> exp_neg(Vector<T> x) {
  const Vector<T> least = broadcast(-Exponential<T>::kLimit);
  Vector<T> e = exponential<T>(x < least ? least : x);
  return x < least ? broadcast(T(0)) : e;
}

// An activation: it stops at 44 (float) and 350 (double), short of 0. The gates of a cell share their divisions
// instead, see Gate and activate in vector.h; and a probability goes down to 0, see exact_sigmoid.
template <class T>
GENFAST_INLINE Vector<T> sigmoid(Vector<T> x) {
  const Vector<T> one = broadcast(T(1));
  return one / (one + exponential<T>(-clamp(x, Exponential<T>::kSigmoidLimit)));
}

// A probability, exact to the last bits where it is small.
template <class T>
GENFAST_INLINE Vector<T> exact_sigmoid(Vector<T> logits) {
  const Vector<T> one = broadcast(T(1)), e = exp_neg<T>(-magnitude<T>(logits));
  return (logits < broadcast(T(0)) ? e : one) / (one + e);
}

// A log-variance clamped to these bounds, and whether that changed it. A NaN passes.
constexpr double kLeastLogVariance = -30, kMostLogVariance = 20;
template <class T>
GENFAST_INLINE Vector<T> clamped(Vector<T> log_variance) {
  const Vector<T> least = broadcast(T(kLeastLogVariance)), most = broadcast(T(kMostLogVariance));
  log_variance = log_variance > most ? most : log_variance;
  return log_variance < least ? least : log_variance;
}
template <class T>
GENFAST_INLINE auto is_clamped(Vector<T> log_variance) {
  return (log_variance < broadcast(T(kLeastLogVariance))) | (log_variance > broadcast(T(kMostLogVariance)));
}

}  // namespace
}  // namespace GENFAST_ISA
}  // namespace genfast
