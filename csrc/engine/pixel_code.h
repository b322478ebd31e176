// Codes the values of a pixel, image by image, in the stream of their block, or decodes them from it. A mixture of
// logistics gives its levels the parts that value_bins.h says; so do the others:
//
// Of L levels, level l has the parts from edge(l) to edge(l + 1) of kWhole, where edge(l) = 2 l + (kWhole - 2 L) F(l),
// rounded down, and F(l) is the probability of a lower level, in double precision. Rounding may let F fall by its last
// bits where it should rise; edges rise by one at least all the same, so that every level has a code.
#pragma once

#include "core/range_coder.h"
#include "engine/categorical_row.h"
#include "engine/pixel_levels.h"
#include "engine/value_bins.h"

namespace genfast {
namespace GENFAST_ISA {
namespace {

class Codes {
 public:
  Codes(const PixelProgram& program, Scratch& memory)
      : p_(program),
        levels_(program),
        columns_(memory.take<double>(columns(p_) * kDrawTile)),
        row_(row_levels(p_), memory),
        memory_(memory),
        encoder_(nullptr),
        decoder_(nullptr, 0) {}
  static int64_t scratch(const PixelProgram& p) {
    return Scratch::bytes<double>(columns(p) * kDrawTile) + CategoricalRow::scratch(row_levels(p)) + mixture_scratch(p);
  }

  void start(int64_t block) {
    uint32_t* words = static_cast<uint32_t*>(p_.words) + block * p_.most_words;
    if (p_.coding == program::kEncode) encoder_ = RangeEncoder(words);
    if (p_.coding == program::kDecode) decoder_ = RangeDecoder(words, word_count(block));
  }
  void finish(int64_t block) {
    if (p_.coding == program::kEncode) word_count(block) = encoder_.finish();
    if (p_.coding == program::kDecode && !decoder_.finished()) word_count(block) = -1;
  }

  // Draw `k` at pixel `place` of images first .. first + count - 1, whose parameters lie image_size apart.
  void code(const float* parameters, int64_t first, int64_t count, int64_t place, int64_t k) {
    for (int64_t n = 0; n < count; n += kDrawTile, parameters += kDrawTile * p_.image_size) {
      const int64_t images = min(count - n, kDrawTile);
      if (p_.head == program::kMixture)
        p_.channels == 1 ? mixture<1>(parameters, first + n, images, place)
                         : mixture<3>(parameters, first + n, images, place);
      else if (levels_.is_wide())
        wide(parameters, first + n, images, place, k);
      else
        columns(parameters, first + n, images, place, k);
    }
  }

 private:
  const PixelProgram& p_;
  const Levels levels_;
  double* columns_;  // [L][kDrawTile]: weights of a level and those below it, of levels that are bytes
  CategoricalRow row_;
  Scratch& memory_;
  RangeEncoder encoder_;
  RangeDecoder decoder_;

  static int64_t columns(const PixelProgram& p) {
    return !p.coding || Levels::is_wide(p) || p.head == program::kMixture ? 0 : p.levels;
  }
  static int64_t row_levels(const PixelProgram& p) { return p.coding && Levels::is_wide(p) ? p.levels : 0; }
  static int64_t mixture_scratch(const PixelProgram& p) {
    return p.coding && p.head == program::kMixture ? MixtureBins<3>::scratch(p.components, p.levels) : 0;
  }
  int64_t& word_count(int64_t block) const { return static_cast<int64_t*>(p_.word_counts)[block]; }

  // A NaN, of parameters that are not finite, is 0.
  uint32_t edge(int64_t level, double below) const {
    const double share = below > 0 ? (below < 1 ? below : 1) : 0;
    return static_cast<uint32_t>(2 * level) +
           static_cast<uint32_t>(share * static_cast<double>(kWhole - 2 * p_.levels));
  }

  // Codes a value, of which `below` gives F between the ends.
  template <class Below>
  GENFAST_INLINE void value(int64_t at, const Below& below) {
    int64_t level = 0, end = p_.levels;
    uint32_t left = 0, right = kWhole;
    if (p_.coding == program::kEncode) {
      level = levels_.at(p_.images, at);
      if (level > 0) left = edge(level, below(level));
      if (level + 1 < p_.levels) right = edge(level + 1, below(level + 1));
      return put(at, {left, right - left});
    }
    const uint32_t part = decoder_.part();
    while (end - level > 1) {
      const int64_t middle = (level + end) / 2;
      const uint32_t of_middle = edge(middle, below(middle));
      if (of_middle <= part)
        level = middle, left = of_middle;
      else
        end = middle, right = of_middle;
    }
    take(at, level, {left, right - left});
  }

  GENFAST_INLINE void put(int64_t at, Interval interval) {
    encoder_.put(interval);
    if (!p_.intervals) return;
    uint32_t* to = static_cast<uint32_t*>(p_.intervals) + 2 * at;
    to[0] = interval.start, to[1] = interval.size;
  }
  GENFAST_INLINE void take(int64_t at, int64_t level, Interval interval) {
    decoder_.take(interval);
    levels_.set(at, level);
  }

  void columns(const float* at, int64_t first, int64_t images, int64_t place, int64_t k) {
    const bool two = p_.head == program::kBernoulli;
    for (int64_t l = 0; l < p_.levels; ++l)
      for (int64_t b = 0; b < kDrawTile; ++b) {
        const bool zero = b >= images || (two && l == 0);
        columns_[l * kDrawTile + b] = zero ? 0. : static_cast<double>(at[b * p_.image_size + (two ? 0 : l)]);
      }
    for (int64_t b = 0; b < images; b += kLanes<double>) {
      double* column = columns_ + b;
      const Vector<double> largest = largest_of(column, p_.levels, kDrawTile);
      Vector<double> sum = broadcast(0.);
      for (int64_t l = 0; l < p_.levels; ++l, column += kDrawTile) {
        sum += exp_neg<double>(load(column) - largest);
        store(column, sum);
      }
    }
    for (int64_t b = 0; b < images; ++b) {
      const double* column = columns_ + b;
      const double whole = column[(p_.levels - 1) * kDrawTile];
      value(levels_.value(first + b, k, place), [&](int64_t l) { return column[(l - 1) * kDrawTile] / whole; });
    }
  }

  void wide(const float* at, int64_t first, int64_t images, int64_t place, int64_t k) {
    for (int64_t b = 0; b < images; ++b) {
      row_.take(at + b * p_.image_size, 1, nullptr);
      value(levels_.value(first + b, k, place), [&](int64_t l) { return row_.below(l); });
    }
  }

  template <int C>
  void mixture(const float* at, int64_t first, int64_t images, int64_t place) {
    Scratch::Frame frame(memory_);
    MixtureBins<C> bins(p_.components, p_.levels, memory_);
    for (int64_t b = 0; b < images; ++b) {
      bins.start(at + b * p_.image_size);
      for (int64_t c = 0; c < C; ++c) {
        const int64_t value = levels_.value(first + b, c, place);
        Interval interval{0, kWhole};
        int64_t level = 0;
        if (p_.coding == program::kEncode) {
          level = levels_.at(p_.images, value);
          bins.interval(c, level, &interval);
          put(value, interval);
        } else {
          bins.level(c, decoder_.part(), &level, &interval);
          take(value, level, interval);
        }
        bins.take(c, level);
      }
    }
  }
};

}  // namespace
}  // namespace GENFAST_ISA
}  // namespace genfast
