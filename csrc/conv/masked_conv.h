// Masked convolutions, channels last: the sums over the taps that come before a pixel, the gradient of what they read,
// and that of the weights. Taps that are masked are never computed.
#pragma once

#include "core/matmul.h"
#include "core/partial_sums.h"

namespace genfast {
namespace GENFAST_ISA {
namespace {

// A kernel of 2 above + 1 rows and 2 side + 1 columns. Of its own row it reads the taps at the left of the centre, and
// the centre itself where `centre` is 1.
struct ConvShape {
  int64_t height, width, inputs, outputs, above, side, dilation, centre;

  int64_t pixels() const { return height * width; }
  int64_t columns() const { return 2 * side + 1; }
  int64_t left() const { return side + centre; }
  int64_t taps() const { return above * columns() + left(); }
  // A padded map has this many columns, and `above * dilation` rows of zeros before the image, or after it.
  int64_t row() const { return width + 2 * side * dilation; }
  int64_t padded() const { return (height + above * dilation) * row(); }
};

// Kernels have at most 255 rows.
constexpr int kMostRows = 128;

// Where what a pixel reads lies in a map: `runs` runs of `depth` values, `step` apart, from `offset` after the pixel
// on.
struct Taps {
  int64_t count, depth;  // entries, and values of all
  struct {
    int64_t offset, runs, step, depth;
  } at[kMostRows];

  void add(int64_t offset, int64_t runs, int64_t step, int64_t values) {
    if (runs <= 0 || values <= 0) return;
    at[count++] = {offset, runs, step, values};
    depth += runs * values;
  }
};

// The taps of an output, top to bottom, left to right, in a map that is padded at the top.
inline Taps taps_before(const ConvShape& s) {
  Taps taps{};
  const int64_t row = s.row() * s.inputs, step = s.dilation * s.inputs;
  if (s.dilation == 1)
    taps.add(0, s.above, row, s.columns() * s.inputs);
  else
    for (int64_t t = 0; t < s.above; ++t) taps.add(t * s.dilation * row, s.columns(), step, s.inputs);
  const int64_t own = s.above * s.dilation * row;
  if (s.dilation == 1)
    taps.add(own, 1, 0, s.left() * s.inputs);
  else
    taps.add(own, s.left(), step, s.inputs);
  return taps;
}

// The outputs that read an input, in a map that is padded at the bottom: the same taps in reverse.
inline Taps taps_after(const ConvShape& s) {
  Taps taps{};
  const int64_t row = s.row() * s.outputs, step = s.dilation * s.outputs;
  const int64_t own = (s.side * s.dilation + (s.centre ? 0 : s.dilation)) * s.outputs;
  if (s.dilation == 1) {
    taps.add(own, 1, 0, s.left() * s.outputs);
    taps.add(row, s.above, row, s.columns() * s.outputs);
  } else {
    taps.add(own, s.left(), step, s.outputs);
    for (int64_t m = 1; m <= s.above; ++m) taps.add(m * s.dilation * row, s.columns(), step, s.outputs);
  }
  return taps;
}

// The features of the pixel itself.
inline Taps taps_of_pixel(int64_t features) {
  Taps taps{};
  taps.add(0, 1, 0, features);
  return taps;
}

// Panels of four, two or one vectors of columns.
template <class T>
GENFAST_INLINE int panel_vectors(int64_t column, int64_t columns) {
  const int64_t left = pieces_of(columns - column, kLanes<T>);
  return left > 3 ? 4 : left > 1 ? 2 : 1;
}
template <int V>
constexpr int kPanelRows = V == 4   ? kWideRows
                           : V == 2 ? 2 * kWideRows
                                    : kNarrowRows;

// body(first column, its vectors as a constant).
template <int V>
struct Vectors {
  static constexpr int value = V;
};
template <class T, class Body>
GENFAST_INLINE void for_each_panel(int64_t columns, const Body& body) {
  for (int64_t column = 0; column < columns;) {
    const int vectors = panel_vectors<T>(column, columns);
    if (vectors == 4)
      body(column, Vectors<4>());
    else if (vectors == 2)
      body(column, Vectors<2>());
    else
      body(column, Vectors<1>());
    column += vectors * kLanes<T>;
  }
}

template <class T>
int64_t panel_room(int64_t depth, int64_t columns) {
  return depth * round_up(columns, kLanes<T>);
}

// Panels [depth][vectors][lanes] of a matrix whose row k is at `row(k)`, its columns `step` apart; zero beyond them.
template <class T, class Row>
void pack_panels(int64_t depth, int64_t columns, int64_t step, T* to, const Row& row) {
  for_each_panel<T>(columns, [&](int64_t first, auto vectors) {
    const int64_t width = vectors.value * kLanes<T>, count = min(width, columns - first);
    for (int64_t k = 0; k < depth; ++k, to += width) {
      const auto* from = row(k) + first * step;
      for (int64_t c = 0; c < width; ++c) to[c] = c < count ? static_cast<T>(to_arithmetic(from[c * step])) : T(0);
    }
  });
}

// The weights [O, C, KH, KW] for `taps_before`, whose columns are the outputs.
template <class T, class S>
void pack_before(const ConvShape& s, const S* weight, T* to) {
  const int64_t kernel = (2 * s.above + 1) * s.columns();
  pack_panels(s.taps() * s.inputs, s.outputs, s.inputs * kernel, to,
              [&](int64_t k) { return weight + k % s.inputs * kernel + k / s.inputs; });
}
// The same for `taps_after`, whose columns are the inputs.
template <class T, class S>
void pack_after(const ConvShape& s, const S* weight, T* to) {
  const int64_t kernel = (2 * s.above + 1) * s.columns(), last = s.taps() - 1;
  pack_panels(s.taps() * s.outputs, s.inputs, kernel, to,
              [&](int64_t k) { return weight + k % s.outputs * s.inputs * kernel + last - k / s.outputs; });
}

// A map as `taps` reads it: rows of `row` pixels of `features` values.
template <class T>
struct ConvMap {
  const T* data;
  int64_t row, features;
};

// Where the pixels of an image are in memory: rows of `row` pixels.
struct PixelWalk {
  int64_t width, row, column, at;

  GENFAST_INLINE PixelWalk(int64_t w, int64_t r) : width(w), row(r), column(0), at(0) {}
  GENFAST_INLINE void next() {
    ++at;
    if (++column == width) column = 0, at += row - width;
  }
};

// A tile of full height, whose sums never leave the registers.
template <class T, int V, int R>
GENFAST_INLINE void sum_taps(const Taps& taps, const T* const (&base)[R], const T* b, const T* bias,
                             Vector<T> (&sum)[R][V]) {
#pragma GCC unroll 4
  for (int v = 0; v < V; ++v) {
    const Vector<T> start = load(bias + v * kLanes<T>);
#pragma GCC unroll 12
    for (int r = 0; r < R; ++r) sum[r][v] = start;
  }
  for (int64_t n = 0; n < taps.count; ++n)
    for (int64_t run = 0; run < taps.at[n].runs; ++run) {
      const int64_t offset = taps.at[n].offset + run * taps.at[n].step;
      const T* rows[R];
#pragma GCC unroll 12
      for (int r = 0; r < R; ++r) rows[r] = base[r] + offset;
      b = accumulate<T, R, V>(sum, rows, taps.at[n].depth, 1, b);
    }
}

template <class T, int V, class Store>
void convolve_panel(const Taps& taps, const ConvMap<T>& map, int64_t width, int64_t to_row, int64_t pixels,
                    const T* panel, const T* bias, int64_t column, int64_t columns, const Store& store) {
  constexpr int64_t lanes = kLanes<T>;
  constexpr int rows = kPanelRows<V>;
  const int64_t last = columns - column - (V - 1) * lanes;  // columns of the last vector
  PixelWalk from(width, map.row), to(width, to_row);
  for (int64_t p = 0; p < pixels; p += rows) {
    const int64_t height = min(rows, pixels - p);
    // A last tile that is not full repeats its last pixel.
    const T* base[rows];
    int64_t place[rows];
    for (int r = 0; r < rows; ++r) {
      base[r] = map.data + from.at * map.features, place[r] = to.at;
      if (r + 1 < height) from.next(), to.next();
    }
    from.next(), to.next();
    Vector<T> sum[rows][V];
    sum_taps<T, V, rows>(taps, base, panel, bias, sum);
    const auto store_row = [&](int r) {
#pragma GCC unroll 4
      for (int v = 0; v < V; ++v)
        if (v + 1 < V || last >= lanes)
          store(p + r, place[r], column + v * lanes, sum[r][v], lanes);
        else
          store(p + r, place[r], column + v * lanes, sum[r][v], last);
    };
#pragma GCC unroll 12
    for (int r = 0; r < rows; ++r)
      if (r < height) store_row(r);
  }
}

// store(pixel, its place in rows of `to_row` pixels, column, vector, count) of bias [columns, in whole vectors] + the
// taps of every pixel.
template <class T, class Store>
void convolve(const Taps& taps, const ConvMap<T>& map, int64_t width, int64_t to_row, int64_t pixels, const T* panels,
              const T* bias, int64_t columns, const Store& store) {
  for_each_panel<T>(columns, [&](int64_t column, auto vectors) {
    convolve_panel<T, vectors.value>(taps, map, width, to_row, pixels, panels + taps.depth * column, bias + column,
                                     column, columns, store);
  });
}

// to [m][whole vectors of n] += sum_k a[m + k * step] b[k * panel width], for one panel of columns.
template <class T, int V>
void add_product(int64_t m, int64_t depth, const T* a, int64_t step, const T* b, T* to, int64_t stride) {
  constexpr int64_t lanes = kLanes<T>;
  constexpr int rows = kPanelRows<V>;
  T sum[rows * V * lanes];
  const T *start[rows], *from[rows];
  for (int64_t first = 0; first < m; first += rows) {
    const int64_t height = min(rows, m - first);
    for (int64_t r = 0; r < height; ++r) from[r] = a + first + r, start[r] = to + (first + r) * stride;
    const Source<T> source{from, 1, 0, depth, step};
    tile_of<T, V, rows>(height, start, lanes, &source, 1, b, sum);
    for (int64_t r = 0; r < height; ++r)
      for (int64_t v = 0; v < V; ++v) store(to + (first + r) * stride + v * lanes, load(sum + (r * V + v) * lanes));
  }
}

// Rows [depth][columns] as panels: themselves, where they are those of one panel.
template <class T>
const T* row_panels(int64_t depth, int64_t columns, const T* rows, T* room) {
  if (columns == panel_vectors<T>(0, columns) * kLanes<T>) return rows;
  pack_panels(depth, columns, 1, room, [&](int64_t k) { return rows + k * columns; });
  return room;
}

// A factor of products over pixels: `m` values of each from `at` on, pixels `step` values apart, with sums [m] rows.
template <class T>
struct Factor {
  const T* at;
  int64_t m, step;
  T* sums;
};

// Pixels of a part of the products: what two maps hold of them stays in the first cache.
constexpr int64_t kProductPixels = 192;

// sums of every factor += its products with the rows [depth][columns], which `room` has place for as panels.
template <class T, class Factors>
void add_products(int64_t depth, int64_t columns, const T* rows, T* room, int64_t count, const Factors& factor) {
  const int64_t stride = round_up(columns, kLanes<T>);
  const T* panels = row_panels(depth, columns, rows, room);
  for_each_panel<T>(columns, [&](int64_t column, auto vectors) {
    constexpr int V = vectors.value;
    for (int64_t first = 0; first < depth; first += kProductPixels)
      for (int64_t n = 0; n < count; ++n) {
        const Factor<T> f = factor(n);
        add_product<T, V>(f.m, min(kProductPixels, depth - first), f.at + first * f.step, f.step,
                          panels + depth * column + first * V * kLanes<T>, f.sums + column, stride);
      }
  });
}

// sums [taps][C][whole vectors of O] += the products of a map of inputs that is padded at the top and a map of
// gradients that is padded at the bottom. One product goes over the whole image: the columns of zeros between its rows
// add nothing.
template <class T>
void add_tap_products(const ConvShape& s, const T* input, const T* gradient, T* room, T* sums) {
  if (!s.pixels() || !s.taps()) return;
  const int64_t stride = round_up(s.outputs, kLanes<T>), together = s.dilation == 1 ? s.columns() : 1;
  const auto taps = [&](int64_t n) -> Factor<T> {  // those that lie side by side are one factor
    const int64_t first = n * together, t = first / s.columns(), k = first % s.columns();
    return {input + (t * s.row() + k) * s.dilation * s.inputs, min(together, s.taps() - first) * s.inputs, s.inputs,
            sums + first * s.inputs * stride};
  };
  add_products((s.height - 1) * s.row() + s.width, s.outputs, gradient + s.side * s.dilation * s.outputs, room,
               pieces_of(s.taps(), together), taps);
}
template <class T>
int64_t tap_products_room(const ConvShape& s) {
  return panel_room<T>(s.padded(), s.outputs);
}

// grad_weight [O, C, KH, KW] from `add_tap_products`; 0 for what is masked.
template <class T, class S>
void write_weight_gradient(const ConvShape& s, const T* sums, S* to) {
  const int64_t kernel = (2 * s.above + 1) * s.columns(), stride = round_up(s.outputs, kLanes<T>);
  for (int64_t o = 0; o < s.outputs; ++o)
    for (int64_t c = 0; c < s.inputs; ++c)
      for (int64_t n = 0; n < kernel; ++n) assign(*to++, n < s.taps() ? sums[(n * s.inputs + c) * stride + o] : T(0));
}

// The place of the first pixel of an image in a padded map.
GENFAST_INLINE int64_t first_place(const ConvShape& s, bool at_top) {
  return (at_top ? s.above * s.dilation * s.row() : 0) + s.side * s.dilation;
}

// An image [pixels, features] as the middle of a padded map, whose zeros are there already.
template <class T, class S>
void fill_padded(const ConvShape& s, int64_t features, bool at_top, const S* from, T* to) {
  to += first_place(s, at_top) * features;
  for (int64_t i = 0; i < s.height; ++i, from += s.width * features, to += s.row() * features)
    copy<T>(from, s.width * features, to);
}

// sums [whole vectors] += every row of `from` [rows][columns].
template <class T, class S>
void add_rows(int64_t rows, int64_t columns, const S* from, T* sums) {
  for (int64_t c = 0; c < columns; c += kLanes<T>) {
    Vector<T> sum = load(sums + c);
    for (int64_t p = 0; p < rows; ++p) sum += load(from + p * columns + c, columns - c);
    store(sums + c, sum);
  }
}

// to [columns][rows] from sums [rows][whole vectors of columns].
template <class T, class S>
void write_transposed(const T* sums, int64_t rows, int64_t columns, S* to) {
  for (int64_t c = 0; c < columns; ++c)
    for (int64_t r = 0; r < rows; ++r) assign(*to++, sums[r * round_up(columns, kLanes<T>) + c]);
}

// A bias in whole vectors, zeros without one.
template <class T, class S>
void pad_bias(const S* bias, int64_t count, T* to) {
  for (int64_t n = 0; n < round_up(count, kLanes<T>); ++n)
    to[n] = bias && n < count ? static_cast<T>(to_arithmetic(bias[n])) : T(0);
}

}  // namespace
}  // namespace GENFAST_ISA
}  // namespace genfast
