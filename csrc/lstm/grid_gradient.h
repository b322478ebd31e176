// Gradients of the weights of a grid LSTM: one product an image, summed in an order that no thread count changes.
#pragma once

#include "core/partial_sums.h"
#include "lstm/grid_scan.h"

namespace genfast {
namespace GENFAST_ISA {
namespace {

// Partial sums of one direction: the stacked weight gradient [input; taps] x 4C, the sum of the gate gradients over all
// pixels and, for each tap, over those that read outside the image by it, and that of c0.
template <class T>
struct WeightGradient {
  T *weight, *bias, *outside, *c0;

  static int64_t size(const GridShape& s) { return round_up((s.depth() + 1 + s.taps) * s.gates() + s.hidden, 16); }
  WeightGradient(const GridShape& s, T* at)
      : weight(at), bias(at + s.depth() * s.gates()), outside(bias + s.gates()), c0(outside + s.taps * s.gates()) {}
};

template <class S>
int64_t weight_gradient_scratch(const GridShape& s) {
  using T = Arithmetic<S>;
  return Scratch::bytes<T>(s.taps * s.hidden * s.pixels()) + Scratch::bytes<T>(column_room<T>(s.pixels(), s.gates()));
}

template <class S, class Walk>
void add_weight_gradient(const Walk& walk, Map<const S> input, Map<const S> hidden, const S* h0,
                         Map<const S> grad_gates, WeightGradient<Arithmetic<S>> to, Scratch& scratch) {
  using T = Arithmetic<S>;
  const GridShape& s = walk.shape;
  const int64_t size = s.taps * s.hidden;
  T* neighbours = scratch.take<T>(size * s.pixels());  // [pixels][taps][C]
  T* packed = scratch.take<T>(column_room<T>(s.pixels(), s.gates()));
  const T* columns = packed;
  for (int64_t i = 0; i < s.height; ++i)
    for (int64_t j = 0; j < s.width; ++j) {
      const int64_t p = i * s.width + j;
      if (s.inputs) add(grad_gates.at(p), s.gates(), to.bias);
      for (int64_t k = 0; k < s.taps; ++k) {
        const int64_t from = walk.neighbour(i, j, k);
        copy(from < 0 ? h0 : hidden.at(from), s.hidden, neighbours + p * size + k * s.hidden);
        if (from < 0) add(grad_gates.at(p), s.gates(), to.outside + k * s.gates());
      }
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
  multiply<T>({size, s.gates(), s.pixels(), neighbours, 1, size, columns, state, nullptr, state, s.gates()});
}

// What h0 [C] receives: the gate gradients of the pixels that read it, through the weights they read it by.
template <class S>
void outside_gradient(const GridShape& s, const S* weight, const Arithmetic<S>* outside, S* grad_h0) {
  for (int64_t u = 0; u < s.hidden; ++u) {
    Arithmetic<S> sum = 0;
    for (int64_t tap = 0; tap < s.taps; ++tap)
      for (int64_t n = 0; n < s.gates(); ++n)
        sum += to_arithmetic(weight[(tap * s.hidden + u) * s.gates() + n]) * outside[tap * s.gates() + n];
    assign(grad_h0[u], sum);
  }
}

}  // namespace
}  // namespace GENFAST_ISA
}  // namespace genfast
