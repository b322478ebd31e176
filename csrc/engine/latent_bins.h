// Latents as bins that are equally likely under N(0, 1), and the frequencies of those under other Gaussians.
//
// The normal distribution is one table of whole numbers, linear in between: it is the same everywhere, and rises from
// bin to bin whatever rounding does. A bin that the table gives nothing has the frequency 0: it is never popped, so
// that it never has to be pushed.
#pragma once

#include "core/ans.h"
#include "core/math.h"

namespace genfast {
namespace GENFAST_ISA {
namespace {

constexpr int kLatentBits = 14;
constexpr int64_t kBins = int64_t{1} << kLatentBits;
constexpr int64_t kReach = 8;                 // of the table, in standard deviations
constexpr int kStepBits = 8, kMassBits = 40;  // 2^8 entries a standard deviation, multiples of 2^-40
constexpr int kPlaceBits = 28;                // a place is a multiple of 2^-28 standard deviations
constexpr int64_t kSteps = 2 * kReach << kStepBits;

// q(z | x) of one latent.
struct Posterior {
  double mean, precision;  // precision: 1 / its standard deviation
};

class LatentBins {
 public:
  explicit LatentBins(Scratch& memory)
      : masses_(memory.take<int64_t>(kSteps + 1)),
        edges_(memory.take<double>(kBins)),
        middles_(memory.take<float>(kBins)) {
    fill_masses();
    int64_t step = 0;
    for (int64_t half = 0; half < 2 * kBins; ++half) {
      const int64_t mass = half << (kMassBits - kLatentBits - 1);
      while (step + 1 < kSteps && masses_[step + 1] <= mass) ++step;
      const double share =
          static_cast<double>(mass - masses_[step]) / static_cast<double>(masses_[step + 1] - masses_[step]);
      const double z = (static_cast<double>(step) + share) / (1 << kStepBits) - kReach;
      if (half % 2)
        middles_[half / 2] = static_cast<float>(z);
      else
        edges_[half / 2] = z;
    }
  }
  static int64_t scratch() {
    return Scratch::bytes<int64_t>(kSteps + 1) + Scratch::bytes<double>(kBins) + Scratch::bytes<float>(kBins);
  }

  // What the decoder reads for a bin.
  float value(int64_t bin) const { return middles_[bin]; }

  static Interval prior(int64_t bin) {
    constexpr int shift = kPrecision - kLatentBits;
    return {static_cast<uint32_t>(bin) << shift, uint32_t{1} << shift};
  }
  static int64_t of_prior(uint32_t number) { return number >> (kPrecision - kLatentBits); }

  Interval interval(int64_t bin, const Posterior& of) const {
    const uint32_t start = below(bin, of);
    return {start, below(bin + 1, of) - start};
  }
  // The bin whose interval has a number.
  int64_t bin(uint32_t number, const Posterior& of) const {
    int64_t first = 0, end = kBins;
    while (end - first > 1) {
      const int64_t middle = (first + end) / 2;
      if (below(middle, of) <= number)
        first = middle;
      else
        end = middle;
    }
    return first;
  }

 private:
  int64_t* masses_;  // of all up to a step
  double* edges_;    // the lower one of each bin
  float* middles_;

  static double density(double z) { return exponential<double>(broadcast(-0.5 * z * z))[0]; }

  void fill_masses() {
    constexpr double width = 1. / (1 << kStepBits);
    // Simpson's rule; the sums stand in the place of the edges, of which there are more.
    static_assert(kBins >= kSteps, "one edge for each sum");
    double sum = 0;
    for (int64_t step = 0; step < kSteps; ++step) {
      edges_[step] = sum;
      const double z = static_cast<double>(step) * width - kReach;
      sum += density(z) + 4 * density(z + width / 2) + density(z + width);
    }
    for (int64_t step = 0; step < kSteps; ++step)
      masses_[step] = static_cast<int64_t>(edges_[step] / sum * static_cast<double>(int64_t{1} << kMassBits));
    masses_[kSteps] = int64_t{1} << kMassBits;
  }

  // The numbers of all bins below one. A NaN reads as the least place.
  GENFAST_INLINE uint32_t below(int64_t bin, const Posterior& of) const {
    constexpr int fraction_bits = kPlaceBits - kStepBits;
    if (bin <= 0) return 0;
    if (bin >= kBins) return kWhole;
    double z = (edges_[bin] - of.mean) * of.precision;
    z = z > -kReach ? z : -kReach;
    if (z >= kReach) return kWhole;
    const int64_t place = static_cast<int64_t>((z + kReach) * (int64_t{1} << kPlaceBits));
    const int64_t step = place >> fraction_bits, fraction = place & ((int64_t{1} << fraction_bits) - 1);
    const int64_t rise = masses_[step + 1] - masses_[step];
    return static_cast<uint32_t>((masses_[step] + (rise * fraction >> fraction_bits)) >> (kMassBits - kPrecision));
  }
};

}  // namespace
}  // namespace GENFAST_ISA
}  // namespace genfast
