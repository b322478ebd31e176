// The scans of the grid LSTM family over a batch: any walk, any element type.
#pragma once

#include "core/parallel.h"
#include "lstm/grid_arguments.h"
#include "lstm/grid_gradient.h"

namespace genfast {
namespace GENFAST_ISA {
namespace {

template <class S, class Walk>
int forward_images(const ScanForward& a, const GridShape& s, const Operand<S>* weight, int64_t begin, int64_t end) {
  Scratch memory(forward_scratch<S>(Walk(s, 0)));
  if (memory.failed()) return kNoMemory;
  for (int64_t item = begin; item < end; ++item) {
    const int64_t b = item / a.directions, d = item % a.directions;
    Scratch::Frame frame(memory);
    forward_scan<S, Walk>({{s, d},
                           weight + d * forward_room<S>(s),
                           nullptr,
                           static_cast<const S*>(a.h0) + d * s.hidden,
                           static_cast<const S*>(a.c0) + d * s.hidden,
                           {nullptr, 0},
                           map_of<const S>(a.gates, b, a.directions, d, s, s.gates()),
                           map_of<S>(a.hidden, b, a.directions, d, s, s.hidden),
                           saved_of<S>(a.saved_gates, b, a.directions, d, s, s.gates()),
                           saved_of<Arithmetic<S>>(a.saved_cells, b, a.directions, d, s, s.hidden)},
                          memory);
  }
  return kOk;
}

// `all_sums` are [parts][D] of WeightGradient.
template <class S, class Walk>
int backward_images(const ScanBackward& a, const GridShape& s, const Operand<S>* weight, Arithmetic<S>* all_sums,
                    int64_t parts, int64_t begin, int64_t end) {
  using T = Arithmetic<S>;
  const int64_t size = WeightGradient<T>::size(s);
  Scratch memory(backward_scratch<S>(Walk(s, 0)) + weight_gradient_scratch<S>(s));
  if (memory.failed()) return kNoMemory;
  for (int64_t item = begin; item < end; ++item) {
    const int64_t part = item / a.directions, d = item % a.directions;
    T* sums = all_sums + item * size;
    memset(sums, 0, static_cast<size_t>(size) * sizeof *sums);
    const WeightGradient<T> gradient(s, sums);
    for (int64_t b = part * a.batch / parts; b < (part + 1) * a.batch / parts; ++b) {
      Scratch::Frame frame(memory);
      const Walk walk(s, d);
      const Map<S> grad_gates = map_of<S>(a.grad_gates, b, a.directions, d, s, s.gates());
      backward_scan<S, Walk>({walk, weight + d * backward_room<S>(s), static_cast<const S*>(a.c0) + d * s.hidden,
                              map_of<const S>(a.grad_hidden, b, a.directions, d, s, s.hidden), 0,
                              saved_of<const S>(a.saved_gates, b, a.directions, d, s, s.gates()),
                              saved_of<const T>(a.saved_cells, b, a.directions, d, s, s.hidden), grad_gates},
                             gradient.c0, memory);
      add_weight_gradient<S>(walk, {nullptr, 0}, map_of<const S>(a.hidden, b, a.directions, d, s, s.hidden),
                             static_cast<const S*>(a.h0) + d * s.hidden, {grad_gates.data, grad_gates.pixel}, gradient,
                             memory);
    }
  }
  return kOk;
}

template <class S, class Walk>
int forward(const ScanForward& a) {
  const GridShape s{a.height, a.width, a.hidden_size, 0, Walk::kTaps};
  const int64_t cells = a.batch * s.pixels() * a.directions, size = static_cast<int64_t>(sizeof(S));
  use_huge_pages(a.hidden, cells * s.hidden * size);
  use_huge_pages(a.saved_gates, cells * s.gates() * size);
  use_huge_pages(a.saved_cells, cells * s.hidden * static_cast<int64_t>(sizeof(Arithmetic<S>)));
  Scratch memory(a.directions * Scratch::bytes<Operand<S>>(forward_room<S>(s)));
  if (memory.failed()) return kNoMemory;
  Operand<S>* weight = memory.take<Operand<S>>(a.directions * forward_room<S>(s));
  for (int64_t d = 0; d < a.directions; ++d)
    for (int64_t tap = 0; tap < s.taps; ++tap)
      pack_forward<S>(s, static_cast<const S*>(a.weight) + (s.taps * d + tap) * s.hidden * s.gates(), s.gates(),
                      s.hidden, tap * padded_depth<S>(s.hidden), weight + d * forward_room<S>(s));
  return parallel(s.pixels() ? a.batch * a.directions : 0,
                  [&](int64_t begin, int64_t end) { return forward_images<S, Walk>(a, s, weight, begin, end); });
}

template <class S, class Walk>
int backward(const ScanBackward& a) {
  using T = Arithmetic<S>;
  const GridShape s{a.height, a.width, a.hidden_size, 0, Walk::kTaps};
  use_huge_pages(a.grad_gates, a.batch * s.pixels() * a.directions * s.gates() * static_cast<int64_t>(sizeof(S)));
  const int64_t parts = min(a.batch, kPartialSums), size = WeightGradient<T>::size(s),
                sums_size = max(parts, 1) * a.directions * size;
  Scratch memory(a.directions * Scratch::bytes<Operand<S>>(backward_room<S>(s)) + Scratch::bytes<T>(sums_size));
  if (memory.failed()) return kNoMemory;
  Operand<S>* weight = memory.take<Operand<S>>(a.directions * backward_room<S>(s));
  for (int64_t d = 0; d < a.directions; ++d)
    pack_backward<S>(s, static_cast<const S*>(a.weight) + s.taps * d * s.hidden * s.gates(),
                     weight + d * backward_room<S>(s));
  T* sums = memory.take<T>(sums_size);
  if (parts && s.pixels()) {
    const int status = parallel(parts * a.directions, [&](int64_t begin, int64_t end) {
      return backward_images<S, Walk>(a, s, weight, sums, parts, begin, end);
    });
    if (status != kOk) return status;
    reduce(sums, parts, a.directions * size, a.directions * size);
  } else {
    memset(sums, 0, static_cast<size_t>(sums_size) * sizeof *sums);
  }
  for (int64_t d = 0; d < a.directions; ++d) {
    const WeightGradient<T> sum(s, sums + d * size);
    const int64_t elements = s.taps * s.hidden * s.gates();
    write(static_cast<S*>(a.grad_weight) + d * elements, sum.weight, elements);
    write(static_cast<S*>(a.grad_c0) + d * s.hidden, sum.c0, s.hidden);
    outside_gradient(s, static_cast<const S*>(a.weight) + d * elements, sum.outside,
                     static_cast<S*>(a.grad_h0) + d * s.hidden);
  }
  return kOk;
}

template <class Walk>
int scan_forward(const ScanForward& a) {
  return by_type(a.type, [&](auto s) { return forward<decltype(s), Walk>(a); });
}

template <class Walk>
int scan_backward(const ScanBackward& a) {
  return by_type(a.type, [&](auto s) { return backward<decltype(s), Walk>(a); });
}

}  // namespace
}  // namespace GENFAST_ISA
}  // namespace genfast
