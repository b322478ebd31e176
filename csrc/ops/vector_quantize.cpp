#include "ops/vector_quantize.h"

#include "core/pairwise.h"
#include "core/parallel.h"

namespace genfast {
namespace GENFAST_ISA {
namespace {

constexpr int64_t kRowBlock = 64;  // rows of one piece where they are independent

// The running maximum of a chunk of rows: of every lane, and the number of the first vector that reached it.
template <class T>
struct Largest {
  using Integer = typename VectorOf<T>::integer;
  struct Row {
    Vector<T> score;
    Integer vector;
  };
  Row* rows;

  void clear(int64_t count) {
    for (int64_t r = 0; r < count; ++r) rows[r] = {broadcast(-kInfinity<T>), Integer{}};
  }

  template <int V>
  GENFAST_INLINE void take(int64_t first, int64_t height, int64_t column, const T* sums) {
    using Number = decltype(Integer{}[0] + 0);
    const Integer number = Integer{} + static_cast<Number>(column / kLanes<T>);
    for (int64_t r = 0; r < height; ++r) {
      Row& row = rows[first + r];
      Vector<T> score = row.score;
      Integer vector = row.vector;
#pragma GCC unroll 4
      for (int v = 0; v < V; ++v) {
        const Vector<T> x = load(sums + (r * V + v) * kLanes<T>);
        vector = x > score ? number + static_cast<Number>(v) : vector;
        score = x > score ? x : score;
      }
      row = {score, vector};
    }
  }

  // The first column of the largest score; column 0 where none passes -infinity.
  int64_t column(int64_t r) const {
    T best = -kInfinity<T>;
    int64_t found = 0;
    for (int64_t i = 0; i < kLanes<T>; ++i) {
      const int64_t at = rows[r].vector[i] * kLanes<T> + i;
      const T score = rows[r].score[i];
      if (score > best || (score == best && at < found)) best = score, found = at;
    }
    return found;
  }
};

// `squares` [N] are the distances.
template <class S>
int forward_chunks(const VectorQuantizeForward& a, const Chunks<S>& chunks, const Columns<Arithmetic<S>>& codebook,
                   double* squares, int64_t begin, int64_t end) {
  using T = Arithmetic<S>;
  using Row = typename Largest<T>::Row;
  Scratch memory(chunks.bytes() + Scratch::bytes<Row>(chunks.size));
  if (memory.failed()) return kNoMemory;
  T* room = chunks.room(memory);
  Largest<T> largest{memory.take<Row>(chunks.size)};
  for (int64_t chunk = begin; chunk < end; ++chunk) {
    const int64_t first = chunks.first(chunk), height = chunks.height(chunk);
    const T* x = chunks.read(static_cast<const S*>(a.x), chunk, room);
    largest.clear(height);
    walk(codebook, x, height, largest);
    for (int64_t r = 0; r < height; ++r) {
      const int64_t code = largest.column(r), n = first + r;
      static_cast<int64_t*>(a.codes)[n] = code;
      const S *row = static_cast<const S*>(a.x) + n * a.depth, *e = static_cast<const S*>(a.codebook) + code * a.depth;
      memcpy(static_cast<S*>(a.quantized) + n * a.depth, e, static_cast<size_t>(a.depth) * sizeof(S));
      squares[n] = squared_distance(row, e, a.depth);
    }
  }
  return kOk;
}

template <class S>
int forward(const VectorQuantizeForward& a) {
  using T = Arithmetic<S>;
  Scratch memory(Columns<T>::bytes(a.count, a.depth) + Scratch::bytes<double>(a.rows));
  if (memory.failed()) return kNoMemory;
  Columns<T> codebook(a.count, a.depth, memory);
  pack(static_cast<const S*>(a.codebook), true, codebook);
  const Chunks<S> chunks(a.rows, codebook);
  double* squares = memory.take<double>(a.rows);
  use_huge_pages(a.quantized, a.rows * a.depth * static_cast<int64_t>(sizeof(S)));
  const int status = parallel(chunks.count(), [&](int64_t begin, int64_t end) {
    return forward_chunks(a, chunks, codebook, squares, begin, end);
  });
  if (status != kOk) return status;
  double sum = 0;
  for (int64_t n = 0; n < a.rows; ++n) sum += squares[n];
  const double mean = a.rows ? sum / (static_cast<double>(a.rows) * static_cast<double>(a.depth)) : 0;
  *static_cast<T*>(a.loss) = static_cast<T>((a.commitment + a.codebook_weight) * mean);
  return kOk;
}

// What an incoming gradient of the loss makes of a difference x - e.
template <class T>
T difference_weight(const VectorQuantizeBackward& a, double weight) {
  if (!a.grad_loss || !a.rows) return 0;
  const double mean = 2 * weight / (static_cast<double>(a.rows) * static_cast<double>(a.depth));
  return static_cast<T>(static_cast<double>(*static_cast<const T*>(a.grad_loss)) * mean);
}

template <class S>
void backward_rows(const VectorQuantizeBackward& a, int64_t begin, int64_t end) {
  using T = Arithmetic<S>;
  const Vector<T> weight = broadcast(difference_weight<T>(a, a.commitment));
  for (int64_t n = begin * kRowBlock; n < min(end * kRowBlock, a.rows); ++n) {
    const uint64_t code = static_cast<uint64_t>(static_cast<const int64_t*>(a.codes)[n]);
    const S* e = static_cast<const S*>(a.codebook) + (code < static_cast<uint64_t>(a.count) ? code : 0) * a.depth;
    const S* x = static_cast<const S*>(a.x) + n * a.depth;
    const S* from = a.grad_quantized ? static_cast<const S*>(a.grad_quantized) + n * a.depth : nullptr;
    for (int64_t d = 0; d < a.depth; d += kLanes<T>) {
      const int64_t left = a.depth - d;
      const Vector<T> straight = from ? load(from + d, left) : broadcast(T(0));
      const Vector<T> grad = fma(weight, load(x + d, left) - load(e + d, left), straight);
      store(static_cast<S*>(a.grad_x) + n * a.depth + d, grad, left);
    }
  }
}

// sums[k] = sum over the rows n of code k, n ascending, of x[n], less `origin[k]` where there is one. A thread owns a
// range of dimensions, so that the order is that of the rows.
template <class S>
struct Scatter {
  const S *x, *origin;
  const int64_t* codes;
  Arithmetic<S>* sums;
  int64_t rows, depth, count;
};

template <class S>
void scatter_dimensions(const Scatter<S>& a, int64_t begin, int64_t end) {
  using T = Arithmetic<S>;
  const int64_t first = begin * kSumLanes, last = min(end * kSumLanes, a.depth);
  for (int64_t k = 0; k < a.count; ++k)
    for (int64_t d = first; d < last; ++d) a.sums[k * a.depth + d] = 0;
  for (int64_t n = 0; n < a.rows; ++n) {
    const int64_t k = a.codes[n];
    if (static_cast<uint64_t>(k) >= static_cast<uint64_t>(a.count)) continue;
    T* sums = a.sums + k * a.depth;
    for (int64_t d = first; d < last; d += kLanes<T>) {
      const int64_t left = last - d;
      Vector<T> x = load(a.x + n * a.depth + d, left);
      if (a.origin) x -= load(a.origin + k * a.depth + d, left);
      store(sums + d, load(sums + d, left) + x, left);
    }
  }
}

template <class S>
void scatter(const Scatter<S>& a) {
  parallel(
      pieces_of(a.depth, kSumLanes), [&](int64_t begin, int64_t end) { scatter_dimensions(a, begin, end); },
      grain_of(a.rows * kSumLanes));
}

template <class S>
int backward(const VectorQuantizeBackward& a) {
  using T = Arithmetic<S>;
  use_huge_pages(a.grad_x, a.rows * a.depth * static_cast<int64_t>(sizeof(S)));
  parallel(pieces_of(a.rows, kRowBlock), [&](int64_t begin, int64_t end) { backward_rows<S>(a, begin, end); });
  if (!a.grad_codebook) return kOk;
  const int64_t size = a.count * a.depth;
  Scratch memory(Scratch::bytes<T>(size));
  if (memory.failed()) return kNoMemory;
  T* sums = memory.take<T>(size);
  const T weight = difference_weight<T>(a, a.codebook_weight);
  // Sums of differences, where count e - sum x would cancel.
  if (weight != T(0))
    scatter<S>({static_cast<const S*>(a.x), static_cast<const S*>(a.codebook), static_cast<const int64_t*>(a.codes),
                sums, a.rows, a.depth, a.count});
  for (int64_t i = 0; i < size; ++i)
    assign(static_cast<S*>(a.grad_codebook)[i], weight != T(0) ? -weight * sums[i] : T(0));
  return kOk;
}

template <class S>
int statistics(const CodebookStatistics& a) {
  using T = Arithmetic<S>;
  const int64_t* codes = static_cast<const int64_t*>(a.codes);
  T* counts = static_cast<T*>(a.counts);
  Scratch memory(Scratch::bytes<int64_t>(a.count));
  if (memory.failed()) return kNoMemory;
  int64_t* whole = memory.take<int64_t>(a.count);  // float32 stops counting at 2^24
  for (int64_t k = 0; k < a.count; ++k) whole[k] = 0;
  for (int64_t n = 0; n < a.rows; ++n)
    if (static_cast<uint64_t>(codes[n]) < static_cast<uint64_t>(a.count)) ++whole[codes[n]];
  for (int64_t k = 0; k < a.count; ++k) counts[k] = static_cast<T>(whole[k]);
  scatter<S>({static_cast<const S*>(a.x), nullptr, codes, static_cast<T*>(a.sums), a.rows, a.depth, a.count});
  return kOk;
}

}  // namespace

GENFAST_KERNEL(vector_quantize_forward, VectorQuantizeForward, forward)
GENFAST_KERNEL(vector_quantize_backward, VectorQuantizeBackward, backward)
GENFAST_KERNEL(codebook_statistics, CodebookStatistics, statistics)

}  // namespace GENFAST_ISA
}  // namespace genfast
