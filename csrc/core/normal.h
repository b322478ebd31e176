// Standard normal numbers as a pure function of their place: those of genfast/random/philox.py.
#pragma once

#include "core/philox.h"
#include "core/vector.h"

namespace genfast {
namespace GENFAST_ISA {
namespace {

constexpr int64_t kPlaces = 16;    // counters that are drawn together
constexpr float kUnit = 0x1p-24f;  // words are read as 24-bit multiples of it

// sin(2 pi r) = r (kTurn + p(r^2)) and cos(2 pi r) = q(r^2) on |r| <= 1/8, relative errors 3.4e-9 and 6.7e-11 (float),
// 9e-25 and 2.2e-23 (double), from Chebyshev nodes.
template <class T>
struct Turn;
template <>
struct Turn<float> {
  static constexpr int kSine = 4, kCosine = 5;
  // kTurn is exact in its type, so that the product with r is all that rounds; kP[0] is what it lacks.
  static constexpr float kTurn = 6.2831854820251465f;
  static constexpr float kP[kSine] = {-1.942122e-7f, -41.34166257f, 81.59254287f, -75.40161270f};
  static constexpr float kQ[kCosine] = {1.f, -19.73920865f, 64.93931614f, -85.44284467f, 59.22016896f};
};
template <>
struct Turn<double> {
  static constexpr int kSine = 9, kCosine = 9;
  static constexpr double kTurn = 6.283185307179586;
  static constexpr double kP[kSine] = {2.4492935982947064e-16, -41.341702240399760234,  81.605249276075054114,
                                       -76.705859753061326979, 42.058693944878276244,   -15.094642573239617533,
                                       3.8199521955331221853,  -0.71809764412437346969, 0.10338644483562410068};
  static constexpr double kQ[kCosine] = {1.0,
                                         -19.739208802178717238,
                                         64.93939402266829122,
                                         -85.456817206693549861,
                                         60.244641371818104709,
                                         -26.426256772545437796,
                                         7.9035351947629579376,
                                         -1.7143161879285278382,
                                         0.27945867147528962291};
};

// cos and sin of 2 pi u, u in [0, 1): the quarter of the turn is taken off exactly.
template <class T>
GENFAST_INLINE void cosine_sine(Vector<T> u, Vector<T>& cosine, Vector<T>& sine) {
  using Integer = typename VectorOf<T>::integer;
  const Vector<T> round = broadcast(Exponential<T>::kRound);
  const Vector<T> rounded = fma(u, broadcast(T(4)), round);
  const Vector<T> r = fma(rounded - round, broadcast(T(-0.25)), u), square = r * r;
  Vector<T> p = broadcast(Turn<T>::kP[Turn<T>::kSine - 1]), q = broadcast(Turn<T>::kQ[Turn<T>::kCosine - 1]);
#pragma GCC unroll 16
  for (int i = Turn<T>::kSine - 2; i >= 0; --i) p = fma(p, square, broadcast(Turn<T>::kP[i]));
#pragma GCC unroll 16
  for (int i = Turn<T>::kCosine - 2; i >= 0; --i) q = fma(q, square, broadcast(Turn<T>::kQ[i]));
  p = fma(r, broadcast(Turn<T>::kTurn), r * p);
  Integer quarter;
  memcpy(&quarter, &rounded, sizeof quarter);  // the low bits hold the number of quarters
  const Vector<T> c = (quarter & 1) != 0 ? p : q, s = (quarter & 1) != 0 ? q : p;
  cosine = ((quarter + 1) & 2) != 0 ? -c : c;
  sine = (quarter & 2) != 0 ? -s : s;
}

// Two independent normal numbers from two words, by Box and Muller.
template <class T>
GENFAST_INLINE void box_muller(Vector<T> first, Vector<T> second, Vector<T>& one, Vector<T>& other) {
  const Vector<T> unit = broadcast(static_cast<T>(kUnit));
  const Vector<T> radius = square_root(broadcast(T(-2)) * logarithm<T>(fma(first, unit, unit)));
  cosine_sine<T>(second * unit, one, other);
  one *= radius, other *= radius;
}

// The upper 24 bits of each word as a number.
template <class T>
GENFAST_INLINE void write_words(Bits words, T* to) {
  typedef int32_t Signed __attribute__((vector_size(kVectorBytes)));
  const Signed upper = (Signed)(words >> 8);
  for (int64_t i = 0; i < kLanes<float>; ++i) to[i] = static_cast<T>(upper[i]);
}

// Rows of noise: with n = `first_row` + r, row r is of image `first_image` + n / draws and of draw number `first_draw`
// + n % draws, and has `size` numbers from element `element` on. They are written one after the other.
struct NoiseRows {
  uint64_t seed;
  int64_t first_image, first_draw, draws, first_row, rows, size;
  uint32_t element;
};

template <class T>
void normals(const NoiseRows& a, T* to) {
  const int64_t places = (a.size + 3) / 4;
  if (!places) return;
  uint32_t counter[4][kPlaces];
  T words[4][kPlaces];
  int64_t row = 0, place = 0, written_row = 0, written = 0;
  int64_t of_image = a.first_image + a.first_row / a.draws, of_draw = a.first_row % a.draws;
  while (row < a.rows) {
    for (int64_t n = 0; n < kPlaces; ++n) {  // past the last row some place or other, whose numbers nobody reads
      counter[0][n] = static_cast<uint32_t>(a.first_draw + of_draw);
      counter[1][n] = a.element + static_cast<uint32_t>(place);
      counter[2][n] = static_cast<uint32_t>(of_image);
      counter[3][n] = static_cast<uint32_t>(static_cast<uint64_t>(of_image) >> 32);
      if (++place < places) continue;
      place = 0, ++row;
      if (++of_draw == a.draws) of_draw = 0, ++of_image;
    }
    for (int64_t n = 0; n < kPlaces; n += kLanes<float>) {
      PhiloxLanes lanes;
      memcpy(&lanes.a, counter[0] + n, sizeof lanes.a);
      memcpy(&lanes.b, counter[1] + n, sizeof lanes.b);
      memcpy(&lanes.c, counter[2] + n, sizeof lanes.c);
      memcpy(&lanes.d, counter[3] + n, sizeof lanes.d);
      lanes.run(a.seed);
      write_words(lanes.a, words[0] + n);
      write_words(lanes.b, words[1] + n);
      write_words(lanes.c, words[2] + n);
      write_words(lanes.d, words[3] + n);
    }
    for (int64_t n = 0; n < kPlaces; n += kLanes<T>)
      for (int pair = 0; pair < 4; pair += 2) {
        Vector<T> one, other;
        box_muller<T>(load(words[pair] + n), load(words[pair + 1] + n), one, other);
        store(words[pair] + n, one);
        store(words[pair + 1] + n, other);
      }
    for (int64_t n = 0; n < kPlaces && written_row < a.rows; ++n) {
      const int64_t left = a.size - 4 * written, count = left < 4 ? left : 4;
      for (int64_t i = 0; i < count; ++i) to[i] = words[i][n];
      to += count;
      if (++written == places) written = 0, ++written_row;
    }
  }
}

}  // namespace
}  // namespace GENFAST_ISA
}  // namespace genfast
