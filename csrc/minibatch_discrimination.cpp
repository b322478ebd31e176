#include "minibatch_discrimination.h"

#include "blocks.h"

namespace genfast {
namespace GENFAST_LEVEL {
namespace {

// A panel is 16 projections of all rows, [M][C][16] in the arithmetic type: what one piece of work walks. A lane is one
// projection of one row, and adds up the rows in their order.
constexpr int64_t kPanel = kSumLanes;
constexpr int64_t kRowsOfPiece = 16;
constexpr int kTile = 4;  // rows that share what is loaded of another row

template <class T>
struct Panels {
  int64_t count, kernels, dim, rows;
  T* packed;  // [panels][M][C][16]; zeros beyond the last projection
  T* grads;   // [panels][M][16], zeros from `rows` on, or null

  int64_t panels() const { return (kernels + kPanel - 1) / kPanel; }
  T* row(int64_t panel, int64_t j) const { return packed + (panel * count + j) * dim * kPanel; }
  T* grad(int64_t panel, int64_t j) const { return grads + (panel * count + j) * kPanel; }
  int64_t width(int64_t panel) const {
    const int64_t left = kernels - panel * kPanel;
    return left < kPanel ? left : kPanel;
  }
};

template <class S>
struct Packing {
  const S *projected, *grad_y;
  const Panels<Arithmetic<S>>& to;
};

template <class S>
void pack_rows(int64_t begin, int64_t end, void* context) {
  using T = Arithmetic<S>;
  const Packing<S>& job = *static_cast<const Packing<S>*>(context);
  const Panels<T>& to = job.to;
  for (int64_t j = begin; j < end; ++j)
    for (int64_t panel = 0; panel < to.panels(); ++panel) {
      const int64_t width = to.width(panel), first = j * to.kernels + panel * kPanel;
      T* row = to.row(panel, j);
      for (int64_t c = 0; c < to.dim; ++c)
        for (int64_t b = 0; b < kPanel; ++b)
          row[c * kPanel + b] = b < width ? to_arithmetic(job.projected[(first + b) * to.dim + c]) : T(0);
      if (!to.grads) continue;
      for (int64_t b = 0; b < kPanel; ++b)
        to.grad(panel, j)[b] = b < width && j < to.rows ? to_arithmetic(job.grad_y[first + b]) : T(0);
    }
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

// w with the sign of x, 0 where x is 0.
template <class T>
GENFAST_INLINE Vector<T> signed_like(Vector<T> w, Vector<T> x) {
  const auto sign = bits_of<T>(x) & bits_of<T>(broadcast(T(-0.0)));
  const auto bits = (bits_of<T>(w) ^ sign) & (x != broadcast(T(0)));
  memcpy(&w, &bits, sizeof w);
  return w;
}

// One vector of the sums of kTile rows, of which the last may be repetitions.
template <class T>
GENFAST_INLINE void sum_tile(const Panels<T>& p, int64_t panel, int64_t lane, const int64_t* rows, Vector<T>* sums) {
  const T *x[kTile], *y = p.row(panel, 0) + lane;
#pragma GCC unroll 4
  for (int r = 0; r < kTile; ++r) x[r] = p.row(panel, rows[r]) + lane, sums[r] = broadcast(T(0));
  for (int64_t j = 0; j < p.count; ++j) {
    Vector<T> distance[kTile];
#pragma GCC unroll 4
    for (int r = 0; r < kTile; ++r) distance[r] = broadcast(T(0));
    for (int64_t c = 0; c < p.dim; ++c, y += kPanel) {
      const Vector<T> other = load(y);
#pragma GCC unroll 4
      for (int r = 0; r < kTile; ++r) distance[r] += magnitude<T>(load(x[r] + c * kPanel) - other);
    }
#pragma GCC unroll 4
    for (int r = 0; r < kTile; ++r) sums[r] += decay<T>(-distance[r]);
  }
}

template <class S>
struct Forward {
  const MinibatchDiscriminationForward& a;
  Panels<Arithmetic<S>> panels;
};

GENFAST_INLINE int64_t pieces_of(int64_t rows) { return (rows + kRowsOfPiece - 1) / kRowsOfPiece; }
GENFAST_INLINE int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }

template <class S>
void forward_pieces(int64_t begin, int64_t end, void* context) {
  using T = Arithmetic<S>;
  const Forward<S>& job = *static_cast<const Forward<S>*>(context);
  const Panels<T>& p = job.panels;
  const int64_t pieces = pieces_of(p.rows);
  for (int64_t index = begin; index < end; ++index) {
    const int64_t panel = index / pieces, first = index % pieces * kRowsOfPiece;
    const int64_t last = least(first + kRowsOfPiece, p.rows);
    for (int64_t i = first; i < last; i += kTile)
      for (int64_t lane = 0; lane < p.width(panel); lane += kLanes<T>) {
        int64_t rows[kTile];
        Vector<T> sums[kTile];
        for (int64_t r = 0; r < kTile; ++r) rows[r] = least(i + r, last - 1);
        sum_tile(p, panel, lane, rows, sums);
        for (int64_t r = 0; r < least(kTile, last - i); ++r)
          store(static_cast<S*>(job.a.y) + (i + r) * p.kernels + panel * kPanel + lane, sums[r], p.width(panel) - lane);
      }
  }
}

// -(g_i + g_j) exp(-distance) sign(x_i - x_j), added over the rows j in [begin, end), of one vector of a row i. With
// kDim the sums of all elements stay in registers.
template <class T, int kDim>
GENFAST_INLINE void gradient_tile(const Panels<T>& p, int64_t panel, int64_t lane, int64_t i, int64_t end, T* sums) {
  const int64_t dim = kDim ? kDim : p.dim;
  const T *x = p.row(panel, i) + lane, *y = p.row(panel, 0) + lane, *g = p.grad(panel, 0) + lane;
  const Vector<T> own = load(p.grad(panel, i) + lane);
  Vector<T> kept[kDim ? kDim : 1];
  if constexpr (kDim > 0)
    for (int c = 0; c < kDim; ++c) kept[c] = broadcast(T(0));
  else
    for (int64_t c = 0; c < dim; ++c) store(sums + c * kLanes<T>, broadcast(T(0)));
  for (int64_t j = 0; j < end; ++j, y += dim * kPanel, g += kPanel) {
    Vector<T> distance = broadcast(T(0));
#pragma GCC unroll 8
    for (int64_t c = 0; c < dim; ++c) distance += magnitude<T>(load(x + c * kPanel) - load(y + c * kPanel));
    const Vector<T> weight = (own + load(g)) * decay<T>(-distance);
#pragma GCC unroll 8
    for (int64_t c = 0; c < dim; ++c) {
      const Vector<T> term = signed_like<T>(weight, load(x + c * kPanel) - load(y + c * kPanel));
      if constexpr (kDim > 0)
        kept[c] -= term;
      else
        store(sums + c * kLanes<T>, load(sums + c * kLanes<T>) - term);
    }
  }
  if constexpr (kDim > 0)
    for (int c = 0; c < kDim; ++c) store(sums + c * kLanes<T>, kept[c]);
}

template <class T>
GENFAST_INLINE void gradient_of(const Panels<T>& p, int64_t panel, int64_t lane, int64_t i, int64_t end, T* sums) {
  switch (p.dim) {
    case 1: return gradient_tile<T, 1>(p, panel, lane, i, end, sums);
    case 2: return gradient_tile<T, 2>(p, panel, lane, i, end, sums);
    case 3: return gradient_tile<T, 3>(p, panel, lane, i, end, sums);
    case 4: return gradient_tile<T, 4>(p, panel, lane, i, end, sums);
    case 5: return gradient_tile<T, 5>(p, panel, lane, i, end, sums);
    case 8: return gradient_tile<T, 8>(p, panel, lane, i, end, sums);
    default: return gradient_tile<T, 0>(p, panel, lane, i, end, sums);
  }
}

template <class S>
struct Backward {
  const MinibatchDiscriminationBackward& a;
  Panels<Arithmetic<S>> panels;
  int status;
};

template <class S>
void backward_pieces(int64_t begin, int64_t end, void* context) {
  using T = Arithmetic<S>;
  Backward<S>& job = *static_cast<Backward<S>*>(context);
  const Panels<T>& p = job.panels;
  const int64_t pieces = pieces_of(p.count);
  Scratch memory(Scratch::bytes<T>(p.dim * kLanes<T>));
  if (memory.failed()) return __atomic_store_n(&job.status, kNoMemory, __ATOMIC_RELAXED);
  T* sums = memory.take<T>(p.dim * kLanes<T>);
  for (int64_t index = begin; index < end; ++index) {
    const int64_t panel = index / pieces, first = index % pieces * kRowsOfPiece;
    for (int64_t i = first; i < least(first + kRowsOfPiece, p.count); ++i)
      for (int64_t lane = 0; lane < p.width(panel); lane += kLanes<T>) {
        // What is not summed for has a part in the sums of the others alone.
        gradient_of(p, panel, lane, i, i < p.rows ? p.count : p.rows, sums);
        S* to = static_cast<S*>(job.a.grad_projected) + (i * p.kernels + panel * kPanel + lane) * p.dim;
        for (int64_t b = 0; b < least(kLanes<T>, p.width(panel) - lane); ++b)
          for (int64_t c = 0; c < p.dim; ++c) assign(to[b * p.dim + c], sums[c * kLanes<T> + b]);
      }
  }
}

// The rows packed in `memory`, with the incoming gradients if `backward`.
template <class S>
Panels<Arithmetic<S>> pack(Scratch& memory, bool backward, const void* projected, const void* grad_y, int64_t count,
                           int64_t kernels, int64_t dim, int64_t rows) {
  using T = Arithmetic<S>;
  Panels<T> panels{count, kernels, dim, rows, nullptr, nullptr};
  panels.packed = memory.take<T>(panels.panels() * count * dim * kPanel);
  if (backward) panels.grads = memory.take<T>(panels.panels() * count * kPanel);
  Packing<S> job{static_cast<const S*>(projected), static_cast<const S*>(grad_y), panels};
  parallel_for(count, pack_rows<S>, &job, grain_of(kernels * dim));
  return panels;
}

template <class T>
int64_t bytes_of(int64_t count, int64_t kernels, int64_t dim) {
  const int64_t padded = (kernels + kPanel - 1) / kPanel * kPanel;
  return Scratch::bytes<T>(padded * count * dim) + Scratch::bytes<T>(padded * count);
}

template <class S>
int forward(const MinibatchDiscriminationForward& a) {
  if (!a.rows) return kOk;
  Scratch memory(bytes_of<Arithmetic<S>>(a.count, a.kernels, a.dim));
  if (memory.failed()) return kNoMemory;
  Forward<S> job{a, pack<S>(memory, false, a.projected, nullptr, a.count, a.kernels, a.dim, a.rows)};
  const int64_t work = kRowsOfPiece * a.count * (a.dim + 4) * kPanel;
  parallel_for(job.panels.panels() * pieces_of(a.rows), forward_pieces<S>, &job, grain_of(work));
  return kOk;
}

template <class S>
int backward(const MinibatchDiscriminationBackward& a) {
  if (!a.count) return kOk;
  Scratch memory(bytes_of<Arithmetic<S>>(a.count, a.kernels, a.dim));
  if (memory.failed()) return kNoMemory;
  Backward<S> job{a, pack<S>(memory, true, a.projected, a.grad_y, a.count, a.kernels, a.dim, a.rows), kOk};
  const int64_t work = kRowsOfPiece * a.count * (a.dim + 4) * kPanel;
  parallel_for(job.panels.panels() * pieces_of(a.count), backward_pieces<S>, &job, grain_of(work));
  return job.status;
}

}  // namespace

int minibatch_discrimination_forward(const MinibatchDiscriminationForward& a) {
  return by_type(a.type, [&](auto s) { return forward<decltype(s)>(a); });
}

int minibatch_discrimination_backward(const MinibatchDiscriminationBackward& a) {
  return by_type(a.type, [&](auto s) { return backward<decltype(s)>(a); });
}

}  // namespace GENFAST_LEVEL
}  // namespace genfast
