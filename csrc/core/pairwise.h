// All pairs of rows x and columns y without their matrix: register tiles of products, each handed to what consumes it.
//
// A product is `start` of its column plus sum_k x(k) y(k), k ascending, one fused multiply-add a term, whatever the
// tile: with -|y|^2 / 2 as the start the largest one belongs to the nearest y. A panel of columns stays in the first
// cache while the rows of a chunk pass it, so that y is read from further away once a chunk.
//
// Such scores cancel where the data lie far from the origin, and distances do not change when one vector is subtracted
// from both sides: with norms that is a centre of the columns.
#pragma once

#include "core/lane_sum.h"
#include "core/matmul.h"
#include "core/parallel.h"

namespace genfast {
namespace GENFAST_ISA {
namespace {

constexpr int64_t kChunkBytes = 64 << 10, kChunkStep = 24, kMostChunk = 240;  // rows: whole tiles on every isa

// Columns as pack_columns lays them, and where their sums start; past the last the start is -infinity, or 0.
template <class T>
struct Columns {
  int64_t count, depth;
  T *packed, *start, *centre;
  bool centred;  // not all of the centre is 0

  static int64_t bytes(int64_t count, int64_t depth) {
    return Scratch::bytes<T>(column_room<T>(depth, count)) + Scratch::bytes<T>(round_up(count, kWide * kLanes<T>)) +
           Scratch::bytes<T>(depth);
  }
  Columns(int64_t count, int64_t depth, Scratch& memory)
      : count(count),
        depth(depth),
        packed(memory.take<T>(column_room<T>(depth, count))),
        start(memory.take<T>(round_up(count, kWide * kLanes<T>))),
        centre(memory.take<T>(depth)),
        centred(false) {}
};

// |x - centre|^2, the difference in the arithmetic type as products take it.
template <class S>
GENFAST_INLINE double squared_norm(const S* x, const Arithmetic<S>* centre, int64_t depth) {
  double sum = 0;
  for (int64_t k = 0; k < depth; ++k) {
    const Arithmetic<S> value = centre ? to_arithmetic(x[k]) - centre[k] : to_arithmetic(x[k]);
    sum += static_cast<double>(value) * static_cast<double>(value);
  }
  return sum;
}

// The mean where it is at least two standard deviations from 0, else 0: data near the origin keep their bits, and one
// row that is huge or not finite does not shift the others. The mean is rounded to a multiple of a power of two not
// above the deviation: differences of whole numbers stay exact, and equal distances equal.
inline double centre_of(double mean, double variance) {
  if (!(mean * mean >= 4 * variance)) return 0;
  uint64_t bits;
  double grid;
  memcpy(&bits, &variance, sizeof bits);
  bits = static_cast<uint64_t>(((static_cast<int64_t>(bits >> 52) - 1023) >> 1) + 1023) << 52;
  memcpy(&grid, &bits, sizeof grid);
  const double steps = mean / grid, round = Exponential<double>::kRound;
  if (!(steps < 0x1p51 && steps > -0x1p51)) return mean;
  return ((steps + round) - round) * grid;
}

// Coordinates [16 begin, 16 end) of the centre; the sums are of differences from the first row, rows ascending.
template <class S>
void find_centre(const S* y, const Columns<Arithmetic<S>>& to, int64_t begin, int64_t end) {
  const int64_t depth = to.depth, count = to.count;
  for (int64_t first = begin * kSumLanes; first < min(end * kSumLanes, depth); first += kSumLanes) {
    const int64_t width = min(kSumLanes, depth - first);
    double origin[kSumLanes], sums[kSumLanes], squares[kSumLanes];
    for (int64_t i = 0; i < width; ++i) origin[i] = to_arithmetic(y[first + i]), sums[i] = squares[i] = 0;
    for (int64_t m = 1; m < count; ++m)
      for (int64_t i = 0; i < width; ++i) {
        const double difference = static_cast<double>(to_arithmetic(y[m * depth + first + i])) - origin[i];
        sums[i] += difference, squares[i] += difference * difference;
      }
    for (int64_t i = 0; i < width; ++i) {
      const double mean = sums[i] / static_cast<double>(count);
      const double variance = (squares[i] - mean * sums[i]) / static_cast<double>(count);
      to.centre[first + i] = static_cast<Arithmetic<S>>(centre_of(origin[i] + mean, variance < 0 ? 0 : variance));
    }
  }
}

// Of columns as pack_columns lays them; what stands beyond the last stays zero.
template <class T>
void subtract(int64_t depth, int64_t count, const T* centre, T* packed) {
  for (int64_t first = 0; first < count;) {
    const int64_t width = vectors_at<T>(first, count) * kLanes<T>, inside = min(width, count - first);
    for (int64_t k = 0; k < depth; ++k, packed += width)
      for (int64_t c = 0; c < inside; ++c) packed[c] -= centre[k];
    first += width;
  }
}

template <class S>
void pack_panels(const S* y, bool norms, const Columns<Arithmetic<S>>& to, int64_t begin, int64_t end) {
  using T = Arithmetic<S>;
  constexpr int64_t width = kWide * kLanes<T>;
  for (int64_t first = begin * width; first < min(end * width, to.count); first += width) {
    const int64_t count = min(width, to.count - first);
    pack_columns<T>(to.depth, count, y + first * to.depth, 1, to.depth, to.packed + first * to.depth);
    if (to.centred) subtract(to.depth, count, to.centre, to.packed + first * to.depth);
    for (int64_t c = 0; c < width; ++c) {
      T& start = to.start[first + c];
      start = 0;
      if (norms)
        start = c < count ? static_cast<T>(-0.5 * squared_norm(y + (first + c) * to.depth,
                                                               to.centred ? to.centre : nullptr, to.depth))
                          : -kInfinity<T>;
    }
  }
}

// With norms the columns are centred.
template <class S>
void pack(const S* y, bool norms, Columns<Arithmetic<S>>& to) {
  if (norms && to.count) {
    parallel(
        pieces_of(to.depth, kSumLanes), [&](int64_t begin, int64_t end) { find_centre(y, to, begin, end); },
        grain_of(to.count * kSumLanes));
    for (int64_t k = 0; k < to.depth; ++k) to.centred |= to.centre[k] != 0;
  }
  constexpr int64_t width = kWide * kLanes<Arithmetic<S>>;
  parallel(
      pieces_of(to.count, width), [&](int64_t begin, int64_t end) { pack_panels(y, norms, to, begin, end); },
      grain_of(width * to.depth));
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

// Of a row and a column as they came, for distances from the differences: in these nothing cancels.
template <class S>
Arithmetic<S> squared_distance(const S* x, const S* y, int64_t depth) {
  using T = Arithmetic<S>;
  LaneSum<T> sum;
  for (int64_t d = 0; d < depth; d += kSumLanes) {
#pragma GCC unroll 4
    for (int64_t part = 0; part < LaneSum<T>::kParts; ++part) {
      const int64_t at = d + part * kLanes<T>, left = depth - at;
      if (left <= 0) break;
      const Vector<T> difference = load(x + at, left) - load(y + at, left);
      sum.add(part, difference * difference);
    }
  }
  return sum.total();
}

// Rows are taken in chunks that fit the second cache, fewer where there would be less than a few for each thread.
template <class S>
struct Chunks {
  using T = Arithmetic<S>;
  int64_t rows, depth, size;
  const T* centre;  // of the columns, or null

  Chunks(int64_t rows, const Columns<T>& y)
      : rows(rows),
        depth(y.depth),
        size(min(
            min(kMostChunk, max(1, kChunkBytes / (depth * static_cast<int64_t>(sizeof(T))) / kChunkStep) * kChunkStep),
            round_up(max(1, rows / 16), kChunkStep))),
        centre(y.centred ? y.centre : nullptr) {}
  int64_t count() const { return pieces_of(rows, size); }
  bool in_place() const { return sizeof(S) == sizeof(T) && !centre; }
  int64_t bytes() const { return in_place() ? 0 : Scratch::bytes<T>(size * depth); }
  int64_t first(int64_t chunk) const { return chunk * size; }
  int64_t height(int64_t chunk) const { return min(size, rows - first(chunk)); }
  T* room(Scratch& memory) const { return in_place() ? nullptr : memory.take<T>(size * depth); }
  // The rows in the arithmetic type, less the centre: in place, or in `room`.
  const T* read(const S* x, int64_t chunk, T* room) const {
    const S* from = x + first(chunk) * depth;
    if constexpr (sizeof(S) == sizeof(T))
      if (!centre) return from;
    const int64_t count = height(chunk);
    for (int64_t r = 0; r < count; ++r)
      for (int64_t k = 0; k < depth; ++k) {
        const T value = to_arithmetic(from[r * depth + k]);
        room[r * depth + k] = centre ? value - centre[k] : value;
      }
    return room;
  }
};

}  // namespace
}  // namespace GENFAST_ISA
}  // namespace genfast
