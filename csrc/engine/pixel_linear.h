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
constexpr int64_t kLine = 16;  // floats of a cache line

// A register tile: images, vectors of outputs, and accumulators, of which as many chains as fit are summed at once.
// With AVX2 a second vector saves loads, 10 instead of 16 for 12 multiply-adds, where a load takes the time of one.
#if defined(__AVX512F__)
constexpr int kImages = 6, kVectors = 1, kAccumulators = 24;
#elif defined(__AVX2__)
constexpr int kImages = 3, kVectors = 2, kAccumulators = 12;
#else
constexpr int kImages = 3, kVectors = 1, kAccumulators = 12;
#endif
template <int R, int V>
constexpr int kAtOnce = R * V * kChains <= kAccumulators ? kChains : kChains / 2;

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

// sum += the products of row k of the operands and `weight`, for V vectors of outputs of R rows.
template <int R, int V>
GENFAST_INLINE void add_product(const float* const (&a)[R], int64_t k, const float* weight,
                                Vector<float> (&sum)[R][V]) {
  Vector<float> w[V];
#pragma GCC unroll 4
  for (int v = 0; v < V; ++v) w[v] = load(weight + v * kLanes<float>);
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r) {
    const Vector<float> x = broadcast(a[r][k]);
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v) sum[r][v] = fma(x, w[v], sum[r][v]);
  }
}

// Chains first .. first + kAtOnce - 1 of all spans, of rows m .. m + R - 1.
template <int R, int V>
GENFAST_INLINE void add_chains(const Linear& job, int64_t j, int64_t shift, int64_t m, int first, const float* weight,
                               Vector<float> (&sum)[kAtOnce<R, V>][R][V]) {
  constexpr int at_once = kAtOnce<R, V>;
  for (const Span* span = job.spans; span < job.spans + job.span_count; weight += span++->count * kPanel) {
    const float* a[R];
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) a[r] = span->of(j) + shift + (m + r) * span->step;
    int64_t k = first;
    for (; k - first + kChains <= span->count; k += kChains) {
#pragma GCC unroll 4
      for (int q = 0; R == 1 && q < at_once; ++q) __builtin_prefetch(weight + (k + q + kAhead) * kPanel);
#pragma GCC unroll 4
      for (int q = 0; q < at_once; ++q) add_product<R, V>(a, k + q, weight + (k + q) * kPanel, sum[q]);
    }
#pragma GCC unroll 4
    for (int q = 0; q < at_once; ++q)
      if (k + q < span->count) add_product<R, V>(a, k + q, weight + (k + q) * kPanel, sum[q]);
  }
}

// V vectors of outputs, features `column` on, of rows m .. m + R - 1. Four chains of additions hide the latency of the
// multiply-add where there is but one image.
template <int R, int V, Part kPart>
__attribute__((noinline)) void linear_tile(const Linear& job, int64_t j, int64_t group, int64_t m, int64_t column,
                                           const float* weight) {
  constexpr int64_t lanes = kLanes<float>;
  constexpr int at_once = kAtOnce<R, V>;
  const int64_t shift = group * job.group_step;
  float* all_chains =
      job.chains + j * job.chains_column + group * job.chains_group + m * job.chains_step + column * kChains;
  Vector<float> pair[kChains / 2][R][V];  // chains 0 + 1, chains 2 + 3
#pragma GCC unroll 2
  for (int first = 0; first < kChains; first += at_once) {
    Vector<float> sum[at_once][R][V];
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r)
#pragma GCC unroll 4
      for (int v = 0; v < V; ++v)
#pragma GCC unroll 4
        for (int q = 0; q < at_once; ++q) {
          if (kPart == Part::kRest)
            sum[q][r][v] = load(all_chains + r * job.chains_step + (v * kChains + first + q) * lanes);
          else
            sum[q][r][v] = first + q ? broadcast(0.f) : load(job.bias[group * job.rows + m + r] + column + v * lanes);
        }
    add_chains<R, V>(job, j, shift, m, first, weight, sum);
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r)
#pragma GCC unroll 4
      for (int v = 0; v < V; ++v) {
#pragma GCC unroll 4
        for (int q = 0; kPart == Part::kAbove && q < at_once; ++q)
          store(all_chains + r * job.chains_step + (v * kChains + first + q) * lanes, sum[q][r][v]);
#pragma GCC unroll 2
        for (int q = 0; q < at_once; q += 2) pair[(first + q) / 2][r][v] = sum[q][r][v] + sum[q + 1][r][v];
      }
  }
  if (kPart == Part::kAbove) return;
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v) {
      const int64_t at = column + v * lanes, n = job.out.count - at;
      Vector<float> y = pair[0][r][v] + pair[1][r][v];
      for (const Span* add = job.adds; add < job.adds + job.add_count; ++add)
        y += load(add->of(j) + shift + (m + r) * add->step + at, n);
      store(job.out.of(j) + shift + (m + r) * job.out.step + at, activated(y, job.activation), n);
    }
}

template <Part kPart, int V, int R = kImages>
GENFAST_INLINE void linear_tile_of(const Linear& job, int64_t j, int64_t group, int64_t m, int64_t column,
                                   const float* weight) {
  if (job.rows - m >= R) return linear_tile<R, V, kPart>(job, j, group, m, column, weight);
  if constexpr (R > 1) linear_tile_of<kPart, V, R - 1>(job, j, group, m, column, weight);
}

// The operands of rows m .. end - 1 on their way to the cache: feature maps of a tile are larger than it.
GENFAST_INLINE void fetch(const Linear& job, int64_t j, int64_t m, int64_t end) {
  for (const Span* span = job.spans; span < job.spans + job.span_count; ++span)
    for (int64_t r = m; r < end; ++r) {
      const float* at = span->of(j) + r * span->step;
      for (int64_t k = 0; k < span->count; k += kLine) __builtin_prefetch(at + k);
    }
}

template <Part kPart, int V>
void linear_columns(const Linear& job, int64_t j, int64_t column, const float* weight) {
  for (int64_t group = 0; group < job.groups; ++group)
    for (int64_t m = 0; m < job.rows; m += kImages) {
      if (column == 0 && job.groups == 1) fetch(job, j, m + kImages, min(m + 2 * kImages, job.rows));
      linear_tile_of<kPart, V>(job, j, group, m, column, weight);
    }
}

// At pixel column j. `depth`: rows of a panel of weights, of which the first is at `weight`.
template <Part kPart>
void linear(const Linear& job, int64_t j, const float* weight, int64_t depth) {
  constexpr int64_t lanes = kLanes<float>;
  for (int64_t column = 0; column < job.out.count;) {
    const float* panel = weight + column / kPanel * kPanel * depth + column % kPanel;
    const bool wide = job.out.count - column > (kVectors - 1) * lanes;
    if (wide)
      linear_columns<kPart, kVectors>(job, j, column, panel);
    else
      linear_columns<kPart, 1>(job, j, column, panel);
    column += (wide ? kVectors : 1) * lanes;
  }
}

}  // namespace
}  // namespace GENFAST_ISA
}  // namespace genfast
