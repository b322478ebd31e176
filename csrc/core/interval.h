// The share of a symbol in entropy coding: of the 2^24 parts of the whole.
#pragma once

#include <stdint.h>

namespace genfast {
namespace GENFAST_ISA {
namespace {

constexpr int kPrecision = 24;
constexpr uint32_t kWhole = uint32_t{1} << kPrecision;

// `size` parts from `start` on.
struct Interval {
  uint32_t start, size;
};

}  // namespace
}  // namespace GENFAST_ISA
}  // namespace genfast
