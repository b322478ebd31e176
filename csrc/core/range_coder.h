// A range coder: integers alone, words of 32 bits, a state of 64 bits, shares of 2^-24. Its words are those of the
// queue coder of the library constriction (Bamler 2022, arXiv 2201.01741), but for the last ones: of the numbers that
// end a stream it takes one of the fewest bytes. tests/support/range_coder.py is its specification.
#pragma once

#include "core/common.h"
#include "core/interval.h"

namespace genfast {
namespace GENFAST_ISA {
namespace {

class RangeEncoder {
 public:
  // `words` has room for one word for every symbol, and two more.
  explicit RangeEncoder(uint32_t* words) : words_(words) {}

  GENFAST_INLINE void put(Interval symbol) {
    const uint64_t scale = range_ >> kPrecision, before = lower_;
    lower_ += scale * symbol.start;
    range_ = scale * symbol.size;
    if (lower_ < before) carry();
    if (range_ >> 32) return;
    words_[count_++] = static_cast<uint32_t>(lower_ >> 32);
    lower_ <<= 32;
    range_ <<= 32;
  }

  // Writes the number within the range that has the most zero bytes at its end, which a reader need not be told. Gives
  // the number of words in all.
  int64_t finish() {
    uint64_t below = ~uint64_t{0};  // the zeros asked for; the next such number lies (0 - lower_) & below above lower_
    while (((0 - lower_) & below) >= range_) below >>= 8;
    const uint64_t point = lower_ + ((0 - lower_) & below);
    if (point < lower_) carry();
    words_[count_++] = static_cast<uint32_t>(point >> 32);
    words_[count_++] = static_cast<uint32_t>(point);
    return count_;
  }

 private:
  uint32_t* words_;
  int64_t count_ = 0;
  uint64_t lower_ = 0, range_ = ~uint64_t{0};

  // The first word is never the largest one when it gets a carry: all symbols lie below 1.
  void carry() {
    int64_t n = count_;
    while (n > 0 && ++words_[--n] == 0) {
    }
  }
};

class RangeDecoder {
 public:
  RangeDecoder(const uint32_t* words, int64_t count) : words_(words), end_(words + count) {
    offset_ = next() << 32;
    offset_ |= next();
  }

  // The part in which the next symbol lies. Words that no encoder wrote may lie beyond the last one.
  GENFAST_INLINE uint32_t part() const {
    const uint64_t part = offset_ / (range_ >> kPrecision);
    return part < kWhole ? static_cast<uint32_t>(part) : kWhole - 1;
  }

  GENFAST_INLINE void take(Interval symbol) {
    const uint64_t scale = range_ >> kPrecision;
    offset_ -= scale * symbol.start;
    range_ = scale * symbol.size;
    failed_ |= offset_ >= range_;
    if (range_ >> 32) return;
    range_ <<= 32;
    offset_ = offset_ << 32 | next();
  }

  // Whether the words can be those of an encoder, and all of them were needed.
  bool finished() const { return !failed_ && words_ == end_; }

 private:
  const uint32_t *words_, *end_;
  uint64_t offset_, range_ = ~uint64_t{0};  // how far the words lie above the lower end of the range
  bool failed_ = false;

  // Zeros follow the last word.
  GENFAST_INLINE uint64_t next() { return words_ < end_ ? *words_++ : 0; }
};

}  // namespace
}  // namespace GENFAST_ISA
}  // namespace genfast
