#include "ops/nearest_neighbors.h"

#include "core/pairwise.h"
#include "core/parallel.h"

namespace genfast {
namespace GENFAST_ISA {
namespace {

// Bit i stands for lane i of a > b.
template <class T>
GENFAST_INLINE uint64_t greater(Vector<T> a, Vector<T> b) {
#if defined(__AVX512F__)
  if constexpr (sizeof(T) == 4)
    return _mm512_cmp_ps_mask(a, b, _CMP_GT_OQ);
  else
    return _mm512_cmp_pd_mask(a, b, _CMP_GT_OQ);
#elif defined(__AVX2__)
  if constexpr (sizeof(T) == 4)
    return static_cast<uint64_t>(_mm256_movemask_ps(reinterpret_cast<__m256>(a > b)));
  else
    return static_cast<uint64_t>(_mm256_movemask_pd(reinterpret_cast<__m256d>(a > b)));
#elif defined(__aarch64__)
  if constexpr (sizeof(T) == 4)
    return vaddvq_u32(vcgtq_f32(a, b) & uint32x4_t{1, 2, 4, 8});
  else
    return vaddvq_u64(vcgtq_f64(a, b) & uint64x2_t{1, 2});
#else
  uint64_t bits = 0;
  for (int64_t i = 0; i < kLanes<T>; ++i) bits |= static_cast<uint64_t>(a[i] > b[i]) << i;
  return bits;
#endif
}

// The k largest scores of every row of a chunk, descending, and their columns; equal ones stay in the order in which
// they came. The first k columns are all taken, so that a NaN leaves no place empty.
template <class T>
struct Lists {
  int64_t k, columns;
  T* scores;  // [rows][k]
  int64_t* indices;

  template <int V>
  GENFAST_INLINE void take(int64_t first, int64_t height, int64_t column, const T* sums) {
    for (int64_t r = 0; r < height; ++r, sums += V * kLanes<T>) {
      const Vector<T> least = broadcast(scores[(first + r) * k + k - 1]);
      uint64_t bits = 0;
#pragma GCC unroll 4
      for (int v = 0; v < V; ++v) bits |= greater<T>(load(sums + v * kLanes<T>), least) << (v * kLanes<T>);
      if (column < k) bits = ~uint64_t{0} >> (64 - min(V * kLanes<T>, columns - column));
      for (; bits; bits &= bits - 1) {
        const int64_t at = __builtin_ctzll(bits);
        insert(first + r, sums[at], column + at);
      }
    }
  }

  // Most tiles change nothing: this stays out of the loop over them.
  __attribute__((noinline)) void insert(int64_t row, T score, int64_t column) {
    T* list = scores + row * k;
    int64_t* numbers = indices + row * k;
    const int64_t at = column < k ? column : k - 1;
    if (column < k)
      score = score == score ? score : -kInfinity<T>;
    else if (!(score > list[at]))
      return;
    // Without branches: which half it is, is a coin.
    int64_t low = 0;
    for (int64_t left = at; left > 0;) {
      const int64_t half = (left + 1) / 2;
      low += list[low + half - 1] < score ? 0 : half;
      left -= half;
    }
    memmove(list + low + 1, list + low, static_cast<size_t>(at - low) * sizeof *list);
    memmove(numbers + low + 1, numbers + low, static_cast<size_t>(at - low) * sizeof *numbers);
    list[low] = score, numbers[low] = column;
  }
};

template <class S>
int search_chunks(const NearestNeighbors& a, const Chunks<S>& chunks, const Columns<Arithmetic<S>>& y, int64_t begin,
                  int64_t end) {
  using T = Arithmetic<S>;
  const int64_t room = chunks.size * a.k;
  Scratch memory(chunks.bytes() + Scratch::bytes<T>(room) + Scratch::bytes<int64_t>(room));
  if (memory.failed()) return kNoMemory;
  T* converted = chunks.room(memory);
  Lists<T> lists{a.k, a.count, memory.take<T>(room), memory.take<int64_t>(room)};
  for (int64_t chunk = begin; chunk < end; ++chunk) {
    const int64_t height = chunks.height(chunk), first = chunks.first(chunk);
    const T* x = chunks.read(static_cast<const S*>(a.x), chunk, converted);
    for (int64_t i = 0; i < height * a.k; ++i) lists.scores[i] = 0;
    walk(y, x, height, lists);
    // Distances from the differences, in which nothing cancels: nearly in order already.
    for (int64_t r = 0; r < height; ++r) {
      T* squares = static_cast<T*>(a.squared_distances) + (first + r) * a.k;
      int64_t* indices = static_cast<int64_t*>(a.indices) + (first + r) * a.k;
      for (int64_t i = 0; i < a.k; ++i) {
        const int64_t index = lists.indices[r * a.k + i];
        const T square = squared_distance(static_cast<const S*>(a.x) + (first + r) * a.depth,
                                          static_cast<const S*>(a.y) + index * a.depth, a.depth);
        int64_t at = i;
        for (; at > 0 && (squares[at - 1] > square || (squares[at - 1] == square && indices[at - 1] > index)); --at)
          squares[at] = squares[at - 1], indices[at] = indices[at - 1];
        squares[at] = square, indices[at] = index;
      }
    }
  }
  return kOk;
}

template <class S>
int search(const NearestNeighbors& a) {
  using T = Arithmetic<S>;
  Scratch memory(Columns<T>::bytes(a.count, a.depth));
  if (memory.failed()) return kNoMemory;
  Columns<T> y(a.count, a.depth, memory);
  pack(static_cast<const S*>(a.y), true, y);
  const Chunks<S> chunks(a.rows, y);
  return parallel(chunks.count(), [&](int64_t begin, int64_t end) { return search_chunks(a, chunks, y, begin, end); });
}

}  // namespace

GENFAST_KERNEL(nearest_neighbors, NearestNeighbors, search)

}  // namespace GENFAST_ISA
}  // namespace genfast
