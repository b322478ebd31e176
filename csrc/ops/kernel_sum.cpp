#include "ops/kernel_sum.h"

#include "core/pairwise.h"
#include "core/parallel.h"

namespace genfast {
namespace GENFAST_ISA {
namespace {

// exp(-gamma |x - y|^2) from a sum x y - |y|^2 / 2; a distance that rounding made negative is 0.
template <class T>
struct Gaussian {
  T gamma;
  T* norms;  // |x|^2 of the rows, centred as the columns are

  void keep_norms(T* room) { norms = room; }
  void start_row(int64_t row, const T* x, int64_t depth) {
    norms[row] = static_cast<T>(squared_norm<T>(x, nullptr, depth));
  }
  GENFAST_INLINE Vector<T> prepare(int64_t row, Vector<T> sum) const {
    const Vector<T> zero = broadcast(T(0)), square = fma(broadcast(T(-2)), sum, broadcast(norms[row]));
    return exp_neg<T>(-broadcast(gamma) * (square < zero ? zero : square));
  }
  GENFAST_INLINE Vector<double> finish(Vector<double> value) const { return value; }
};

// (gamma x y + coef0)^degree, the power in double: it outgrows float.
template <class T>
struct Polynomial {
  double gamma, coef0;
  int64_t degree;

  void keep_norms(T*) {}
  void start_row(int64_t, const T*, int64_t) {}
  GENFAST_INLINE Vector<T> prepare(int64_t, Vector<T> sum) const { return sum; }
  GENFAST_INLINE Vector<double> finish(Vector<double> product) const {
    const Vector<double> base = fma(broadcast(gamma), product, broadcast(coef0));
    Vector<double> power = base;
    for (int64_t i = 1; i < degree; ++i) power *= base;
    return power;
  }
};

// Sums in double, column m in lane m % 16, m ascending.
template <class T, class Kernel>
struct Sums {
  Kernel kernel;
  int64_t columns;
  double* lanes;  // [rows][16]

  template <int V>
  GENFAST_INLINE void take(int64_t first, int64_t height, int64_t column, const T* sums) {
    constexpr int64_t width = kLanes<double>;
    for (int64_t r = 0; r < height; ++r, sums += V * kLanes<T>) {
      double* row = lanes + (first + r) * kSumLanes;
      for (int64_t v = 0; v < V; ++v) {
        T values[kLanes<T>];
        store(values, kernel.prepare(first + r, load(sums + v * kLanes<T>)));
#pragma GCC unroll 2
        for (int64_t i = 0; i < kLanes<T>; i += width) {
          const int64_t at = column + v * kLanes<T> + i;
          double* to = row + at % kSumLanes;
          const Vector<double> value = kernel.finish(wide(values + i));
          if (at + width <= columns)
            store(to, load(to) + value);
          else
            add(value, columns - at, to);
        }
      }
    }
  }

 private:
  static GENFAST_INLINE Vector<double> wide(const double* from) { return load(from); }
  static GENFAST_INLINE Vector<double> wide(const float* from) {
    typedef float Half __attribute__((vector_size(kVectorBytes / 2)));
    Half half;
    memcpy(&half, from, sizeof half);
    return __builtin_convertvector(half, Vector<double>);
  }
  static void add(Vector<double> value, int64_t count, double* to) {
    for (int64_t i = 0; i < count; ++i) to[i] += value[i];
  }
};

template <class S, class Kernel>
int sum_chunks(const KernelSum& a, const Chunks<S>& chunks, const Columns<Arithmetic<S>>& y, const Kernel& kernel,
               int64_t begin, int64_t end) {
  using T = Arithmetic<S>;
  const int64_t size = chunks.size;
  Scratch memory(chunks.bytes() + Scratch::bytes<double>(size * kSumLanes) + Scratch::bytes<T>(size));
  if (memory.failed()) return kNoMemory;
  T* room = chunks.room(memory);
  Sums<T, Kernel> sums{kernel, a.count, memory.take<double>(size * kSumLanes)};
  sums.kernel.keep_norms(memory.take<T>(size));
  for (int64_t chunk = begin; chunk < end; ++chunk) {
    const int64_t height = chunks.height(chunk);
    const T* x = chunks.read(static_cast<const S*>(a.x), chunk, room);
    for (int64_t i = 0; i < height * kSumLanes; ++i) sums.lanes[i] = 0;
    for (int64_t r = 0; r < height; ++r) sums.kernel.start_row(r, x + r * a.depth, a.depth);
    walk(y, x, height, sums);
    for (int64_t r = 0; r < height; ++r)
      static_cast<double*>(a.total)[chunks.first(chunk) + r] = sum_of_lanes(sums.lanes + r * kSumLanes);
  }
  return kOk;
}

template <class S, class Kernel>
int sum(const KernelSum& a, bool norms, Kernel kernel) {
  using T = Arithmetic<S>;
  Scratch memory(Columns<T>::bytes(a.count, a.depth));
  if (memory.failed()) return kNoMemory;
  Columns<T> y(a.count, a.depth, memory);
  pack(static_cast<const S*>(a.y), norms, y);
  const Chunks<S> chunks(a.rows, y);
  return parallel(chunks.count(),
                  [&](int64_t begin, int64_t end) { return sum_chunks(a, chunks, y, kernel, begin, end); });
}

template <class S>
int sum(const KernelSum& a) {
  using T = Arithmetic<S>;
  if (a.is_gaussian) return sum<S>(a, true, Gaussian<T>{static_cast<T>(a.gamma), nullptr});
  return sum<S>(a, false, Polynomial<T>{a.gamma, a.coef0, a.degree});
}

}  // namespace

GENFAST_KERNEL(kernel_sum, KernelSum, sum)

}  // namespace GENFAST_ISA
}  // namespace genfast
