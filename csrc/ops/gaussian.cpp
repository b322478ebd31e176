#include "ops/gaussian.h"

#include "core/blocks.h"
#include "core/parallel.h"

namespace genfast {
namespace GENFAST_ISA {
namespace {

constexpr double kLogTwoPi = 1.8378770664093454836;

template <class S>
void forward_blocks(const GaussianNllForward& a, double* sums, int64_t begin, int64_t end) {
  using T = Arithmetic<S>;
  const Weights<S> weights{a.weight, a.weight_is_bytes != 0};
  const Vector<T> half = broadcast(T(0.5)), constant = broadcast(static_cast<T>(kLogTwoPi));
  T weight[kBlock], nats[kBlock];
  for_each_block(begin, end, a.size, [&](const Block& block) {
    const int64_t count = block.count(), at = block.at;
    const S *x = static_cast<const S*>(a.x) + at, *mean = static_cast<const S*>(a.mean) + at;
    const S* log_variance = static_cast<const S*>(a.log_variance) + at;
    weights.read(at, count, weight);
    for (int64_t i = 0; i < count; i += kLanes<T>) {
      const Vector<T> lv = clamped<T>(load(log_variance + i, count - i));
      const Vector<T> d = load(x + i, count - i) - load(mean + i, count - i);
      const Vector<T> n = half * fma(d * d, exponential<T>(-lv), constant + lv);
      store(nats + i, weights.at ? weights.template times<T>(load(weight + i), n) : n);
    }
    sums[block.index] = sum_of_terms(nats, count);
  });
}

template <class S>
void backward_blocks(const GaussianNllBackward& a, int64_t begin, int64_t end) {
  using T = Arithmetic<S>;
  const Weights<S> weights{a.weight, a.weight_is_bytes != 0};
  const Vector<T> zero = broadcast(T(0)), half = broadcast(T(0.5));
  T weight[kBlock];
  for_each_block(begin, end, a.size, [&](const Block& block) {
    const int64_t count = block.count(), at = block.at;
    const Vector<T> grad = broadcast(static_cast<const T*>(a.grad_nll)[block.row]);
    weights.read(at, count, weight);
    for (int64_t i = 0; i < count; i += kLanes<T>) {
      const int64_t n = count - i;
      const Vector<T> lv = load(static_cast<const S*>(a.log_variance) + at + i, n);
      const Vector<T> d =
          load(static_cast<const S*>(a.x) + at + i, n) - load(static_cast<const S*>(a.mean) + at + i, n);
      const Vector<T> scaled = d * exponential<T>(-clamped<T>(lv));
      Vector<T> of_x = grad * scaled, of_variance = half * (grad - grad * d * scaled);
      of_variance = is_clamped<T>(lv) ? zero : of_variance;
      if (weights.at) {
        const Vector<T> w = load(weight + i);
        of_x = weights.template times<T>(w, of_x), of_variance = weights.template times<T>(w, of_variance);
      }
      if (a.grad_x) stream(static_cast<S*>(a.grad_x) + at + i, of_x, n);
      stream(static_cast<S*>(a.grad_mean) + at + i, -of_x, n);
      stream(static_cast<S*>(a.grad_log_variance) + at + i, of_variance, n);
    }
  });
  finish_streams();
}

template <class S>
int forward(const GaussianNllForward& a) {
  const int64_t pieces = blocks(a.size);
  Scratch memory(Scratch::bytes<double>(a.batch * pieces));
  if (memory.failed()) return kNoMemory;
  double* sums = memory.take<double>(a.batch * pieces);
  parallel(
      a.batch * pieces, [&](int64_t begin, int64_t end) { forward_blocks<S>(a, sums, begin, end); },
      grain_of_blocks(a.size));
  add_blocks(sums, a.batch, pieces, static_cast<Arithmetic<S>*>(a.nll));
  return kOk;
}

template <class S>
int backward(const GaussianNllBackward& a) {
  const int64_t bytes = a.batch * a.size * static_cast<int64_t>(sizeof(S));
  use_huge_pages(a.grad_x, bytes);
  use_huge_pages(a.grad_mean, bytes);
  use_huge_pages(a.grad_log_variance, bytes);
  return parallel(
      a.batch * blocks(a.size), [&](int64_t begin, int64_t end) { backward_blocks<S>(a, begin, end); },
      grain_of_blocks(a.size));
}

}  // namespace

GENFAST_KERNEL(gaussian_nll_forward, GaussianNllForward, forward)
GENFAST_KERNEL(gaussian_nll_backward, GaussianNllBackward, backward)

}  // namespace GENFAST_ISA
}  // namespace genfast
