// Asymmetric numeral systems as a stack: what was pushed last is popped first. Integers alone.
//
// The top of the stack is a state of 64 bits, at least 2^32 where there are words; below it are words of 32 bits. An
// interval is `frequency` of the 2^24 numbers from `start` on. The words are those of the usual coder of these sizes.
// Paper: Asymmetric numeral systems, arXiv 1311.2540.
#pragma once

#include "core/interval.h"
#include "core/philox.h"

namespace genfast {
namespace GENFAST_ISA {
namespace {

class AnsStack {
 public:
  // Reads and writes words[0 .. capacity - 1], of which `count` are filled. An endless stack has random words below
  // those, the same for everybody: bits back of the first image are taken from them.
  AnsStack(uint32_t* words, int64_t count, int64_t capacity, bool endless)
      : words_(words), count_(count), capacity_(capacity), endless_(endless) {
    if (endless) state_ = first_state();
    for (int word = 0; word < 2 && !endless && count_ > 0; ++word) state_ = state_ << 32 | take();
  }

  // Whether a word had no room.
  bool failed() const { return failed_; }
  int64_t count() const { return count_; }
  uint64_t state() const { return state_; }

  GENFAST_INLINE void push(Interval of) {
    if (state_ >> (64 - kPrecision) >= of.size) put(static_cast<uint32_t>(state_)), state_ >>= 32;
    state_ = state_ / of.size << kPrecision | (of.start + state_ % of.size);
  }

  // The number whose interval is to be popped.
  GENFAST_INLINE uint32_t top() const { return static_cast<uint32_t>(state_) & (kWhole - 1); }
  GENFAST_INLINE void pop(Interval of) {
    state_ = of.size * (state_ >> kPrecision) + (top() - of.start);
    // Where there is no word the state becomes small: a stack that began empty is empty again at 0.
    if (state_ >> 32 == 0 && (count_ > 0 || endless_)) state_ = state_ << 32 | take();
  }

  // Moves the state to the words, its upper half last.
  void finish() {
    for (; state_; state_ >>= 32) put(static_cast<uint32_t>(state_));
  }

  // Whether what is left is what an endless stack begins with.
  bool is_at_the_start() const {
    bool same = !failed_ && state_ == first_state();
    for (int64_t n = 0; n < count_; ++n) same = same && words_[n] == random_word(count_ - n + 1);
    return same;
  }

 private:
  uint32_t* words_;
  int64_t count_, capacity_, drawn_ = 2;
  uint64_t state_ = 0;
  bool endless_, failed_ = false;

  static uint32_t random_word(int64_t n) { return philox(0, 0, static_cast<uint32_t>(n), 0); }
  static uint64_t first_state() { return uint64_t{random_word(0) | 0x80000000u} << 32 | random_word(1); }

  GENFAST_INLINE void put(uint32_t word) {
    if (count_ < capacity_)
      words_[count_++] = word;
    else
      failed_ = true;
  }
  GENFAST_INLINE uint32_t take() { return count_ > 0 ? words_[--count_] : random_word(drawn_++); }
};

}  // namespace
}  // namespace GENFAST_ISA
}  // namespace genfast
