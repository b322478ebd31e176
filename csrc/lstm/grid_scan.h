// One direction of one image of a grid LSTM: the forward and the reverse scan, step by step.
//
// A walk says which cells make up a step: an anti-diagonal or a row. All cells of a step are independent, and each has
// a lane, which keeps its cell state. The hidden state of a step lies in scratch, lane by lane, so that what a cell
// reads of the step before, one neighbour for each tap, lies side by side in memory; nothing is skewed or flipped.
#pragma once

#include "core/matmul.h"

namespace genfast {
namespace GENFAST_ISA {
namespace {

// Sizes of one layer: `inputs` features are multiplied inside the scan (0: the gates come precomputed).
struct GridShape {
  int64_t height, width, hidden, inputs, taps;

  int64_t pixels() const { return height * width; }
  int64_t gates() const { return 4 * hidden; }
  int64_t depth() const { return inputs + taps * hidden; }  // rows of the stacked weight: the input, then each tap
};

// One direction of one image in memory: a pointer to its first pixel, and elements from pixel to pixel.
template <class E>
struct Map {
  E* data;
  int64_t pixel;

  E* at(int64_t p) const { return data + p * pixel; }
  explicit operator bool() const { return data != nullptr; }
};

// Direction `direction` of image `image` in a contiguous [B, H, W, D, width] tensor.
template <class E, class P>
Map<E> map_of(P* data, int64_t image, int64_t directions, int64_t direction, const GridShape& s, int64_t width) {
  if (!data) return {nullptr, 0};
  E* first = static_cast<E*>(data);
  return {first + (image * s.pixels() * directions + direction) * width, directions * width};
}

// Ask for `count` elements of a cell that is one step ahead: cells of a diagonal lie rows apart, a pattern that no
// hardware prefetcher follows.
template <class E>
GENFAST_INLINE void prefetch(const E* at, int64_t count) {
  const char* line = reinterpret_cast<const char*>(at);
  for (int64_t byte = 0; byte < count * static_cast<int64_t>(sizeof(E)); byte += 64) __builtin_prefetch(line + byte);
}

// The saved activations of one direction of one image: contiguous, and in the order of the scan rather than of the
// pixels: both scans run straight through them.
template <class E, class P>
E* saved_of(P* data, int64_t image, int64_t directions, int64_t direction, const GridShape& s, int64_t width) {
  return data ? static_cast<E*>(data) + (image * directions + direction) * s.pixels() * width : nullptr;
}

// A walk has steps 0 .. steps() - 1; step t holds the lanes first(t) .. end(t) - 1, none when t is outside. The cell of
// lane l reads, by tap k, lane l + k of the step before, where lanes are counted from the outside one in front of them.

// Anti-diagonals: the lane is the row, tap 0 reads the row above, tap 1 the side, which is the same lane.
struct DiagonalWalk {
  static constexpr int64_t kTaps = 2;
  GridShape shape;
  bool mirrored;

  DiagonalWalk(const GridShape& s, int64_t direction) : shape(s), mirrored(direction == 1) {}
  int64_t lanes() const { return shape.height; }
  int64_t steps() const { return shape.height + shape.width - 1; }
  int64_t first(int64_t t) const { return max(0, t - shape.width + 1); }
  int64_t end(int64_t t) const { return min(shape.height, t + 1); }
  int64_t pixel(int64_t lane, int64_t t) const {
    const int64_t j = t - lane;
    return lane * shape.width + (mirrored ? shape.width - 1 - j : j);
  }
  // The pixel that tap k of the pixel in row i, column j reads; -1 outside the image.
  int64_t neighbour(int64_t i, int64_t j, int64_t k) const {
    const int64_t row = k == 0 ? i - 1 : i, column = k == 0 ? j : mirrored ? j + 1 : j - 1;
    return row >= 0 && column >= 0 && column < shape.width ? row * shape.width + column : -1;
  }
};

// Rows: the lane is the column, taps 0, 1 and 2 read the row above at the left, straight up and at the right.
struct RowWalk {
  static constexpr int64_t kTaps = 3;
  GridShape shape;

  RowWalk(const GridShape& s, int64_t) : shape(s) {}
  int64_t lanes() const { return shape.width; }
  int64_t steps() const { return shape.height; }
  int64_t first(int64_t) const { return 0; }
  int64_t end(int64_t t) const { return t >= 0 && t < shape.height ? shape.width : 0; }
  int64_t pixel(int64_t lane, int64_t t) const { return t * shape.width + lane; }
  int64_t neighbour(int64_t i, int64_t j, int64_t k) const {
    const int64_t column = j + k - 1;
    return i && column >= 0 && column < shape.width ? (i - 1) * shape.width + column : -1;
  }
};

template <class S>
GENFAST_INLINE int64_t row_size(int64_t hidden) {
  return round_up(hidden, kLanes<Arithmetic<S>>);
}

// The stacked weight [input; taps] x 4C, by panels of one vector of units with its four gates together:
// [panel][k][gate][lane], the input and each tap padded to whole pairs.
template <class S>
int64_t forward_panel_depth(const GridShape& s) {
  return padded_depth<S>(s.inputs) + s.taps * padded_depth<S>(s.hidden);
}
template <class S>
int64_t forward_room(const GridShape& s) {
  return forward_panel_depth<S>(s) * 4 * row_size<S>(s.hidden);
}

// `rows` rows of 4C values at `weight`, `row` elements apart, placed from depth `first` on.
template <class S>
void pack_forward(const GridShape& s, const S* weight, int64_t row, int64_t rows, int64_t first, Operand<S>* to) {
  constexpr int64_t lanes = kLanes<Arithmetic<S>>;
  const int64_t panel_size = forward_panel_depth<S>(s) * 4 * lanes;
  for (int64_t u = 0; u < s.hidden; u += lanes, to += panel_size)
    for (int64_t k = 0; k < padded_depth<S>(rows); ++k)
      for (int g = 0; g < 4; ++g)
        for (int64_t lane = 0; lane < lanes; ++lane) {
          const bool inside = k < rows && u + lane < s.hidden;
          const Arithmetic<S> value = inside ? to_arithmetic(weight[k * row + g * s.hidden + u + lane]) : 0;
          pack_element<S>(to, 4, first + k, g, lane, value);
        }
}

template <class S, class Walk>
struct ForwardImage {
  Walk walk;
  const Operand<S>* weight;     // pack_forward
  const Arithmetic<S>* bias;    // [4C], or null when `gates` holds the input-to-state
  const S *h0, *c0;             // [C]
  Map<const Operand<S>> input;  // [pixels][inputs]
  Map<const S> gates;           // [pixels][4C]
  Map<S> hidden;                // [pixels][C]
  S* saved_gates;               // [cells in scan order][4C], or null
  Arithmetic<S>* saved_cells;   // [cells in scan order][C], or null
};

template <class S>
struct ForwardCell {
  int64_t pixel, order;
  const Operand<S>* input;
  const Operand<S>* state;  // what each tap reads, row_size apart
  Operand<S>* next;
  Arithmetic<S>* cell;
};

template <class S, class Walk>
GENFAST_INLINE void finish_forward(const ForwardImage<S, Walk>& image, const ForwardCell<S>& cell, int64_t u,
                                   const Arithmetic<S>* sum) {
  using T = Arithmetic<S>;
  constexpr int64_t lanes = kLanes<T>;
  const int64_t size = image.walk.shape.hidden, n = size - u;
  const Gates<T> a = activate<T>(load(sum), load(sum + lanes), load(sum + 2 * lanes), load(sum + 3 * lanes));
  const Vector<T> c = fma(a.f, load(cell.cell + u), a.i * a.g);
  const Vector<T> h = round_to<S>(a.o * tanh<T>(c));
  store(cell.cell + u, c);
  store(cell.next + u, h);
  store(image.hidden.at(cell.pixel) + u, h, n);
  if (image.saved_gates) {
    S* gates = image.saved_gates + cell.order * 4 * size + u;
    stream(gates, a.i, n);
    stream(gates + size, a.f, n);
    stream(gates + 2 * size, a.g, n);
    stream(gates + 3 * size, a.o, n);
    stream(image.saved_cells + cell.order * size + u, c, n);
  }
}

// One vector of units of all cells of a step, tile by tile.
template <class S, class Walk>
void forward_cells(const ForwardImage<S, Walk>& image, const ForwardCell<S>* cells, int64_t count, int64_t u) {
  using T = Arithmetic<S>;
  constexpr int64_t lanes = kLanes<T>;
  constexpr bool same_type = sizeof(S) == sizeof(T);
  const GridShape& s = image.walk.shape;
  const Operand<S>* panel = image.weight + u / lanes * forward_panel_depth<S>(s) * 4 * lanes;
  const int64_t n = s.hidden - u;
  const bool direct = same_type && n >= lanes;  // the gates can be read where they are
  T first[kWideRows * 4 * lanes], sum[kWideRows * 4 * lanes];
  const T* start[kWideRows];
  const Operand<S>*inputs[kWideRows], *states[kWideRows];
  const Source<S> sources[2] = {{inputs, 1, 0, s.inputs, 1}, {states, Walk::kTaps, row_size<S>(s.hidden), s.hidden, 1}};
  for (int64_t m = 0; m < count; m += kWideRows) {
    const int64_t height = min(kWideRows, count - m);
    for (int64_t r = 0; r < height; ++r) {
      const ForwardCell<S>& cell = cells[m + r];
      inputs[r] = cell.input;
      states[r] = cell.state;
      if (image.bias && direct) {
        start[r] = image.bias + u;
      } else if (direct) {
        start[r] = reinterpret_cast<const T*>(image.gates.at(cell.pixel) + u);
      } else {
        start[r] = first + r * 4 * lanes;
        for (int64_t g = 0; g < 4; ++g)
          store(first + (4 * r + g) * lanes, image.bias ? load(image.bias + g * s.hidden + u, n)
                                                        : load(image.gates.at(cell.pixel) + g * s.hidden + u, n));
      }
    }
    const int skip = s.inputs ? 0 : 1;
    tile_of<S, 4>(height, start, direct ? s.hidden : lanes, sources + skip, 2 - skip, panel, sum);
    for (int64_t r = 0; r < height; ++r) finish_forward(image, cells[m + r], u, sum + r * 4 * lanes);
  }
}

template <class S, class Walk>
int64_t forward_scratch(const Walk& walk) {
  const int64_t row = row_size<S>(walk.shape.hidden), lanes = walk.lanes();
  return 2 * Scratch::bytes<Operand<S>>((lanes + Walk::kTaps - 1) * row) + Scratch::bytes<Arithmetic<S>>(lanes * row) +
         Scratch::bytes<ForwardCell<S>>(lanes);
}

template <class S, class Walk>
void forward_scan(const ForwardImage<S, Walk>& image, Scratch& scratch) {
  using T = Arithmetic<S>;
  const Walk& walk = image.walk;
  const GridShape& s = walk.shape;
  const int64_t row = row_size<S>(s.hidden), lanes = walk.lanes(), states = lanes + Walk::kTaps - 1;
  Operand<S>* state[2] = {scratch.take<Operand<S>>(states * row), scratch.take<Operand<S>>(states * row)};
  T* cell = scratch.take<T>(lanes * row);
  ForwardCell<S>* cells = scratch.take<ForwardCell<S>>(lanes);
  for (int64_t u = 0; u < row; u += kLanes<T>) {
    const Vector<T> h = load(image.h0 + min(u, s.hidden), s.hidden - u),
                    c = load(image.c0 + min(u, s.hidden), s.hidden - u);
    for (int64_t i = 0; i < states; ++i) {
      store(state[0] + i * row + u, h);
      store(state[1] + i * row + u, h);
      if (i < lanes) store(cell + i * row + u, c);
    }
  }
  for (int64_t t = 0, order = 0; t < walk.steps(); ++t) {
    const Operand<S>* before = state[t % 2];
    Operand<S>* after = state[1 - t % 2] + row;
    const int64_t first = walk.first(t), count = walk.end(t) - first;
    for (int64_t r = 0; r < count; ++r, ++order) {
      const int64_t i = first + r, p = walk.pixel(i, t);
      if (image.gates && i >= walk.first(t + 1) && i < walk.end(t + 1))
        prefetch(image.gates.at(walk.pixel(i, t + 1)), s.gates());
      cells[r] = {p, order, image.input.at(p), before + i * row, after + i * row, cell + i * row};
    }
    for (int64_t u = 0; u < s.hidden; u += kLanes<T>) forward_cells(image, cells, count, u);
  }
  finish_streams();
}

// Transposed weights for the reverse scan, [gates of the last tap, then of those before][C] -> C, packed like
// pack_columns but with pairs: panels [k][vectors][lane].
template <class S>
int64_t backward_room(const GridShape& s) {
  return 4 * s.taps * padded_depth<S>(s.hidden) * round_up(s.hidden, kWide * kLanes<Arithmetic<S>>);
}

template <class S>
void pack_backward(const GridShape& s, const S* weight, Operand<S>* to) {
  constexpr int64_t lanes = kLanes<Arithmetic<S>>;
  const int64_t depth = padded_depth<S>(s.hidden);
  for (int64_t u = 0; u < s.hidden;) {
    const int vectors = vectors_at<Arithmetic<S>>(u, s.hidden);
    for (int64_t tap = 0; tap < s.taps; ++tap) {
      const S* from = weight + (s.taps - 1 - tap) * s.hidden * s.gates();
      for (int g = 0; g < 4; ++g)
        for (int64_t k = 0; k < depth; ++k)
          for (int64_t c = 0; c < vectors * lanes; ++c) {
            const bool inside = k < s.hidden && u + c < s.hidden;
            const Arithmetic<S> value = inside ? to_arithmetic(from[(u + c) * s.gates() + g * s.hidden + k]) : 0;
            pack_element<S>(to, vectors, (tap * 4 + g) * depth + k, c / lanes, c % lanes, value);
          }
    }
    to += 4 * s.taps * depth * vectors * lanes;
    u += vectors * lanes;
  }
}

template <class S, class Walk>
struct BackwardImage {
  Walk walk;
  const Operand<S>* weight;  // pack_backward
  const S* c0;               // [C]
  Map<const S> grad_hidden;  // [pixels][C]
  int64_t grad_shift;        // pixels that grad_hidden is read further down (beyond the image it is zero)
  const S* saved_gates;
  const Arithmetic<S>* saved_cells;
  Map<S> grad_gates;  // [pixels][4C], out
};

template <class S>
struct BackwardCell {
  int64_t pixel;
  const S* gates;
  const S* grad_hidden;  // null: zero
  const Arithmetic<S>*cell, *before;
  const Operand<S>* state;  // gate gradients of the cells that read this one, by the last tap first, a row apart
  Operand<S>* next;
  Arithmetic<S>* carry;  // gradient of the cell state, in and out
};

template <class S, class Walk>
GENFAST_INLINE void finish_backward(const BackwardImage<S, Walk>& image, const BackwardCell<S>& cell, int64_t u,
                                    Vector<Arithmetic<S>> grad_h) {
  using T = Arithmetic<S>;
  const GridShape& s = image.walk.shape;
  const int64_t row = row_size<S>(s.hidden), n = s.hidden - u;
  const S* gates = cell.gates + u;
  const Vector<T> one = broadcast(T(1));
  const Vector<T> i = load(gates, n), f = load(gates + s.hidden, n);
  const Vector<T> g = load(gates + 2 * s.hidden, n), o = load(gates + 3 * s.hidden, n);
  const Vector<T> c = load(cell.cell + u, n), before = load(cell.before + u, n), y = tanh<T>(c);
  const Vector<T> grad_c = fma(grad_h * o, fma(-y, y, one), load(cell.carry + u));
  const Vector<T> grad[4] = {round_to<S>(grad_c * g * (i * (one - i))), round_to<S>(grad_c * before * (f * (one - f))),
                             round_to<S>(grad_c * i * fma(-g, g, one)), round_to<S>(grad_h * y * (o * (one - o)))};
  store(cell.carry + u, grad_c * f);
  S* out = image.grad_gates.at(cell.pixel) + u;
#pragma GCC unroll 4
  for (int q = 0; q < 4; ++q) {
    store(cell.next + q * row + u, grad[q]);
    store(out + q * s.hidden, grad[q], n);
  }
}

// `V` vectors of units from u on, of all cells of a step, tile by tile.
template <class S, int V, class Walk>
void backward_cells(const BackwardImage<S, Walk>& image, const BackwardCell<S>* cells, int64_t count, int64_t u,
                    const Operand<S>* panel) {
  using T = Arithmetic<S>;
  constexpr int64_t lanes = kLanes<T>, rows = V == 1 ? kNarrowRows : kWideRows;
  const GridShape& s = image.walk.shape;
  T first[rows * V * lanes], sum[rows * V * lanes];
  const T* start[rows];
  const Operand<S>* states[rows];
  const Source<S> source{states, 4 * Walk::kTaps, row_size<S>(s.hidden), s.hidden, 1};
  for (int64_t m = 0; m < count; m += rows) {
    const int64_t height = min(rows, count - m);
    for (int64_t r = 0; r < height; ++r) {
      states[r] = cells[m + r].state;
      start[r] = first + r * V * lanes;
      for (int64_t v = 0; v < V; ++v) {
        const int64_t at = u + v * lanes, n = s.hidden - at;
        store(first + (r * V + v) * lanes,
              cells[m + r].grad_hidden && n > 0 ? load(cells[m + r].grad_hidden + at, n) : broadcast(T(0)));
      }
    }
    tile_of<S, V>(height, start, lanes, &source, 1, panel, sum);
    for (int64_t r = 0; r < height; ++r)
      for (int64_t v = 0; v < V && u + v * lanes < s.hidden; ++v)
        finish_backward(image, cells[m + r], u + v * lanes, load(sum + (r * V + v) * lanes));
  }
}

template <class S, class Walk>
int64_t backward_scratch(const Walk& walk) {
  const int64_t row = row_size<S>(walk.shape.hidden), lanes = walk.lanes();
  return 2 * Scratch::bytes<Operand<S>>((lanes + Walk::kTaps - 1) * 4 * row) +
         Scratch::bytes<Arithmetic<S>>((lanes + 1) * row) + Scratch::bytes<BackwardCell<S>>(lanes);
}

// The cells of step t, of which the first is number `order` of the scan; `after` and `now` hold the gate gradients of
// the step after it and its own.
template <class S, class Walk>
void backward_step(const BackwardImage<S, Walk>& image, int64_t t, int64_t order, const Operand<S>* after,
                   Operand<S>* now, Arithmetic<S>* carry, const Arithmetic<S>* outside, BackwardCell<S>* cells) {
  const Walk& walk = image.walk;
  const GridShape& s = walk.shape;
  const int64_t row = row_size<S>(s.hidden), first = walk.first(t), count = walk.end(t) - first;
  const int64_t older = order - walk.end(t - 1);  // plus the lane: where it was in the step before
  for (int64_t r = 0; r < count; ++r) {
    const int64_t i = first + r, p = walk.pixel(i, t), from = p + image.grad_shift;
    cells[r] = {p,
                image.saved_gates + (order + r) * s.gates(),
                from < s.pixels() ? image.grad_hidden.at(from) : nullptr,
                image.saved_cells + (order + r) * s.hidden,
                i < walk.end(t - 1) ? image.saved_cells + (older + i) * s.hidden : outside,
                after + i * 4 * row,
                now + (i + Walk::kTaps - 2) * 4 * row,
                carry + i * row};
  }
  const Operand<S>* panel = image.weight;
  for (int64_t u = 0; u < s.hidden;) {
    const int vectors = vectors_at<Arithmetic<S>>(u, s.hidden);
    if (vectors == kWide)
      backward_cells<S, kWide>(image, cells, count, u, panel);
    else
      backward_cells<S, 1>(image, cells, count, u, panel);
    u += vectors * kLanes<Arithmetic<S>>;
    panel += 4 * s.taps * padded_depth<S>(s.hidden) * vectors * kLanes<Arithmetic<S>>;
  }
}

// Writes grad_gates and adds the gradient that reaches the outside cell state to grad_c0 [C].
template <class S, class Walk>
void backward_scan(const BackwardImage<S, Walk>& image, Arithmetic<S>* grad_c0, Scratch& scratch) {
  using T = Arithmetic<S>;
  const Walk& walk = image.walk;
  const GridShape& s = walk.shape;
  const int64_t row = row_size<S>(s.hidden), lanes = walk.lanes(), state_size = (lanes + Walk::kTaps - 1) * 4 * row;
  Operand<S>* state[2] = {scratch.take<Operand<S>>(state_size), scratch.take<Operand<S>>(state_size)};
  T* carry = scratch.take<T>((lanes + 1) * row);
  BackwardCell<S>* cells = scratch.take<BackwardCell<S>>(lanes);
  T* outside = carry + lanes * row;
  memset(static_cast<void*>(state[0]), 0, static_cast<size_t>(state_size) * sizeof *state[0]);
  memset(static_cast<void*>(state[1]), 0, static_cast<size_t>(state_size) * sizeof *state[1]);
  memset(carry, 0, static_cast<size_t>(lanes * row) * sizeof *carry);
  for (int64_t u = 0; u < row; ++u) outside[u] = u < s.hidden ? to_arithmetic(image.c0[u]) : T(0);
  int64_t order = s.pixels();
  for (int64_t t = walk.steps() - 1; t >= 0; --t) {
    order -= walk.end(t) - walk.first(t);
    backward_step(image, t, order, state[t % 2], state[1 - t % 2], carry, outside, cells);
  }
  for (int64_t i = 0; i < lanes; ++i)
    for (int64_t u = 0; u < s.hidden; ++u) grad_c0[u] += carry[i * row + u];
}

}  // namespace
}  // namespace GENFAST_ISA
}  // namespace genfast
