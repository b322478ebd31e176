// Bernoulli and categorical conditionals at one vector of pixels: likelihoods and draws.
#pragma once

#include "core/math.h"

namespace genfast {
namespace GENFAST_ISA {
namespace {

constexpr int64_t kMostLevels = 256;  // that are bytes
constexpr int64_t kDrawTile = 16;     // pixels that are drawn together: columns [L][kDrawTile]

// log(1 + e) for e in [0, 1]: what rounding took from 1 + e is added to its logarithm.
template <class T>
GENFAST_INLINE Vector<T> log_one_plus(Vector<T> e) {
  const Vector<T> one = broadcast(T(1)), u = one + e;
  return logarithm<T>(u) + (e - (u - one)) / u;
}

// -log p(x) = a |l| + log(1 + e^-|l|), where a is the weight of the less likely value: exact for infinite logits too.
template <class T>
GENFAST_INLINE Vector<T> bernoulli_nats(Vector<T> x, Vector<T> logits) {
  const Vector<T> zero = broadcast(T(0)), one = broadcast(T(1));
  Vector<T> size = magnitude<T>(logits), a = logits > zero ? one - x : x;
  Vector<T> linear = a == zero ? zero : a * size;
  return linear + log_one_plus<T>(exp_neg<T>(-size));
}

// 1 where the weight of level 0 does not pass u times the whole, else 0.
GENFAST_INLINE Vector<double> bernoulli_level(Vector<double> logits, Vector<double> u, double temperature) {
  const Vector<double> zero = broadcast(0.), one = broadcast(1.);
  const Vector<double> smaller = exp_neg<double>(-magnitude<double>(logits) / broadcast(temperature));
  const Vector<double> none = logits < zero ? one : smaller;
  return none <= u * (one + smaller) ? one : zero;
}

// The first level whose cumulative sum passes u times the whole, for a vector of pixels.
GENFAST_INLINE Vector<double> categorical_level(double* columns, int64_t levels, double temperature, Vector<double> u) {
  const Vector<double> largest = largest_of(columns, levels, kDrawTile);
  const Vector<double> divisor = broadcast(temperature), one = broadcast(1.), zero = broadcast(0.);
  Vector<double> sum = zero;
  for (int64_t l = 0; l < levels; ++l) {
    Vector<double> z = load(columns + l * kDrawTile) - largest;
    if (temperature != 1) z = z / divisor;
    sum += exp_neg<double>(z);
    store(columns + l * kDrawTile, sum);
  }
  const Vector<double> threshold = u * sum;
  Vector<double> level = zero;
  for (int64_t l = 0; l < levels; ++l) level += load(columns + l * kDrawTile) <= threshold ? one : zero;
  return level;
}

}  // namespace
}  // namespace GENFAST_ISA
}  // namespace genfast
