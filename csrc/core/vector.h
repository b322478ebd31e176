// Vectors of one register of the isa (instruction set) that this file is compiled for, and the functions of the cell on
// them.
//
// Everything is in an anonymous namespace, so that a kernel file leaves no weak symbol that the linker could
// pick for another CPU. Each lane is one output element: fma, division and the polynomials below round the same
// way on every isa, so results do not depend on it. Isas without FMA hardware call fmaf: slower, equal.
#pragma once

#include <string.h>

#if defined(__x86_64__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

#include "core/common.h"

namespace genfast {
namespace GENFAST_ISA {
namespace {

#if defined(__AVX512F__)
constexpr int kVectorBytes = 64;
#elif defined(__AVX2__)
constexpr int kVectorBytes = 32;
#else
constexpr int kVectorBytes = 16;
#endif

template <class T>
struct VectorOf;
template <>
struct VectorOf<float> {
  typedef float type __attribute__((vector_size(kVectorBytes)));
  typedef int32_t integer __attribute__((vector_size(kVectorBytes)));
};
template <>
struct VectorOf<double> {
  typedef double type __attribute__((vector_size(kVectorBytes)));
  typedef int64_t integer __attribute__((vector_size(kVectorBytes)));
};
template <class T>
using Vector = typename VectorOf<T>::type;
template <class T>
constexpr int64_t kLanes = kVectorBytes / static_cast<int>(sizeof(T));

// The type that arithmetic on a storage type is done in.
template <class S>
struct ArithmeticOf {
  using type = S;
};
template <>
struct ArithmeticOf<bfloat16> {
  using type = float;
};
template <class S>
using Arithmetic = typename ArithmeticOf<S>::type;

// body(S()) with the storage type S that `type` names.
template <class Body>
int by_type(Type type, const Body& body) {
  switch (type) {
    case Type::kFloat32: return body(float());
    case Type::kFloat64: return body(double());
    case Type::kBfloat16: return body(bfloat16());
  }
  return kNoKernel;
}

// The entry of a kernel whose function is a template over the storage type.
#define GENFAST_KERNEL(entry, Arguments, function)                            \
  int entry(const Arguments& a) {                                             \
    return by_type(a.type, [&](auto s) { return function<decltype(s)>(a); }); \
  }

#if defined(__AVX512F__)
GENFAST_INLINE Vector<float> fma(Vector<float> a, Vector<float> b, Vector<float> c) { return _mm512_fmadd_ps(a, b, c); }
GENFAST_INLINE Vector<double> fma(Vector<double> a, Vector<double> b, Vector<double> c) {
  return _mm512_fmadd_pd(a, b, c);
}
GENFAST_INLINE Vector<float> broadcast(float x) { return _mm512_set1_ps(x); }
GENFAST_INLINE Vector<double> broadcast(double x) { return _mm512_set1_pd(x); }
#elif defined(__FMA__)
GENFAST_INLINE Vector<float> fma(Vector<float> a, Vector<float> b, Vector<float> c) { return _mm256_fmadd_ps(a, b, c); }
GENFAST_INLINE Vector<double> fma(Vector<double> a, Vector<double> b, Vector<double> c) {
  return _mm256_fmadd_pd(a, b, c);
}
GENFAST_INLINE Vector<float> broadcast(float x) { return _mm256_set1_ps(x); }
GENFAST_INLINE Vector<double> broadcast(double x) { return _mm256_set1_pd(x); }
#elif defined(__aarch64__)
GENFAST_INLINE Vector<float> fma(Vector<float> a, Vector<float> b, Vector<float> c) { return vfmaq_f32(c, a, b); }
GENFAST_INLINE Vector<double> fma(Vector<double> a, Vector<double> b, Vector<double> c) { return vfmaq_f64(c, a, b); }
GENFAST_INLINE Vector<float> broadcast(float x) { return vdupq_n_f32(x); }
GENFAST_INLINE Vector<double> broadcast(double x) { return vdupq_n_f64(x); }
#else
GENFAST_INLINE Vector<float> fma(Vector<float> a, Vector<float> b, Vector<float> c) {
  Vector<float> r;
  for (int i = 0; i < kLanes<float>; ++i) r[i] = __builtin_fmaf(a[i], b[i], c[i]);
  return r;
}
GENFAST_INLINE Vector<double> fma(Vector<double> a, Vector<double> b, Vector<double> c) {
  Vector<double> r;
  for (int i = 0; i < kLanes<double>; ++i) r[i] = __builtin_fma(a[i], b[i], c[i]);
  return r;
}
template <class T>
GENFAST_INLINE Vector<T> broadcast(T x) {
  Vector<T> r;
  for (int i = 0; i < kLanes<T>; ++i) r[i] = x;
  return r;
}
#endif

GENFAST_INLINE float to_float(bfloat16 x) {
  uint32_t bits = static_cast<uint32_t>(x.bits) << 16;
  float r;
  memcpy(&r, &bits, sizeof r);
  return r;
}
GENFAST_INLINE float to_arithmetic(bfloat16 x) { return to_float(x); }
GENFAST_INLINE float to_arithmetic(float x) { return x; }
GENFAST_INLINE double to_arithmetic(double x) { return x; }

typedef uint32_t Bits __attribute__((vector_size(kVectorBytes)));
typedef uint16_t HalfBits __attribute__((vector_size(kVectorBytes / 2)));

GENFAST_INLINE void assign(float& to, float x) { to = x; }
GENFAST_INLINE void assign(double& to, double x) { to = x; }

// The nearest bfloat16 value, ties to even; a NaN stays a NaN.
GENFAST_INLINE Bits bfloat16_bits(Vector<float> x) {
  Bits bits;
  memcpy(&bits, &x, sizeof bits);
  Bits rounded = bits + 0x7fff + ((bits >> 16) & 1), quiet = bits | 0x400000;
  return (x != x ? quiet : rounded) & 0xffff0000u;
}
GENFAST_INLINE void assign(bfloat16& to, float x) {
  uint32_t bits;
  memcpy(&bits, &x, sizeof bits);
  bits = x != x ? bits | 0x400000 : bits + 0x7fff + ((bits >> 16) & 1);
  to.bits = static_cast<uint16_t>(bits >> 16);
}
template <class S>
GENFAST_INLINE Vector<Arithmetic<S>> round_to(Vector<Arithmetic<S>> x) {
  return x;
}
template <>
GENFAST_INLINE Vector<float> round_to<bfloat16>(Vector<float> x) {
  Bits bits = bfloat16_bits(x);
  Vector<float> r;
  memcpy(&r, &bits, sizeof r);
  return r;
}

template <class T>
GENFAST_INLINE Vector<T> load(const T* at) {
  Vector<T> r;
  memcpy(&r, at, sizeof r);
  return r;
}
GENFAST_INLINE Vector<float> load(const bfloat16* at) {
  HalfBits half;
  memcpy(&half, at, sizeof half);
#if defined(__aarch64__)
  return vreinterpretq_f32_u32(vmovl_u16(half) << 16);  // GCC 12 converts lane by lane
#else
  Bits bits = __builtin_convertvector(half, Bits) << 16;
  Vector<float> r;
  memcpy(&r, &bits, sizeof r);
  return r;
#endif
}
template <class T>
GENFAST_INLINE void store(T* at, Vector<T> x) {
  memcpy(at, &x, sizeof x);
}
GENFAST_INLINE void store(bfloat16* at, Vector<float> x) {
  HalfBits half = __builtin_convertvector(bfloat16_bits(x) >> 16, HalfBits);
  memcpy(at, &half, sizeof half);
}

// AddressSanitizer does not see what a masked instruction reads or writes.
#if defined(__AVX512F__) && !defined(__SANITIZE_ADDRESS__)
#define GENFAST_MASKED_LANES 1
GENFAST_INLINE __mmask16 first_lanes(int64_t n) { return static_cast<__mmask16>((1u << (n > 0 ? n : 0)) - 1); }
#endif

// The first n lanes; the others read as zero and are not written.
template <class S>
GENFAST_INLINE Vector<Arithmetic<S>> load(const S* at, int64_t n) {
  if (n >= kLanes<Arithmetic<S>>) return load(at);
#if defined(GENFAST_MASKED_LANES)
  if constexpr (sizeof(S) == 4) return _mm512_maskz_loadu_ps(first_lanes(n), at);
#endif
  S lanes[kLanes<Arithmetic<S>>];
  memset(lanes, 0, sizeof lanes);
  for (int64_t i = 0; i < n; ++i) lanes[i] = at[i];
  return load(lanes);
}
template <class S>
GENFAST_INLINE void store(S* at, Vector<Arithmetic<S>> x, int64_t n) {
  if (n >= kLanes<Arithmetic<S>>) return store(at, x);
#if defined(GENFAST_MASKED_LANES)
  if constexpr (sizeof(S) == 4) return _mm512_mask_storeu_ps(at, first_lanes(n), x);
#endif
  S lanes[kLanes<Arithmetic<S>>];
  store(lanes, x);
  for (int64_t i = 0; i < n; ++i) at[i] = lanes[i];
}

// A store of what is not read again soon: past the cache, where that is one whole line.
template <class S>
GENFAST_INLINE void stream(S* at, Vector<Arithmetic<S>> x, int64_t n) {
#if defined(__AVX512F__)
  if constexpr (sizeof(S) == sizeof(Arithmetic<S>))
    if (n >= kLanes<S> && reinterpret_cast<uintptr_t>(at) % 64 == 0) {
      __m512i line;
      memcpy(&line, &x, sizeof line);
      return _mm512_stream_si512(reinterpret_cast<__m512i*>(at), line);
    }
#endif
  store(at, x, n);
}

GENFAST_INLINE void finish_streams() {
#if defined(__AVX512F__)
  _mm_sfence();
#endif
}

// expm1(r) = r + r^2 q(r) on |r| <= ln(2)/2, relative error 1.3e-8 (minimax) and 7e-21 (Chebyshev nodes).
// ln(2) is split so that n * kHigh is exact.
template <class T>
struct Exponential;
template <>
struct Exponential<float> {
  static constexpr int kDegree = 4, kMantissa = 23;
  static constexpr int32_t kBias = 127;
  static constexpr float kQ[kDegree + 1] = {0.4999999815f, 0.1666654362f, 0.04166719986f, 0.008366520575f,
                                            0.001388252154f};
  static constexpr float kHigh = 0.693359375f, kLow = -0.000212194440055f, kLog2e = 1.44269504089f;
  static constexpr float kRound = 12582912.f;  // 1.5 * 2^23: adding and subtracting it rounds to an integer
  static constexpr float kTanhLimit = 19.f, kSigmoidLimit = 44.f, kLimit = 87.f;
};
template <>
struct Exponential<double> {
  static constexpr int kDegree = 11, kMantissa = 52;
  static constexpr int64_t kBias = 1023;
  static constexpr double kQ[kDegree + 1] = {
      0.49999999999999999998,   0.16666666666666666667,    0.041666666666666676774,    0.008333333333333334007,
      0.0013888888888879073994, 0.00019841269841263299129, 0.000024801587336442237861, 2.7557319247218730776e-6,
      2.7557263279088496905e-7, 2.5052071094293546753e-8,  2.0918137737642736429e-9,   1.6086627956780368844e-10};
  static constexpr double kHigh = 0.693145751953125, kLow = 1.42860682030941723212e-6, kLog2e = 1.4426950408889634074;
  static constexpr double kRound = 6755399441055744.;
  static constexpr double kTanhLimit = 40., kSigmoidLimit = 350., kLimit = 708.;
};

#if defined(__AVX512F__)
GENFAST_INLINE Vector<float> square_root(Vector<float> x) { return _mm512_sqrt_ps(x); }
GENFAST_INLINE Vector<double> square_root(Vector<double> x) { return _mm512_sqrt_pd(x); }
#elif defined(__AVX2__)
GENFAST_INLINE Vector<float> square_root(Vector<float> x) { return _mm256_sqrt_ps(x); }
GENFAST_INLINE Vector<double> square_root(Vector<double> x) { return _mm256_sqrt_pd(x); }
#elif defined(__aarch64__)
GENFAST_INLINE Vector<float> square_root(Vector<float> x) { return vsqrtq_f32(x); }
GENFAST_INLINE Vector<double> square_root(Vector<double> x) { return vsqrtq_f64(x); }
#else
GENFAST_INLINE Vector<float> square_root(Vector<float> x) {
  for (int i = 0; i < kLanes<float>; ++i) x[i] = __builtin_sqrtf(x[i]);
  return x;
}
GENFAST_INLINE Vector<double> square_root(Vector<double> x) {
  for (int i = 0; i < kLanes<double>; ++i) x[i] = __builtin_sqrt(x[i]);
  return x;
}
#endif

// A NaN passes through: comparisons with it are false, and the instructions of x86 then return their second operand,
// those of aarch64 the NaN.
#if defined(__AVX512F__)
GENFAST_INLINE Vector<float> clamp(Vector<float> x, float limit) {
  return _mm512_max_ps(broadcast(-limit), _mm512_min_ps(broadcast(limit), x));
}
GENFAST_INLINE Vector<double> clamp(Vector<double> x, double limit) {
  return _mm512_max_pd(broadcast(-limit), _mm512_min_pd(broadcast(limit), x));
}
#elif defined(__aarch64__)
GENFAST_INLINE Vector<float> clamp(Vector<float> x, float limit) {
  return vmaxq_f32(broadcast(-limit), vminq_f32(broadcast(limit), x));
}
GENFAST_INLINE Vector<double> clamp(Vector<double> x, double limit) {
  return vmaxq_f64(broadcast(-limit), vminq_f64(broadcast(limit), x));
}
#else
template <class T>
GENFAST_INLINE Vector<T> clamp(Vector<T> x, T limit) {
  Vector<T> high = broadcast(limit), low = broadcast(-limit);
  x = high < x ? high : x;
  return low > x ? low : x;
}
#endif

// Splits x = n ln(2) + r; gives expm1(r) and 2^n.
template <class T>
GENFAST_INLINE Vector<T> reduced_expm1(Vector<T> x, Vector<T>& power) {
  using E = Exponential<T>;
  using Integer = typename VectorOf<T>::integer;
  Vector<T> rounded = fma(x, broadcast(E::kLog2e), broadcast(E::kRound));
  Vector<T> n = rounded - broadcast(E::kRound);
  Vector<T> r = fma(n, broadcast(-E::kHigh), x);
  r = fma(n, broadcast(-E::kLow), r);
  Vector<T> q = broadcast(E::kQ[E::kDegree]);
#pragma GCC unroll 16
  for (int i = E::kDegree - 1; i >= 0; --i) q = fma(q, r, broadcast(E::kQ[i]));
  Integer bits;
  memcpy(&bits, &rounded, sizeof bits);
  bits = (bits + E::kBias) << E::kMantissa;  // the low bits of `rounded` hold n
  memcpy(&power, &bits, sizeof bits);
  return fma(r * r, q, r);
}
template <class T>
GENFAST_INLINE Vector<T> exponential(Vector<T> x) {
  Vector<T> power, p = reduced_expm1<T>(x, power);
  return fma(power, p, power);
}

// The exponential of any x: it stops at e^-87 and e^87 (float), e^-708 and e^708 (double), short of denormals.
template <class T>
GENFAST_INLINE Vector<T> bounded_exponential(Vector<T> x) {
  return exponential<T>(clamp(x, Exponential<T>::kLimit));
}

// tanh(x) = e / (e + 2) with e = expm1(2x), accurate near zero too.
template <class T>
GENFAST_INLINE Vector<T> tanh_expm1(Vector<T> x) {
  Vector<T> power, p = reduced_expm1<T>(clamp(x + x, Exponential<T>::kTanhLimit), power);
  return fma(power, p, power - broadcast(T(1)));
}
template <class T>
GENFAST_INLINE Vector<T> tanh(Vector<T> x) {
  Vector<T> e = tanh_expm1<T>(x);
  return e / (e + broadcast(T(2)));
}

// log((1 + s) / (1 - s)) = 2s + s z q(z) with z = s^2 on |s| <= (sqrt(2) - 1) / (sqrt(2) + 1), relative error 2.8e-9
// and 4.6e-18 (Chebyshev nodes).
template <class T>
struct Logarithm;
template <>
struct Logarithm<float> {
  static constexpr int kDegree = 2;
  static constexpr int32_t kSqrtHalf = 0x3f3504f3;  // the bits of sqrt(1/2)
  static constexpr float kQ[kDegree + 1] = {0.6666668504f, 0.3998878057f, 0.2957994939f};
};
template <>
struct Logarithm<double> {
  static constexpr int kDegree = 6;
  static constexpr int64_t kSqrtHalf = 0x3fe6a09e667f3bcd;
  static constexpr double kQ[kDegree + 1] = {0.66666666666666696862, 0.3999999999989950449, 0.28571428625975484921,
                                             0.22222211134795079855, 0.1818288912526172208, 0.15331721600556041269,
                                             0.1461644968504340586};
};

// log(x) of a normal positive x, to about one unit in the last place. Zero and denormals read as about the smallest
// normal number, infinity as the number past the largest: always finite. A NaN stays a NaN.
template <class T>
GENFAST_INLINE Vector<T> logarithm(Vector<T> x) {
  using E = Exponential<T>;
  using L = Logarithm<T>;
  using Integer = typename VectorOf<T>::integer;
  Integer bits;
  memcpy(&bits, &x, sizeof bits);
  Integer exponent = (bits - L::kSqrtHalf) >> E::kMantissa;
  bits -= exponent << E::kMantissa;  // x = 2^exponent m with m in [sqrt(1/2), sqrt(2))
  Vector<T> m, n, round = broadcast(E::kRound);
  memcpy(&m, &bits, sizeof m);
  memcpy(&bits, &round, sizeof bits);
  bits += exponent;
  memcpy(&n, &bits, sizeof n);
  n -= round;
  Vector<T> f = m - broadcast(T(1)), s = f / (m + broadcast(T(1))), z = s * s;
  Vector<T> q = broadcast(L::kQ[L::kDegree]);
#pragma GCC unroll 16
  for (int i = L::kDegree - 1; i >= 0; --i) q = fma(q, z, broadcast(L::kQ[i]));
  // 2s = f - s f, and s f = f^2 / 2 - s f^2 / 2: f is exact, so the rounding of s weighs little.
  Vector<T> half = broadcast(T(0.5)) * f * f;
  Vector<T> low = fma(s, fma(z, q, half), n * broadcast(E::kLow));
  Vector<T> r = fma(n, broadcast(E::kHigh), f - (half - low));
  return x != x ? x : r;
}

// tanh(a) and sigmoid(b) with one division: the divider is half the work.
template <class T>
struct Gate {
  Vector<T> tanh, sigmoid;

  GENFAST_INLINE Gate(Vector<T> a, Vector<T> b) {
    const Vector<T> one = broadcast(T(1));
    Vector<T> ea = tanh_expm1<T>(a), da = ea + broadcast(T(2));
    Vector<T> db = one + exponential<T>(-clamp(b, Exponential<T>::kSigmoidLimit));
    Vector<T> inverse = one / (da * db);
    tanh = ea * (db * inverse), sigmoid = da * inverse;
  }
};

template <class T>
struct Gates {
  Vector<T> i, f, g, o;
};

// sigmoid(i), sigmoid(f), tanh(g), sigmoid(o) with two divisions instead of four: the divider is the bottleneck of
// the cell. The sigmoids saturate at +-44 (float; 7.8e-20) so that no product of two denominators overflows.
template <class T>
GENFAST_INLINE Gates<T> activate(Vector<T> i, Vector<T> f, Vector<T> g, Vector<T> o) {
  const T limit = Exponential<T>::kSigmoidLimit;
  const Vector<T> one = broadcast(T(1));
  Vector<T> ei = one + exponential<T>(-clamp(i, limit));
  Vector<T> ef = one + exponential<T>(-clamp(f, limit));
  Vector<T> eo = one + exponential<T>(-clamp(o, limit));
  Vector<T> eg = tanh_expm1<T>(g), dg = eg + broadcast(T(2));
  Vector<T> ig = one / (ei * dg), fo = one / (ef * eo);
  return {dg * ig, eo * fo, eg * (ei * ig), ef * fo};
}

}  // namespace
}  // namespace GENFAST_ISA
}  // namespace genfast
