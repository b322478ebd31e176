#include "ops/bias_act.h"

#include "core/blocks.h"
#include "core/parallel.h"

namespace genfast {
namespace GENFAST_ISA {
namespace {

// Outputs from here on are written past the cache: they are not in it any more when the next layer reads them.
constexpr int64_t kStreamBytes = int64_t{1} << 22;
// Rows of single elements that are summed in the arithmetic type before they are added in double.
constexpr int64_t kRowsOfSum = 128;

// Each activation: its value, and its derivative given the value.
struct Linear {
  template <class T>
  static GENFAST_INLINE Vector<T> value(Vector<T> x, Vector<T>) {
    return x;
  }
  template <class T>
  static GENFAST_INLINE Vector<T> derivative(Vector<T>, Vector<T>, Vector<T>) {
    return broadcast(T(1));
  }
};
struct Relu {
  template <class T>
  static GENFAST_INLINE Vector<T> value(Vector<T> x, Vector<T>) {
    return x <= broadcast(T(0)) ? broadcast(T(0)) : x;
  }
  template <class T>
  static GENFAST_INLINE Vector<T> derivative(Vector<T> x, Vector<T>, Vector<T>) {
    return x <= broadcast(T(0)) ? broadcast(T(0)) : broadcast(T(1));
  }
};
struct LeakyRelu {
  template <class T>
  static GENFAST_INLINE Vector<T> value(Vector<T> x, Vector<T> slope) {
    return x > broadcast(T(0)) ? x : x * slope;
  }
  template <class T>
  static GENFAST_INLINE Vector<T> derivative(Vector<T> x, Vector<T>, Vector<T> slope) {
    return x > broadcast(T(0)) ? broadcast(T(1)) : slope;
  }
};
struct Tanh {
  template <class T>
  static GENFAST_INLINE Vector<T> value(Vector<T> x, Vector<T>) {
    return tanh<T>(x);
  }
  template <class T>
  static GENFAST_INLINE Vector<T> derivative(Vector<T>, Vector<T> y, Vector<T>) {
    return broadcast(T(1)) - y * y;
  }
};
struct Sigmoid {
  template <class T>
  static GENFAST_INLINE Vector<T> value(Vector<T> x, Vector<T>) {
    return sigmoid<T>(x);
  }
  template <class T>
  static GENFAST_INLINE Vector<T> derivative(Vector<T>, Vector<T> y, Vector<T>) {
    return y * (broadcast(T(1)) - y);
  }
};
struct Swish {
  template <class T>
  static GENFAST_INLINE Vector<T> value(Vector<T> x, Vector<T>) {
    return x * sigmoid<T>(x);
  }
  // s + x s (1 - s) with s = sigmoid(x)
  template <class T>
  static GENFAST_INLINE Vector<T> derivative(Vector<T> x, Vector<T> y, Vector<T>) {
    const Vector<T> s = sigmoid<T>(x);
    return s + y * (broadcast(T(1)) - s);
  }
};

// body(activation) of the number that stands in ACTIVATIONS of the reference.
template <class Body>
int by_activation(int64_t activation, const Body& body) {
  switch (activation) {
    case 0: return body(Linear());
    case 1: return body(Relu());
    case 2: return body(LeakyRelu());
    case 3: return body(Tanh());
    case 4: return body(Sigmoid());
    case 5: return body(Swish());
  }
  return kNoKernel;
}

// Rows of a common bias; without pixels, rows of all channels.
template <class S>
struct Layout {
  const S* bias;
  int64_t channels, rows, size;
  bool apart;  // whether every element of a row has a bias of its own

  Layout(const void* bias, int64_t batch, int64_t channels, int64_t size)
      : bias(static_cast<const S*>(bias)),
        channels(channels),
        rows(size == 1 ? batch : batch * channels),
        size(size == 1 ? channels : size),
        apart(size == 1) {}
  int64_t count() const { return rows * blocks(size); }
  int64_t grain() const { return grain_of_blocks(size); }
  int64_t bytes() const { return rows * size * static_cast<int64_t>(sizeof(S)); }
  GENFAST_INLINE Vector<Arithmetic<S>> shared_bias(int64_t row) const {
    using T = Arithmetic<S>;
    return broadcast(bias && !apart ? to_arithmetic(bias[row % channels]) : T(0));
  }
  GENFAST_INLINE Vector<Arithmetic<S>> bias_at(Vector<Arithmetic<S>> shared, int64_t i, int64_t last) const {
    return bias && apart ? load(bias + i, last - i) : shared;
  }
};

template <class S, class Activation>
struct Job {
  using T = Arithmetic<S>;
  Layout<S> layout;
  Vector<T> slope, gain, limit;
  bool streams;

  template <class A>
  explicit Job(const A& a)
      : layout(a.bias, a.batch, a.channels, a.size),
        slope(broadcast(T(a.slope))),
        gain(broadcast(T(a.gain))),
        limit(broadcast(T(a.limit))),
        streams(layout.bytes() >= kStreamBytes) {}

  // The gradient of the elements from i on of a row.
  GENFAST_INLINE Vector<T> gradient(const S* grad_y, const S* x, Vector<T> shared, int64_t i, int64_t last) const {
    const Vector<T> z = load(x + i, last - i) + layout.bias_at(shared, i, last);
    const Vector<T> y = Activation::template value<T>(z, slope), scaled = y * gain;
    const Vector<T> g = load(grad_y + i, last - i) * (Activation::template derivative<T>(z, y, slope) * gain);
    return (scaled > limit) | (scaled < -limit) ? broadcast(T(0)) : g;
  }
  GENFAST_INLINE void write(S* to, Vector<T> x, int64_t n) const {
    if (streams)
      stream(to, x, n);
    else
      store(to, x, n);
  }
};

template <class S, class Activation>
void forward_blocks(const Job<S, Activation>& job, const BiasActForward& a, int64_t begin, int64_t end) {
  using T = Arithmetic<S>;
  const Layout<S>& layout = job.layout;
  const Vector<T> slope = job.slope, gain = job.gain, limit = job.limit;
  for_each_block(begin, end, layout.size, [&](const Block& block) {
    const int64_t at = block.row * layout.size, last = block.last;
    const S* x = static_cast<const S*>(a.x) + at;
    S* to = static_cast<S*>(a.y) + at;
    const Vector<T> shared = layout.shared_bias(block.row);
    for (int64_t i = block.first; i < last; i += kLanes<T>) {
      Vector<T> y =
          Activation::template value<T>(load(x + i, last - i) + layout.bias_at(shared, i, last), slope) * gain;
      y = y > limit ? limit : y;
      y = y < -limit ? -limit : y;
      job.write(to + i, y, last - i);
    }
  });
  if (job.streams) finish_streams();
}

// `sums` are [rows][blocks], or null where they are not wanted.
template <class S, class Activation>
void backward_blocks(const Job<S, Activation>& job, const BiasActBackward& a, double* sums, int64_t begin,
                     int64_t end) {
  using T = Arithmetic<S>;
  const Layout<S>& layout = job.layout;
  for_each_block(begin, end, layout.size, [&](const Block& block) {
    const int64_t at = block.row * layout.size, last = block.last;
    const S *grad_y = static_cast<const S*>(a.grad_y) + at, *x = static_cast<const S*>(a.x) + at;
    S* to = static_cast<S*>(a.grad_x) + at;
    const Vector<T> shared = layout.shared_bias(block.row);
    LaneSum<T> sum;
    for (int64_t i = block.first; i < last; i += kLanes<T>) {
      const Vector<T> g = job.gradient(grad_y, x, shared, i, last);
      job.write(to + i, g, last - i);
      // The lanes beyond the last hold 0, as the incoming gradient does there.
      sum.add(i % kSumLanes / kLanes<T>, g);
    }
    if (sums) sums[block.index] = static_cast<double>(sum.total());
  });
  if (job.streams) finish_streams();
}

// Parts of rows where every element has a bias of its own: the sums, [kPartialSums][C], are over the rows.
template <class S, class Activation>
int backward_parts(const Job<S, Activation>& job, const BiasActBackward& a, double* all_sums, int64_t begin,
                   int64_t end) {
  using T = Arithmetic<S>;
  const Layout<S>& layout = job.layout;
  const int64_t channels = layout.channels, rows = pieces_of(layout.rows, kPartialSums);
  Scratch memory(Scratch::bytes<T>(whole_lanes(channels)));
  if (memory.failed()) return kNoMemory;
  T* sums = memory.take<T>(whole_lanes(channels));
  for (int64_t part = begin; part < end; ++part) {
    double* total = all_sums + part * channels;
    for (int64_t c = 0; c < channels; ++c) total[c] = 0;
    const int64_t stop = min((part + 1) * rows, layout.rows);
    for (int64_t row = part * rows; row < stop; row += kRowsOfSum) {
      for (int64_t c = 0; c < channels; ++c) sums[c] = 0;
      for (int64_t r = row; r < min(row + kRowsOfSum, stop); ++r) {
        const int64_t at = r * channels;
        const S *grad_y = static_cast<const S*>(a.grad_y) + at, *x = static_cast<const S*>(a.x) + at;
        S* to = static_cast<S*>(a.grad_x) + at;
        for (int64_t c = 0; c < channels; c += kLanes<T>) {
          const Vector<T> g = job.gradient(grad_y, x, broadcast(T(0)), c, channels);
          job.write(to + c, g, channels - c);
          store(sums + c, load(sums + c, channels - c) + g, channels - c);
        }
      }
      for (int64_t c = 0; c < channels; ++c) total[c] += static_cast<double>(sums[c]);
    }
  }
  if (job.streams) finish_streams();
  return kOk;
}

template <class S>
int forward(const BiasActForward& a) {
  return by_activation(a.activation, [&](auto activation) {
    const Job<S, decltype(activation)> job(a);
    use_huge_pages(a.y, job.layout.bytes());
    return parallel(
        job.layout.count(), [&](int64_t begin, int64_t end) { forward_blocks(job, a, begin, end); },
        job.layout.grain());
  });
}

template <class S>
int backward(const BiasActBackward& a) {
  return by_activation(a.activation, [&](auto activation) {
    const Job<S, decltype(activation)> job(a);
    const Layout<S>& layout = job.layout;
    const int64_t count = layout.apart ? kPartialSums * a.channels : layout.count();
    Scratch memory(a.grad_bias ? Scratch::bytes<double>(count) : 0);
    if (memory.failed()) return static_cast<int>(kNoMemory);
    double* sums = a.grad_bias ? memory.take<double>(count) : nullptr;
    use_huge_pages(a.grad_x, layout.bytes());
    const int status =
        sums && layout.apart
            ? parallel(
                  kPartialSums, [&](int64_t begin, int64_t end) { return backward_parts(job, a, sums, begin, end); },
                  grain_of(pieces_of(layout.rows, kPartialSums) * layout.size))
            : parallel(
                  layout.count(), [&](int64_t begin, int64_t end) { backward_blocks(job, a, sums, begin, end); },
                  layout.grain());
    if (!sums || status != kOk) return status;
    const int64_t in_row = layout.apart ? 1 : blocks(a.size), parts = layout.apart ? kPartialSums : a.batch;
    for (int64_t c = 0; c < a.channels; ++c) {
      double total = 0;
      for (int64_t part = 0; part < parts; ++part)
        for (int64_t i = 0; i < in_row; ++i) total += sums[(part * a.channels + c) * in_row + i];
      assign(static_cast<S*>(a.grad_bias)[c], static_cast<Arithmetic<S>>(total));
    }
    return static_cast<int>(kOk);
  });
}

}  // namespace

GENFAST_KERNEL(bias_act_forward, BiasActForward, forward)
GENFAST_KERNEL(bias_act_backward, BiasActBackward, backward)

}  // namespace GENFAST_ISA
}  // namespace genfast
