// All pairs of rows x and columns y without their matrix: register tiles of products, each handed to what consumes it.
//
// A product is `start` of its column plus sum_k x(k) y(k), k ascending, one fused multiply-add a term, whatever the
// tile: with -|y|^2 / 2 as the start the largest one belongs to the nearest y. A panel of columns stays in the first
// cache while the rows of a chunk pass it, so that y is read from further away once a chunk.
#pragma once

#include "matmul.h"

namespace genfast {
namespace GENFAST_LEVEL {
namespace {

constexpr int64_t kChunkBytes = 64 << 10, kChunkStep = 24, kMostChunk = 240;  // rows: whole tiles on every level

// Columns as pack_columns lays them, and where their sums start; past the last the start is -infinity, or 0.
template <class T>
struct Columns {
  int64_t count, depth;
  T *packed, *start;

  static int64_t bytes(int64_t count, int64_t depth) {
    return Scratch::bytes<T>(column_room<T>(depth, count)) + Scratch::bytes<T>(round_up(count, kWide * kLanes<T>));
  }
  Columns(int64_t count, int64_t depth, Scratch& memory)
      : count(count),
        depth(depth),
        packed(memory.take<T>(column_room<T>(depth, count))),
        start(memory.take<T>(round_up(count, kWide * kLanes<T>))) {}
};

template <class S>
GENFAST_INLINE double squared_norm(const S* x, int64_t depth) {
  double sum = 0;
  for (int64_t k = 0; k < depth; ++k) sum += static_cast<double>(to_arithmetic(x[k])) * to_arithmetic(x[k]);
  return sum;
}

template <class S>
struct Packing {
  const S* y;  // [count][depth]
  const Columns<Arithmetic<S>>& to;
  bool norms;
};

template <class S>
void pack_panels(int64_t begin, int64_t end, void* context) {
  using T = Arithmetic<S>;
  constexpr int64_t width = kWide * kLanes<T>;
  const Packing<S>& job = *static_cast<const Packing<S>*>(context);
  const Columns<T>& to = job.to;
  for (int64_t first = begin * width; first < min(end * width, to.count); first += width) {
    const int64_t count = min(width, to.count - first);
    pack_columns<T>(to.depth, count, job.y + first * to.depth, 1, to.depth, to.packed + first * to.depth);
    for (int64_t c = 0; c < width; ++c) {
      T& start = to.start[first + c];
      start = 0;
      if (job.norms)
        start = c < count ? static_cast<T>(-0.5 * squared_norm(job.y + (first + c) * to.depth, to.depth))
                          : -static_cast<T>(__builtin_inff());
    }
  }
}

template <class S>
void pack(const S* y, bool norms, const Columns<Arithmetic<S>>& to) {
  Packing<S> job{y, to, norms};
  constexpr int64_t width = kWide * kLanes<Arithmetic<S>>;
  parallel_for((to.count + width - 1) / width, pack_panels<S>, &job);
}

// consumer.take<V>(row, height, column, sums [height][V][lanes]) for every tile of a panel, rows ascending.
template <int V, class T, class Consumer>
void walk_panel(const Columns<T>& y, int64_t column, const T* x, int64_t rows, Consumer& consumer) {
  constexpr int64_t most = V == 1 ? kNarrowRows : kWideRows;
  alignas(64) T sums[most * V * kLanes<T>];
  const T *start[most], *a[most];
  for (int64_t r = 0; r < most; ++r) start[r] = y.start + column;
  const Source<T> source{a, 1, 0, y.depth, 1};
  for (int64_t row = 0; row < rows; row += most) {
    const int64_t height = min(most, rows - row);
    for (int64_t r = 0; r < height; ++r) a[r] = x + (row + r) * y.depth;
    tile_of<T, V>(height, start, kLanes<T>, &source, 1, y.packed + column * y.depth, sums);
    consumer.template take<V>(row, height, column, sums);
  }
}

// Every tile of the rows x [rows][depth]; for each row the columns ascend.
template <class T, class Consumer>
void walk(const Columns<T>& y, const T* x, int64_t rows, Consumer& consumer) {
  for (int64_t column = 0; column < y.count;) {
    const int vectors = vectors_at<T>(column, y.count);
    if (vectors == kWide)
      walk_panel<kWide>(y, column, x, rows, consumer);
    else
      walk_panel<1>(y, column, x, rows, consumer);
    column += vectors * kLanes<T>;
  }
}

// Rows are taken in chunks that fit the second cache, fewer where there would be less than a few for each thread.
template <class S>
struct Chunks {
  using T = Arithmetic<S>;
  int64_t rows, depth, size;

  Chunks(int64_t rows, int64_t depth)
      : rows(rows),
        depth(depth),
        size(min(
            min(kMostChunk, max(1, kChunkBytes / (depth * static_cast<int64_t>(sizeof(T))) / kChunkStep) * kChunkStep),
            round_up(max(1, rows / 16), kChunkStep))) {}
  int64_t count() const { return (rows + size - 1) / size; }
  int64_t bytes() const { return sizeof(S) == sizeof(T) ? 0 : Scratch::bytes<T>(size * depth); }
  int64_t first(int64_t chunk) const { return chunk * size; }
  int64_t height(int64_t chunk) const { return min(size, rows - first(chunk)); }
  T* room(Scratch& memory) const { return sizeof(S) == sizeof(T) ? nullptr : memory.take<T>(size * depth); }
  // The rows in the arithmetic type: in place, or converted into `room`.
  const T* read(const S* x, int64_t chunk, T* room) const {
    const S* from = x + first(chunk) * depth;
    if constexpr (sizeof(S) == sizeof(T)) {
      return from;
    } else {
      const int64_t count = height(chunk) * depth;
      for (int64_t i = 0; i < count; ++i) room[i] = to_arithmetic(from[i]);
      return room;
    }
  }
};

}  // namespace
}  // namespace GENFAST_LEVEL
}  // namespace genfast
