// What the likelihoods that sum over an image share: blocks of elements in the arithmetic type.
#pragma once

#include "core/lane_sum.h"

namespace genfast {
namespace GENFAST_ISA {
namespace {

constexpr int64_t kBlock = 1024;  // elements of one piece of work

// A multiple of every vector too.
GENFAST_INLINE int64_t whole_lanes(int64_t count) { return round_up(count, kSumLanes); }
GENFAST_INLINE int64_t blocks(int64_t size) { return pieces_of(size, kBlock); }
GENFAST_INLINE int64_t grain_of_blocks(int64_t size) { return grain_of(min(size, kBlock)); }

// Elements first .. last - 1 of a row of `size`; element `first` is number `at` of all.
struct Block {
  int64_t index, row, first, last, at;

  int64_t count() const { return last - first; }
};

// Calls body(block) for the blocks [begin, end) of rows.
template <class Body>
GENFAST_INLINE void for_each_block(int64_t begin, int64_t end, int64_t size, const Body& body) {
  for (int64_t index = begin; index < end; ++index) {
    const int64_t row = index / blocks(size), first = index % blocks(size) * kBlock;
    body(Block{index, row, first, min(first + kBlock, size), row * size + first});
  }
}

GENFAST_INLINE int to_arithmetic(uint8_t x) { return x; }

// `count` elements in the arithmetic type, and zeros up to whole lanes.
template <class T, class S>
GENFAST_INLINE void read_block(const S* from, int64_t count, T* to) {
  for (int64_t i = 0; i < count; ++i) to[i] = static_cast<T>(to_arithmetic(from[i]));
  for (int64_t i = count; i < whole_lanes(count); ++i) to[i] = 0;
}

// The sum of `count` terms.
template <class T>
GENFAST_INLINE T sum_of_terms(const T* terms, int64_t count) {
  LaneSum<T> sum;
  for (int64_t i = 0; i < count; i += kSumLanes)
    for (int64_t part = 0; part < LaneSum<T>::kParts; ++part) {
      const int64_t at = i + part * kLanes<T>;
      if (at < count) sum.add(part, load(terms + at, count - at));
    }
  return sum.total();
}

// to[b] = the sums of the blocks of image b, in order.
template <class S>
void add_blocks(const double* sums, int64_t batch, int64_t count, S* to) {
  for (int64_t b = 0; b < batch; ++b) {
    double total = 0;
    for (int64_t i = 0; i < count; ++i) total += sums[b * count + i];
    assign(to[b], static_cast<Arithmetic<S>>(total));
  }
}

// Weights of elements: none, bytes 0 and 1, or of the storage type. A weight of 0 hides what stands there.
template <class S>
struct Weights {
  const void* at;
  bool bytes;

  // The weights of a block in the arithmetic type; ones if there are none.
  template <class T>
  GENFAST_INLINE void read(int64_t first, int64_t count, T* to) const {
    if (!at) return;
    if (bytes)
      read_block(static_cast<const uint8_t*>(at) + first, count, to);
    else
      read_block(static_cast<const S*>(at) + first, count, to);
  }
  template <class T>
  static GENFAST_INLINE Vector<T> times(Vector<T> weight, Vector<T> x) {
    return weight > broadcast(T(0)) ? weight * x : broadcast(T(0));
  }
};

}  // namespace
}  // namespace GENFAST_ISA
}  // namespace genfast
