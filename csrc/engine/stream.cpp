#include "engine/stream.h"

#include "core/range_coder.h"

namespace genfast {
namespace GENFAST_ISA {

int range_coder(const RangeCoder& p) {
  if (p.type != Type::kFloat32) return kNoKernel;
  const uint32_t* edges = static_cast<const uint32_t*>(p.edges);
  int64_t *values = static_cast<int64_t*>(p.values), *word_count = static_cast<int64_t*>(p.word_count);
  uint32_t* words = static_cast<uint32_t*>(p.words);
  const auto interval = [&](int64_t symbol) { return Interval{edges[symbol], edges[symbol + 1] - edges[symbol]}; };
  if (!p.decodes) {
    RangeEncoder encoder(words);
    for (int64_t n = 0; n < p.count; ++n) encoder.put(interval(values[n]));
    *word_count = encoder.finish();
    return kOk;
  }
  RangeDecoder decoder(words, *word_count);
  for (int64_t n = 0; n < p.count; ++n) {
    const uint32_t part = decoder.part();
    int64_t symbol = 0, end = p.symbols;
    while (end - symbol > 1) {
      const int64_t middle = (symbol + end) / 2;
      (edges[middle] <= part ? symbol : end) = middle;
    }
    decoder.take(interval(values[n] = symbol));
  }
  if (!decoder.finished()) *word_count = -1;
  return kOk;
}

int crc32c(const Crc32c& p) {
  if (p.type != Type::kFloat32) return kNoKernel;
  uint32_t table[256];
  for (uint32_t n = 0; n < 256; ++n) {
    uint32_t rest = n;
    for (int bit = 0; bit < 8; ++bit) rest = rest >> 1 ^ (rest & 1 ? 0x82f63b78u : 0);
    table[n] = rest;
  }
  uint32_t rest = ~*static_cast<uint32_t*>(p.result);
  const uint8_t* bytes = static_cast<const uint8_t*>(p.bytes);
  for (int64_t n = 0; n < p.count; ++n) rest = rest >> 8 ^ table[(rest ^ bytes[n]) & 255];
  *static_cast<uint32_t*>(p.result) = ~rest;
  return kOk;
}

}  // namespace GENFAST_ISA
}  // namespace genfast
