// The values of an image as intervals of 2^24 numbers, by a decoder's parameters of one pixel after the other.
#pragma once

#include "core/ans.h"
#include "engine/mixture_tile.h"

namespace genfast {
namespace GENFAST_ISA {
namespace {

// Values of two levels. `prepared` is the frequency of level 0 of each.
class BernoulliBins {
 public:
  using Prepared = uint32_t;
  static int64_t scratch(int64_t, int64_t) { return 0; }
  BernoulliBins(int64_t, int64_t, Scratch&) {}

  static void prepare(const float* logits, int64_t count, uint32_t* to) {
    for (int64_t n = 0; n < count; n += kLanes<float>) {
      const Vector<float> l = load(logits + n, count - n), least = broadcast(0x1p-24f);
      Vector<float> p = exact_sigmoid<float>(-magnitude<float>(l));
      p = (p > least ? p : least) * broadcast(0x1p24f);  // of the less likely level; a NaN reads as the least
      const auto frequency = __builtin_convertvector(p, VectorOf<float>::integer);
      const auto zero = l < broadcast(0.f) ? static_cast<int32_t>(kWhole) - frequency : frequency;
      for (int64_t i = 0; i < min(kLanes<float>, count - n); ++i) to[n + i] = static_cast<uint32_t>(zero[i]);
    }
  }

  void start(const uint32_t* pixel) { pixel_ = pixel; }
  bool interval(int64_t channel, int64_t level, Interval* of) const {
    const uint32_t zero = pixel_[channel];
    *of = level ? Interval{zero, kWhole - zero} : Interval{0, zero};
    return true;
  }
  bool level(int64_t channel, uint32_t number, int64_t* level, Interval* of) const {
    *level = number >= pixel_[channel];
    return interval(channel, *level, of);
  }
  void take(int64_t, int64_t) {}

 private:
  const uint32_t* pixel_ = nullptr;
};

// Values of a mixture of logistics, whose channels know the ones before: as for mixture_tile.h. Every level has two
// numbers at least, so that intervals rise whatever rounding does.
template <int C>
class MixtureBins {
 public:
  using Prepared = float;
  MixtureBins(int64_t components, int64_t levels, Scratch& memory)
      : m_(components, levels), levels_(levels), rows_(round_up(components, kSumStep)) {
    for (double*& row : rows_of_) row = memory.take<double>(rows_);
  }
  static int64_t scratch(int64_t components, int64_t) {
    return kRows * Scratch::bytes<double>(round_up(components, kSumStep));
  }

  static void prepare(const float* parameters, int64_t count, float* to) {
    memcpy(to, parameters, static_cast<size_t>(count) * sizeof *to);
  }

  void start(const float* pixel) {
    pixel_ = pixel;
    const int64_t count = m_.components;
    double best = static_cast<double>(pixel[0]);
    for (int64_t k = 1; k < count; ++k)
      best = static_cast<double>(pixel[k]) > best ? static_cast<double>(pixel[k]) : best;
    for (int64_t k = 0; k < rows_; k += kLanes<double>)
      store(weights() + k, exp_neg<double>(wide(pixel + k, count - k) - broadcast(best)));
    channel(0);
  }

  bool interval(int64_t, int64_t level, Interval* of) const {
    Vector<double> levels = broadcast(static_cast<double>(level));
    levels[1] += 1;
    const auto numbers = below(levels);
    *of = {static_cast<uint32_t>(numbers[0]), static_cast<uint32_t>(numbers[1] - numbers[0])};
    return numbers[1] > numbers[0];
  }

  // The level whose interval has a number: of the levels that are left some evenly spread ones are tried at a time.
  bool level(int64_t channel, uint32_t number, int64_t* level, Interval* of) const {
    int64_t first = 0, end = levels_;
    while (end - first > 1) {
      const int64_t step = pieces_of(end - first, kLanes<double> + 1);
      Vector<double> levels;
      for (int64_t i = 0; i < kLanes<double>; ++i) levels[i] = static_cast<double>(min(first + (i + 1) * step, end));
      const auto numbers = below(levels);
      int64_t next = first, last = end;
      for (int64_t i = 0; i < kLanes<double>; ++i) {
        const int64_t at = static_cast<int64_t>(levels[i]);
        if (at < end && numbers[i] <= static_cast<int64_t>(number))
          next = max(next, at);
        else
          last = min(last, at);
      }
      if (last <= next) return false;
      first = next, end = last;
    }
    *level = first;
    return interval(channel, first, of) && number - of->start < of->size;
  }

  // The level of a channel is known: the weights become those given that, and the next channel is at hand.
  void take(int64_t channel, int64_t level) {
    if (channel + 1 >= C) return;
    const double lower = static_cast<double>(2 * level) - m_.last - 1;
    positions_[channel] = static_cast<double>(2 * level) - m_.last;
    double whole = 0;
    for (int64_t k = 0; k < rows_; k += kLanes<double>) {
      const Vector<double> centre = load(centres() + k), slope = load(slopes() + k), zero = broadcast(0.);
      const Vector<double> under = level == 0 ? zero : share(broadcast(lower), centre, slope);
      const Vector<double> over = level == levels_ - 1 ? broadcast(1.) : share(broadcast(lower + 2), centre, slope);
      const Vector<double> mass = load(weights() + k) * (over - under);
      store(masses() + k, mass > zero ? mass : zero);
    }
    for (int64_t k = 0; k < m_.components; ++k) whole += masses()[k];
    // Where no component can have given the level, their weights stay.
    for (int64_t k = 0; k < rows_ && whole > 0; ++k) weights()[k] = masses()[k] / whole;
    this->channel(channel + 1);
  }

 private:
  static constexpr int64_t kSumStep = 8, kRows = 4;  // kSumStep: a multiple of every vector
  const Mixture<double, C> m_;
  int64_t levels_, rows_;
  double* rows_of_[kRows];
  const float* pixel_ = nullptr;
  double positions_[C] = {}, whole_ = 0;

  double* weights() const { return rows_of_[0]; }
  double* centres() const { return rows_of_[1]; }
  double* slopes() const { return rows_of_[2]; }
  double* masses() const { return rows_of_[3]; }

  static Vector<double> wide(const float* at, int64_t count) {
    double lanes[kLanes<double>] = {};
    for (int64_t i = 0; i < min(kLanes<double>, count); ++i) lanes[i] = static_cast<double>(at[i]);
    return load(lanes);
  }
  static Vector<double> share(Vector<double> edge, Vector<double> centre, Vector<double> slope) {
    return exact_sigmoid<double>((edge - centre) * slope);
  }

  // The centres and slopes of the components for a channel, and the sum of the weights.
  void channel(int c) {
    const int64_t count = m_.components;
    for (int64_t k = 0; k < rows_; k += kLanes<double>) {
      Vector<double> centre = broadcast(m_.last) * wide(pixel_ + m_.mean(c, k), count - k);
      for (int i = 0; i < c; ++i) {
        const Vector<double> coupling = tanh<double>(wide(pixel_ + m_.coefficient(c - 1 + i, k), count - k));
        centre = fma(coupling, broadcast(positions_[i]), centre);
      }
      Vector<double> log_scale = wide(pixel_ + m_.log_scale(c, k), count - k);
      const Vector<double> lowest = broadcast(m_.kLowestLogScale);
      log_scale = log_scale < lowest ? lowest : log_scale;
      store(centres() + k, centre);
      store(slopes() + k, bounded_exponential<double>(-log_scale) * broadcast(m_.half));
    }
    whole_ = 0;
    for (int64_t k = 0; k < count; ++k) whole_ += weights()[k];
  }

  // The numbers of all levels below `levels`, each of these in its lane. A NaN counts as nothing.
  typename VectorOf<double>::integer below(Vector<double> levels) const {
    const Vector<double> last = broadcast(static_cast<double>(levels_)), zero = broadcast(0.);
    const Vector<double> edge = levels + levels - last;
    Vector<double> sum = zero;
    for (int64_t k = 0; k < m_.components; ++k)
      sum = fma(broadcast(weights()[k]), share(edge, broadcast(centres()[k]), broadcast(slopes()[k])), sum);
    Vector<double> part = sum / broadcast(whole_);
    part = part > zero ? part : zero;
    const Vector<double> free = broadcast(static_cast<double>(kWhole) - 2 * static_cast<double>(levels_));
    auto numbers = __builtin_convertvector(part * free, typename VectorOf<double>::integer);
    numbers += __builtin_convertvector(levels + levels, typename VectorOf<double>::integer);
    numbers = levels > zero ? numbers : numbers - numbers;
    return levels < last ? numbers : numbers - numbers + static_cast<int64_t>(kWhole);
  }
};

}  // namespace
}  // namespace GENFAST_ISA
}  // namespace genfast
