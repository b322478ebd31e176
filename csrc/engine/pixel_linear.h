// The product of a linear instruction of a pixel program, for the positions of a tile.
#pragma once

#include "core/math.h"
#include "engine/pixel_program.h"

namespace genfast {
namespace GENFAST_ISA {
namespace {

constexpr int64_t kPanel = 16;
constexpr int kChains = 4;
// One image reads every weight once: they come from the second-level cache, whose latency this many rows hide.
constexpr int kAhead = 8;

// Images of a register tile: 24 of 32 registers are accumulators with AVX-512, 12 of 16 before it.
#if defined(__AVX512F__)
constexpr int kImages = 6;
#else
constexpr int kImages = 3;
#endif

// `count` values for every row of a group, rows `step` apart: at pixel column j from at + (j >> shift) column on.
struct Span {
  float* at;
  int64_t column, shift, step, count;

  GENFAST_INLINE float* of(int64_t j) const { return at + (j >> shift) * column; }
};

// A product for `groups` times `rows` positions: groups are images, rows are columns, or there is one group of images.
struct Linear {
  int64_t groups, rows, group_step;  // the step of all that is read and written, but for chains and bias
  const Span *spans, *adds;
  int64_t span_count, add_count;
  Span out;
  const float* const* bias;  // [groups][rows]
  int64_t activation;
  float* chains;  // of the first position at column 0: [vectors of outputs][kChains][lanes]
  int64_t chains_column, chains_step, chains_group;
};

// A sum may be made in two parts, with the same rounding: what the rows above give, and the rest of it.
enum class Part { kWhole, kAbove, kRest };

GENFAST_INLINE Vector<float> relu(Vector<float> x) {
  const Vector<float> zero = broadcast(0.f);
  return x > zero ? x : zero;
}
GENFAST_INLINE Vector<float> elu(Vector<float> x) {
  const Vector<float> zero = broadcast(0.f);
  Vector<float> power, p = reduced_expm1<float>(clamp(x, Exponential<float>::kLimit), power);
  return x > zero ? x : fma(power, p, power - broadcast(1.f));
}
GENFAST_INLINE Vector<float> activated(Vector<float> x, int64_t activation) {
  switch (activation) {
    case program::kOfRelu: return relu(x);
    case program::kOfElu: return elu(x);
    case program::kOfTanh: return tanh<float>(x);
    case program::kOfSigmoid: return sigmoid<float>(x);
  }
  return x;
}

// One vector of outputs, features `column` on, of rows m .. m + R - 1. Four chains of additions hide the latency of the
// multiply-add where there is but one image.
template <int R, Part kPart>
__attribute__((noinline)) void linear_tile(const Linear& job, int64_t j, int64_t group, int64_t m, int64_t column,
                                           const float* weight) {
  const int64_t shift = group * job.group_step;
  float* all_chains =
      job.chains + j * job.chains_column + group * job.chains_group + m * job.chains_step + column * kChains;
  Vector<float> sum[R][kChains];
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r) {
    const float* chains = all_chains + r * job.chains_step;
    if constexpr (kPart != Part::kRest) sum[r][0] = load(job.bias[group * job.rows + m + r] + column);
#pragma GCC unroll 4
    for (int q = kPart != Part::kRest; q < kChains; ++q)
      sum[r][q] = kPart == Part::kRest ? load(chains + q * kLanes<float>) : broadcast(0.f);
  }
  for (const Span* span = job.spans; span < job.spans + job.span_count; ++span) {
    const float* a[R];
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) a[r] = span->of(j) + shift + (m + r) * span->step;
    int64_t k = 0;
    for (; k + kChains <= span->count; k += kChains, weight += kChains * kPanel) {
#pragma GCC unroll 4
      for (int q = 0; R == 1 && q < kChains; ++q) __builtin_prefetch(weight + (q + kAhead) * kPanel);
#pragma GCC unroll 4
      for (int q = 0; q < kChains; ++q) {
        const Vector<float> w = load(weight + q * kPanel);
#pragma GCC unroll 8
        for (int r = 0; r < R; ++r) sum[r][q] = fma(broadcast(a[r][k + q]), w, sum[r][q]);
      }
    }
#pragma GCC unroll 4
    for (int q = 0; q < kChains - 1; ++q) {
      if (k + q >= span->count) break;
      const Vector<float> w = load(weight);
      weight += kPanel;
#pragma GCC unroll 8
      for (int r = 0; r < R; ++r) sum[r][q] = fma(broadcast(a[r][k + q]), w, sum[r][q]);
    }
  }
  const int64_t n = job.out.count - column;
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r) {
    if constexpr (kPart == Part::kAbove) {
      float* chains = all_chains + r * job.chains_step;
#pragma GCC unroll 4
      for (int q = 0; q < kChains; ++q) store(chains + q * kLanes<float>, sum[r][q]);
      continue;
    }
    Vector<float> y = (sum[r][0] + sum[r][1]) + (sum[r][2] + sum[r][3]);
    for (const Span* add = job.adds; add < job.adds + job.add_count; ++add)
      y += load(add->of(j) + shift + (m + r) * add->step + column, n);
    store(job.out.of(j) + shift + (m + r) * job.out.step + column, activated(y, job.activation), n);
  }
}

template <Part kPart, int R = kImages>
GENFAST_INLINE void linear_tile_of(const Linear& job, int64_t j, int64_t group, int64_t m, int64_t column,
                                   const float* weight) {
  if (job.rows - m >= R) return linear_tile<R, kPart>(job, j, group, m, column, weight);
  if constexpr (R > 1) linear_tile_of<kPart, R - 1>(job, j, group, m, column, weight);
}

// At pixel column j. `depth`: rows of a panel of weights, of which the first is at `weight`.
template <Part kPart>
void linear(const Linear& job, int64_t j, const float* weight, int64_t depth) {
  for (int64_t column = 0; column < job.out.count; column += kLanes<float>) {
    const float* panel = weight + column / kPanel * kPanel * depth + column % kPanel;
    for (int64_t group = 0; group < job.groups; ++group)
      for (int64_t m = 0; m < job.rows; m += kImages) linear_tile_of<kPart>(job, j, group, m, column, panel);
  }
}

}  // namespace
}  // namespace GENFAST_ISA
}  // namespace genfast
