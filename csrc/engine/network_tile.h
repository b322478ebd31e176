// A network on a few images at a time, layer by layer.
//
// Order of summation: a convolution starts at the bias and adds its window by ascending row, column and feature, each
// term by a fused multiply-add; then what is added. So the bits depend neither on the images beside one nor on the isa.
#pragma once

#include "core/matmul.h"
#include "core/parallel.h"
#include "engine/network.h"
#include "engine/pixel_linear.h"

namespace genfast {
namespace GENFAST_ISA {
namespace {

// Images that share a reading of the weights of a dense layer; 16 feature maps of 14x14 of so many fill a quarter of an
// L2 cache.
constexpr int64_t kNetworkTile = 6;
constexpr int64_t kMostPiece = 12;  // images whose feature maps are cleared once

class Network {
 public:
  Network(const void* table, const void* constants)
      : header(*static_cast<const network::Header*>(table)),
        table_(static_cast<const int64_t*>(table)),
        constants_(static_cast<const float*>(constants)),
        packed_(0) {
    int64_t floats = 0;
    for (int64_t n = 0; n < header.instructions; ++n) floats += room(instruction(n));
    packed_bytes_ = Scratch::bytes<float>(floats);
  }

  const network::Header& header;

  const network::Instruction& instruction(int64_t n) const {
    return reinterpret_cast<const network::Instruction*>(&header + 1)[n];
  }
  const int64_t* table(int64_t at) const { return table_ + at; }
  const float* constants(int64_t at) const { return constants_ + at; }

  // The weights as panels of this isa.
  int64_t packed_bytes() const { return packed_bytes_; }
  void pack(Scratch& memory) {
    float* to = packed_ = memory.take<float>(packed_bytes_ / static_cast<int64_t>(sizeof(float)));
    for (int64_t n = 0; n < header.instructions; ++n) {
      const network::Instruction& it = instruction(n);
      if (it.kind != network::kConvolve) continue;
      pack_columns(depth(it), it.to.features, constants(it.weight), it.to.features, 1, to);
      to += room(it);
    }
  }
  const float* packed() const { return packed_; }

  static int64_t depth(const network::Instruction& it) { return it.height * it.width * it.from.features; }
  static int64_t room(const network::Instruction& it) {
    return it.kind == network::kConvolve ? column_room<float>(depth(it), it.to.features) : 0;
  }

 private:
  const int64_t* table_;
  const float* constants_;
  float* packed_;
  int64_t packed_bytes_;
};

class NetworkTile {
 public:
  NetworkTile(const Network& network, Scratch& memory)
      : n_(network), size_(n_.header.image_size), images_(memory.take<float>(kNetworkTile * size_)) {
    memset(images_, 0, static_cast<size_t>(kNetworkTile * size_) * sizeof *images_);
  }
  static int64_t scratch(const Network& network) {
    return Scratch::bytes<float>(kNetworkTile * network.header.image_size);
  }

  float* input(int64_t b) { return images_ + b * size_ + n_.header.input.at; }
  const float* output(int64_t b) const { return images_ + b * size_ + n_.header.output.at; }

  // Of the first `count` images; labels may be null.
  void run(int64_t count, const int64_t* labels) {
    count_ = count, labels_ = labels, packed_ = n_.packed();
    for (int64_t n = 0; n < n_.header.instructions; ++n) {
      const network::Instruction& it = n_.instruction(n);
      switch (it.kind) {
        case network::kConvolve: convolve(it); break;
        case network::kGather: gather(it); break;
        default: rows(it);
      }
    }
  }

 private:
  const Network& n_;
  int64_t size_;
  float* images_;
  int64_t count_ = 0;
  const int64_t* labels_ = nullptr;
  const float* packed_ = nullptr;  // weights of the next convolution

  void convolve(const network::Instruction& it) {
    const float* weight = packed_;
    for (int64_t column = 0; column < it.to.features;) {
      const int vectors = vectors_at<float>(column, it.to.features);
      if (vectors == kWide)
        panel<kWide>(it, column, weight);
      else
        panel<1>(it, column, weight);
      column += vectors * kLanes<float>, weight += Network::depth(it) * vectors * kLanes<float>;
    }
    packed_ += Network::room(it);
  }

  // V vectors of outputs, features `first` on, at all positions of all images.
  template <int V>
  void panel(const network::Instruction& it, int64_t first, const float* weight) {
    constexpr int64_t rows = V == 1 ? kNarrowRows : kWideRows;
    const float *from[rows], *bias[rows], *added[rows];
    float* to[rows];
    int64_t r = 0;
    for (int64_t b = 0; b < count_; ++b) {
      const float* image = images_ + b * size_;
      const float* bias_of = n_.constants(it.bias + (it.bias_step ? labels_[b] * it.bias_step : 0)) + first;
      for (int64_t i = 0; i < it.to.rows; ++i) {
        const float* a = image + it.from.at + (i * it.row_stride - it.top) * it.from.row - it.left * it.from.features;
        const float* c = image + it.added.at + i * it.added.row + first;
        float* y = images_ + b * size_ + it.to.at + i * it.to.row + first;
        for (int64_t j = 0; j < it.to.columns; ++j) {
          from[r] = a, bias[r] = bias_of, added[r] = c, to[r] = y;
          a += it.column_stride * it.from.features, c += it.to.features, y += it.to.features;
          if (++r < rows) continue;
          positions<V>(it, r, from, weight, bias, added, to, it.to.features - first);
          r = 0;
        }
      }
    }
    if (r) positions<V>(it, r, from, weight, bias, added, to, it.to.features - first);
  }

  template <int V>
  GENFAST_INLINE void positions(const network::Instruction& it, int64_t count, const float* const* from,
                                const float* weight, const float* const* bias, const float* const* added,
                                float* const* to, int64_t left) {
    constexpr int64_t lanes = kLanes<float>;
    float sum[(V == 1 ? kNarrowRows : kWideRows) * V * lanes];
    const Source<float> source{from, it.height, it.from.row, it.width * it.from.features, 1};
    tile_of<float, V>(count, bias, lanes, &source, 1, weight, sum);
    for (int64_t r = 0; r < count; ++r)
      for (int64_t v = 0; v < V * lanes && v < left; v += lanes) {
        Vector<float> y = load(sum + r * V * lanes + v);
        if (it.added.rows) y += load(added[r] + v, left - v);
        store(to[r] + v, activated(y, it.activation), left - v);
      }
  }

  // Value by value: a sum of two maps or a map alone, then the activation.
  void rows(const network::Instruction& it) {
    const int64_t width = it.to.columns * it.to.features;
    for (int64_t b = 0; b < count_; ++b)
      for (int64_t i = 0; i < it.to.rows; ++i) {
        const float* a = images_ + b * size_ + it.from.at + i * it.from.row;
        const float* c = images_ + b * size_ + it.added.at + i * it.added.row;
        float* y = images_ + b * size_ + it.to.at + i * it.to.row;
        for (int64_t f = 0; f < width; f += kLanes<float>) {
          Vector<float> x = load(a + f, width - f);
          if (it.added.rows) x += load(c + f, width - f);
          store(y + f, activated(x, it.activation), width - f);
        }
      }
  }

  void gather(const network::Instruction& it) {
    for (int64_t b = 0; b < count_; ++b) {
      float* image = images_ + b * size_;
      for (const int64_t* run = n_.table(it.runs); run < n_.table(it.runs) + 3 * it.run_count; run += 3)
        for (int64_t k = 0; k < run[2]; ++k) image[run[1] + k] = image[run[0] + k];
    }
  }
};

// Runs a packed network on `count` images: write(b, input) fills the input of image b, read(b, output) takes its output
// and may give a status.
template <class Write, class Read>
int run_network(const Network& network, int64_t count, const int64_t* labels, const Write& write, const Read& read) {
  // As few pieces as still occupy eight threads: each clears its feature maps.
  const int64_t piece = min(max(pieces_of(count, 8), kNetworkTile), kMostPiece);
  return parallel(pieces_of(count, piece), [&](int64_t begin, int64_t end) {
    Scratch memory(NetworkTile::scratch(network));
    if (memory.failed()) return static_cast<int>(kNoMemory);
    NetworkTile tile(network, memory);
    int status = kOk;
    for (int64_t first = begin * piece; first < min(end * piece, count); first += kNetworkTile) {
      const int64_t images = min(min(end * piece, count) - first, kNetworkTile);
      for (int64_t b = 0; b < images; ++b) write(first + b, tile.input(b));
      tile.run(images, labels ? labels + first : nullptr);
      for (int64_t b = 0; b < images && status == kOk; ++b) status = read(first + b, tile.output(b));
    }
    return status;
  });
}

}  // namespace
}  // namespace GENFAST_ISA
}  // namespace genfast
