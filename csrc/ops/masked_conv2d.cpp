#include "ops/masked_conv2d.h"

#include "conv/masked_conv.h"

namespace genfast {
namespace GENFAST_ISA {
namespace {

template <class A>
ConvShape shape_of(const A& a) {
  return {a.height, a.width, a.inputs, a.outputs, a.kernel_height / 2, a.kernel_width / 2, a.dilation, a.centre};
}

template <class S>
int forward(const MaskedConv2dForward& a) {
  using T = Arithmetic<S>;
  const ConvShape s = shape_of(a);
  const Taps taps = taps_before(s);
  use_huge_pages(a.y, a.batch * s.pixels() * s.outputs * static_cast<int64_t>(sizeof(S)));
  Scratch memory(Scratch::bytes<T>(panel_room<T>(taps.depth, s.outputs)) +
                 Scratch::bytes<T>(panel_room<T>(1, s.outputs)));
  if (memory.failed()) return kNoMemory;
  T *panels = memory.take<T>(panel_room<T>(taps.depth, s.outputs)), *bias = memory.take<T>(panel_room<T>(1, s.outputs));
  pack_before(s, static_cast<const S*>(a.weight), panels);
  pad_bias(static_cast<const S*>(a.bias), s.outputs, bias);
  return parallel(s.pixels() ? a.batch : 0, [&](int64_t begin, int64_t end) -> int {
    Scratch scratch(Scratch::bytes<T>(s.padded() * s.inputs));
    if (scratch.failed()) return kNoMemory;
    T* map = scratch.take<T>(s.padded() * s.inputs);
    memset(map, 0, static_cast<size_t>(s.padded() * s.inputs) * sizeof *map);
    for (int64_t b = begin; b < end; ++b) {
      S* y = static_cast<S*>(a.y) + b * s.pixels() * s.outputs;
      fill_padded(s, s.inputs, true, static_cast<const S*>(a.x) + b * s.pixels() * s.inputs, map);
      convolve<T>(
          taps, {map, s.row(), s.inputs}, s.width, s.width, s.pixels(), panels, bias, s.outputs,
          [&](int64_t p, int64_t, int64_t column, Vector<T> x, int64_t n) { store(y + p * s.outputs + column, x, n); });
    }
    return kOk;
  });
}

// Partial sums of one part: those of the weight, [taps][C][whole vectors of O], then the bias.
template <class T>
int64_t part_size(const ConvShape& s) {
  return round_up((s.taps() * s.inputs + 1) * round_up(s.outputs, kLanes<T>), 16);
}

template <class S>
int backward_images(const MaskedConv2dBackward& a, const ConvShape& s, const Arithmetic<S>* panels,
                    const Arithmetic<S>* zeros, Arithmetic<S>* sums, int64_t begin, int64_t end) {
  using T = Arithmetic<S>;
  const int64_t inputs = s.padded() * s.inputs, outputs = s.padded() * s.outputs;
  Scratch scratch(Scratch::bytes<T>(inputs) + Scratch::bytes<T>(outputs) + Scratch::bytes<T>(tap_products_room<T>(s)));
  if (scratch.failed()) return kNoMemory;
  T *map = scratch.take<T>(inputs), *gradient = scratch.take<T>(outputs),
    *room = scratch.take<T>(tap_products_room<T>(s));
  memset(map, 0, static_cast<size_t>(inputs) * sizeof *map);
  memset(gradient, 0, static_cast<size_t>(outputs) * sizeof *gradient);
  const Taps taps = taps_after(s);
  for (int64_t b = begin; b < end; ++b) {
    const S* grad_y = static_cast<const S*>(a.grad_y) + b * s.pixels() * s.outputs;
    fill_padded(s, s.outputs, false, grad_y, gradient);
    if (a.grad_x) {
      S* grad_x = static_cast<S*>(a.grad_x) + b * s.pixels() * s.inputs;
      convolve<T>(taps, {gradient, s.row(), s.outputs}, s.width, s.width, s.pixels(), panels, zeros, s.inputs,
                  [&](int64_t p, int64_t, int64_t column, Vector<T> x, int64_t n) {
                    store(grad_x + p * s.inputs + column, x, n);
                  });
    }
    if (a.grad_weight) {
      fill_padded(s, s.inputs, true, static_cast<const S*>(a.x) + b * s.pixels() * s.inputs, map);
      add_tap_products(s, map, gradient, room, sums);
    }
    if (a.grad_bias)
      add_rows(s.pixels(), s.outputs, grad_y, sums + s.taps() * s.inputs * round_up(s.outputs, kLanes<T>));
  }
  return kOk;
}

template <class S>
int backward(const MaskedConv2dBackward& a) {
  using T = Arithmetic<S>;
  const ConvShape s = shape_of(a);
  use_huge_pages(a.grad_x, a.batch * s.pixels() * s.inputs * static_cast<int64_t>(sizeof(S)));
  const int64_t size = part_size<T>(s), parts = s.pixels() ? min(a.batch, parts_of<T>(size)) : 0;
  const int64_t room = panel_room<T>(s.taps() * s.outputs, s.inputs), wide = panel_room<T>(1, s.inputs);
  Scratch memory(Scratch::bytes<T>(room) + Scratch::bytes<T>(wide) + Scratch::bytes<T>(max(parts, 1) * size));
  if (memory.failed()) return kNoMemory;
  T *panels = memory.take<T>(room), *zeros = memory.take<T>(wide), *sums = memory.take<T>(max(parts, 1) * size);
  pack_after(s, static_cast<const S*>(a.weight), panels);
  memset(zeros, 0, static_cast<size_t>(wide) * sizeof *zeros);
  memset(sums, 0, static_cast<size_t>(max(parts, 1) * size) * sizeof *sums);
  const int status = parallel(parts, [&](int64_t begin, int64_t end) -> int {
    for (int64_t part = begin; part < end; ++part) {
      const int64_t first = part * a.batch / parts, last = (part + 1) * a.batch / parts;
      const int done = backward_images<S>(a, s, panels, zeros, sums + part * size, first, last);
      if (done != kOk) return done;
    }
    return kOk;
  });
  if (status != kOk) return status;
  reduce(sums, parts, size, size);
  if (a.grad_weight) write_weight_gradient(s, sums, static_cast<S*>(a.grad_weight));
  if (a.grad_bias)
    write(static_cast<S*>(a.grad_bias), sums + s.taps() * s.inputs * round_up(s.outputs, kLanes<T>), s.outputs);
  return kOk;
}

}  // namespace

GENFAST_KERNEL(masked_conv2d_forward, MaskedConv2dForward, forward)
GENFAST_KERNEL(masked_conv2d_backward, MaskedConv2dBackward, backward)

}  // namespace GENFAST_ISA
}  // namespace genfast
