// Gradients of weights: one partial sum a part of the batch, added in an order that no thread count changes.
#pragma once

#include "core/math.h"
#include "core/parallel.h"

namespace genfast {
namespace GENFAST_ISA {
namespace {

template <class T, class S>
void add(const S* from, int64_t count, T* to) {
  for (int64_t n = 0; n < count; n += kLanes<T>)
    store(to + n, load(to + n, count - n) + load(from + n, count - n), count - n);
}
template <class T, class S>
void copy(const S* from, int64_t count, T* to) {
  for (int64_t n = 0; n < count; n += kLanes<T>) store(to + n, load(from + n, count - n), count - n);
}

// The most partial sums of so many values each: 64 MB of them, but at least eight.
template <class T>
int64_t parts_of(int64_t size) {
  return max(8, min(kPartialSums, (int64_t(1) << 26) / (size * static_cast<int64_t>(sizeof(T)))));
}

// Calls body(part, image) for the images of the parts begin .. end - 1 of a batch, in order.
template <class Body>
GENFAST_INLINE void for_each_image(int64_t begin, int64_t end, int64_t parts, int64_t batch, const Body& body) {
  for (int64_t part = begin; part < end; ++part)
    for (int64_t b = part * batch / parts; b < (part + 1) * batch / parts; ++b) body(part, b);
}

// Adds `parts` partial sums, `stride` elements apart, into the first.
template <class T>
void reduce(T* sums, int64_t parts, int64_t stride, int64_t size) {
  constexpr int64_t chunk = 1024;
  parallel(pieces_of(size, chunk), [&](int64_t begin, int64_t end) {
    for (int64_t part = 1; part < parts; ++part)
      for (int64_t e = begin * chunk; e < min(end * chunk, size); e += kLanes<T>)
        store(sums + e, load(sums + e) + load(sums + part * stride + e));
  });
}

template <class S>
void write(S* to, const Arithmetic<S>* from, int64_t count) {
  for (int64_t n = 0; n < count; ++n) assign(to[n], from[n]);
}

}  // namespace
}  // namespace GENFAST_ISA
}  // namespace genfast
