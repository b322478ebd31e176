#include "engine/bits_back.h"

#include "engine/latent_bins.h"
#include "engine/network_tile.h"
#include "engine/value_bins.h"

namespace genfast {
namespace GENFAST_ISA {
namespace {

// Bins are those of the values.
template <class Bins>
class Coder {
 public:
  Coder(const BitsBack& a, const Network& encoder, const Network& decoder, Scratch& memory)
      : a_(a),
        encoder_(encoder),
        decoder_(decoder),
        pixels_(a.height * a.width),
        values_(a.channels * pixels_),
        prepared_size_(parameters(decoder) * pixels_),
        images_(static_cast<uint8_t*>(a.images)),
        labels_(static_cast<const int64_t*>(a.labels)),
        groups_(memory.take<int64_t>(a.batch + 1)),
        posteriors_(memory.take<Posterior>(a.most * a.latents)),
        latents_(memory.take<int64_t>(a.most * a.latents)),
        prepared_(memory.take<Prepared>(a.most * prepared_size_)),
        intervals_(memory.take<Interval>(a.most * values_)),
        bins_(memory),
        reader_(a.components, a.levels, memory) {}
  static int64_t scratch(const BitsBack& a, const Network& decoder) {
    const int64_t values = a.channels * a.height * a.width, prepared = parameters(decoder) * a.height * a.width;
    return Scratch::bytes<int64_t>(a.batch + 1) + Scratch::bytes<Posterior>(a.most * a.latents) +
           Scratch::bytes<int64_t>(a.most * a.latents) + Scratch::bytes<Prepared>(a.most * prepared) +
           Scratch::bytes<Interval>(a.most * values) + LatentBins::scratch() + Bins::scratch(a.components, a.levels);
  }

  int encode() {
    AnsStack stack(static_cast<uint32_t*>(a_.words), 0, a_.capacity, true);
    const int64_t groups = place_groups();
    bool good = true;
    for (int64_t g = 0; g < groups && good; ++g) {
      first_ = groups_[g], count_ = groups_[g + 1] - first_;
      if (const int status = infer()) return status;
      for (int64_t n = 0; n < count_ * a_.latents; ++n) {
        latents_[n] = bins_.bin(stack.top(), posteriors_[n]);
        stack.pop(bins_.interval(latents_[n], posteriors_[n]));
      }
      if (const int status = predict(&good)) return status;
      if (!good) break;
      for (int64_t n = count_ * values_ - 1; n >= 0; --n) stack.push(intervals_[n]);
      for (int64_t n = 0; n < count_ * a_.latents; ++n) stack.push(LatentBins::prior(latents_[n]));
    }
    stack.finish();
    *static_cast<int64_t*>(a_.count) = good && !stack.failed() ? stack.count() : -1;
    return kOk;
  }

  int decode() {
    AnsStack stack(static_cast<uint32_t*>(a_.words), *static_cast<const int64_t*>(a_.count), a_.capacity, false);
    const int64_t groups = place_groups();
    bool good = stack.state() >> 32 != 0;
    for (int64_t g = groups - 1; g >= 0 && good; --g) {
      first_ = groups_[g], count_ = groups_[g + 1] - first_;
      for (int64_t n = count_ * a_.latents - 1; n >= 0; --n) {
        latents_[n] = LatentBins::of_prior(stack.top());
        stack.pop(LatentBins::prior(latents_[n]));
      }
      if (const int status = predict(nullptr)) return status;
      for (int64_t b = 0; b < count_ && good; ++b) good = pop_values(b, stack);
      if (!good) break;
      if (const int status = infer()) return status;
      for (int64_t n = count_ * a_.latents - 1; n >= 0 && good; --n) {
        const Interval interval = bins_.interval(latents_[n], posteriors_[n]);
        if ((good = interval.size != 0)) stack.push(interval);
      }
      good = good && !stack.failed();
    }
    *static_cast<int64_t*>(a_.count) = good && stack.is_at_the_start() ? 0 : -1;
    return kOk;
  }

 private:
  using Prepared = typename Bins::Prepared;
  const BitsBack& a_;
  const Network &encoder_, &decoder_;
  int64_t pixels_, values_, prepared_size_;
  uint8_t* images_;
  const int64_t* labels_;
  int64_t* groups_;  // the first image of each, and the end
  Posterior* posteriors_;
  int64_t* latents_;  // bins [images of the group][Z]
  Prepared* prepared_;
  Interval* intervals_;  // of the values, [images of the group][H W][C]
  LatentBins bins_;
  Bins reader_;
  int64_t first_ = 0, count_ = 0;  // the present group

  static int64_t parameters(const Network& decoder) { return decoder.header.output.features; }

  int64_t place_groups() {
    int64_t groups = 0;
    for (int64_t n = 0; n < a_.batch; n += min(1 + n / a_.growth, a_.most)) groups_[groups++] = n;
    groups_[groups] = a_.batch;
    return groups;
  }

  const int64_t* labels() const { return labels_ ? labels_ + first_ : nullptr; }

  // q(z | x) of the images of the group.
  int infer() {
    const network::Map& map = encoder_.header.input;
    const float scale = static_cast<float>(2 / static_cast<double>(a_.levels - 1));
    const auto write = [&](int64_t b, float* input) {
      const uint8_t* image = images_ + (first_ + b) * values_;
      for (int64_t c = 0; c < a_.channels; ++c)
        for (int64_t i = 0; i < a_.height; ++i)
          for (int64_t j = 0; j < a_.width; ++j) {
            const float scaled = static_cast<float>(*image++) * scale;
            input[i * map.row + j * a_.channels + c] = scaled - 1;
          }
    };
    const auto read = [&](int64_t b, const float* output) {
      Posterior* to = posteriors_ + b * a_.latents;
      for (int64_t z = 0; z < a_.latents; ++z) {
        const Vector<double> log_variance = broadcast(static_cast<double>(output[a_.latents + z]));
        const Vector<double> precision = exponential<double>(broadcast(-0.5) * clamped<double>(log_variance));
        to[z] = {static_cast<double>(output[z]), precision[0]};
      }
      return static_cast<int>(kOk);
    };
    return run_network(encoder_, count_, labels(), write, read);
  }

  // p(x | z) of the images of the group: as intervals of their values if these are known, else prepared for these.
  // `good` becomes whether there are such.
  int predict(bool* good) {
    const auto write = [&](int64_t b, float* input) {
      for (int64_t z = 0; z < a_.latents; ++z) input[z] = bins_.value(latents_[b * a_.latents + z]);
    };
    const auto read = [&](int64_t b, const float* output) {
      Bins::prepare(output, prepared_size_, prepared_ + b * prepared_size_);
      if (!good) return static_cast<int>(kOk);
      Scratch memory(Bins::scratch(a_.components, a_.levels));
      if (memory.failed()) return static_cast<int>(kNoMemory);
      Bins bins(a_.components, a_.levels, memory);
      if (!set_intervals(b, bins)) __atomic_store_n(good, false, __ATOMIC_RELAXED);
      return static_cast<int>(kOk);
    };
    return run_network(decoder_, count_, labels(), write, read);
  }

  bool set_intervals(int64_t b, Bins& bins) {
    const uint8_t* image = images_ + (first_ + b) * values_;
    Interval* to = intervals_ + b * values_;
    bool good = true;
    for (int64_t p = 0; p < pixels_; ++p) {
      bins.start(prepared_ + b * prepared_size_ + p * parameters(decoder_));
      for (int64_t c = 0; c < a_.channels; ++c, ++to) {
        const int64_t level = image[c * pixels_ + p];
        good = bins.interval(c, level, to) && good;
        bins.take(c, level);
      }
    }
    return good;
  }

  bool pop_values(int64_t b, AnsStack& stack) {
    uint8_t* image = images_ + (first_ + b) * values_;
    for (int64_t p = 0; p < pixels_; ++p) {
      reader_.start(prepared_ + b * prepared_size_ + p * parameters(decoder_));
      for (int64_t c = 0; c < a_.channels; ++c) {
        int64_t level;
        Interval interval;
        if (!reader_.level(c, stack.top(), &level, &interval)) return false;
        stack.pop(interval);
        image[c * pixels_ + p] = static_cast<uint8_t>(level);
        reader_.take(c, level);
      }
    }
    return true;
  }
};

template <class Bins>
int code(const BitsBack& a, bool encodes) {
  Network encoder(a.encoder, a.encoder_constants), decoder(a.decoder, a.decoder_constants);
  Scratch memory(encoder.packed_bytes() + decoder.packed_bytes() + Coder<Bins>::scratch(a, decoder));
  if (memory.failed()) return kNoMemory;
  encoder.pack(memory);
  decoder.pack(memory);
  Coder<Bins> coder(a, encoder, decoder, memory);
  return encodes ? coder.encode() : coder.decode();
}

int code(const BitsBack& a, bool encodes) {
  if (a.type != Type::kFloat32) return kNoKernel;
  if (a.head == program::kBernoulli) return code<BernoulliBins>(a, encodes);
  if (a.head == program::kMixture)
    return a.channels == 1 ? code<MixtureBins<1>>(a, encodes) : code<MixtureBins<3>>(a, encodes);
  return kNoKernel;
}

}  // namespace

int bits_back_encode(const BitsBack& a) { return code(a, true); }
int bits_back_decode(const BitsBack& a) { return code(a, false); }

int ans_push(const AnsPush& a) {
  AnsStack stack(static_cast<uint32_t*>(a.words), 0, a.capacity, false);
  const Interval* intervals = static_cast<const Interval*>(a.intervals);
  for (int64_t n = 0; n < a.batch; ++n) stack.push(intervals[n]);
  stack.finish();
  *static_cast<int64_t*>(a.count) = stack.failed() ? -1 : stack.count();
  return kOk;
}

int ans_pop(const AnsPop& a) {
  // The words are only read: popping puts none.
  AnsStack stack(static_cast<uint32_t*>(const_cast<void*>(a.words)), a.count, a.count, false);
  for (int64_t n = a.batch - 1; n >= 0; --n) {
    const uint32_t* cumulative = static_cast<const uint32_t*>(a.cumulative) + n * (a.symbol_count + 1);
    int64_t symbol = 0;
    while (symbol + 1 < a.symbol_count && cumulative[symbol + 1] <= stack.top()) ++symbol;
    stack.pop({cumulative[symbol], cumulative[symbol + 1] - cumulative[symbol]});
    static_cast<int64_t*>(a.symbols)[n] = symbol;
  }
  *static_cast<int64_t*>(a.left) = stack.count() + (stack.state() != 0) + (stack.state() >> 32 != 0);
  return kOk;
}

}  // namespace GENFAST_ISA
}  // namespace genfast
