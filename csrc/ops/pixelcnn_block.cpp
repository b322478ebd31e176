#include "ops/pixelcnn_block.h"

#include "conv/masked_conv.h"

namespace genfast {
namespace GENFAST_ISA {
namespace {

// One image at a time from input to output, so that what lies between stays in cache: ReLU, 1x1 down, ReLU, masked
// convolution, ReLU, 1x1 up and the residual.

template <class T>
GENFAST_INLINE Vector<T> relu(Vector<T> x) {
  return x < broadcast(T(0)) ? broadcast(T(0)) : x;  // a NaN stays a NaN
}

struct Block {
  ConvShape conv;
  int64_t features;

  template <class A>
  explicit Block(const A& a)
      : conv{a.height, a.width, a.hidden, a.hidden, a.kernel_height / 2, a.kernel_width / 2, 1, 1},
        features(a.features) {}
  int64_t hidden() const { return conv.inputs; }
  int64_t pixels() const { return conv.pixels(); }
};

template <class S>
void store_relu(const S* from, int64_t count, Arithmetic<S>* to) {
  using T = Arithmetic<S>;
  for (int64_t n = 0; n < count; n += kLanes<T>) store(to + n, relu<T>(load(from + n, count - n)), count - n);
}

// Weights in panels and biases in whole vectors, of a forward pass.
template <class S>
struct Weights {
  using T = Arithmetic<S>;
  T *down, *down_bias, *conv, *bias, *up, *up_bias;

  static int64_t room(const Block& s) {
    return Scratch::bytes<T>(panel_room<T>(s.features, s.hidden())) +
           2 * Scratch::bytes<T>(panel_room<T>(1, s.hidden())) +
           Scratch::bytes<T>(panel_room<T>(s.conv.taps() * s.hidden(), s.hidden())) +
           Scratch::bytes<T>(panel_room<T>(s.hidden(), s.features)) + Scratch::bytes<T>(panel_room<T>(1, s.features));
  }
  Weights(const PixelcnnBlockForward& a, const Block& s, Scratch& memory)
      : down(memory.take<T>(panel_room<T>(s.features, s.hidden()))),
        down_bias(memory.take<T>(panel_room<T>(1, s.hidden()))),
        conv(memory.take<T>(panel_room<T>(s.conv.taps() * s.hidden(), s.hidden()))),
        bias(memory.take<T>(panel_room<T>(1, s.hidden()))),
        up(memory.take<T>(panel_room<T>(s.hidden(), s.features))),
        up_bias(memory.take<T>(panel_room<T>(1, s.features))) {
    const S *down_weight = static_cast<const S*>(a.down_weight), *up_weight = static_cast<const S*>(a.up_weight);
    pack_panels(s.features, s.hidden(), s.features, down, [&](int64_t k) { return down_weight + k; });
    pack_panels(s.hidden(), s.features, s.hidden(), up, [&](int64_t k) { return up_weight + k; });
    pack_before(s.conv, static_cast<const S*>(a.weight), conv);
    pad_bias(static_cast<const S*>(a.down_bias), s.hidden(), down_bias);
    pad_bias(static_cast<const S*>(a.bias), s.hidden(), bias);
    pad_bias(static_cast<const S*>(a.up_bias), s.features, up_bias);
  }
};

template <class S>
void forward_image(const PixelcnnBlockForward& a, const Block& s, const Weights<S>& weights, int64_t b,
                   Arithmetic<S>* active, Arithmetic<S>* inner, Arithmetic<S>* outer) {
  using T = Arithmetic<S>;
  const int64_t pixels = s.pixels(), hidden = s.hidden(), features = s.features;
  const S* x = static_cast<const S*>(a.x) + b * pixels * features;
  S* saved_inner = a.inner ? static_cast<S*>(a.inner) + b * pixels * hidden : nullptr;
  S* saved_outer = a.outer ? static_cast<S*>(a.outer) + b * pixels * hidden : nullptr;
  S* y = static_cast<S*>(a.y) + b * pixels * features;
  T* middle = inner + first_place(s.conv, true) * hidden;
  store_relu(x, pixels * features, active);
  convolve<T>(taps_of_pixel(features), {active, s.conv.width, features}, s.conv.width, s.conv.row(), pixels,
              weights.down, weights.down_bias, hidden,
              [&](int64_t p, int64_t place, int64_t column, Vector<T> d, int64_t n) {
                d = round_to<S>(relu<T>(d));
                store(middle + place * hidden + column, d, n);
                if (saved_inner) store(saved_inner + p * hidden + column, d, n);
              });
  convolve<T>(taps_before(s.conv), {inner, s.conv.row(), hidden}, s.conv.width, s.conv.width, pixels, weights.conv,
              weights.bias, hidden, [&](int64_t p, int64_t, int64_t column, Vector<T> e, int64_t n) {
                e = round_to<S>(relu<T>(e));
                store(outer + p * hidden + column, e, n);
                if (saved_outer) store(saved_outer + p * hidden + column, e, n);
              });
  convolve<T>(taps_of_pixel(hidden), {outer, pixels, hidden}, pixels, pixels, pixels, weights.up, weights.up_bias,
              features, [&](int64_t p, int64_t, int64_t column, Vector<T> sum, int64_t n) {
                store(y + p * features + column, load(x + p * features + column, n) + sum, n);
              });
}

template <class S>
int forward(const PixelcnnBlockForward& a) {
  using T = Arithmetic<S>;
  const Block s(a);
  const int64_t bytes = a.batch * s.pixels() * static_cast<int64_t>(sizeof(S));
  use_huge_pages(a.y, bytes * s.features);
  use_huge_pages(a.inner, bytes * s.hidden());
  use_huge_pages(a.outer, bytes * s.hidden());
  Scratch memory(Weights<S>::room(s));
  if (memory.failed()) return kNoMemory;
  const Weights<S> weights(a, s, memory);
  const int64_t padded = s.conv.padded() * s.hidden();
  return parallel(s.pixels() ? a.batch : 0, [&](int64_t begin, int64_t end) -> int {
    Scratch scratch(Scratch::bytes<T>(s.pixels() * s.features) + Scratch::bytes<T>(padded) +
                    Scratch::bytes<T>(s.pixels() * s.hidden()));
    if (scratch.failed()) return kNoMemory;
    T *active = scratch.take<T>(s.pixels() * s.features), *inner = scratch.take<T>(padded);
    T* outer = scratch.take<T>(s.pixels() * s.hidden());
    memset(inner, 0, static_cast<size_t>(padded) * sizeof *inner);
    for (int64_t b = begin; b < end; ++b) forward_image(a, s, weights, b, active, inner, outer);
    return kOk;
  });
}

// Partial sums of one part, columns in whole vectors: down weight [F][C], its bias, convolution [taps][C][C], its bias,
// up weight [C][F], its bias.
template <class T>
struct Sums {
  T *down, *down_bias, *conv, *bias, *up, *up_bias;
  int64_t size;

  Sums(const Block& s, T* at) {
    const int64_t hidden = round_up(s.hidden(), kLanes<T>), features = round_up(s.features, kLanes<T>);
    down = at, down_bias = down + s.features * hidden;
    conv = down_bias + hidden, bias = conv + s.conv.taps() * s.hidden() * hidden;
    up = bias + hidden, up_bias = up + s.hidden() * features;
    size = round_up(up_bias + features - at, 16);
  }
};

template <class S>
struct Backward {
  using T = Arithmetic<S>;
  const PixelcnnBlockBackward& a;
  Block shape;
  const T *down, *conv, *up, *zeros;  // packed for the gradients of what they read
};

// Memory of a thread for one image.
template <class T>
struct Maps {
  T *active, *inner, *gradient, *inner_gradient, *outer, *given, *room;

  static int64_t bytes(const Block& s) {
    const int64_t pixels = s.pixels(), hidden = pixels * s.hidden(), padded = s.conv.padded() * s.hidden();
    return 2 * Scratch::bytes<T>(pixels * s.features) + 2 * Scratch::bytes<T>(padded) + 2 * Scratch::bytes<T>(hidden) +
           Scratch::bytes<T>(room_size(s));
  }
  static int64_t room_size(const Block& s) {
    return max(panel_room<T>(s.pixels(), s.features), panel_room<T>(s.conv.padded(), s.hidden()));
  }
  Maps(const Block& s, Scratch& memory) {
    const int64_t pixels = s.pixels(), padded = s.conv.padded() * s.hidden();
    active = memory.take<T>(pixels * s.features), given = memory.take<T>(pixels * s.features);
    inner = memory.take<T>(padded), gradient = memory.take<T>(padded);
    inner_gradient = memory.take<T>(pixels * s.hidden()), outer = memory.take<T>(pixels * s.hidden());
    room = memory.take<T>(room_size(s));
    memset(inner, 0, static_cast<size_t>(padded) * sizeof *inner);
    memset(gradient, 0, static_cast<size_t>(padded) * sizeof *gradient);
  }
};

// `from` in the arithmetic type: itself, or a copy in `to`.
template <class S>
const Arithmetic<S>* widened(const S* from, int64_t count, Arithmetic<S>* to) {
  if constexpr (sizeof(S) == sizeof(Arithmetic<S>)) return from;
  copy<Arithmetic<S>>(from, count, to);
  return to;
}

template <class S>
void backward_image(const Backward<S>& job, int64_t b, const Maps<Arithmetic<S>>& maps,
                    const Sums<Arithmetic<S>>& sums) {
  using T = Arithmetic<S>;
  const PixelcnnBlockBackward& a = job.a;
  const Block& s = job.shape;
  const int64_t pixels = s.pixels(), hidden = s.hidden(), features = s.features;
  const S *x = static_cast<const S*>(a.x) + b * pixels * features,
          *inner = static_cast<const S*>(a.inner) + b * pixels * hidden,
          *outer = static_cast<const S*>(a.outer) + b * pixels * hidden;
  S* grad_x = static_cast<S*>(a.grad_x) + b * pixels * features;
  const T* grad_y = widened(static_cast<const S*>(a.grad_y) + b * pixels * features, pixels * features, maps.given);
  const Vector<T> zero = broadcast(T(0));
  T* middle = maps.gradient + first_place(s.conv, false) * hidden;

  // Through the 1x1 up, into a map that the convolution's gradient reads.
  convolve<T>(taps_of_pixel(features), {grad_y, s.conv.width, features}, s.conv.width, s.conv.row(), pixels, job.up,
              job.zeros, hidden, [&](int64_t p, int64_t place, int64_t column, Vector<T> g, int64_t n) {
                g = load(outer + p * hidden + column, n) > zero ? g : zero;
                store(middle + place * hidden + column, g, n);
                store(sums.bias + column, load(sums.bias + column) + g);  // beyond n both are 0
              });
  const T* active_outer = widened(outer, pixels * hidden, maps.outer);
  add_products(pixels, features, grad_y, maps.room, 1,
               [&](int64_t) -> Factor<T> { return {active_outer, hidden, hidden, sums.up}; });
  add_rows(pixels, features, grad_y, sums.up_bias);

  // Through the convolution.
  fill_padded(s.conv, hidden, true, inner, maps.inner);
  add_tap_products(s.conv, maps.inner, maps.gradient, maps.room, sums.conv);
  convolve<T>(taps_after(s.conv), {maps.gradient, s.conv.row(), hidden}, s.conv.width, s.conv.width, pixels, job.conv,
              job.zeros, hidden, [&](int64_t p, int64_t, int64_t column, Vector<T> g, int64_t n) {
                g = load(inner + p * hidden + column, n) > zero ? g : zero;
                store(maps.inner_gradient + p * hidden + column, g, n);
                store(sums.down_bias + column, load(sums.down_bias + column) + g);
              });

  // Through the 1x1 down.
  store_relu(x, pixels * features, maps.active);
  add_products(pixels, hidden, static_cast<const T*>(maps.inner_gradient), maps.room, 1,
               [&](int64_t) -> Factor<T> { return {maps.active, features, features, sums.down}; });
  convolve<T>(taps_of_pixel(hidden), {maps.inner_gradient, pixels, hidden}, pixels, pixels, pixels, job.down, job.zeros,
              features, [&](int64_t p, int64_t, int64_t column, Vector<T> g, int64_t n) {
                const int64_t at = p * features + column;
                g = load(maps.active + at, n) > zero ? g : zero;
                store(grad_x + at, load(grad_y + at, n) + g, n);
              });
}

template <class S>
int backward(const PixelcnnBlockBackward& a) {
  using T = Arithmetic<S>;
  const Block s(a);
  use_huge_pages(a.grad_x, a.batch * s.pixels() * s.features * static_cast<int64_t>(sizeof(S)));
  const int64_t size = Sums<T>(s, nullptr).size, parts = s.pixels() ? min(a.batch, parts_of<T>(size)) : 0;
  const int64_t down_room = panel_room<T>(s.hidden(), s.features), up_room = panel_room<T>(s.features, s.hidden());
  const int64_t conv_room = panel_room<T>(s.conv.taps() * s.hidden(), s.hidden());
  const int64_t wide = round_up(max(s.hidden(), s.features), kLanes<T>);
  Scratch memory(Scratch::bytes<T>(down_room) + Scratch::bytes<T>(up_room) + Scratch::bytes<T>(conv_room) +
                 Scratch::bytes<T>(wide) + Scratch::bytes<T>(max(parts, 1) * size));
  if (memory.failed()) return kNoMemory;
  T *down = memory.take<T>(down_room), *up = memory.take<T>(up_room), *conv = memory.take<T>(conv_room);
  T *zeros = memory.take<T>(wide), *all = memory.take<T>(max(parts, 1) * size);
  const S *down_weight = static_cast<const S*>(a.down_weight), *up_weight = static_cast<const S*>(a.up_weight);
  pack_panels(s.hidden(), s.features, 1, down, [&](int64_t k) { return down_weight + k * s.features; });
  pack_panels(s.features, s.hidden(), 1, up, [&](int64_t k) { return up_weight + k * s.hidden(); });
  pack_after(s.conv, static_cast<const S*>(a.weight), conv);
  memset(zeros, 0, static_cast<size_t>(wide) * sizeof *zeros);
  memset(all, 0, static_cast<size_t>(max(parts, 1) * size) * sizeof *all);
  const Backward<S> job{a, s, down, conv, up, zeros};
  const int status = parallel(parts, [&](int64_t begin, int64_t end) -> int {
    Scratch scratch(Maps<T>::bytes(s));
    if (scratch.failed()) return kNoMemory;
    const Maps<T> maps(s, scratch);
    for_each_image(begin, end, parts, a.batch,
                   [&](int64_t part, int64_t b) { backward_image(job, b, maps, Sums<T>(s, all + part * size)); });
    return kOk;
  });
  if (status != kOk) return status;
  reduce(all, parts, size, size);
  const Sums<T> sums(s, all);
  write_transposed(sums.down, s.features, s.hidden(), static_cast<S*>(a.grad_down_weight));
  write_transposed(sums.up, s.hidden(), s.features, static_cast<S*>(a.grad_up_weight));
  write_weight_gradient(s.conv, sums.conv, static_cast<S*>(a.grad_weight));
  write(static_cast<S*>(a.grad_down_bias), sums.down_bias, s.hidden());
  write(static_cast<S*>(a.grad_bias), sums.bias, s.hidden());
  write(static_cast<S*>(a.grad_up_bias), sums.up_bias, s.features);
  return kOk;
}

}  // namespace

GENFAST_KERNEL(pixelcnn_block_forward, PixelcnnBlockForward, forward)
GENFAST_KERNEL(pixelcnn_block_backward, PixelcnnBlockBackward, backward)

}  // namespace GENFAST_ISA
}  // namespace genfast
