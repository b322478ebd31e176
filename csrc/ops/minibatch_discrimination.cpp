#include "ops/minibatch_discrimination.h"

#include "core/blocks.h"
#include "core/parallel.h"

namespace genfast {
namespace GENFAST_ISA {
namespace {

// A panel is 16 projections of all rows, [M][C][16] in the arithmetic type: one piece of work. A lane is one
// projection. The distance between two rows is used for both: of rows i < j, i adds up j in a register and j adds up i
// in memory, tile after tile of rows i. So every row adds up the others in their order, as if it walked them alone.
constexpr int64_t kPanel = kSumLanes;
constexpr int kTile = 4;  // rows i at a time in the forward pass
constexpr int kPair = 2;  // and in the backward pass, which keeps C sums of each

template <class T>
struct Panels {
  int64_t count, kernels, dim, rows;
  T* packed;  // [panels][M][C][16]; zeros beyond the last projection
  T* grads;   // [panels][M][16], zeros from `rows` on, or null

  int64_t panels() const { return pieces_of(kernels, kPanel); }
  T* row(int64_t panel, int64_t j) const { return packed + (panel * count + j) * dim * kPanel; }
  T* grad(int64_t panel, int64_t j) const { return grads + (panel * count + j) * kPanel; }
  int64_t width(int64_t panel) const { return min(kernels - panel * kPanel, kPanel); }
};

template <class S>
void pack_rows(const S* projected, const S* grad_y, const Panels<Arithmetic<S>>& to, int64_t begin, int64_t end) {
  using T = Arithmetic<S>;
  for (int64_t j = begin; j < end; ++j)
    for (int64_t panel = 0; panel < to.panels(); ++panel) {
      const int64_t width = to.width(panel), first = j * to.kernels + panel * kPanel;
      T* row = to.row(panel, j);
      for (int64_t c = 0; c < to.dim; ++c)
        for (int64_t b = 0; b < kPanel; ++b)
          row[c * kPanel + b] = b < width ? to_arithmetic(projected[(first + b) * to.dim + c]) : T(0);
      if (!to.grads) continue;
      for (int64_t b = 0; b < kPanel; ++b)
        to.grad(panel, j)[b] = b < width && j < to.rows ? to_arithmetic(grad_y[first + b]) : T(0);
    }
}

// w with the sign of x, 0 where x is 0.
template <class T>
GENFAST_INLINE Vector<T> signed_like(Vector<T> w, Vector<T> x) {
  const auto sign = bits_of<T>(x) & bits_of<T>(broadcast(T(-0.0)));
  const auto bits = (bits_of<T>(w) ^ sign) & (x != broadcast(T(0)));
  memcpy(&w, &bits, sizeof w);
  return w;
}

// The sums of rows [i, i + kRows) and the parts that these have in those of the rows behind them, of one vector.
template <class T, int kRows>
GENFAST_INLINE void sum_tile(const Panels<T>& p, const T* panel, int64_t i, T* totals) {
  const int64_t step = p.dim * kPanel;
  const T *x = panel + i * step, *y = x;
  Vector<T> sums[kRows];
#pragma GCC unroll 4
  for (int r = 0; r < kRows; ++r) sums[r] = load(totals + (i + r) * kPanel);
  for (int64_t j = i; j < p.count; ++j) {
    Vector<T> distance[kRows];
#pragma GCC unroll 4
    for (int r = 0; r < kRows; ++r) distance[r] = broadcast(T(0));
    for (int64_t c = 0; c < step; c += kPanel, y += kPanel) {
      const Vector<T> other = load(y);
#pragma GCC unroll 4
      for (int r = 0; r < kRows; ++r) distance[r] += magnitude<T>(load(x + r * step + c) - other);
    }
#pragma GCC unroll 4
    for (int r = 0; r < kRows; ++r) sums[r] += distance[r] = exp_neg<T>(-distance[r]);
    if (j < i + kRows || j >= p.rows) continue;
    Vector<T> total = load(totals + j * kPanel);
#pragma GCC unroll 4
    for (int r = 0; r < kRows; ++r) total += distance[r];
    store(totals + j * kPanel, total);
  }
#pragma GCC unroll 4
  for (int r = 0; r < kRows; ++r) store(totals + (i + r) * kPanel, sums[r]);
}

template <class S>
int forward_panels(const MinibatchDiscriminationForward& a, const Panels<Arithmetic<S>>& p, int64_t begin,
                   int64_t end) {
  using T = Arithmetic<S>;
  Scratch memory(Scratch::bytes<T>(p.rows * kPanel));
  if (memory.failed()) return kNoMemory;
  T* totals = memory.take<T>(p.rows * kPanel);
  for (int64_t panel = begin; panel < end; ++panel) {
    for (int64_t i = 0; i < p.rows * kPanel; ++i) totals[i] = 0;
    for (int64_t lane = 0; lane < p.width(panel); lane += kLanes<T>) {
      const T* from = p.row(panel, 0) + lane;
      int64_t i = 0;
      for (; i + kTile <= p.rows; i += kTile) sum_tile<T, kTile>(p, from, i, totals + lane);
      for (; i < p.rows; ++i) sum_tile<T, 1>(p, from, i, totals + lane);
    }
    for (int64_t i = 0; i < p.rows; ++i)
      for (int64_t b = 0; b < p.width(panel); ++b)
        assign(static_cast<S*>(a.y)[i * p.kernels + panel * kPanel + b], totals[i * kPanel + b]);
  }
  return kOk;
}

// The gradient -(g_i + g_j) exp(-distance) sign(x_i - x_j) of rows [i, i + kRows), and its negative of the rows behind
// them, added to `sums`, of one vector. With kDim the sums of rows i stay in registers.
template <class T, int kRows, int kDim>
GENFAST_INLINE void gradient_tile(const Panels<T>& p, const T* panel, const T* grads, int64_t i, T* sums) {
  const int64_t step = (kDim ? kDim : p.dim) * kPanel;
  const T *x = panel + i * step, *y = x;
  T* own = sums + i * step;
  Vector<T> kept[kRows][kDim ? kDim : 1];
  if constexpr (kDim > 0)
    for (int r = 0; r < kRows; ++r)
      for (int c = 0; c < kDim; ++c) kept[r][c] = load(own + r * step + c * kPanel);
  for (int64_t j = i; j < p.count; ++j, y += step) {
    Vector<T> weight[kRows];
#pragma GCC unroll 2
    for (int r = 0; r < kRows; ++r) {
      Vector<T> distance = broadcast(T(0));
#pragma GCC unroll 8
      for (int64_t c = 0; c < step; c += kPanel) distance += magnitude<T>(load(x + r * step + c) - load(y + c));
      weight[r] = (load(grads + (i + r) * kPanel) + load(grads + j * kPanel)) * exp_neg<T>(-distance);
    }
    const bool behind = j >= i + kRows;
#pragma GCC unroll 8
    for (int64_t c = 0; c < step; c += kPanel) {
      Vector<T> other = load(sums + j * step + c);
#pragma GCC unroll 2
      for (int r = 0; r < kRows; ++r) {
        const Vector<T> term = signed_like<T>(weight[r], load(x + r * step + c) - load(y + c));
        if constexpr (kDim > 0)
          kept[r][c / kPanel] -= term;
        else
          store(own + r * step + c, load(own + r * step + c) - term);
        other += term;
      }
      if (behind) store(sums + j * step + c, other);
    }
  }
  if constexpr (kDim > 0)
    for (int r = 0; r < kRows; ++r)
      for (int c = 0; c < kDim; ++c) store(own + r * step + c * kPanel, kept[r][c]);
}

template <class T, int kDim>
void gradient_of(const Panels<T>& p, const T* panel, const T* grads, T* sums) {
  constexpr int kRows = kDim ? kPair : 1;
  int64_t i = 0;
  for (; i + kRows <= p.rows; i += kRows) gradient_tile<T, kRows, kDim>(p, panel, grads, i, sums);
  for (; i < p.rows; ++i) gradient_tile<T, 1, kDim>(p, panel, grads, i, sums);
}

template <class T>
void gradient_of(const Panels<T>& p, const T* panel, const T* grads, T* sums) {
  switch (p.dim) {
    case 1: return gradient_of<T, 1>(p, panel, grads, sums);
    case 2: return gradient_of<T, 2>(p, panel, grads, sums);
    case 3: return gradient_of<T, 3>(p, panel, grads, sums);
    case 4: return gradient_of<T, 4>(p, panel, grads, sums);
    case 5: return gradient_of<T, 5>(p, panel, grads, sums);
    case 8: return gradient_of<T, 8>(p, panel, grads, sums);
    default: return gradient_of<T, 0>(p, panel, grads, sums);
  }
}

template <class S>
int backward_panels(const MinibatchDiscriminationBackward& a, const Panels<Arithmetic<S>>& p, int64_t begin,
                    int64_t end) {
  using T = Arithmetic<S>;
  const int64_t size = p.count * p.dim * kPanel;
  Scratch memory(Scratch::bytes<T>(size));
  if (memory.failed()) return kNoMemory;
  T* sums = memory.take<T>(size);
  for (int64_t panel = begin; panel < end; ++panel) {
    for (int64_t i = 0; i < size; ++i) sums[i] = 0;
    for (int64_t lane = 0; lane < p.width(panel); lane += kLanes<T>)
      gradient_of(p, p.row(panel, 0) + lane, p.grad(panel, 0) + lane, sums + lane);
    for (int64_t i = 0; i < p.count; ++i)
      for (int64_t b = 0; b < p.width(panel); ++b) {
        S* to = static_cast<S*>(a.grad_projected) + (i * p.kernels + panel * kPanel + b) * p.dim;
        for (int64_t c = 0; c < p.dim; ++c) assign(to[c], sums[(i * p.dim + c) * kPanel + b]);
      }
  }
  return kOk;
}

// The rows packed in `memory`, with the incoming gradients if `backward`.
template <class S>
Panels<Arithmetic<S>> pack(Scratch& memory, bool backward, const void* projected, const void* grad_y, int64_t count,
                           int64_t kernels, int64_t dim, int64_t rows) {
  using T = Arithmetic<S>;
  Panels<T> panels{count, kernels, dim, rows, nullptr, nullptr};
  panels.packed = memory.take<T>(panels.panels() * count * dim * kPanel);
  if (backward) panels.grads = memory.take<T>(panels.panels() * count * kPanel);
  const auto pack = [&](int64_t begin, int64_t end) {
    pack_rows(static_cast<const S*>(projected), static_cast<const S*>(grad_y), panels, begin, end);
  };
  parallel(count, pack, grain_of(kernels * dim));
  return panels;
}

template <class T>
int64_t bytes_of(int64_t count, int64_t kernels, int64_t dim) {
  const int64_t padded = round_up(kernels, kPanel);
  return Scratch::bytes<T>(padded * count * dim) + Scratch::bytes<T>(padded * count);
}

template <class S>
int forward(const MinibatchDiscriminationForward& a) {
  if (!a.rows) return kOk;
  Scratch memory(bytes_of<Arithmetic<S>>(a.count, a.kernels, a.dim));
  if (memory.failed()) return kNoMemory;
  const auto panels = pack<S>(memory, false, a.projected, nullptr, a.count, a.kernels, a.dim, a.rows);
  return parallel(
      panels.panels(), [&](int64_t begin, int64_t end) { return forward_panels<S>(a, panels, begin, end); },
      grain_of(a.rows * a.count * a.dim));
}

template <class S>
int backward(const MinibatchDiscriminationBackward& a) {
  if (!a.count) return kOk;
  Scratch memory(bytes_of<Arithmetic<S>>(a.count, a.kernels, a.dim));
  if (memory.failed()) return kNoMemory;
  const auto panels = pack<S>(memory, true, a.projected, a.grad_y, a.count, a.kernels, a.dim, a.rows);
  return parallel(
      panels.panels(), [&](int64_t begin, int64_t end) { return backward_panels<S>(a, panels, begin, end); },
      grain_of(a.rows * a.count * a.dim));
}

}  // namespace

GENFAST_KERNEL(minibatch_discrimination_forward, MinibatchDiscriminationForward, forward)
GENFAST_KERNEL(minibatch_discrimination_backward, MinibatchDiscriminationBackward, backward)

}  // namespace GENFAST_ISA
}  // namespace genfast
