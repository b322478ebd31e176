// Draws one value of a pixel for every image of a tile, or takes it as given, from conditionals of any head.
#pragma once

#include "core/philox.h"
#include "engine/categorical_row.h"
#include "engine/conditionals.h"
#include "engine/mixture_tile.h"
#include "engine/pixel_levels.h"

namespace genfast {
namespace GENFAST_ISA {
namespace {

class Draws {
 public:
  Draws(const PixelProgram& program, Scratch& memory)
      : p_(program),
        levels_(program),
        memory_(memory),
        columns_(memory.take<double>(2 * column_levels(p_) * kDrawTile)),
        weights_(memory.take<float>(round_up(p_.levels, kGroup))),
        sums_(memory.take<double>(pieces_of(p_.levels, kGroup))),
        row_(row_levels(p_), memory) {}
  static int64_t scratch(const PixelProgram& p) {
    return Scratch::bytes<double>(2 * column_levels(p) * kDrawTile) +
           Scratch::bytes<float>(round_up(p.levels, kGroup)) + Scratch::bytes<double>(pieces_of(p.levels, kGroup)) +
           CategoricalRow::scratch(row_levels(p)) + 2 * mixture_scratch(p);
  }

  // Whether one draw gives all channels of a pixel.
  static bool couples_channels(const PixelProgram& p) { return p.head == program::kMixture; }
  static int64_t count(const PixelProgram& p) { return couples_channels(p) ? 1 : p.channels; }
  int64_t count() const { return count(p_); }

  // Draw `k` at pixel `place` of images first .. first + count - 1, whose parameters lie image_size apart.
  void draw(const float* parameters, int64_t first, int64_t count, int64_t place, int64_t k) {
    if (p_.parameters) keep(parameters, first, count, place, k);
    for (int64_t n = 0; n < count; n += kDrawTile) {
      const float* at = parameters + n * p_.image_size;
      const int64_t images = min(count - n, kDrawTile);
      if (p_.head == program::kMixture)
        p_.channels == 1 ? mixture<1>(at, first + n, images, place) : mixture<3>(at, first + n, images, place);
      else if (p_.head == program::kBernoulli && !p_.evidence)
        bernoulli(at, first + n, images, place, k);
      else
        levels_.is_wide() ? wide(at, first + n, images, place, k) : categorical(at, first + n, images, place, k);
    }
  }

 private:
  const PixelProgram& p_;
  const Levels levels_;
  Scratch& memory_;
  double* columns_;  // twice [L][kDrawTile], of levels that are bytes
  float* weights_;
  double* sums_;        // of groups of weights
  CategoricalRow row_;  // of more levels

  static int64_t column_levels(const PixelProgram& p) { return Levels::is_wide(p) ? 0 : p.levels; }
  static int64_t row_levels(const PixelProgram& p) { return Levels::is_wide(p) ? p.levels : 0; }

  static int64_t mixture_scratch(const PixelProgram& p) {
    return p.head != program::kMixture ? 0 : Mixture<double, 3>(p.components, p.levels).scratch() + 4096;
  }

  int64_t pixels() const { return p_.height * p_.width; }
  bool is_known(int64_t image, int64_t channel, int64_t place) const {
    return p_.known && static_cast<const uint8_t*>(p_.known)[levels_.value(image, channel, place)];
  }
  bool all_known(int64_t first, int64_t images, int64_t channel, int64_t place) const {
    bool all = true;
    for (int64_t b = 0; b < images; ++b) all = all && is_known(first + b, channel, place);
    return all;
  }

  void keep(const float* parameters, int64_t first, int64_t count, int64_t place, int64_t k) {
    const int64_t each = p_.parameter_count / this->count();
    for (int64_t b = 0; b < count; ++b) {
      float* to = static_cast<float*>(p_.parameters) + ((first + b) * p_.parameter_count + k * each) * pixels() + place;
      for (int64_t n = 0; n < each; ++n) to[n * pixels()] = parameters[b * p_.image_size + n];
    }
  }

  // One number for each image.
  void uniforms_of(int64_t first, int64_t images, int64_t element, int64_t draw, double* u) const {
    const auto of_image = [&](int64_t b) {
      return uniform(static_cast<uint64_t>(p_.seed), static_cast<uint64_t>(p_.first_index + first + b),
                     static_cast<uint32_t>(p_.first_element + element), static_cast<uint32_t>(draw));
    };
    u[0] = of_image(0);
    if (images > 1)
      for (int64_t b = 0; b < kDrawTile; ++b) u[b] = of_image(b);  // as many as make whole vectors
  }

  // Writes the levels: drawn ones, but for those that are known. Gives them back as they are now.
  void write(int64_t first, int64_t images, int64_t channel, int64_t place, double* levels) {
    for (int64_t b = 0; b < images; ++b) {
      const int64_t at = levels_.value(first + b, channel, place);
      if (is_known(first + b, channel, place)) levels[b] = static_cast<double>(levels_.at(p_.given, at));
      levels_.set(at, static_cast<int64_t>(levels[b]));
    }
  }

  double* log_prob(void* map, int64_t image, int64_t k, int64_t place) const {
    return static_cast<double*>(map) + levels_.value(image, k, place, count());
  }

  void bernoulli(const float* at, int64_t first, int64_t images, int64_t place, int64_t k) {
    double logits[kDrawTile] = {}, u[kDrawTile] = {}, levels[kDrawTile] = {};
    for (int64_t b = 0; b < images; ++b) logits[b] = static_cast<double>(at[b * p_.image_size]);
    if (!all_known(first, images, k, place)) {
      uniforms_of(first, images, place * p_.channels + k, p_.draw, u);
      for (int64_t b = 0; b < images; b += kLanes<double>)
        store(levels + b, bernoulli_level(load(logits + b), load(u + b), p_.temperature));
    }
    write(first, images, k, place, levels);
    if (!p_.log_probs) return;
    for (int64_t b = 0; b < images; b += kLanes<double>)
      store(u + b, -bernoulli_nats<double>(load(levels + b), load(logits + b)));
    for (int64_t b = 0; b < images; ++b) *log_prob(p_.log_probs, first + b, k, place) = u[b];
  }

  void categorical(const float* at, int64_t first, int64_t images, int64_t place, int64_t k) {
    const bool two = p_.head == program::kBernoulli, known = all_known(first, images, k, place);
    const bool exact = p_.evidence || p_.log_probs || p_.log_evidence || p_.temperature != 1;
    double u[kDrawTile] = {}, levels[kDrawTile] = {};
    if (!known) uniforms_of(first, images, place * p_.channels + k, p_.draw, u);
    if (exact) {
      for (int64_t b = 0; b < kDrawTile; ++b)
        for (int64_t l = 0; l < p_.levels; ++l) {
          const bool zero = b >= images || (two && l == 0);
          columns_[l * kDrawTile + b] = zero ? 0. : static_cast<double>(at[b * p_.image_size + (two ? 0 : l)]);
        }
      weigh(first, images, place, k);
      if (!known)
        for (int64_t b = 0; b < images; b += kLanes<double>)
          store(levels + b, categorical_level(weighed() + b, p_.levels, 1., load(u + b)));
    } else if (!known) {
      for (int64_t b = 0; b < images; ++b) levels[b] = level_of(at + b * p_.image_size, 1, u[b]);
    }
    write(first, images, k, place, levels);
    if (!p_.log_probs) return;
    for (int64_t b = 0; b < images; b += kLanes<double>) store(u + b, log_sum(columns_ + b));
    for (int64_t b = 0; b < images; ++b)
      *log_prob(p_.log_probs, first + b, k, place) = columns_[static_cast<int64_t>(levels[b]) * kDrawTile + b] - u[b];
  }

  // Categorical conditionals of more levels than a byte has, one image after the other.
  void wide(const float* at, int64_t first, int64_t images, int64_t place, int64_t k) {
    double u[kDrawTile] = {}, levels[kDrawTile] = {}, log_sums[kDrawTile];
    if (!all_known(first, images, k, place)) uniforms_of(first, images, place * p_.channels + k, p_.draw, u);
    for (int64_t b = 0; b < images; ++b) {
      const float* logits = at + b * p_.image_size;
      if (p_.log_probs) {
        row_.take(logits, 1, nullptr);
        log_sums[b] = row_.log_sum();
      }
      const bool known = is_known(first + b, k, place);
      if (p_.evidence && (!known || p_.log_evidence))
        levels[b] = wide_level(logits, first + b, place, k, u[b]);
      else if (!known)
        levels[b] = level_of(logits, p_.temperature, u[b]);
    }
    write(first, images, k, place, levels);
    if (!p_.log_probs) return;
    for (int64_t b = 0; b < images; ++b)
      *log_prob(p_.log_probs, first + b, k, place) =
          static_cast<double>(at[b * p_.image_size + static_cast<int64_t>(levels[b])]) - log_sums[b];
  }

  // A level drawn with the evidence; writes what the expectation of that is.
  double wide_level(const float* logits, int64_t image, int64_t place, int64_t k, double u) {
    const float* evidence = static_cast<const float*>(p_.evidence) + levels_.value(image, k, place) * p_.levels;
    double before = 0;
    if (p_.log_evidence) {
      row_.take(logits, p_.temperature, nullptr);
      before = row_.log_sum();
    }
    row_.take(logits, p_.temperature, evidence);
    if (p_.log_evidence) *log_prob(p_.log_evidence, image, k, place) = row_.log_sum() - before;
    return static_cast<double>(row_.level(u));
  }

  double* weighed() const { return columns_ + p_.levels * kDrawTile; }

  // The tempered logits with the evidence, and what its expectation is.
  void weigh(int64_t first, int64_t images, int64_t place, int64_t k) {
    double* to = weighed();
    for (int64_t l = 0; l < p_.levels; ++l)
      for (int64_t b = 0; b < kDrawTile; ++b) to[l * kDrawTile + b] = columns_[l * kDrawTile + b] / p_.temperature;
    if (!p_.evidence) return;
    double before[kDrawTile], after[kDrawTile];
    for (int64_t b = 0; b < kDrawTile; b += kLanes<double>) store(before + b, log_sum(to + b));
    for (int64_t b = 0; b < images; ++b) {
      const float* evidence = static_cast<const float*>(p_.evidence) + levels_.value(first + b, k, place) * p_.levels;
      for (int64_t l = 0; l < p_.levels; ++l) to[l * kDrawTile + b] += static_cast<double>(evidence[l]);
    }
    if (!p_.log_evidence) return;
    for (int64_t b = 0; b < kDrawTile; b += kLanes<double>) store(after + b, log_sum(to + b));
    for (int64_t b = 0; b < images; ++b) *log_prob(p_.log_evidence, first + b, k, place) = after[b] - before[b];
  }

  Vector<double> log_sum(const double* columns) const {
    const Vector<double> largest = largest_of(columns, p_.levels, kDrawTile);
    Vector<double> sum = broadcast(0.);
    for (int64_t l = 0; l < p_.levels; ++l) sum += exp_neg<double>(load(columns + l * kDrawTile) - largest);
    return largest + logarithm<double>(sum);
  }

  // In no order that matters: every isa has one of its own.
  static GENFAST_INLINE double total(Vector<float> x) {
    typedef float Four __attribute__((vector_size(16)));
    Four parts[kLanes<float> / 4];
    memcpy(parts, &x, sizeof parts);
    for (int64_t half = kLanes<float> / 8; half; half /= 2)
      for (int64_t i = 0; i < half; ++i) parts[i] += parts[i + half];
    return static_cast<double>((parts[0][0] + parts[0][1]) + (parts[0][2] + parts[0][3]));
  }

  // The level that the double weights give, mostly from float ones: where u is too close to a boundary for them, the
  // double ones decide. Of L levels of equal weight that happens to a share of 2 kDoubt L of the draws.
  //
  // With e = 2^-24, one float rounding: a float weight is off by 4 e for the exponential, and by 3 e d for the logit,
  // its division by the temperature, and that as a float, where d is the distance of the tempered logit from the
  // largest. Over all levels the mean of d under their distribution is at most log L: the entropy is d's mean plus the
  // logarithm of the whole, which is at least 1. A sum of a group, in vectors of four floats or more, is off by 17 e;
  // groups are added in double precision. So is the sum below a level, relative to the whole, off by
  // (4 + 17 + 3 log L) e, and u times the whole by as much: 6.5e-6 for both at 2^16 levels, 4.5e-6 at 2^8.
  double level_of(const float* logits, double temperature, double u) {
    constexpr int64_t lanes = kLanes<float>;
    constexpr double kDoubt = 8e-6;
    // Beyond, the float quotients would not be normal numbers.
    if (temperature != 1 && !(temperature > 1e-6 && temperature < 1e6)) return exact_level(logits, temperature, u);
    const int64_t groups = pieces_of(p_.levels, kGroup);
    const float* from = logits;
    if (p_.levels % kGroup) {
      memcpy(weights_, logits, static_cast<size_t>(p_.levels) * sizeof *logits);
      for (int64_t l = p_.levels; l < groups * kGroup; ++l) weights_[l] = -kInfinity<float>;
      from = weights_;
    }
    const Vector<float> largest = broadcast(largest_logit(from, groups));
    const Vector<float> least = broadcast(-Exponential<float>::kLimit);
    const Vector<float> divisor = broadcast(static_cast<float>(temperature));
    double whole = 0;
    for (int64_t group = 0; group < groups; ++group) {
      Vector<float> sum = broadcast(0.f);
      for (int64_t l = group * kGroup; l < (group + 1) * kGroup; l += lanes) {
        Vector<float> x = load(from + l) - largest;
        if (temperature != 1) x /= divisor;
        const Vector<float> e = exponential<float>(x > least ? x : least);
        store(weights_ + l, e);
        sum += e;
      }
      whole += sums_[group] = total(sum);
    }
    // The group, the block in it, the level in that.
    const double target = u * whole, doubt = kDoubt * whole;
    double below = 0;
    int64_t group = 0;
    while (group + 1 < groups && below + sums_[group] <= target) below += sums_[group++];
    int64_t l = group * kGroup;
    for (; l < (group + 1) * kGroup - lanes; l += lanes) {
      const double above = below + total(load(weights_ + l));
      if (above > target) break;
      below = above;
    }
    for (int64_t end = (group + 1) * kGroup; l < end; ++l) {
      const double above = below + static_cast<double>(weights_[l]);
      if (above > target) {
        if (target - below < doubt || above - target < doubt) break;
        return static_cast<double>(l);
      }
      below = above;
    }
    return exact_level(logits, temperature, u);
  }

  // Of logits padded to whole groups.
  static float largest_logit(const float* logits, int64_t groups) {
    constexpr int64_t lanes = kLanes<float>;
    Vector<float> tops[kGroup / lanes];
    for (int64_t v = 0; v < kGroup / lanes; ++v) tops[v] = largest_of(logits + v * lanes, groups, kGroup);
    for (int64_t half = kGroup / lanes / 2; half; half /= 2)
      for (int64_t v = 0; v < half; ++v) tops[v] = larger<float>(tops[v + half], tops[v]);
    float top[lanes];
    store(top, tops[0]);
    for (int64_t half = lanes / 2; half; half /= 2)
      for (int64_t i = 0; i < half; ++i) top[i] = top[i + half] > top[i] ? top[i + half] : top[i];
    return top[0];
  }

  double exact_level(const float* logits, double temperature, double u) {
    if (levels_.is_wide()) {
      row_.take(logits, temperature, nullptr);
      return static_cast<double>(row_.level(u));
    }
    for (int64_t l = 0; l < p_.levels; ++l)
      for (int64_t b = 0; b < kLanes<double>; ++b) columns_[l * kDrawTile + b] = static_cast<double>(logits[l]);
    return categorical_level(columns_, p_.levels, temperature, broadcast(u))[0];
  }

  template <int C>
  void mixture(const float* at, int64_t first, int64_t images, int64_t place) {
    constexpr int64_t lanes = kLanes<double>;
    Scratch::Frame frame(memory_);
    const Mixture<double, C> mixture(p_.components, p_.levels);
    const Plane parameters{p_.image_size, 1, true};  // rows next to each other, images image_size apart
    MixtureDraw<C> draw(mixture, p_.temperature, memory_);
    MixtureTile<double, C> tile(mixture, memory_);
    const bool known = all_known(first, images, 0, place);
    for (int64_t n = 0; n < images; n += lanes, at += lanes * p_.image_size) {
      const int64_t count = min(images - n, lanes);
      double levels[C][kDrawTile] = {};
      if (!known) {
        double component_u[kDrawTile] = {}, u[kDrawTile] = {}, logistic_u[kDrawTile * C];
        uniforms_of(first + n, count, place * C, 2 * p_.draw, component_u);
        for (int c = 0; c < C; ++c) {
          uniforms_of(first + n, count, place * C + c, 2 * p_.draw + 1, u);
          for (int64_t b = 0; b < lanes; ++b) logistic_u[b * C + c] = u[b];
        }
        draw.levels(at, parameters, count, component_u, logistic_u);
        for (int c = 0; c < C; ++c)
          for (int64_t b = 0; b < count; ++b) levels[c][b] = draw.level[c * lanes + b];
      }
      for (int c = 0; c < C; ++c) write(first + n, count, c, place, levels[c]);
      if (!p_.log_probs) continue;
      uint8_t x[C * lanes] = {};
      for (int c = 0; c < C; ++c)
        for (int64_t b = 0; b < count; ++b) x[c * lanes + b] = static_cast<uint8_t>(levels[c][b]);
      read_tile(at, parameters, mixture.rows(), count, tile.params);
      tile.load_x(x, Plane{C, lanes, false}, count);
      const Vector<double> nats = tile.nll();
      for (int64_t b = 0; b < count; ++b) *log_prob(p_.log_probs, first + n + b, 0, place) = -nats[b];
    }
  }
};

}  // namespace
}  // namespace GENFAST_ISA
}  // namespace genfast
