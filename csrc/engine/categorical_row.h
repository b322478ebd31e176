// A categorical conditional of one value whose logits lie next to each other: of more levels than a tile of images has
// room for in a cache. All is computed in double precision, with one exponential for each level.
#pragma once

#include "core/lane_sum.h"

namespace genfast {
namespace GENFAST_ISA {
namespace {

constexpr int64_t kGroup = 64;  // levels whose weights are added up together

class CategoricalRow {
 public:
  CategoricalRow(int64_t levels, Scratch& memory)
      : levels_(levels),
        groups_(pieces_of(levels, kGroup)),
        weights_(memory.take<double>(groups_ * kGroup)),
        sums_(memory.take<double>(groups_)) {}
  static int64_t scratch(int64_t levels) {
    const int64_t groups = pieces_of(levels, kGroup);
    return Scratch::bytes<double>(groups * kGroup) + Scratch::bytes<double>(groups);
  }

  // The weight of a level is exp(logit / temperature + evidence - the largest of these); `evidence` may be null.
  void take(const float* logits, double temperature, const float* evidence) {
    constexpr int64_t lanes = kLanes<double>;
    Vector<double> tops = broadcast(-kInfinity<double>);
    for (int64_t first = 0; first < levels_; first += kGroup) {
      const int64_t count = min(levels_ - first, kGroup);
      temper(logits + first, temperature, evidence ? evidence + first : nullptr, count, weights_ + first);
      for (int64_t l = 0; l < kGroup; l += lanes) tops = larger<double>(load(weights_ + first + l), tops);
    }
    double top[lanes];
    store(top, tops);
    largest_ = top[0], whole_ = 0;
    for (int64_t i = 1; i < lanes; ++i) largest_ = top[i] > largest_ ? top[i] : largest_;
    for (int64_t group = 0; group < groups_; ++group)
      whole_ += sums_[group] = exponentials_below(weights_ + group * kGroup, kGroup, broadcast(largest_));
  }

  // log of the sum of exp(logit / temperature + evidence).
  double log_sum() const { return largest_ + logarithm<double>(broadcast(whole_))[0]; }

  // The probability of a level below this one, up to rounding.
  double below(int64_t level) const {
    double sum = 0;
    for (int64_t group = 0; group < level / kGroup; ++group) sum += sums_[group];
    for (int64_t l = level / kGroup * kGroup; l < level; ++l) sum += weights_[l];
    return sum / whole_;
  }

  // The first level whose cumulative sum passes u times the whole: never one of weight 0.
  int64_t level(double u) const {
    const double target = u * whole_;
    double below = 0;
    int64_t group = 0, last = 0;
    while (group + 1 < groups_ && below + sums_[group] <= target) below += sums_[group++];
    for (int64_t l = group * kGroup; l < (group + 1) * kGroup; ++l) {
      if (!(weights_[l] > 0)) continue;
      last = l;  // the answer too where the group's weights, one by one, add up to less than its sum
      if (below + weights_[l] > target) break;
      below += weights_[l];
    }
    return last;
  }

 private:
  int64_t levels_, groups_;
  double *weights_, *sums_;  // sums of groups
  double largest_ = 0, whole_ = 0;

  static void temper(const float* logits, double temperature, const float* evidence, int64_t count, double* to) {
    for (int64_t l = 0; l < count; ++l) to[l] = static_cast<double>(logits[l]);
    if (temperature != 1)
      for (int64_t l = 0; l < count; ++l) to[l] /= temperature;
    if (evidence)
      for (int64_t l = 0; l < count; ++l) to[l] += static_cast<double>(evidence[l]);
    for (int64_t l = count; l < kGroup; ++l) to[l] = -kInfinity<double>;
  }
};

}  // namespace
}  // namespace GENFAST_ISA
}  // namespace genfast
