// A mixture of logistics at one vector of pixels: its negative log-likelihood, gradients and draws.
//
// Positions are in half bins, so that the edges of bins are whole numbers: level v of L is 2v - (L - 1), which is L - 1
// times the pixel scaled to [-1, 1]; its bin ends at the position +- 1.
#pragma once

#include "core/math.h"

namespace genfast {
namespace GENFAST_ISA {
namespace {

// How one image lies in memory: [rows, pixels], or [pixels, rows] if the rows are innermost.
struct Plane {
  int64_t rows, pixels;
  bool innermost;

  template <class S>
  S* at(S* data, int64_t image, int64_t pixel) const {
    return data + image * rows * pixels + pixel * (innermost ? rows : 1);
  }
  int64_t row_step() const { return innermost ? 1 : pixels; }
  int64_t pixel_step() const { return innermost ? rows : 1; }
};

// The first rows, [rows][lanes], of n pixels; lanes past n are zero. And back.
template <class T, class S>
void read_tile(const S* from, const Plane& plane, int64_t rows, int64_t n, T* tile) {
  const int64_t step = plane.pixel_step();
  for (int64_t r = 0; r < rows; ++r, tile += kLanes<T>, from += plane.row_step()) {
    if constexpr (sizeof(T) == sizeof(Arithmetic<S>)) {
      if (step == 1) {
        // Rows lie pages apart, where no hardware prefetcher sees the next tile coming.
        __builtin_prefetch(from + kLanes<T>);
        store(tile, load(from, n));
        continue;
      }
    }
    if (n == kLanes<T>) {
      for (int64_t i = 0; i < kLanes<T>; ++i) tile[i] = static_cast<T>(to_arithmetic(from[i * step]));
    } else {
      for (int64_t i = 0; i < kLanes<T>; ++i) tile[i] = i < n ? static_cast<T>(to_arithmetic(from[i * step])) : T(0);
    }
  }
}
template <class T, class S>
void write_tile(const T* tile, const Plane& plane, int64_t n, S* to) {
  if (plane.innermost) {
    for (int64_t i = 0; i < n; ++i)
      for (int64_t r = 0; r < plane.rows; ++r) assign(to[i * plane.rows + r], tile[r * kLanes<T> + i]);
  } else {
    for (int64_t r = 0; r < plane.rows; ++r) store(to + r * plane.pixels, load(tile + r * kLanes<T>), n);
  }
}

// What is the same for every pixel.
template <class T, int C>
struct Mixture {
  int64_t components;
  T last;       // L - 1
  T half;       // 1 / (L - 1), half a bin of the scaled pixel
  T log_width;  // log(2 / (L - 1))

  static constexpr T kLowestLogScale = -7;
  // Below this e^-w is 1 - w to the last bit; the product of three of them is still a normal number.
  static constexpr T kLeastWidth = sizeof(T) == 4 ? T(1e-9) : T(1e-18);

  Mixture(int64_t k, int64_t levels)
      : components(k),
        last(static_cast<T>(levels - 1)),
        half(1 / last),
        log_width(logarithm<T>(broadcast(2 / last))[0]) {}
  int64_t rows() const { return components * (C == 1 ? 3 : 10); }
  int64_t scratch() const { return Scratch::bytes<T>((2 * rows() + 2 * components) * kLanes<T>); }

  // Rows of params.
  int64_t mean(int c, int64_t k) const { return (1 + c) * components + k; }
  int64_t log_scale(int c, int64_t k) const { return (1 + C + c) * components + k; }
  int64_t coefficient(int i, int64_t k) const { return (1 + 2 * C + i) * components + k; }
};

// The logarithm of the mass of a bin, shift + log(ratio), and its derivatives.
template <class T>
struct Mass {
  Vector<T> shift, ratio, by_mean, by_log_scale;
};

template <class T>
struct Pixel {
  using Mask = typename VectorOf<T>::integer;
  Vector<T> position;
  Mask lowest, highest;
};

template <class T>
GENFAST_INLINE Vector<T> smaller(Vector<T> x, T limit) {
  const Vector<T> y = broadcast(limit);
  return x > y ? y : x;
}

// With a and b the ends of the bin in scales from the mean, w = b - a, the mass is
// sigmoid(b) sigmoid(-a) (1 - e^-w) = e^(min(b, 0) + min(-a, 0)) (1 - e^-w) / ((1 + e^-|b|) (1 + e^-|a|)),
// in which nothing cancels. The end of an edge bin is so far off that its factors are 1.
template <class T, int C>
GENFAST_INLINE Mass<T> mass_of(const Mixture<T, C>& m, const Pixel<T>& pixel, Vector<T> lower, Vector<T> upper,
                               Vector<T> raw_log_scale) {
  const Vector<T> zero = broadcast(T(0)), one = broadcast(T(1)), lowest_scale = broadcast(m.kLowestLogScale),
                  far = broadcast(Exponential<T>::kLimit), least = broadcast(m.kLeastWidth);
  const Vector<T> log_scale = raw_log_scale < lowest_scale ? lowest_scale : raw_log_scale;
  const Vector<T> inverse = bounded_exponential<T>(-log_scale), half = inverse * broadcast(m.half);
  const Vector<T> a = pixel.lowest ? -far : half * lower, b = pixel.highest ? far : half * upper;
  Vector<T> w = pixel.lowest | pixel.highest ? far : half + half;
  w = w < least ? least : w;
  const Vector<T> ea = bounded_exponential<T>(a < zero ? a : -a), eb = bounded_exponential<T>(b < zero ? b : -b);
  Vector<T> power, p = reduced_expm1<T>(-smaller(w, Exponential<T>::kLimit), power);
  const Vector<T> ew = fma(power, p, power), width = -fma(power, p, power - one);
  // A narrow bin keeps log(w) apart, since the product of three masses could be too small for the dtype.
  const auto narrow = w < one;
  const Vector<T> da = one + ea, db = one + eb, d = da * db, divisor = narrow ? w : one;
  const Vector<T> r = one / (d * width * divisor), rw = r * divisor;
  const Vector<T> tail_a = (a > zero ? one : ea) * (rw * db * width);  // sigmoid(a)
  const Vector<T> tail_b = (b > zero ? eb : one) * (rw * da * width);  // sigmoid(-b)
  Mass<T> mass;
  mass.shift = (b < zero ? b : zero) - (a > zero ? a : zero) + (narrow ? broadcast(m.log_width) - log_scale : zero);
  mass.ratio = width * width * r;
  mass.by_mean = inverse * (tail_a - tail_b);
  mass.by_log_scale = fma(a, tail_a, -(b * tail_b)) - w * ew * (rw * d);
  mass.by_log_scale = raw_log_scale < lowest_scale ? zero : mass.by_log_scale;
  return mass;
}

template <class T, int C>
class MixtureTile {
 public:
  T *params, *gradients;  // [rows][lanes]

  MixtureTile(const Mixture<T, C>& mixture, Scratch& memory) : m_(mixture) {
    params = memory.take<T>((2 * m_.rows() + 2 * m_.components) * kLanes<T>);
    gradients = params + m_.rows() * kLanes<T>;
    shifts_ = gradients + m_.rows() * kLanes<T>;
    ratios_ = shifts_ + m_.components * kLanes<T>;
  }

  void load_x(const uint8_t* x, const Plane& plane, int64_t n) {
    const Vector<T> last = broadcast(m_.last);
    for (int c = 0; c < C; ++c) {
      T positions[kLanes<T>] = {};
      for (int64_t i = 0; i < n; ++i)
        positions[i] = static_cast<T>(2 * x[c * plane.row_step() + i * plane.pixel_step()]) - m_.last;
      const Vector<T> position = load(positions);
      pixels_[c] = {position, position <= -last, position >= last};
    }
  }

  Vector<T> nll() {
    components<false>();
    Vector<T> sum, best = total(&sum), weight_sum, best_weight = total_weight(&weight_sum);
    return best_weight - best + logarithm<T>(weight_sum) - logarithm<T>(sum);
  }

  // The gradients of `scale` times the nll.
  void gradient(T scale) {
    components<true>();
    Vector<T> sum, best = total(&sum), weight_sum, best_weight = total_weight(&weight_sum);
    const Vector<T> grad = broadcast(scale), of_weight = grad / weight_sum, of_share = grad / sum;
    for (int64_t k = 0; k < m_.components; ++k) {
      const Vector<T> share = exp_neg<T>(row(shifts_, k) - best) * row(ratios_, k) * of_share;
      const Vector<T> weight = exp_neg<T>(row(params, k) - best_weight) * of_weight;
      store(gradients + k * kLanes<T>, weight - share);
      for (int64_t r = m_.components + k; r < m_.rows(); r += m_.components)
        store(gradients + r * kLanes<T>, -share * row(gradients, r));
    }
  }

 private:
  const Mixture<T, C>& m_;
  Pixel<T> pixels_[C];
  T *shifts_, *ratios_;  // [K][lanes]: weight times mass of a component is e^shift ratio

  static GENFAST_INLINE Vector<T> row(const T* rows, int64_t r) { return load(rows + r * kLanes<T>); }

  template <bool kGradient>
  __attribute__((noinline)) void components() {
    const Vector<T> one = broadcast(T(1)), last = broadcast(-m_.last), half = broadcast(m_.half);
    for (int64_t k = 0; k < m_.components; ++k) {
      Vector<T> shift = row(params, k), ratio = one;
#pragma GCC unroll 3
      for (int c = 0; c < C; ++c) {
        const Vector<T> mean = row(params, m_.mean(c, k)), position = pixels_[c].position;
        Vector<T> lower = fma(last, mean, position - one), upper = fma(last, mean, position + one), coupling[2];
#pragma GCC unroll 2
        for (int i = 0; i < c; ++i) {
          coupling[i] = tanh<T>(row(params, m_.coefficient(c - 1 + i, k)));
          lower = fma(-coupling[i], pixels_[i].position, lower);
          upper = fma(-coupling[i], pixels_[i].position, upper);
        }
        const Mass<T> mass = mass_of<T, C>(m_, pixels_[c], lower, upper, row(params, m_.log_scale(c, k)));
        shift += mass.shift;
        ratio *= mass.ratio;
        if constexpr (kGradient) {
          store(gradients + m_.mean(c, k) * kLanes<T>, mass.by_mean);
          store(gradients + m_.log_scale(c, k) * kLanes<T>, mass.by_log_scale);
#pragma GCC unroll 2
          for (int i = 0; i < c; ++i)
            store(gradients + m_.coefficient(c - 1 + i, k) * kLanes<T>,
                  mass.by_mean * half * pixels_[i].position * fma(-coupling[i], coupling[i], one));
        }
      }
      store(shifts_ + k * kLanes<T>, shift);
      store(ratios_ + k * kLanes<T>, ratio);
    }
  }

  // The largest shift, and the sum of the components' masses without its exponential.
  GENFAST_INLINE Vector<T> total(Vector<T>* sum) const {
    const Vector<T> best = largest_of(shifts_, m_.components, kLanes<T>);
    *sum = broadcast(T(0));
    for (int64_t k = 0; k < m_.components; ++k) *sum = fma(exp_neg<T>(row(shifts_, k) - best), row(ratios_, k), *sum);
    return best;
  }
  GENFAST_INLINE Vector<T> total_weight(Vector<T>* sum) const {
    const Vector<T> best = largest_of(params, m_.components, kLanes<T>);
    *sum = broadcast(T(0));
    for (int64_t k = 0; k < m_.components; ++k) *sum += exp_neg<T>(row(params, k) - best);
    return best;
  }
};

// Draws one vector of pixels.
template <int C>
class MixtureDraw {
 public:
  static constexpr int64_t kPixels = kLanes<double>;
  double level[C * kPixels];  // [C][lanes]

  MixtureDraw(const Mixture<double, C>& mixture, double temperature, Scratch& memory)
      : m_(mixture), temperature_(broadcast(temperature)) {
    sums_ = memory.take<double>(m_.components * kPixels);
  }

  // The numbers are [lanes], one for the component, and [lanes][C].
  template <class S>
  void levels(const S* params, const Plane& plane, int64_t n, const double* component_u, const double* logistic_u) {
    int64_t component[kPixels];
    choose(params, plane, n, load(component_u), component);
    const auto chosen = [&](int64_t row) {
      double lanes[kPixels] = {};
      for (int64_t i = 0; i < n; ++i) {
        const int64_t r = row + component[i];
        lanes[i] = static_cast<double>(to_arithmetic(params[r * plane.row_step() + i * plane.pixel_step()]));
      }
      return load(lanes);
    };
    const Vector<double> last = broadcast(m_.last), zero = broadcast(0.), one = broadcast(1.), half = broadcast(0.5),
                         lowest = broadcast(m_.kLowestLogScale);
    Vector<double> positions[C];
#pragma GCC unroll 3
    for (int c = 0; c < C; ++c) {
      double lanes[kPixels];
      // The middle of the 2^-24 that a number stands for: neither 0 nor 1.
      for (int64_t i = 0; i < kPixels; ++i) lanes[i] = logistic_u[i * C + c] + 0x1p-25;
      const Vector<double> u = load(lanes), log_scale = chosen(m_.log_scale(c, 0));
      const Vector<double> scale = bounded_exponential<double>(log_scale < lowest ? lowest : log_scale);
      const Vector<double> spread = temperature_ * scale * logarithm<double>(u / (one - u));
      Vector<double> position = last * chosen(m_.mean(c, 0));
#pragma GCC unroll 2
      for (int i = 0; i < c; ++i) position += tanh<double>(chosen(m_.coefficient(c - 1 + i, 0))) * positions[i];
      // Level v has the positions from 2v - L to 2v - L + 2, the lowest and the highest level all beyond them too.
      Vector<double> v = (last * spread + position + (last + one)) * half;
      v = v > zero ? v : zero;
      v = v > last ? last : v;
      v = __builtin_convertvector(__builtin_convertvector(v, typename VectorOf<double>::integer), Vector<double>);
      store(level + c * kPixels, v);
      positions[c] = v + v - last;
    }
  }

 private:
  const Mixture<double, C>& m_;
  Vector<double> temperature_;
  double* sums_;  // [K][lanes]

  // The component at which the running sum of the weights passes u.
  template <class S>
  void choose(const S* params, const Plane& plane, int64_t n, Vector<double> u, int64_t* component) {
    read_tile(params, plane, m_.components, n, sums_);
    const Vector<double> best = largest_of(sums_, m_.components, kPixels);
    Vector<double> sum = broadcast(0.);
    for (int64_t k = 0; k < m_.components; ++k) {
      sum += exp_neg<double>((load(sums_ + k * kPixels) - best) / temperature_);
      store(sums_ + k * kPixels, sum);
    }
    const Vector<double> passed = u * sum;
    typename VectorOf<double>::integer count = {};
    for (int64_t k = 0; k + 1 < m_.components; ++k) count -= load(sums_ + k * kPixels) <= passed;
    memcpy(component, &count, sizeof count);
  }
};

}  // namespace
}  // namespace GENFAST_ISA
}  // namespace genfast
