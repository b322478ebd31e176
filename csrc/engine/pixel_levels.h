// The levels of images [B, C, H, W]: bytes, or int32 where there are more of them than a byte has.
#pragma once

#include "engine/conditionals.h"
#include "engine/pixel_program.h"

namespace genfast {
namespace GENFAST_ISA {
namespace {

class Levels {
 public:
  explicit Levels(const PixelProgram& program) : p_(program) {}

  static bool is_wide(const PixelProgram& p) { return p.levels > kMostLevels; }
  bool is_wide() const { return is_wide(p_); }

  // The number of a value, of the draw or channel k of `draws`.
  int64_t value(int64_t image, int64_t k, int64_t place, int64_t draws) const {
    return (image * draws + k) * p_.height * p_.width + place;
  }
  int64_t value(int64_t image, int64_t channel, int64_t place) const {
    return value(image, channel, place, p_.channels);
  }

  int64_t at(const void* levels, int64_t value) const {
    return is_wide() ? static_cast<const int32_t*>(levels)[value] : static_cast<const uint8_t*>(levels)[value];
  }
  // The level of a value that is drawn, known or coded.
  int64_t level(int64_t image, int64_t channel, int64_t place) const {
    return at(p_.images, value(image, channel, place));
  }
  void set(int64_t value, int64_t level) const {
    if (is_wide())
      static_cast<int32_t*>(p_.images)[value] = static_cast<int32_t>(level);
    else
      static_cast<uint8_t*>(p_.images)[value] = static_cast<uint8_t>(level);
  }

 private:
  const PixelProgram& p_;
};

}  // namespace
}  // namespace GENFAST_ISA
}  // namespace genfast
