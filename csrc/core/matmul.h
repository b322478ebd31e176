// Register tiles: the one inner loop that scans, input-to-state and weight gradients all run in.
//
// A tile of R rows and V vectors of columns accumulates sum_k a(r, k) * b(k, column), k ascending, one fused
// multiply-add a term, in the lane of its output. Tiling therefore never changes a result.
#pragma once

#include "core/math.h"

namespace genfast {
namespace GENFAST_ISA {
namespace {

// Rows of a tile that is four vectors wide, and of one that is one vector wide: 24 and 12 accumulators of 32
// registers with AVX-512 and on aarch64, 12 and 8 of 16 with AVX2.
#if defined(__AVX512F__) || defined(__aarch64__)
constexpr int kWideRows = 6, kNarrowRows = 12;
#elif defined(__AVX2__)
constexpr int kWideRows = 3, kNarrowRows = 8;
#else
constexpr int kWideRows = 2, kNarrowRows = 4;
#endif
constexpr int kWide = 4;

#if defined(__AVX512BF16__)
constexpr bool kNativePairs = true;
#else
constexpr bool kNativePairs = false;
#endif

// What the recurrent products read: bfloat16 pairs where the CPU multiplies them, else the arithmetic type.
template <class S>
struct OperandOf {
  using type = Arithmetic<S>;
};
#if defined(__AVX512BF16__)
template <>
struct OperandOf<bfloat16> {
  using type = bfloat16;
};
#endif
template <class S>
using Operand = typename OperandOf<S>::type;

template <class S>
constexpr int64_t kPairing = 1;
template <>
constexpr int64_t kPairing<bfloat16> = 2;
template <class S>
GENFAST_INLINE int64_t padded_depth(int64_t k) {
  return round_up(k, kPairing<S>);
}

template <class T, int R, int V>
GENFAST_INLINE void multiply_add(Vector<T> (&sum)[R][V], const T* const (&a)[R], int64_t k, const T* b) {
  Vector<T> columns[V];
#pragma GCC unroll 4
  for (int v = 0; v < V; ++v) columns[v] = load(b + v * kLanes<T>);
#pragma GCC unroll 12
  for (int r = 0; r < R; ++r) {
    Vector<T> x = broadcast(a[r][k]);
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v) sum[r][v] = fma(x, columns[v], sum[r][v]);
  }
}

// `runs` runs of `depth` operands a row, runs `offset` apart and operands `step` apart (1 for bfloat16).
template <class S>
struct Source {
  const Operand<S>* const* rows;
  int64_t runs, offset, depth, step;
};

// sum += a b over `depth` (padded_depth of it, the padding zero); b is packed [depth][V][lanes], for bfloat16
// [depth / 2][V][lanes][2]. A bfloat16 product is exact in float32 and the hardware adds the odd term of a pair
// first, so isas without the instruction get the same bits by two fused multiply-adds in that order (short of
// denormals, which the instruction flushes).
template <class S, int R, int V>
GENFAST_INLINE const Operand<S>* accumulate(Vector<Arithmetic<S>> (&sum)[R][V], const Operand<S>* const (&a)[R],
                                            int64_t depth, int64_t step, const Operand<S>* b) {
  constexpr int64_t width = V * kLanes<Arithmetic<S>>;
  if constexpr (kPairing<S> == 1) {
    for (int64_t k = 0; k < depth; ++k, b += width) multiply_add<Arithmetic<S>, R, V>(sum, a, k * step, b);
  } else if constexpr (!kNativePairs) {
    for (int64_t k = 0; k < depth; k += 2, b += 2 * width) {
      multiply_add<Arithmetic<S>, R, V>(sum, a, k + 1, b + width);
      multiply_add<Arithmetic<S>, R, V>(sum, a, k, b);
    }
  } else {
#if defined(__AVX512BF16__)
    for (int64_t k = 0; k < depth; k += 2, b += 2 * width) {
      __m512bh columns[V];
#pragma GCC unroll 4
      for (int v = 0; v < V; ++v) columns[v] = (__m512bh)_mm512_loadu_si512(b + 2 * v * kLanes<float>);
#pragma GCC unroll 12
      for (int r = 0; r < R; ++r) {
        int pair;
        memcpy(&pair, a[r] + k, sizeof pair);
        __m512bh x = (__m512bh)_mm512_set1_epi32(pair);
#pragma GCC unroll 4
        for (int v = 0; v < V; ++v) sum[r][v] = _mm512_dpbf16_ps(sum[r][v], x, columns[v]);
      }
    }
#endif
  }
  return b;
}

// One element of a packed operand: row k, column vector v, lane.
template <class S>
GENFAST_INLINE void pack_element(Operand<S>* panel, int vectors, int64_t k, int v, int64_t lane, Arithmetic<S> value) {
  constexpr int64_t lanes = kLanes<Arithmetic<S>>;
  if constexpr (kPairing<S> == 2 && kNativePairs) {
    assign(panel[((k / 2 * vectors + v) * lanes + lane) * 2 + k % 2], value);
  } else {
    assign(panel[(k * vectors + v) * lanes + lane], value);
  }
}

// sum [R][V][lanes] = start + the products of all sources. start[r] has its vectors `start_step` apart.
template <class S, int R, int V>
__attribute__((noinline)) void tile(const Arithmetic<S>* const* start, int64_t start_step, const Source<S>* sources,
                                    int count, const Operand<S>* b, Arithmetic<S>* to) {
  using T = Arithmetic<S>;
  Vector<T> sum[R][V];
#pragma GCC unroll 12
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v) sum[r][v] = load(start[r] + v * start_step);
  for (const Source<S>* source = sources; source < sources + count; ++source)
    for (int64_t run = 0; run < source->runs; ++run) {
      const Operand<S>* rows[R];
#pragma GCC unroll 12
      for (int r = 0; r < R; ++r) rows[r] = source->rows[r] + run * source->offset;
      b = accumulate<S, R, V>(sum, rows, source->depth, source->step, b);
    }
#pragma GCC unroll 12
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v) store(to + (r * V + v) * kLanes<T>, sum[r][v]);
}

// The height of a tile is a compile-time number; the last tile of a column is as high as what is left.
template <class S, int V, int R = V == 1 ? kNarrowRows : kWideRows>
void tile_of(int64_t rows, const Arithmetic<S>* const* start, int64_t start_step, const Source<S>* sources, int count,
             const Operand<S>* b, Arithmetic<S>* to) {
  if (rows == R) return tile<S, R, V>(start, start_step, sources, count, b, to);
  if constexpr (R > 1) tile_of<S, V, R - 1>(rows, start, start_step, sources, count, b, to);
}

// Columns are taken four vectors at a time, the last few vectors one at a time.
template <class T>
GENFAST_INLINE int vectors_at(int64_t column, int64_t columns) {
  return columns - column > (kWide - 1) * kLanes<T> ? kWide : 1;
}
// Room for packed columns: a wide panel may stand for fewer than four vectors.
template <class T>
int64_t column_room(int64_t k, int64_t n) {
  return k * round_up(n, kWide * kLanes<T>);
}

// Panels [k][vectors][lanes], zero beyond n.
template <class T, class S>
void pack_columns(int64_t k, int64_t n, const S* b, int64_t row, int64_t step, T* to) {
  for (int64_t first = 0; first < n;) {
    const int64_t width = vectors_at<T>(first, n) * kLanes<T>, count = min(width, n - first);
    for (int64_t r = 0; r < k; ++r, to += width) {
      const S* from = b + r * row + first * step;
      if (step == 1 && count == width) {
        for (int64_t c = 0; c < width; c += kLanes<T>) store(to + c, load(from + c));
      } else {
        for (int64_t c = 0; c < width; ++c) to[c] = c < count ? to_arithmetic(from[c * step]) : T(0);
      }
    }
    first += width;
  }
}

// A product in the arithmetic type: c[m][n] = start[m][n] + bias[n] + sum_k a[m * a_row + k * a_step] b[k][n].
// `start` may be `c` (accumulate) or null (zero), `bias` may be null; b is packed by pack_columns.
template <class T>
struct Product {
  int64_t m, n, k;
  const T* a;
  int64_t a_row, a_step;
  const T* b;
  const T* start;
  const T* bias;
  T* c;
  int64_t c_row;  // of start too
};

template <class T, int V>
void multiply_panel(const Product<T>& p, int64_t n, const T* b) {
  constexpr int64_t lanes = kLanes<T>, rows = V == 1 ? kNarrowRows : kWideRows;
  T first[rows * V * lanes], sum[rows * V * lanes];
  const T *start[rows], *a[rows];
  const int64_t width = min(V * lanes, p.n - n);
  for (int64_t m = 0; m < p.m; m += rows) {
    const int64_t height = min(rows, p.m - m);
    for (int64_t r = 0; r < height; ++r) {
      a[r] = p.a + (m + r) * p.a_row;
      start[r] = first + r * V * lanes;
      for (int64_t v = 0; v < V; ++v) {
        const int64_t at = n + v * lanes, left = p.n - at;
        Vector<T> x = p.start && left > 0 ? load(p.start + (m + r) * p.c_row + at, left) : broadcast(T(0));
        if (p.bias && left > 0) x += load(p.bias + at, left);
        store(first + (r * V + v) * lanes, x);
      }
    }
    const Source<T> source{a, 1, 0, p.k, p.a_step};
    tile_of<T, V>(height, start, lanes, &source, 1, b, sum);
    for (int64_t r = 0; r < height; ++r)
      for (int64_t c = 0; c < width; c += lanes)
        store(p.c + (m + r) * p.c_row + n + c, load(sum + r * V * lanes + c), width - c);
  }
}

template <class T>
void multiply(const Product<T>& p) {
  const T* b = p.b;
  for (int64_t n = 0; n < p.n;) {
    const int vectors = vectors_at<T>(n, p.n);
    if (vectors == kWide)
      multiply_panel<T, kWide>(p, n, b);
    else
      multiply_panel<T, 1>(p, n, b);
    n += vectors * kLanes<T>, b += p.k * vectors * kLanes<T>;
  }
}

}  // namespace
}  // namespace GENFAST_ISA
}  // namespace genfast
