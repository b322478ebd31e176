#include "bernoulli.h"

#include "conditionals.h"
#include "philox.h"

namespace genfast {
namespace GENFAST_LEVEL {
namespace {

constexpr int64_t kBlock = 1024;  // elements of one piece

// A multiple of every vector too.
GENFAST_INLINE int64_t whole_lanes(int64_t count) { return (count + kSumLanes - 1) / kSumLanes * kSumLanes; }

GENFAST_INLINE int64_t blocks(int64_t size) { return (size + kBlock - 1) / kBlock; }

// Elements of one block in the arithmetic type, whole lanes of them; past the last they are zero.
template <class T>
struct Block {
  T x[kBlock], logits[kBlock];

  template <class X, class S>
  int64_t read(const X* from_x, const S* from_logits, int64_t size, int64_t first) {
    const int64_t count = size - first < kBlock ? size - first : kBlock;
    for (int64_t i = 0; i < count; ++i) x[i] = static_cast<T>(value(from_x[first + i]));
    for (int64_t i = 0; i < count; ++i) logits[i] = to_arithmetic(from_logits[first + i]);
    for (int64_t i = count; i < whole_lanes(count); ++i) x[i] = logits[i] = 0;
    return count;
  }

 private:
  static T value(uint8_t at) { return at; }
  template <class S>
  static T value(S at) {
    return to_arithmetic(at);
  }
};

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
  const int64_t size = job.a.size;
  Block<T> block;
  for (int64_t index = begin; index < end; ++index) {
    const int64_t image = index / blocks(size), first = index % blocks(size) * kBlock;
    const int64_t count = block.read(static_cast<const X*>(job.a.x) + image * size,
                                     static_cast<const S*>(job.a.logits) + image * size, size, first);
    for (int64_t i = 0; i < count; i += kLanes<T>)
      store(block.x + i, bernoulli_nats<T>(load(block.x + i), load(block.logits + i)));
    for (int64_t i = count; i < whole_lanes(count); ++i) block.x[i] = 0;
    LaneSum<T> sum;
    for (int64_t i = 0; i < count; i += kSumLanes)
      for (int64_t part = 0; part < LaneSum<T>::kParts; ++part) sum.add(part, load(block.x + i + part * kLanes<T>));
    job.sums[index] = sum.total();
  }
}

template <class S, class X>
void backward_blocks(int64_t begin, int64_t end, void* context) {
  using T = Arithmetic<S>;
  const BernoulliNllBackward& a = *static_cast<const BernoulliNllBackward*>(context);
  Block<T> block;
  for (int64_t index = begin; index < end; ++index) {
    const int64_t image = index / blocks(a.size), first = index % blocks(a.size) * kBlock;
    const int64_t count = block.read(static_cast<const X*>(a.x) + image * a.size,
                                     static_cast<const S*>(a.logits) + image * a.size, a.size, first);
    const Vector<T> weight = broadcast(to_arithmetic(static_cast<const S*>(a.grad_nll)[image]));
    S* grad = static_cast<S*>(a.grad_logits) + image * a.size + first;
    for (int64_t i = 0; i < count; i += kLanes<T>)
      store(grad + i, weight * (sigmoid<T>(load(block.logits + i)) - load(block.x + i)), count - i);
  }
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
  parallel_for(a.batch * pieces, forward_blocks<S, X>, &job);
  for (int64_t b = 0; b < a.batch; ++b) {
    double total = 0;
    for (int64_t i = 0; i < pieces; ++i) total += job.sums[b * pieces + i];
    assign(static_cast<S*>(a.nll)[b], static_cast<Arithmetic<S>>(total));
  }
  return kOk;
}

template <class S>
int forward(const BernoulliNllForward& a) {
  return a.x_is_bytes ? forward<S, uint8_t>(a) : forward<S, S>(a);
}

template <class S>
int backward(const BernoulliNllBackward& a) {
  BernoulliNllBackward job = a;
  parallel_for(a.batch * blocks(a.size), a.x_is_bytes ? backward_blocks<S, uint8_t> : backward_blocks<S, S>, &job);
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

}  // namespace GENFAST_LEVEL
}  // namespace genfast
