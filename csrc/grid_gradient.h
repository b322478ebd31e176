// Gradients of the weights of a grid LSTM: one product an image, summed in an order that no thread count changes.
#pragma once

#include "grid_lstm.h"

namespace genfast {
namespace GENFAST_LEVEL {
namespace {

// Partial sums of one direction: the stacked weight gradient [input; above; side] x 4C, the sum of the gate
// gradients over all pixels and over those that read outside the image above and at the side, and that of c0.
template <class T>
struct WeightGradient {
  T *weight, *bias, *outside, *c0;

  static int64_t size(const GridShape& s) { return round_up((s.depth() + 3) * s.gates() + s.hidden, 16); }
  WeightGradient(const GridShape& s, T* at)
      : weight(at), bias(at + s.depth() * s.gates()), outside(bias + s.gates()), c0(outside + 2 * s.gates()) {}
};

template <class S>
int64_t weight_gradient_scratch(const GridShape& s) {
  using T = Arithmetic<S>;
  return Scratch::bytes<T>(2 * s.hidden * s.pixels()) + Scratch::bytes<T>(column_room<T>(s.pixels(), s.gates()));
}

template <class T, class S>
void add(const S* from, int64_t count, T* to) {
  for (int64_t n = 0; n < count; n += kLanes<T>)
    store(to + n, load(to + n, count - n) + load(from + n, count - n), count - n);
}
template <class T, class S>
void copy(const S* from, int64_t count, T* to) {
  for (int64_t n = 0; n < count; n += kLanes<T>) store(to + n, load(from + n, count - n), count - n);
}

template <class S>
void add_weight_gradient(const Walk& walk, Map<const S> input, Map<const S> hidden, const S* h0,
                         Map<const S> grad_gates, WeightGradient<Arithmetic<S>> to, Scratch& scratch) {
  using T = Arithmetic<S>;
  const GridShape& s = walk.shape;
  T* neighbours = scratch.take<T>(2 * s.hidden * s.pixels());  // [pixels][above, side][C]
  T* packed = scratch.take<T>(column_room<T>(s.pixels(), s.gates()));
  const T* columns = packed;
  const int64_t back = walk.mirrored ? 1 : -1, first = walk.mirrored ? s.width - 1 : 0;
  for (int64_t i = 0; i < s.height; ++i)
    for (int64_t j = 0; j < s.width; ++j) {
      const int64_t p = i * s.width + j;
      T* row = neighbours + 2 * p * s.hidden;
      copy(i ? hidden.at(p - s.width) : h0, s.hidden, row);
      copy(j != first ? hidden.at(p + back) : h0, s.hidden, row + s.hidden);
      if (s.inputs) add(grad_gates.at(p), s.gates(), to.bias);
      if (!i) add(grad_gates.at(p), s.gates(), to.outside);
      if (j == first) add(grad_gates.at(p), s.gates(), to.outside + s.gates());
    }
  const bool is_packed =
      sizeof(S) == sizeof(T) && grad_gates.pixel == kWide * kLanes<T> && s.gates() == grad_gates.pixel;
  if (is_packed)
    columns = reinterpret_cast<const T*>(grad_gates.data);
  else
    pack_columns(s.pixels(), s.gates(), grad_gates.data, grad_gates.pixel, 1, packed);
  if constexpr (sizeof(S) == sizeof(T))
    if (s.inputs)
      multiply<T>({s.inputs, s.gates(), s.pixels(), input.data, 1, input.pixel, columns, to.weight, nullptr, to.weight,
                   s.gates()});
  T* state = to.weight + s.inputs * s.gates();
  multiply<T>(
      {2 * s.hidden, s.gates(), s.pixels(), neighbours, 1, 2 * s.hidden, columns, state, nullptr, state, s.gates()});
}

// Adds `parts` partial sums, `stride` elements apart, into the first.
template <class T>
struct Reduction {
  T* sums;
  int64_t parts, stride, size;
};
template <class T>
void reduce(const Reduction<T>& r) {
  constexpr int64_t chunk = 1024;
  parallel_for((r.size + chunk - 1) / chunk,
               [](int64_t begin, int64_t end, void* context) {
                 const Reduction<T>& r = *static_cast<Reduction<T>*>(context);
                 for (int64_t part = 1; part < r.parts; ++part)
                   for (int64_t e = begin * chunk; e < min(end * chunk, r.size); e += kLanes<T>)
                     store(r.sums + e, load(r.sums + e) + load(r.sums + part * r.stride + e));
               },
               const_cast<Reduction<T>*>(&r));
}

// What h0 [C] receives: the gate gradients of the pixels that read it, through the weights they read it by.
template <class S>
void outside_gradient(const GridShape& s, const S* weight, const Arithmetic<S>* outside, S* grad_h0) {
  for (int64_t u = 0; u < s.hidden; ++u) {
    Arithmetic<S> sum = 0;
    for (int64_t tap = 0; tap < 2; ++tap)
      for (int64_t n = 0; n < s.gates(); ++n)
        sum += to_arithmetic(weight[(tap * s.hidden + u) * s.gates() + n]) * outside[tap * s.gates() + n];
    assign(grad_h0[u], sum);
  }
}

template <class S>
void write(S* to, const Arithmetic<S>* from, int64_t count) {
  for (int64_t n = 0; n < count; ++n) assign(to[n], from[n]);
}

}  // namespace
}  // namespace GENFAST_LEVEL
}  // namespace genfast
