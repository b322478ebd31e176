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

// The padded maps of a thread.
template <class T>
struct Maps {
  T *input, *gradient, *room;

  static int64_t bytes(const ConvShape& s) {
    return Scratch::bytes<T>(s.padded() * s.inputs) + Scratch::bytes<T>(s.padded() * s.outputs) +
           Scratch::bytes<T>(tap_products_room<T>(s));
  }
  Maps(const ConvShape& s, Scratch& memory)
      : input(memory.take<T>(s.padded() * s.inputs)),
        gradient(memory.take<T>(s.padded() * s.outputs)),
        room(memory.take<T>(tap_products_room<T>(s))) {
    memset(input, 0, static_cast<size_t>(s.padded() * s.inputs) * sizeof *input);
    memset(gradient, 0, static_cast<size_t>(s.padded() * s.outputs) * sizeof *gradient);
  }
};

template <class S>
void backward_image(const MaskedConv2dBackward& a, const ConvShape& s, const Taps& taps, const Arithmetic<S>* panels,
                    const Arithmetic<S>* zeros, int64_t b, const Maps<Arithmetic<S>>& maps, Arithmetic<S>* sums) {
  using T = Arithmetic<S>;
  const S* grad_y = static_cast<const S*>(a.grad_y) + b * s.pixels() * s.outputs;
  fill_padded(s, s.outputs, false, grad_y, maps.gradient);
  if (a.grad_x) {
    S* grad_x = static_cast<S*>(a.grad_x) + b * s.pixels() * s.inputs;
    convolve<T>(taps, {maps.gradient, s.row(), s.outputs}, s.width, s.width, s.pixels(), panels, zeros, s.inputs,
                [&](int64_t p, int64_t, int64_t column, Vector<T> x, int64_t n) {
                  store(grad_x + p * s.inputs + column, x, n);
                });
  }
  if (a.grad_weight) {
    fill_padded(s, s.inputs, true, static_cast<const S*>(a.x) + b * s.pixels() * s.inputs, maps.input);
    add_tap_products(s, maps.input, maps.gradient, maps.room, sums);
  }
  if (a.grad_bias) add_rows(s.pixels(), s.outputs, grad_y, sums + s.taps() * s.inputs * round_up(s.outputs, kLanes<T>));
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
  const Taps taps = taps_after(s);
  const int status = parallel(parts, [&](int64_t begin, int64_t end) -> int {
    Scratch scratch(Maps<T>::bytes(s));
    if (scratch.failed()) return kNoMemory;
    const Maps<T> maps(s, scratch);
    for_each_image(begin, end, parts, a.batch, [&](int64_t part, int64_t b) {
      backward_image<S>(a, s, taps, panels, zeros, b, maps, sums + part * size);
    });
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
