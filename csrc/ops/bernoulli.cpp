#include "ops/bernoulli.h"

#include "core/blocks.h"
#include "core/philox.h"
#include "engine/conditionals.h"

namespace genfast {
namespace GENFAST_ISA {
namespace {

template <class T>
GENFAST_INLINE Vector<T> sigmoid(Vector<T> logits) {
  const Vector<T> one = broadcast(T(1)), e = decay<T>(-magnitude<T>(logits));
  return (logits < broadcast(T(0)) ? e : one) / (one + e);
}

template <class S, class X>
struct Forward {
  const BernoulliNllForward& a;
  double* sums;  // of the blocks
};

template <class S, class X>
void forward_blocks(int64_t begin, int64_t end, void* context) {
  using T = Arithmetic<S>;
  const Forward<S, X>& job = *static_cast<const Forward<S, X>*>(context);
  const BernoulliNllForward& a = job.a;
  const Weights<S> weights{a.weight, a.weight_is_bytes != 0};
  T x[kBlock], weight[kBlock], nats[kBlock];
  for (int64_t index = begin; index < end; ++index) {
    const int64_t image = index / blocks(a.size), first = index % blocks(a.size) * kBlock;
    const int64_t count = a.size - first < kBlock ? a.size - first : kBlock, at = image * a.size + first;
    const S* logits = static_cast<const S*>(a.logits) + at;
    read_block(static_cast<const X*>(a.x) + at, count, x);
    weights.read(at, count, weight);
    for (int64_t i = 0; i < count; i += kLanes<T>) {
      const Vector<T> n = bernoulli_nats<T>(load(x + i), load(logits + i, count - i));
      store(nats + i, weights.at ? weights.template times<T>(load(weight + i), n) : n);
    }
    job.sums[index] = sum_of_terms(nats, count);
  }
}

template <class S, class X>
void backward_blocks(int64_t begin, int64_t end, void* context) {
  using T = Arithmetic<S>;
  const BernoulliNllBackward& a = *static_cast<const BernoulliNllBackward*>(context);
  const Weights<S> weights{a.weight, a.weight_is_bytes != 0};
  T x[kBlock], weight[kBlock];
  for (int64_t index = begin; index < end; ++index) {
    const int64_t image = index / blocks(a.size), first = index % blocks(a.size) * kBlock;
    const int64_t count = a.size - first < kBlock ? a.size - first : kBlock, at = image * a.size + first;
    const S* logits = static_cast<const S*>(a.logits) + at;
    const Vector<T> grad = broadcast(static_cast<const T*>(a.grad_nll)[image]);
    read_block(static_cast<const X*>(a.x) + at, count, x);
    weights.read(at, count, weight);
    for (int64_t i = 0; i < count; i += kLanes<T>) {
      const Vector<T> g = grad * (sigmoid<T>(load(logits + i, count - i)) - load(x + i));
      stream(static_cast<S*>(a.grad_logits) + at + i, weights.at ? weights.template times<T>(load(weight + i), g) : g,
             count - i);
    }
  }
  finish_streams();
}

// Level 1 if u passes the probability of level 0: the inverse of a categorical distribution with logits (0, l).
template <class S>
void draw_blocks(int64_t begin, int64_t end, void* context) {
  const BernoulliSample& a = *static_cast<const BernoulliSample*>(context);
  const int64_t size = a.places * a.inner;
  double logits[kBlock], u[kBlock];
  for (int64_t index = begin; index < end; ++index) {
    const int64_t image = index / a.places / blocks(a.inner), place = index / blocks(a.inner) % a.places;
    const int64_t first = index % blocks(a.inner) * kBlock, at = image * size + place * a.inner + first;
    const int64_t count = a.inner - first < kBlock ? a.inner - first : kBlock;
    for (int64_t i = 0; i < count; ++i) logits[i] = to_arithmetic(static_cast<const S*>(a.logits)[at + i]);
    for (int64_t i = count; i < whole_lanes(count); ++i) logits[i] = 0;
    uniforms(static_cast<uint64_t>(a.seed), static_cast<uint64_t>(a.first_index + image),
             static_cast<uint32_t>(a.first_element + first * a.places + place), static_cast<uint32_t>(a.places), 0,
             whole_lanes(count), u);
    for (int64_t i = 0; i < count; i += kLanes<double>)
      store(u + i, bernoulli_level(load(logits + i), load(u + i), a.temperature));
    for (int64_t i = 0; i < count; ++i) static_cast<uint8_t*>(a.draw)[at + i] = static_cast<uint8_t>(u[i]);
  }
}

template <class S, class X>
int forward(const BernoulliNllForward& a) {
  const int64_t pieces = blocks(a.size);
  Scratch memory(Scratch::bytes<double>(a.batch * pieces));
  if (memory.failed()) return kNoMemory;
  Forward<S, X> job{a, memory.take<double>(a.batch * pieces)};
  parallel_for(a.batch * pieces, forward_blocks<S, X>, &job, grain_of_blocks(a.size));
  add_blocks(job.sums, a.batch, pieces, static_cast<Arithmetic<S>*>(a.nll));
  return kOk;
}

template <class S>
int forward(const BernoulliNllForward& a) {
  return a.x_is_bytes ? forward<S, uint8_t>(a) : forward<S, S>(a);
}

template <class S>
int backward(const BernoulliNllBackward& a) {
  BernoulliNllBackward job = a;
  use_huge_pages(a.grad_logits, a.batch * a.size * static_cast<int64_t>(sizeof(S)));
  parallel_for(a.batch * blocks(a.size), a.x_is_bytes ? backward_blocks<S, uint8_t> : backward_blocks<S, S>, &job,
               grain_of_blocks(a.size));
  return kOk;
}

template <class S>
int sample(const BernoulliSample& a) {
  BernoulliSample job = a;
  // Places one after the other in memory, whichever dimension they are: element first_element + i.
  if (a.inner == 1) job.places = 1, job.inner = a.places;
  parallel_for(job.batch * job.places * blocks(job.inner), draw_blocks<S>, &job);
  return kOk;
}

}  // namespace

int bernoulli_nll_forward(const BernoulliNllForward& a) {
  return by_type(a.type, [&](auto s) { return forward<decltype(s)>(a); });
}

int bernoulli_nll_backward(const BernoulliNllBackward& a) {
  return by_type(a.type, [&](auto s) { return backward<decltype(s)>(a); });
}

int bernoulli_sample(const BernoulliSample& a) {
  return by_type(a.type, [&](auto s) { return sample<decltype(s)>(a); });
}

}  // namespace GENFAST_ISA
}  // namespace genfast
