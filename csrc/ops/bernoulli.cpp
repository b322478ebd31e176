#include "ops/bernoulli.h"

#include "core/blocks.h"
#include "core/parallel.h"
#include "core/philox.h"
#include "engine/conditionals.h"

namespace genfast {
namespace GENFAST_ISA {
namespace {

// The terms of a block, in the order in which they lie in memory.
template <class S, class X>
GENFAST_INLINE void terms_of(const BernoulliNllForward& a, const Block& block, Arithmetic<S>* nats) {
  using T = Arithmetic<S>;
  const Weights<S> weights{a.weight, a.weight_is_bytes != 0};
  const int64_t count = block.count(), at = block.at;
  const S* logits = static_cast<const S*>(a.logits) + at;
  T x[kBlock], weight[kBlock];
  read_block(static_cast<const X*>(a.x) + at, count, x);
  weights.read(at, count, weight);
  for (int64_t i = 0; i < count; i += kLanes<T>) {
    const Vector<T> n = bernoulli_nats<T>(load(x + i), load(logits + i, count - i));
    store(nats + i, weights.at ? weights.template times<T>(load(weight + i), n) : n);
  }
}

template <class S, class X>
void forward_blocks(const BernoulliNllForward& a, double* sums, int64_t begin, int64_t end) {
  Arithmetic<S> nats[kBlock];
  for_each_block(begin, end, a.size, [&](const Block& block) {
    terms_of<S, X>(a, block, nats);
    sums[block.index] = sum_of_terms(nats, block.count());
  });
}

// Of channels that lie interleaved, the terms of whole images: they are summed as if one channel lay after the other.
template <class S, class X>
int forward_interleaved(const BernoulliNllForward& a, double* sums, int64_t begin, int64_t end) {
  using T = Arithmetic<S>;
  const int64_t pieces = blocks(a.size), pixels = a.size / a.channels;
  Scratch memory(Scratch::bytes<T>(pieces * kBlock));
  if (memory.failed()) return kNoMemory;
  T *nats = memory.take<T>(pieces * kBlock), ordered[kBlock];
  for_each_block(begin * pieces, end * pieces, a.size, [&](const Block& block) {
    terms_of<S, X>(a, block, nats + block.first);
    if (block.last < a.size) return;
    int64_t channel = 0, pixel = 0;
    for (int64_t i = 0; i < a.size; ++i) {
      ordered[i % kBlock] = nats[pixel * a.channels + channel];
      if (++pixel == pixels) pixel = 0, ++channel;
      if ((i + 1) % kBlock == 0 || i + 1 == a.size)
        sums[block.row * pieces + i / kBlock] = sum_of_terms(ordered, i % kBlock + 1);
    }
  });
  return kOk;
}

template <class S, class X>
void backward_blocks(const BernoulliNllBackward& a, int64_t begin, int64_t end) {
  using T = Arithmetic<S>;
  const Weights<S> weights{a.weight, a.weight_is_bytes != 0};
  T x[kBlock], weight[kBlock];
  for_each_block(begin, end, a.size, [&](const Block& block) {
    const int64_t count = block.count(), at = block.at;
    const S* logits = static_cast<const S*>(a.logits) + at;
    const Vector<T> grad = broadcast(static_cast<const T*>(a.grad_nll)[block.row]);
    read_block(static_cast<const X*>(a.x) + at, count, x);
    weights.read(at, count, weight);
    for (int64_t i = 0; i < count; i += kLanes<T>) {
      const Vector<T> g = grad * (exact_sigmoid<T>(load(logits + i, count - i)) - load(x + i));
      stream(static_cast<S*>(a.grad_logits) + at + i, weights.at ? weights.template times<T>(load(weight + i), g) : g,
             count - i);
    }
  });
  finish_streams();
}

// Level 1 if u passes the probability of level 0: the inverse of a categorical distribution with logits (0, l).
template <class S>
void draw_blocks(const BernoulliSample& a, int64_t begin, int64_t end) {
  double logits[kBlock], u[kBlock];
  for_each_block(begin, end, a.inner, [&](const Block& block) {
    const int64_t image = block.row / a.places, place = block.row % a.places, count = block.count(), at = block.at;
    read_block(static_cast<const S*>(a.logits) + at, count, logits);
    uniforms(static_cast<uint64_t>(a.seed), static_cast<uint64_t>(a.first_index + image),
             static_cast<uint32_t>(a.first_element + block.first * a.places + place), static_cast<uint32_t>(a.places),
             0, whole_lanes(count), u);
    for (int64_t i = 0; i < count; i += kLanes<double>)
      store(u + i, bernoulli_level(load(logits + i), load(u + i), a.temperature));
    for (int64_t i = 0; i < count; ++i) static_cast<uint8_t*>(a.draw)[at + i] = static_cast<uint8_t>(u[i]);
  });
}

template <class S, class X>
int forward(const BernoulliNllForward& a) {
  const int64_t pieces = blocks(a.size);
  Scratch memory(Scratch::bytes<double>(a.batch * pieces));
  if (memory.failed()) return kNoMemory;
  double* sums = memory.take<double>(a.batch * pieces);
  int status = kOk;
  if (a.channels > 1)
    status = parallel(
        a.batch, [&](int64_t begin, int64_t end) { return forward_interleaved<S, X>(a, sums, begin, end); },
        grain_of(a.size));
  else
    parallel(
        a.batch * pieces, [&](int64_t begin, int64_t end) { forward_blocks<S, X>(a, sums, begin, end); },
        grain_of_blocks(a.size));
  add_blocks(sums, a.batch, pieces, static_cast<Arithmetic<S>*>(a.nll));
  return status;
}

template <class S>
int forward(const BernoulliNllForward& a) {
  return a.x_is_bytes ? forward<S, uint8_t>(a) : forward<S, S>(a);
}

template <class S>
int backward(const BernoulliNllBackward& a) {
  use_huge_pages(a.grad_logits, a.batch * a.size * static_cast<int64_t>(sizeof(S)));
  const auto run = a.x_is_bytes ? backward_blocks<S, uint8_t> : backward_blocks<S, S>;
  return parallel(
      a.batch * blocks(a.size), [&](int64_t begin, int64_t end) { run(a, begin, end); }, grain_of_blocks(a.size));
}

template <class S>
int sample(BernoulliSample a) {
  // Places one after the other in memory, whichever dimension they are: element first_element + i.
  if (a.inner == 1) a.inner = a.places, a.places = 1;
  return parallel(a.batch * a.places * blocks(a.inner),
                  [&](int64_t begin, int64_t end) { draw_blocks<S>(a, begin, end); });
}

}  // namespace

GENFAST_KERNEL(bernoulli_nll_forward, BernoulliNllForward, forward)
GENFAST_KERNEL(bernoulli_nll_backward, BernoulliNllBackward, backward)
GENFAST_KERNEL(bernoulli_sample, BernoulliSample, sample)

}  // namespace GENFAST_ISA
}  // namespace genfast
