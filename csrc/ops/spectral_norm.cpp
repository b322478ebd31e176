#include "ops/spectral_norm.h"

#include "core/blocks.h"
#include "core/parallel.h"

namespace genfast {
namespace GENFAST_ISA {
namespace {

constexpr double kEpsilon = 1e-12;     // the least length that a vector is divided by
constexpr int64_t kManyLayers = 16;    // so many are work for all threads, each from first to last
constexpr int64_t kSmall = 16 * 1024;  // elements: of a layer that is not worth to be split, and of a piece of work
constexpr int64_t kWidth = 512;        // columns of a piece of work

// A layer is split into rows, or columns, where there are too few layers for the threads. What an element is summed of
// and in which order is the same either way.
struct Shape {
  int64_t layers, rows, columns;

  int64_t size() const { return rows * columns; }
  bool whole() const { return layers >= kManyLayers || size() <= kSmall; }
  int64_t height() const { return whole() ? rows : max(kSmall / columns / 4, 1) * 4; }
  int64_t width() const { return whole() ? columns : kWidth; }
};

// Runs body(layer, first, last) for pieces of `size` of the `count` rows, or columns, of all layers.
template <class Body>
void each_piece(const Shape& shape, int64_t count, int64_t size, const Body& body) {
  const int64_t pieces = pieces_of(count, size);
  const auto run = [&](int64_t begin, int64_t end) {
    for (int64_t index = begin; index < end; ++index) {
      const int64_t first = index % pieces * size;
      body(index / pieces, first, min(first + size, count));
    }
  };
  parallel(shape.layers * pieces, run, grain_of(shape.size() / pieces));
}

// Of every layer: multiply(layer, first, last) its rows, finish(layer), write(layer, first, last) its rows.
template <class Multiply, class Finish, class Write>
void sweep_twice(const Shape& shape, const Multiply& multiply, const Finish& finish, const Write& write) {
  if (shape.whole()) {
    each_piece(shape, shape.rows, shape.rows, [&](int64_t layer, int64_t first, int64_t last) {
      multiply(layer, first, last);
      finish(layer);
      write(layer, first, last);
    });
    return;
  }
  each_piece(shape, shape.rows, shape.height(), multiply);
  for (int64_t layer = 0; layer < shape.layers; ++layer) finish(layer);
  each_piece(shape, shape.rows, shape.height(), write);
}

// Rows of products that are summed together: the sum of one waits for its own additions.
template <class T>
constexpr int kTogether = LaneSum<T>::kParts > 2 ? 2 : 4;

// to[r] = sum over c of a[r][c] b[r][c] for R rows.
template <class T, int R, class A, class B>
GENFAST_INLINE void products_of(const A* a, int64_t a_row, const B* b, int64_t b_row, int64_t count, T* to) {
  LaneSum<T> sums[R];
  int64_t c = 0;
  for (; c + kSumLanes <= count; c += kSumLanes)
#pragma GCC unroll 8
    for (int part = 0; part < LaneSum<T>::kParts; ++part)
#pragma GCC unroll 4
      for (int r = 0; r < R; ++r) {
        const int64_t at = c + part * kLanes<T>;
        sums[r].add(part, load(a + r * a_row + at) * load(b + r * b_row + at));
      }
  for (int64_t at = c, part = 0; at < count; at += kLanes<T>, ++part)
    for (int r = 0; r < R; ++r)
      sums[r].add(part, load(a + r * a_row + at, count - at) * load(b + r * b_row + at, count - at));
  for (int r = 0; r < R; ++r) to[r] = sums[r].total();
}
template <class T, class A, class B>
void products(const A* a, int64_t a_row, const B* b, int64_t b_row, int64_t rows, int64_t count, T* to) {
  constexpr int R = kTogether<T>;
  int64_t r = 0;
  for (; r + R <= rows; r += R) products_of<T, R>(a + r * a_row, a_row, b + r * b_row, b_row, count, to + r);
  for (; r < rows; ++r) products_of<T, 1>(a + r * a_row, a_row, b + r * b_row, b_row, count, to + r);
}

// sum[c] += factors[r] a[r][c], r ascending.
template <class T, class A, class U>
void add_rows(const A* a, int64_t row, const U* factors, int64_t rows, int64_t count, T* sum) {
  for (int64_t r = 0; r < rows; r += 4)
    for (int64_t c = 0; c < count; c += kLanes<T>) {
      Vector<T> total = load(sum + c, count - c);
      for (int64_t i = r; i < min(r + 4, rows); ++i)
        total = fma(broadcast(static_cast<T>(to_arithmetic(factors[i]))), load(a + i * row + c, count - c), total);
      store(sum + c, total, count - c);
    }
}

template <class T, class A>
GENFAST_INLINE void divide(const A* x, T by, int64_t count, A* to) {
  for (int64_t i = 0; i < count; i += kLanes<T>) store(to + i, load(x + i, count - i) / broadcast(by), count - i);
}

template <class T>
T length(const T* x, int64_t count) {
  T total;
  products<T>(x, 0, x, 0, 1, count, &total);
  const T root = sizeof(T) == 4 ? static_cast<T>(__builtin_sqrtf(static_cast<float>(total)))
                                : static_cast<T>(__builtin_sqrt(static_cast<double>(total)));
  return root < static_cast<T>(kEpsilon) ? static_cast<T>(kEpsilon) : root;
}

// What W v and W^T (W v) become: the second is linear in the first, whose length is known only at its end.
template <class T>
void normalize(T* u, int64_t rows, T* v, int64_t columns) {
  const T first = length(u, rows);
  divide<T>(u, first, rows, u);
  divide<T>(v, first, columns, v);
  divide<T>(v, length(v, columns), columns, v);
}

// Of one layer. A few rows at a time are read from memory once, for both products.
template <class S, class T>
void iterate_whole(const Shape& s, const S* weight, T* u, T* v, int64_t iterations, T* sum) {
  for (int64_t step = 0; step < iterations; ++step) {
    for (int64_t c = 0; c < s.columns; ++c) sum[c] = 0;
    for (int64_t r = 0; r < s.rows; r += 4) {
      const int64_t rows = min(4, s.rows - r);
      products<T>(weight + r * s.columns, s.columns, v, 0, rows, s.columns, u + r);
      add_rows<T>(weight + r * s.columns, s.columns, u + r, rows, s.columns, sum);
    }
    for (int64_t c = 0; c < s.columns; ++c) v[c] = sum[c];
    normalize(u, s.rows, v, s.columns);
  }
}

template <class S>
int iterate(const PowerIteration& a) {
  using T = Arithmetic<S>;
  const Shape s{a.layers, a.rows, a.columns};
  const S* weight = static_cast<const S*>(a.weight);
  T *u = static_cast<T*>(a.new_u), *v = static_cast<T*>(a.new_v);
  if (!s.layers) return kOk;
  for (int64_t i = 0; i < s.layers * s.rows; ++i) u[i] = to_arithmetic(static_cast<const S*>(a.u)[i]);
  for (int64_t i = 0; i < s.layers * s.columns; ++i) v[i] = to_arithmetic(static_cast<const S*>(a.v)[i]);
  if (s.whole())
    return parallel(
        s.layers,
        [&](int64_t begin, int64_t end) {
          Scratch memory(Scratch::bytes<T>(s.columns));
          if (memory.failed()) return kNoMemory;
          T* sum = memory.take<T>(s.columns);
          for (int64_t layer = begin; layer < end; ++layer)
            iterate_whole(s, weight + layer * s.size(), u + layer * s.rows, v + layer * s.columns, a.iterations, sum);
          return kOk;
        },
        grain_of(s.size()));
  for (int64_t step = 0; step < a.iterations; ++step) {
    each_piece(s, s.rows, s.height(), [&](int64_t layer, int64_t first, int64_t last) {
      products<T>(weight + layer * s.size() + first * s.columns, s.columns, v + layer * s.columns, 0, last - first,
                  s.columns, u + layer * s.rows + first);
    });
    each_piece(s, s.columns, s.width(), [&](int64_t layer, int64_t first, int64_t last) {
      T* sum = v + layer * s.columns + first;
      for (int64_t c = 0; c < last - first; ++c) sum[c] = 0;
      add_rows<T>(weight + layer * s.size() + first, s.columns, u + layer * s.rows, s.rows, last - first, sum);
    });
    for (int64_t layer = 0; layer < s.layers; ++layer)
      normalize(u + layer * s.rows, s.rows, v + layer * s.columns, s.columns);
  }
  return kOk;
}

template <class S>
int forward(const SpectralNormForward& a) {
  using T = Arithmetic<S>;
  const Shape s{a.layers, a.rows, a.columns};
  if (!s.layers) return kOk;
  Scratch memory(Scratch::bytes<T>(s.layers * s.rows) + Scratch::bytes<T>(s.layers));
  if (memory.failed()) return kNoMemory;
  T *terms = memory.take<T>(s.layers * s.rows), *sigma = memory.take<T>(s.layers);
  if (a.sigma) sigma = static_cast<T*>(a.sigma);
  const S *weight = static_cast<const S*>(a.weight), *u = static_cast<const S*>(a.u);
  const auto multiply = [&](int64_t layer, int64_t first, int64_t last) {
    T* to = terms + layer * s.rows;
    products<T>(weight + layer * s.size() + first * s.columns, s.columns,
                static_cast<const S*>(a.v) + layer * s.columns, 0, last - first, s.columns, to + first);
    for (int64_t r = first; r < last; ++r) to[r] *= to_arithmetic(u[layer * s.rows + r]);
  };
  const auto finish = [&](int64_t layer) { sigma[layer] = sum_of_terms(terms + layer * s.rows, s.rows); };
  // Last rows first: they are still in the cache.
  const auto write = [&](int64_t layer, int64_t first, int64_t last) {
    for (int64_t r = last - 1; r >= first; --r) {
      const int64_t at = layer * s.size() + r * s.columns;
      divide<T>(weight + at, sigma[layer], s.columns, static_cast<S*>(a.y) + at);
    }
  };
  use_huge_pages(a.y, s.layers * s.size() * static_cast<int64_t>(sizeof(S)));
  sweep_twice(s, multiply, finish, write);
  return kOk;
}

template <class S>
struct Backward {
  using T = Arithmetic<S>;
  const SpectralNormBackward& a;
  Shape s;
  T *terms, *slope;  // [L, R] sums of a row of grad_y weight; [L] the gradient of sigma

  void multiply(int64_t layer, int64_t first, int64_t last) const {
    const int64_t at = layer * s.size() + first * s.columns;
    products<T>(static_cast<const S*>(a.grad_y) + at, s.columns, static_cast<const S*>(a.weight) + at, s.columns,
                last - first, s.columns, terms + layer * s.rows + first);
  }
  void finish(int64_t layer) const {
    const T sigma = static_cast<const T*>(a.sigma)[layer];
    slope[layer] = -(sum_of_terms(terms + layer * s.rows, s.rows) / sigma / sigma);
  }
  // Last rows first: they are still in the cache.
  void write(int64_t layer, int64_t first, int64_t last) const {
    const S *u = static_cast<const S*>(a.u) + layer * s.rows, *v = static_cast<const S*>(a.v) + layer * s.columns;
    const Vector<T> sigma = broadcast(static_cast<const T*>(a.sigma)[layer]);
    for (int64_t r = last - 1; a.grad_weight && r >= first; --r) {
      const int64_t row = layer * s.size() + r * s.columns;
      const S* grad_y = static_cast<const S*>(a.grad_y) + row;
      S* to = static_cast<S*>(a.grad_weight) + row;
      const Vector<T> factor = broadcast(static_cast<T>(slope[layer] * to_arithmetic(u[r])));
      for (int64_t c = 0; c < s.columns; c += kLanes<T>) {
        const int64_t n = s.columns - c;
        store(to + c, fma(factor, load(v + c, n), load(grad_y + c, n) / sigma), n);
      }
    }
    if (!a.grad_u) return;
    T* sums = terms + layer * s.rows;
    products<T>(static_cast<const S*>(a.weight) + layer * s.size() + first * s.columns, s.columns, v, 0, last - first,
                s.columns, sums + first);
    for (int64_t r = first; r < last; ++r)
      assign(static_cast<S*>(a.grad_u)[layer * s.rows + r], slope[layer] * sums[r]);
  }
  void write_columns(int64_t layer, int64_t first, int64_t last) const {
    const S *u = static_cast<const S*>(a.u) + layer * s.rows, *weight = static_cast<const S*>(a.weight);
    S* to = static_cast<S*>(a.grad_v) + layer * s.columns;
    T sums[kWidth];
    for (int64_t from = first; from < last; from += kWidth) {
      const int64_t count = min(kWidth, last - from);
      for (int64_t c = 0; c < count; ++c) sums[c] = 0;
      add_rows<T>(weight + layer * s.size() + from, s.columns, u, s.rows, count, sums);
      for (int64_t c = 0; c < count; ++c) assign(to[from + c], slope[layer] * sums[c]);
    }
  }
};

template <class S>
int backward(const SpectralNormBackward& a) {
  using T = Arithmetic<S>;
  const Shape s{a.layers, a.rows, a.columns};
  if (!s.layers) return kOk;
  Scratch memory(Scratch::bytes<T>(s.layers * s.rows) + Scratch::bytes<T>(s.layers));
  if (memory.failed()) return kNoMemory;
  T *terms = memory.take<T>(s.layers * s.rows), *slope = memory.take<T>(s.layers);
  const Backward<S> job{a, s, terms, slope};
  use_huge_pages(a.grad_weight, s.layers * s.size() * static_cast<int64_t>(sizeof(S)));
  sweep_twice(
      s, [&](int64_t layer, int64_t first, int64_t last) { job.multiply(layer, first, last); },
      [&](int64_t layer) { job.finish(layer); },
      [&](int64_t layer, int64_t first, int64_t last) {
        job.write(layer, first, last);
        if (a.grad_v && s.whole()) job.write_columns(layer, 0, s.columns);
      });
  if (a.grad_v && !s.whole())
    each_piece(s, s.columns, s.width(),
               [&](int64_t layer, int64_t first, int64_t last) { job.write_columns(layer, first, last); });
  return kOk;
}

}  // namespace

GENFAST_KERNEL(spectral_norm_forward, SpectralNormForward, forward)
GENFAST_KERNEL(spectral_norm_backward, SpectralNormBackward, backward)
GENFAST_KERNEL(power_iteration, PowerIteration, iterate)

}  // namespace GENFAST_ISA
}  // namespace genfast
