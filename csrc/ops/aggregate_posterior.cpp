#include "ops/aggregate_posterior.h"

#include "core/lane_sum.h"
#include "core/parallel.h"

namespace genfast {
namespace GENFAST_ISA {
namespace {

constexpr double kHalfLogTwoPi = 0.91893853320467274178;
constexpr int64_t kTogether = 4;  // latents whose densities are added in one pass

// Lanes hold points or Gaussians; rows of both are padded to whole vectors of every isa.
GENFAST_INLINE int64_t padded(int64_t n) { return round_up(n, kSumLanes); }

// to [columns][padded(rows)] = from [rows][columns] transposed, then `fill`.
template <class T, class S>
void transpose(const S* from, int64_t rows, int64_t columns, T fill, T* to) {
  for (int64_t first = 0; first < rows; first += kSumLanes)
    for (int64_t c = 0; c < columns; ++c)
      for (int64_t r = first; r < first + kSumLanes; ++r)
        to[c * padded(rows) + r] = r < rows ? to_arithmetic(from[r * columns + c]) : fill;
}

// A log-density is peak - ((z - mean) scale)^2 with scale^2 = exp(-log_variance) / 2: the difference comes first, so
// that nothing cancels. Tables are [Z][padded(M)]; the Gaussians past the last have no density.
template <class T>
struct Tables {
  int64_t points, count, latents;
  T *z, *mean, *scale, *peak;

  static int64_t bytes(int64_t points, int64_t count, int64_t latents) {
    return Scratch::bytes<T>(latents * padded(points)) + 3 * Scratch::bytes<T>(latents * padded(count));
  }
  Tables(int64_t points, int64_t count, int64_t latents, Scratch& memory)
      : points(points),
        count(count),
        latents(latents),
        z(memory.take<T>(latents * padded(points))),
        mean(memory.take<T>(latents * padded(count))),
        scale(memory.take<T>(latents * padded(count))),
        peak(memory.take<T>(latents * padded(count))) {}

  template <class S>
  void fill(const S* points_at, const S* mean_at, const S* log_variance) {
    transpose(points_at, points, latents, T(0), z);
    transpose(mean_at, count, latents, T(0), mean);
    transpose(log_variance, count, latents, T(0), peak);
    for (int64_t l = 0; l < latents; ++l) {
      for (int64_t j = 0; j < padded(count); j += kLanes<double>) {
        double lanes[kLanes<double>];
        const int64_t at = l * padded(count) + j;
        for (int64_t i = 0; i < kLanes<double>; ++i) lanes[i] = peak[at + i];
        store(lanes, clamped<double>(load(lanes)));
        for (int64_t i = 0; i < kLanes<double>; ++i)
          peak[at + i] = j + i < count ? static_cast<T>(-0.5 * lanes[i] - kHalfLogTwoPi) : -kInfinity<T>;
        store(lanes, exponential<double>(broadcast(-0.5) * load(lanes)) * broadcast(0.70710678118654752440));
        for (int64_t i = 0; i < kLanes<double>; ++i) scale[at + i] = static_cast<T>(lanes[i]);
      }
    }
  }

  GENFAST_INLINE Vector<T> point(int64_t l, int64_t i) const { return load(z + l * padded(points) + i); }
};

template <class T>
struct Gaussians {
  Vector<T> mean, scale, peak;

  static GENFAST_INLINE Gaussians vector(const Tables<T>& t, int64_t at) {
    return {load(t.mean + at), load(t.scale + at), load(t.peak + at)};
  }
  static GENFAST_INLINE Gaussians one(const Tables<T>& t, int64_t at) {
    return {broadcast(t.mean[at]), broadcast(t.scale[at]), broadcast(t.peak[at])};
  }
  GENFAST_INLINE Vector<T> distance(Vector<T> z) const { return (z - mean) * scale; }
  GENFAST_INLINE Vector<T> log_density(Vector<T> distance) const { return fma(-distance, distance, peak); }
};

// What is subtracted before an exponential: the largest term, or 0 where all are -infinity.
template <class T>
GENFAST_INLINE Vector<T> shift(Vector<T> largest) {
  return largest == broadcast(-kInfinity<T>) ? broadcast(T(0)) : largest;
}

// log sum of exponentials of terms [count][lanes], count ascending.
template <class T>
GENFAST_INLINE Vector<T> log_sum_exp(const T* terms, int64_t count, Vector<T> largest) {
  const Vector<T> least = shift<T>(largest);
  Vector<T> sum = broadcast(T(0));
  for (int64_t j = 0; j < count; ++j) sum += exp_neg<T>(load(terms + j * kLanes<T>) - least);
  return largest + logarithm<T>(sum);
}

template <class S>
int forward_points(const AggregatePosteriorForward& a, const Tables<Arithmetic<S>>& t, int64_t begin, int64_t end) {
  using T = Arithmetic<S>;
  const int64_t lanes = kLanes<T>, room = t.count * lanes;
  const Vector<T> none = broadcast(-kInfinity<T>);
  Scratch memory(2 * Scratch::bytes<T>(room));
  if (memory.failed()) return kNoMemory;
  T *joint = memory.take<T>(room), *terms = memory.take<T>(room);
  T* marginals = static_cast<T*>(a.marginals);
  for (int64_t i = begin * lanes; i < min(end * lanes, t.points); i += lanes) {
    for (int64_t e = 0; e < room; ++e) joint[e] = 0;
    for (int64_t l = 0; l < t.latents; ++l) {
      const Vector<T> z = t.point(l, i);
      Vector<T> largest = none;
      for (int64_t j = 0; j < t.count; ++j) {
        const Gaussians<T> of = Gaussians<T>::one(t, l * padded(t.count) + j);
        const Vector<T> term = of.log_density(of.distance(z));
        store(terms + j * lanes, term);
        store(joint + j * lanes, load(joint + j * lanes) + term);
        largest = larger<T>(term, largest);
      }
      T total[kLanes<T>];
      store(total, log_sum_exp(terms, t.count, largest));
      for (int64_t r = 0; r < min(lanes, t.points - i); ++r) marginals[(i + r) * t.latents + l] = total[r];
    }
    const Vector<T> largest = t.count ? largest_of(joint, t.count, lanes) : none;
    store(static_cast<T*>(a.joint) + i, log_sum_exp(joint, t.count, largest), t.points - i);
  }
  return kOk;
}

template <class S>
int forward(const AggregatePosteriorForward& a) {
  using T = Arithmetic<S>;
  Scratch memory(Tables<T>::bytes(a.points, a.count, a.latents));
  if (memory.failed()) return kNoMemory;
  Tables<T> tables(a.points, a.count, a.latents, memory);
  tables.fill(static_cast<const S*>(a.z), static_cast<const S*>(a.mean), static_cast<const S*>(a.log_variance));
  return parallel(pieces_of(a.points, kLanes<T>),
                  [&](int64_t begin, int64_t end) { return forward_points<S>(a, tables, begin, end); });
}

// Incoming gradients and the outputs that they belong to, as rows of points: [padded(N)] and [Z][padded(N)].
template <class S>
struct Backward {
  using T = Arithmetic<S>;
  const AggregatePosteriorBackward& a;
  const Tables<T>& tables;
  T *joint, *grad_joint, *marginals, *grad_marginals;

  static int64_t bytes(const AggregatePosteriorBackward& a) {
    return 2 * Scratch::bytes<T>(padded(a.points)) + 2 * Scratch::bytes<T>(a.latents * padded(a.points));
  }
  Backward(const AggregatePosteriorBackward& a, const Tables<T>& tables, Scratch& memory)
      : a(a),
        tables(tables),
        joint(memory.take<T>(padded(a.points))),
        grad_joint(memory.take<T>(padded(a.points))),
        marginals(memory.take<T>(a.latents * padded(a.points))),
        grad_marginals(memory.take<T>(a.latents * padded(a.points))) {
    if (a.grad_joint) {
      copy(static_cast<const T*>(a.joint), 1, joint);
      transpose(static_cast<const T*>(a.grad_joint), a.points, 1, T(0), grad_joint);
    }
    if (a.grad_marginals) {
      copy(static_cast<const T*>(a.marginals), a.latents, marginals);
      transpose(static_cast<const T*>(a.grad_marginals), a.points, a.latents, T(0), grad_marginals);
    }
  }

 private:
  void copy(const T* from, int64_t columns, T* to) {
    transpose(from, a.points, columns, T(0), to);
    for (int64_t e = 0; e < columns * padded(a.points); e += kLanes<T>) store(to + e, shift<T>(load(to + e)));
  }
};

// The part of a term in a sum: its share of the density times the gradient of the sum.
template <class T>
GENFAST_INLINE Vector<T> share(Vector<T> gradient, Vector<T> term, Vector<T> total) {
  return gradient * exp_neg<T>(term - total);
}

// Of a row: a vector from `at` on where its elements are lanes, else element `i` in all of them.
template <bool kLanesOfIt, class T>
GENFAST_INLINE Vector<T> lanes_or_one(const T* row, int64_t at, int64_t i) {
  if constexpr (kLanesOfIt) return load(row + at);
  return broadcast(row[i]);
}

// What the gradient of `joint` makes of each pair of a vector from `at` on, of points (then [M][lanes]) or of Gaussians
// ([N][lanes]), and one of the others.
template <bool kPoints, class S, class T>
void weights_of(const Backward<S>& job, int64_t at, T* weights) {
  const Tables<T>& t = job.tables;
  const int64_t lanes = kLanes<T>, others = kPoints ? t.count : t.points;
  for (int64_t e = 0; e < others * lanes; ++e) weights[e] = 0;
  if (!job.a.grad_joint) return;
  for (int64_t first = 0; first < t.latents; first += kTogether) {
    const int64_t last = min(first + kTogether, t.latents);
    for (int64_t j = 0; j < others; ++j) {
      Vector<T> sum = load(weights + j * lanes);
      for (int64_t l = first; l < last; ++l) {
        const int64_t row = l * padded(t.count);
        const Gaussians<T> of = kPoints ? Gaussians<T>::one(t, row + j) : Gaussians<T>::vector(t, row + at);
        sum += of.log_density(of.distance(lanes_or_one<kPoints>(t.z + l * padded(t.points), at, j)));
      }
      store(weights + j * lanes, sum);
    }
  }
  for (int64_t j = 0; j < others; ++j) {
    const Vector<T> total = lanes_or_one<kPoints>(job.joint, at, j);
    const Vector<T> gradient = lanes_or_one<kPoints>(job.grad_joint, at, j);
    store(weights + j * lanes, share<T>(gradient, load(weights + j * lanes), total));
  }
}

template <class S, class T>
void write_lanes(Vector<T> values, int64_t count, int64_t step, S* to) {
  T all[kLanes<T>];
  store(all, values);
  for (int64_t r = 0; r < min(kLanes<T>, count); ++r) assign(to[r * step], all[r]);
}

template <class S>
int backward_points(const Backward<S>& job, int64_t begin, int64_t end) {
  using T = Arithmetic<S>;
  const Tables<T>& t = job.tables;
  const int64_t lanes = kLanes<T>;
  Scratch memory(Scratch::bytes<T>(t.count * lanes));
  if (memory.failed()) return kNoMemory;
  T* weights = memory.take<T>(t.count * lanes);
  for (int64_t i = begin * lanes; i < min(end * lanes, t.points); i += lanes) {
    weights_of<true>(job, i, weights);
    for (int64_t l = 0; l < t.latents; ++l) {
      const int64_t row = l * padded(t.points) + i;
      const Vector<T> z = t.point(l, i);
      const bool alone = job.a.grad_marginals;
      const Vector<T> total = alone ? load(job.marginals + row) : z,
                      gradient = alone ? load(job.grad_marginals + row) : z;
      Vector<T> sum = broadcast(T(0));
      for (int64_t j = 0; j < t.count; ++j) {
        const Gaussians<T> of = Gaussians<T>::one(t, l * padded(t.count) + j);
        const Vector<T> distance = of.distance(z);
        Vector<T> weight = load(weights + j * lanes);
        if (alone) weight += share<T>(gradient, of.log_density(distance), total);
        sum = fma(weight * distance, of.scale, sum);
      }
      write_lanes<S, T>(broadcast(T(-2)) * sum, t.points - i, t.latents,
                        static_cast<S*>(job.a.grad_z) + i * t.latents + l);
    }
  }
  return kOk;
}

template <class S>
int backward_gaussians(const Backward<S>& job, int64_t begin, int64_t end) {
  using T = Arithmetic<S>;
  const Tables<T>& t = job.tables;
  const int64_t lanes = kLanes<T>;
  Scratch memory(Scratch::bytes<T>(t.points * lanes));
  if (memory.failed()) return kNoMemory;
  T* weights = memory.take<T>(t.points * lanes);
  for (int64_t j = begin * lanes; j < min(end * lanes, t.count); j += lanes) {
    weights_of<false>(job, j, weights);
    for (int64_t l = 0; l < t.latents; ++l) {
      const Gaussians<T> of = Gaussians<T>::vector(t, l * padded(t.count) + j);
      const int64_t row = l * padded(t.points);
      Vector<T> zeroth = broadcast(T(0)), first = zeroth, second = zeroth;
      for (int64_t i = 0; i < t.points; ++i) {
        const Vector<T> distance = of.distance(broadcast(t.z[row + i]));
        Vector<T> weight = load(weights + i * lanes);
        if (job.a.grad_marginals)
          weight += share<T>(broadcast(job.grad_marginals[row + i]), of.log_density(distance),
                             broadcast(job.marginals[row + i]));
        const Vector<T> moment = weight * distance;
        zeroth += weight, first += moment, second = fma(moment, distance, second);
      }
      T inside[kLanes<T>] = {};
      for (int64_t r = 0; r < min(lanes, t.count - j); ++r) {
        const T value = to_arithmetic(static_cast<const S*>(job.a.log_variance)[(j + r) * t.latents + l]);
        inside[r] = value >= T(kLeastLogVariance) && value <= T(kMostLogVariance);
      }
      const int64_t at = j * t.latents + l;
      write_lanes<S, T>((of.scale + of.scale) * first, t.count - j, t.latents, static_cast<S*>(job.a.grad_mean) + at);
      write_lanes<S, T>(load(inside) * fma(broadcast(T(-0.5)), zeroth, second), t.count - j, t.latents,
                        static_cast<S*>(job.a.grad_log_variance) + at);
    }
  }
  return kOk;
}

template <class S>
int backward(const AggregatePosteriorBackward& a) {
  using T = Arithmetic<S>;
  Scratch memory(Tables<T>::bytes(a.points, a.count, a.latents) + Backward<S>::bytes(a));
  if (memory.failed()) return kNoMemory;
  Tables<T> tables(a.points, a.count, a.latents, memory);
  tables.fill(static_cast<const S*>(a.z), static_cast<const S*>(a.mean), static_cast<const S*>(a.log_variance));
  const Backward<S> job(a, tables, memory);
  const int status = parallel(pieces_of(a.points, kLanes<T>),
                              [&](int64_t begin, int64_t end) { return backward_points(job, begin, end); });
  if (status != kOk) return status;
  return parallel(pieces_of(a.count, kLanes<T>),
                  [&](int64_t begin, int64_t end) { return backward_gaussians(job, begin, end); });
}

}  // namespace

GENFAST_KERNEL(aggregate_posterior_forward, AggregatePosteriorForward, forward)
GENFAST_KERNEL(aggregate_posterior_backward, AggregatePosteriorBackward, backward)

}  // namespace GENFAST_ISA
}  // namespace genfast
