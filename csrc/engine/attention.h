// Attention of a pixel program over the positions so far: the keys and values of an image, and what is made of them.
//
// Order of summation, see genfast/engine/program.py: products with keys and sums of values in four chains; the maximum
// is exact; exponentials in 16 lanes. Vectors run over positions for keys, over features for values, so that every
// term is summed in the lane of its result.
#pragma once

#include "core/lane_sum.h"
#include "engine/pixel_linear.h"

namespace genfast {
namespace GENFAST_ISA {
namespace {

constexpr int64_t kBlock = kSumLanes;  // positions whose keys lie together: [depth][kBlock]
constexpr int64_t kPositions = 2 * kBlock;
constexpr int kScored = 2;  // vectors of positions at once: with four chains as many sums as hide the multiply-add
#if defined(__AVX512F__)
constexpr int kMixed = 4;  // vectors of features at once
#else
constexpr int kMixed = 2;
#endif

// What an instruction remembers of the images of a tile: of each image [groups][blocks][depth][kBlock] and
// [groups][positions][width].
struct Memory {
  float *keys, *values;
  int64_t seen;  // positions
};

GENFAST_INLINE int64_t padded_positions(const program::Instruction& it) {
  return round_up(it.grid_rows * it.grid_columns, kPositions);
}
GENFAST_INLINE int64_t padded_width(const program::Instruction& it) { return round_up(it.value_size, kLanes<float>); }
GENFAST_INLINE int64_t key_floats(const program::Instruction& it) {
  return it.groups * padded_positions(it) * it.key_size;
}
GENFAST_INLINE int64_t value_floats(const program::Instruction& it) {
  return it.groups * padded_positions(it) * padded_width(it);
}

// Of all instructions of a program, and room for the scores of a head.
class Memories {
 public:
  Memories(const program::Instruction* all, int64_t count, int64_t tile, Scratch& scratch)
      : scores(scratch.take<float>(most_positions(all, count))), each_(scratch.take<Memory>(count)), count_(count) {
    for (int64_t n = 0; n < count; ++n)
      if (all[n].kind == program::kAttention)
        each_[n] = {zeros(scratch, tile * key_floats(all[n])), zeros(scratch, tile * value_floats(all[n])), 0};
  }

  static int64_t scratch(const program::Instruction* all, int64_t count, int64_t tile) {
    int64_t bytes = Scratch::bytes<float>(most_positions(all, count)) + Scratch::bytes<Memory>(count);
    for (int64_t n = 0; n < count; ++n)
      if (all[n].kind == program::kAttention)
        bytes += Scratch::bytes<float>(tile * key_floats(all[n])) + Scratch::bytes<float>(tile * value_floats(all[n]));
    return bytes;
  }

  Memory& operator[](int64_t n) { return each_[n]; }
  void forget() {
    for (int64_t n = 0; n < count_; ++n) each_[n].seen = 0;
  }

  float* const scores;

 private:
  static int64_t most_positions(const program::Instruction* all, int64_t count) {
    int64_t most = 0;
    for (int64_t n = 0; n < count; ++n)
      if (all[n].kind == program::kAttention) most = max(most, padded_positions(all[n]));
    return most;
  }
  static float* zeros(Scratch& scratch, int64_t count) {
    float* taken = scratch.take<float>(count);
    memset(taken, 0, static_cast<size_t>(count) * sizeof *taken);
    return taken;
  }

  Memory* each_;
  int64_t count_;
};

// The key and the value of position t of an image, each of `groups` parts, to what is remembered of it.
GENFAST_INLINE void remember(const program::Instruction& it, int64_t t, const float* key, const float* value,
                             float* keys, float* values) {
  const int64_t blocks = padded_positions(it), width = padded_width(it);
  for (int64_t g = 0; g < it.groups; ++g) {
    float* to = keys + (g * blocks + t / kBlock * kBlock) * it.key_size + t % kBlock;
    for (int64_t d = 0; d < it.key_size; ++d) to[d * kBlock] = key[g * it.key_size + d];
    memcpy(values + (g * blocks + t) * width, value + g * it.value_size,
           static_cast<size_t>(it.value_size) * sizeof *value);
  }
}

// y[v] = the sum of weights [n] times the vectors at from[v], which are `step` floats apart, in four chains from zero.
template <int V>
GENFAST_INLINE void weigh(const float* weights, int64_t n, const float* const (&from)[V], int64_t step,
                          Vector<float> (&y)[V]) {
  Vector<float> sum[kChains][V];
#pragma GCC unroll 4
  for (int c = 0; c < kChains; ++c)
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v) sum[c][v] = broadcast(0.f);
  int64_t k = 0;
  for (; k + kChains <= n; k += kChains)
#pragma GCC unroll 4
    for (int c = 0; c < kChains; ++c) {
      const Vector<float> w = broadcast(weights[k + c]);
#pragma GCC unroll 4
      for (int v = 0; v < V; ++v) sum[c][v] = fma(w, load(from[v] + (k + c) * step), sum[c][v]);
    }
#pragma GCC unroll 4
  for (int c = 0; c < kChains; ++c)
    if (k + c < n)
#pragma GCC unroll 4
      for (int v = 0; v < V; ++v) sum[c][v] = fma(broadcast(weights[k + c]), load(from[v] + (k + c) * step), sum[c][v]);
#pragma GCC unroll 4
  for (int v = 0; v < V; ++v) y[v] = (sum[0][v] + sum[1][v]) + (sum[2][v] + sum[3][v]);
}

// The sum of weights [n] times values [n][step], for V vectors of features, over `total`.
template <int V>
GENFAST_INLINE void mix(const float* weights, int64_t n, const float* values, int64_t step, Vector<float> total,
                        float* to, int64_t left) {
  const float* from[V];
  Vector<float> y[V];
#pragma GCC unroll 4
  for (int v = 0; v < V; ++v) from[v] = values + v * kLanes<float>;
  weigh(weights, n, from, step, y);
#pragma GCC unroll 4
  for (int v = 0; v < V; ++v) store(to + v * kLanes<float>, y[v] / total, left - v * kLanes<float>);
}

// One head at a position that reads the first n. `bias` and `factor` of the position may be null; scratch [positions].
GENFAST_INLINE void attend(const program::Instruction& it, int64_t n, const float* query, const float* keys,
                           const float* values, const float* bias, const float* factor, float* scratch, float* to) {
  constexpr int64_t lanes = kLanes<float>, together = kScored * lanes;
  const int64_t positions = it.grid_rows * it.grid_columns, end = round_up(n, max(together, kBlock));
  Vector<float> largest = broadcast(-kInfinity<float>);
  for (int64_t t = 0; t < end; t += together) {
    const float* at[kScored];
    Vector<float> y[kScored];
#pragma GCC unroll 2
    for (int v = 0; v < kScored; ++v) {
      const int64_t first = t + v * lanes;
      at[v] = keys + first / kBlock * kBlock * it.key_size + first % kBlock;
    }
    weigh(query, it.key_size, at, kBlock, y);
#pragma GCC unroll 2
    for (int v = 0; v < kScored; ++v) {
      const int64_t first = t + v * lanes;
      if (bias && first < n) y[v] += load(bias + first, positions - first);
      store(scratch + first, y[v]);
      if (first + lanes <= n) {
        largest = larger<float>(y[v], largest);
        continue;
      }
      for (int64_t lane = max(n - first, 0); lane < lanes; ++lane) scratch[first + lane] = -kInfinity<float>;
      largest = larger<float>(load(scratch + first), largest);
    }
  }
  float each[lanes], most = -kInfinity<float>;
  store(each, largest);
  for (int64_t lane = 0; lane < lanes; ++lane) most = each[lane] > most ? each[lane] : most;
  if (most == -kInfinity<float>) {
    bool is_number = true;
    for (int64_t t = 0; t < n; ++t) is_number = is_number && scratch[t] == scratch[t];
    const float value = it.nan || !is_number ? __builtin_nanf("") : 0.f;
    for (int64_t f = 0; f < it.value_size; ++f) to[f] = value;
    return;
  }
  LaneSum<float> sum;
  for (int64_t t = 0; t < n; t += kBlock)
    for (int64_t v = 0; v < LaneSum<float>::kParts; ++v) {
      float* s = scratch + t + v * lanes;
      const Vector<float> e = exp_neg<float>(load(s) - broadcast(most));
      sum.add(v, e);
      store(s, factor ? e * load(factor + t + v * lanes, positions - t - v * lanes) : e);
    }
  const Vector<float> total = broadcast(sum.total());
  const int64_t width = padded_width(it);
  for (int64_t f = 0; f < it.value_size;) {
    if (it.value_size - f > (kMixed - 1) * lanes) {
      mix<kMixed>(scratch, n, values + f, width, total, to + f, it.value_size - f);
      f += kMixed * lanes;
    } else {
      mix<1>(scratch, n, values + f, width, total, to + f, it.value_size - f);
      f += lanes;
    }
  }
}

}  // namespace
}  // namespace GENFAST_ISA
}  // namespace genfast
