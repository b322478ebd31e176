// Functions of any float, infinities and NaN included, within 3e-7 of the right value. Vectors, lane by lane.
#pragma once

#include "core/math.h"

namespace genfast {
namespace GENFAST_ISA {
namespace {

// The square of e^(x / 2): it reaches infinity and, past the least normal number, 0.
GENFAST_INLINE Vector<float> full_exponential(Vector<float> x) {
  const Vector<float> root = bounded_exponential<float>(broadcast(0.5f) * x);
  return root * root;
}

// A denormal reads as about the least normal number.
GENFAST_INLINE Vector<float> full_logarithm(Vector<float> x) {
  const Vector<float> zero = broadcast(0.f), infinity = broadcast(kInfinity<float>);
  const Vector<float> edge = x == zero ? -infinity : x == infinity ? infinity : broadcast(__builtin_nanf(""));
  return (x > zero) & (x < infinity) ? logarithm<float>(x) : edge;
}

// What rounding took from 1 + x is added to its logarithm.
GENFAST_INLINE Vector<float> log1p(Vector<float> x) {
  const Vector<float> one = broadcast(1.f), u = one + x, lost = (x - (u - one)) / u;
  const Vector<float> y = full_logarithm(u);
  return (u > broadcast(0.f)) & (u < broadcast(kInfinity<float>)) ? y + lost : y;
}

GENFAST_INLINE Vector<float> softplus(Vector<float> x) {
  const Vector<float> larger = x > broadcast(0.f) ? x : broadcast(0.f);
  const Vector<float> y = larger + log1p(exp_neg<float>(-magnitude<float>(x)));
  return x != x ? x : y;
}

// erf(x) = x + x p(x^2) on |x| < 1, relative error 8e-8; 1 - e^q(|x|) from there on, and 1 in float from 4 on. Minimax.
GENFAST_INLINE Vector<float> error_function(Vector<float> x) {
  constexpr float kP[] = {0.12837917f,  -0.37612626f,   0.112836f,    -0.026854444f,
                          0.005189535f, -0.0008020841f, 7.889119e-05f};
  constexpr float kQ[] = {0.00018845958f, -1.1295803f,    -0.6332165f,  -0.10842202f,
                          0.025210291f,   -0.0042052665f, 0.000441469f, -2.1697304e-05f};
  const Vector<float> size = magnitude<float>(x), far = size < broadcast(4.f) ? size : broadcast(4.f), z = x * x;
  Vector<float> p = broadcast(kP[6]), q = broadcast(kQ[7]);
#pragma GCC unroll 8
  for (int i = 5; i >= 0; --i) p = fma(p, z, broadcast(kP[i]));
#pragma GCC unroll 8
  for (int i = 6; i >= 0; --i) q = fma(q, far, broadcast(kQ[i]));
  const Vector<float> one = broadcast(1.f), tail = one - exponential<float>(q);
  const Vector<float> y = size < one ? fma(x, p, x) : x < broadcast(0.f) ? -tail : tail;
  return x != x ? x : y;
}

}  // namespace
}  // namespace GENFAST_ISA
}  // namespace genfast
