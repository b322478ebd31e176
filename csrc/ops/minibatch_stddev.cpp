#include "ops/minibatch_stddev.h"

#include "core/blocks.h"
#include "core/parallel.h"

namespace genfast {
namespace GENFAST_ISA {
namespace {

constexpr double kEpsilon = 1e-8;  // as in the reference

// Image k * members + m is number k of the group m. The channels of a map are `span` contiguous elements of an image.
struct Groups {
  int64_t group, members, maps, pixels, size, span;

  Groups(int64_t batch, int64_t channels, int64_t pixels, int64_t group, int64_t maps)
      : group(group),
        members(batch / group),
        maps(maps),
        pixels(pixels),
        size(channels * pixels),
        span(channels / maps * pixels) {}
  int64_t in_span() const { return blocks(span); }
  int64_t count() const { return members * maps * in_span(); }
  int64_t made() const { return size + maps * pixels; }  // elements of an image with its maps
  int64_t grain() const { return grain_of(group * min(span, kBlock)); }

  // body(group m, map, first element of the image, last) of the blocks [begin, end).
  template <class Body>
  GENFAST_INLINE void each(int64_t begin, int64_t end, Body body) const {
    for_each_block(begin, end, span, [&](const Block& block) {
      const int64_t map = block.row % maps;
      body(block.row / maps, map, map * span + block.first, map * span + block.last);
    });
  }
};

// Mean and standard deviation over a group of the `left` elements from x on.
template <class S>
struct Moments {
  using T = Arithmetic<S>;
  Vector<T> mean, deviation;

  GENFAST_INLINE Moments(const Groups& g, const S* x, int64_t left) {
    const Vector<T> share = broadcast(static_cast<T>(1.0 / static_cast<double>(g.group)));
    const int64_t step = g.members * g.size;
    Vector<T> sum = broadcast(T(0)), squares = broadcast(T(0));
    for (int64_t k = 0; k < g.group; ++k) sum += load(x + k * step, left);
    mean = sum * share;
    for (int64_t k = 0; k < g.group; ++k) {
      const Vector<T> difference = load(x + k * step, left) - mean;
      squares = fma(difference, difference, squares);
    }
    deviation = square_root(fma(squares, share, broadcast(static_cast<T>(kEpsilon))));
  }
};

// `sums` are [members][maps][blocks].
template <class S>
void forward_blocks(const MinibatchStddevForward& a, const Groups& g, double* sums, int64_t begin, int64_t end) {
  using T = Arithmetic<S>;
  int64_t index = begin;
  g.each(begin, end, [&](int64_t m, int64_t, int64_t first, int64_t last) {
    const S* x = static_cast<const S*>(a.x) + m * g.size;
    LaneSum<T> sum;
    for (int64_t i = first; i < last; i += kLanes<T>) {
      const Moments<S> moments(g, x + i, last - i);
      // Lanes beyond the last would add the root of epsilon.
      T lanes[kLanes<T>] = {};
      store(lanes, moments.deviation, last - i);
      sum.add((i - first) % kSumLanes / kLanes<T>, load(lanes));
    }
    sums[index++] = static_cast<double>(sum.total());
    for (int64_t k = 0; k < g.group; ++k) {
      const int64_t image = k * g.members + m;
      memcpy(static_cast<S*>(a.y) + image * g.made() + first, static_cast<const S*>(a.x) + image * g.size + first,
             static_cast<size_t>(last - first) * sizeof(S));
    }
  });
}

template <class S>
int forward(const MinibatchStddevForward& a) {
  using T = Arithmetic<S>;
  const Groups g(a.batch, a.channels, a.height * a.width, a.group, a.maps);
  Scratch memory(Scratch::bytes<double>(g.count()));
  if (memory.failed()) return kNoMemory;
  double* sums = memory.take<double>(g.count());
  use_huge_pages(a.y, a.batch * g.made() * static_cast<int64_t>(sizeof(S)));
  parallel(g.count(), [&](int64_t begin, int64_t end) { forward_blocks<S>(a, g, sums, begin, end); }, g.grain());
  for (int64_t which = 0; which < g.members * g.maps; ++which) {
    double total = 0;
    for (int64_t i = 0; i < g.in_span(); ++i) total += sums[which * g.in_span() + i];
    S statistic;
    assign(statistic, static_cast<T>(total / static_cast<double>(g.span)));
    for (int64_t k = 0; k < g.group; ++k) {
      const int64_t image = k * g.members + which / g.maps;
      S* map = static_cast<S*>(a.y) + image * g.made() + g.size + which % g.maps * g.pixels;
      for (int64_t i = 0; i < g.pixels; ++i) map[i] = statistic;
    }
  }
  return kOk;
}

// `weights` of each group and map: the sum of its incoming gradients over the elements of the mean.
template <class S>
void backward_blocks(const MinibatchStddevBackward& a, const Groups& g, const Arithmetic<S>* weights, int64_t begin,
                     int64_t end) {
  using T = Arithmetic<S>;
  g.each(begin, end, [&](int64_t m, int64_t map, int64_t first, int64_t last) {
    const S* x = static_cast<const S*>(a.x) + m * g.size;
    const Vector<T> weight = broadcast(weights[m * g.maps + map]);
    for (int64_t i = first; i < last; i += kLanes<T>) {
      const Moments<S> moments(g, x + i, last - i);
      const Vector<T> scale = weight / moments.deviation;
      for (int64_t k = 0; k < g.group; ++k) {
        const int64_t image = k * g.members + m;
        const S* grad_y = static_cast<const S*>(a.grad_y) + image * g.made() + i;
        const Vector<T> difference = load(x + k * g.members * g.size + i, last - i) - moments.mean;
        store(static_cast<S*>(a.grad_x) + image * g.size + i, fma(difference, scale, load(grad_y, last - i)), last - i);
      }
    }
  });
}

template <class S>
int backward(const MinibatchStddevBackward& a) {
  using T = Arithmetic<S>;
  const Groups g(a.batch, a.channels, a.height * a.width, a.group, a.maps);
  Scratch memory(Scratch::bytes<T>(g.members * g.maps));
  if (memory.failed()) return kNoMemory;
  T* weights = memory.take<T>(g.members * g.maps);
  for (int64_t which = 0; which < g.members * g.maps; ++which) {
    double total = 0;
    for (int64_t k = 0; k < g.group; ++k) {
      const int64_t image = k * g.members + which / g.maps;
      const S* map = static_cast<const S*>(a.grad_y) + image * g.made() + g.size + which % g.maps * g.pixels;
      for (int64_t i = 0; i < g.pixels; ++i) total += static_cast<double>(to_arithmetic(map[i]));
    }
    weights[which] = static_cast<T>(total / static_cast<double>(g.span * g.group));
  }
  use_huge_pages(a.grad_x, a.batch * g.size * static_cast<int64_t>(sizeof(S)));
  return parallel(
      g.count(), [&](int64_t begin, int64_t end) { backward_blocks<S>(a, g, weights, begin, end); }, g.grain());
}

}  // namespace

GENFAST_KERNEL(minibatch_stddev_forward, MinibatchStddevForward, forward)
GENFAST_KERNEL(minibatch_stddev_backward, MinibatchStddevBackward, backward)

}  // namespace GENFAST_ISA
}  // namespace genfast
