#include "ops/diagonal_block.h"

#include "core/parallel.h"
#include "lstm/grid_gradient.h"

namespace genfast {
namespace GENFAST_ISA {
namespace {

// One image at a time from input to output, so that what lies between stays in cache: input-to-state inside the
// scan, both directions, the right-to-left map a row further down, the 1x1 product and the residual.

template <class S>
int64_t output_room(const GridShape& s) {
  return column_room<S>(s.hidden, s.inputs);
}

// sum[p] = left-to-right[p] + right-to-left[p - one row].
template <class S>
void add_directions(const GridShape& s, const S* hidden, S* sum) {
  for (int64_t p = 0; p < s.pixels(); ++p)
    for (int64_t u = 0; u < s.hidden; u += kLanes<S>) {
      const int64_t n = s.hidden - u;
      Vector<S> h = load(hidden + 2 * p * s.hidden + u, n);
      if (p >= s.width) h += load(hidden + (2 * (p - s.width) + 1) * s.hidden + u, n);
      store(sum + p * s.hidden + u, h, n);
    }
}

template <class S>
int forward_images(const DiagonalBlockForward& a, const GridShape& s, const S* weight, const S* output_weight,
                   int64_t begin, int64_t end) {
  Scratch memory(forward_scratch<S>(DiagonalWalk(s, 0)) + Scratch::bytes<S>(2 * s.pixels() * s.hidden) +
                 Scratch::bytes<S>(s.pixels() * s.hidden));
  if (memory.failed()) return kNoMemory;
  for (int64_t b = begin; b < end; ++b) {
    Scratch::Frame frame(memory);
    const S* x = static_cast<const S*>(a.x) + b * s.pixels() * s.inputs;
    S* hidden = a.hidden ? static_cast<S*>(a.hidden) + b * s.pixels() * 2 * s.hidden
                         : memory.take<S>(2 * s.pixels() * s.hidden);
    for (int64_t d = 0; d < 2; ++d) {
      Scratch::Frame scan(memory);
      forward_scan<S, DiagonalWalk>({{s, d},
                                     weight + d * forward_room<S>(s),
                                     static_cast<const S*>(a.input_bias) + d * s.gates(),
                                     static_cast<const S*>(a.h0) + d * s.hidden,
                                     static_cast<const S*>(a.c0) + d * s.hidden,
                                     {x, s.inputs},
                                     {nullptr, 0},
                                     {hidden + d * s.hidden, 2 * s.hidden},
                                     saved_of<S>(a.saved_gates, b, 2, d, s, s.gates()),
                                     saved_of<S>(a.saved_cells, b, 2, d, s, s.hidden)},
                                    memory);
    }
    S* sum = memory.take<S>(s.pixels() * s.hidden);
    add_directions(s, hidden, sum);
    S* y = static_cast<S*>(a.y) + b * s.pixels() * s.inputs;
    multiply<S>({s.pixels(), s.inputs, s.hidden, sum, s.hidden, 1, output_weight, x,
                 static_cast<const S*>(a.output_bias), y, s.inputs});
  }
  return kOk;
}

// Partial sums of one part: the two directions' WeightGradients, then output weight [C, F] and bias [F].
template <class S>
int64_t part_size(const GridShape& s) {
  return 2 * WeightGradient<S>::size(s) + round_up((s.hidden + 1) * s.inputs, 16);
}

template <class S>
struct Backward {
  const DiagonalBlockBackward& a;
  GridShape shape;
  const S *weight, *input_weight,
      *output_weight;  // packed for the reverse scan, for grad_x and for the grad of the sum
  S* sums;
  int64_t parts;
};

template <class S>
void backward_image(const Backward<S>& job, int64_t b, S* sums, Scratch& memory) {
  const DiagonalBlockBackward& a = job.a;
  const GridShape& s = job.shape;
  Scratch::Frame frame(memory);
  const int64_t pixels = s.pixels();
  const S* x = static_cast<const S*>(a.x) + b * pixels * s.inputs;
  const S* grad_y = static_cast<const S*>(a.grad_y) + b * pixels * s.inputs;
  const S* hidden = static_cast<const S*>(a.hidden) + b * pixels * 2 * s.hidden;
  S* grad_sum = memory.take<S>(pixels * s.hidden);
  S* grad_gates = memory.take<S>(pixels * s.gates());  // of one direction at a time
  S* grad_x = static_cast<S*>(a.grad_x) + b * pixels * s.inputs;
  multiply<S>(
      {pixels, s.hidden, s.inputs, grad_y, s.inputs, 1, job.output_weight, nullptr, nullptr, grad_sum, s.hidden});
  for (int64_t d = 0; d < 2; ++d) {
    Scratch::Frame scan(memory);
    const DiagonalWalk walk(s, d);
    const WeightGradient<S> gradient(s, sums + d * WeightGradient<S>::size(s));
    backward_scan<S, DiagonalWalk>({walk,
                                    job.weight + d * backward_room<S>(s),
                                    static_cast<const S*>(a.c0) + d * s.hidden,
                                    {grad_sum, s.hidden},
                                    d * s.width,
                                    saved_of<const S>(a.saved_gates, b, 2, d, s, s.gates()),
                                    saved_of<const S>(a.saved_cells, b, 2, d, s, s.hidden),
                                    {grad_gates, s.gates()}},
                                   gradient.c0, memory);
    add_weight_gradient<S>(walk, {x, s.inputs}, {hidden + d * s.hidden, 2 * s.hidden},
                           static_cast<const S*>(a.h0) + d * s.hidden, {grad_gates, s.gates()}, gradient, memory);
    multiply<S>({pixels, s.inputs, s.gates(), grad_gates, s.gates(), 1,
                 job.input_weight + d * column_room<S>(s.gates(), s.inputs), d ? grad_x : grad_y, nullptr, grad_x,
                 s.inputs});
  }

  S *grad_output_weight = sums + 2 * WeightGradient<S>::size(s),
    *grad_output_bias = grad_output_weight + s.hidden * s.inputs;
  S* sum = grad_sum;  // no longer needed
  add_directions(s, hidden, sum);
  for (int64_t p = 0; p < pixels; ++p) add(grad_y + p * s.inputs, s.inputs, grad_output_bias);
  S* columns = memory.take<S>(column_room<S>(pixels, s.inputs));
  pack_columns(pixels, s.inputs, grad_y, s.inputs, 1, columns);
  multiply<S>({s.hidden, s.inputs, pixels, sum, 1, s.hidden, columns, grad_output_weight, nullptr, grad_output_weight,
               s.inputs});
}

template <class S>
int64_t backward_image_scratch(const GridShape& s) {
  const int64_t scan = backward_scratch<S>(DiagonalWalk(s, 0)) + weight_gradient_scratch<S>(s);
  const int64_t output = Scratch::bytes<S>(column_room<S>(s.pixels(), s.inputs));
  return Scratch::bytes<S>(s.pixels() * s.hidden) + Scratch::bytes<S>(s.pixels() * s.gates()) + max(scan, output);
}

template <class S>
int backward_images(const Backward<S>& job, int64_t begin, int64_t end) {
  Scratch memory(backward_image_scratch<S>(job.shape));
  if (memory.failed()) return kNoMemory;
  for (int64_t part = begin; part < end; ++part) {
    S* sums = job.sums + part * part_size<S>(job.shape);
    memset(sums, 0, static_cast<size_t>(part_size<S>(job.shape)) * sizeof *sums);
    for (int64_t b = part * job.a.batch / job.parts; b < (part + 1) * job.a.batch / job.parts; ++b)
      backward_image(job, b, sums, memory);
  }
  return kOk;
}

template <class S>
int forward(const DiagonalBlockForward& a) {
  const GridShape s{a.height, a.width, a.hidden_size, a.features, DiagonalWalk::kTaps};
  const int64_t pixels = a.batch * s.pixels() * static_cast<int64_t>(sizeof(S));
  use_huge_pages(a.y, pixels * s.inputs);
  use_huge_pages(a.hidden, pixels * 2 * s.hidden);
  use_huge_pages(a.saved_gates, pixels * 2 * s.gates());
  use_huge_pages(a.saved_cells, pixels * 2 * s.hidden);
  Scratch memory(Scratch::bytes<S>(2 * forward_room<S>(s)) + Scratch::bytes<S>(output_room<S>(s)));
  if (memory.failed()) return kNoMemory;
  S *weight = memory.take<S>(2 * forward_room<S>(s)), *output_weight = memory.take<S>(output_room<S>(s));
  for (int64_t d = 0; d < 2; ++d) {
    S* to = weight + d * forward_room<S>(s);
    pack_forward<S>(s, static_cast<const S*>(a.input_weight) + d * s.gates(), 2 * s.gates(), s.inputs, 0, to);
    pack_forward<S>(s, static_cast<const S*>(a.weight) + 2 * d * s.hidden * s.gates(), s.gates(), 2 * s.hidden,
                    s.inputs, to);
  }
  pack_columns(s.hidden, s.inputs, static_cast<const S*>(a.output_weight), s.inputs, 1, output_weight);
  return parallel(s.pixels() ? a.batch : 0,
                  [&](int64_t begin, int64_t end) { return forward_images(a, s, weight, output_weight, begin, end); });
}

template <class S>
int backward(const DiagonalBlockBackward& a) {
  const GridShape s{a.height, a.width, a.hidden_size, a.features, DiagonalWalk::kTaps};
  use_huge_pages(a.grad_x, a.batch * s.pixels() * s.inputs * static_cast<int64_t>(sizeof(S)));
  const int64_t parts = min(a.batch, kPartialSums), size = part_size<S>(s), direction = WeightGradient<S>::size(s);
  const int64_t input_room = column_room<S>(s.gates(), s.inputs), sum_room = column_room<S>(s.inputs, s.hidden);
  Scratch memory(Scratch::bytes<S>(2 * backward_room<S>(s)) + Scratch::bytes<S>(2 * input_room) +
                 Scratch::bytes<S>(sum_room) + Scratch::bytes<S>(max(parts, 1) * size));
  if (memory.failed()) return kNoMemory;
  S *weight = memory.take<S>(2 * backward_room<S>(s)), *input_weight = memory.take<S>(2 * input_room);
  S *output_weight = memory.take<S>(sum_room), *sums = memory.take<S>(max(parts, 1) * size);
  for (int64_t d = 0; d < 2; ++d) {
    pack_backward<S>(s, static_cast<const S*>(a.weight) + 2 * d * s.hidden * s.gates(),
                     weight + d * backward_room<S>(s));
    pack_columns(s.gates(), s.inputs, static_cast<const S*>(a.input_weight) + d * s.gates(), 1, 2 * s.gates(),
                 input_weight + d * input_room);
  }
  pack_columns(s.inputs, s.hidden, static_cast<const S*>(a.output_weight), 1, s.inputs, output_weight);
  const Backward<S> job{a, s, weight, input_weight, output_weight, sums, parts};
  if (parts && s.pixels()) {
    const int status = parallel(parts, [&](int64_t begin, int64_t end) { return backward_images(job, begin, end); });
    if (status != kOk) return status;
    reduce(sums, parts, size, size);
  } else {
    memset(sums, 0, static_cast<size_t>(size) * sizeof *sums);
  }
  for (int64_t d = 0; d < 2; ++d) {
    const WeightGradient<S> sum(s, sums + d * direction);
    const int64_t state = 2 * s.hidden * s.gates();
    for (int64_t k = 0; k < s.inputs; ++k)
      write(static_cast<S*>(a.grad_input_weight) + (2 * k + d) * s.gates(), sum.weight + k * s.gates(), s.gates());
    write(static_cast<S*>(a.grad_input_bias) + d * s.gates(), sum.bias, s.gates());
    write(static_cast<S*>(a.grad_weight) + d * state, sum.weight + s.inputs * s.gates(), state);
    write(static_cast<S*>(a.grad_c0) + d * s.hidden, sum.c0, s.hidden);
    outside_gradient(s, static_cast<const S*>(a.weight) + d * state, sum.outside,
                     static_cast<S*>(a.grad_h0) + d * s.hidden);
  }
  write(static_cast<S*>(a.grad_output_weight), sums + 2 * direction, s.hidden * s.inputs);
  write(static_cast<S*>(a.grad_output_bias), sums + 2 * direction + s.hidden * s.inputs, s.inputs);
  return kOk;
}

}  // namespace

int diagonal_block_forward(const DiagonalBlockForward& a) {
  return a.type == Type::kFloat32 ? forward<float>(a) : a.type == Type::kFloat64 ? forward<double>(a) : kNoKernel;
}

int diagonal_block_backward(const DiagonalBlockBackward& a) {
  return a.type == Type::kFloat32 ? backward<float>(a) : a.type == Type::kFloat64 ? backward<double>(a) : kNoKernel;
}

}  // namespace GENFAST_ISA
}  // namespace genfast
