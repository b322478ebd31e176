#include "ops/logistic_mixture.h"

#include "core/blocks.h"
#include "core/parallel.h"
#include "core/philox.h"
#include "engine/mixture_tile.h"

namespace genfast {
namespace GENFAST_ISA {
namespace {

// Pixels of one piece of work. The sum of an image is the sum of its chunks, whatever the number of threads.
constexpr int64_t kChunk = 256;
GENFAST_INLINE int64_t chunks_of(int64_t pixels) { return pieces_of(pixels, kChunk); }

// The first pixel of a chunk and where its image lies.
struct Chunk {
  int64_t item, image, first, end;
  Chunk(int64_t item, int64_t pixels)
      : item(item),
        image(item / chunks_of(pixels)),
        first(item % chunks_of(pixels) * kChunk),
        end(min(first + kChunk, pixels)) {}
};

// Calls body(tile, chunk, params, pixel, n) for vectors of n pixels whose x and parameters the tile has read.
template <class S, int C, class A, class Body>
GENFAST_INLINE int for_each_vector(const A& a, int64_t begin, int64_t end, const Body& body) {
  using T = Arithmetic<S>;
  const Mixture<T, C> mixture(a.components, a.levels);
  const Plane x{C, a.pixels, a.x_innermost != 0}, params{mixture.rows(), a.pixels, a.params_innermost != 0};
  Scratch memory(mixture.scratch());
  if (memory.failed()) return kNoMemory;
  MixtureTile<T, C> tile(mixture, memory);
  for (int64_t item = begin; item < end; ++item) {
    const Chunk chunk(item, a.pixels);
    for (int64_t pixel = chunk.first; pixel < chunk.end; pixel += kLanes<T>) {
      const int64_t n = min(chunk.end - pixel, kLanes<T>);
      tile.load_x(x.at(static_cast<const uint8_t*>(a.x), chunk.image, pixel), x, n);
      read_tile(params.at(static_cast<const S*>(a.params), chunk.image, pixel), params, params.rows, n, tile.params);
      body(tile, chunk, params, pixel, n);
    }
  }
  return kOk;
}

template <class S, int C>
int forward(const LogisticMixtureNllForward& a) {
  using T = Arithmetic<S>;
  const int64_t chunks = chunks_of(a.pixels);
  Scratch memory(Scratch::bytes<double>(a.batch * chunks));
  if (memory.failed()) return kNoMemory;
  double* sums = memory.take<double>(a.batch * chunks);
  for (int64_t i = 0; i < a.batch * chunks; ++i) sums[i] = 0;
  const auto add = [&](auto& tile, const Chunk& chunk, const Plane&, int64_t, int64_t n) {
    T lanes[kLanes<T>];
    store(lanes, tile.nll());
    for (int64_t i = 0; i < n; ++i) sums[chunk.item] += lanes[i];
  };
  const int status =
      parallel(a.batch * chunks, [&](int64_t begin, int64_t end) { return for_each_vector<S, C>(a, begin, end, add); });
  add_blocks(sums, a.batch, chunks, static_cast<T*>(a.nll));
  return status;
}

template <class S, int C>
int backward(const LogisticMixtureNllBackward& a) {
  const int64_t rows = a.components * (C == 1 ? 3 : 10);
  use_huge_pages(a.grad_params, a.batch * a.pixels * rows * static_cast<int64_t>(sizeof(S)));
  const auto write = [&](auto& tile, const Chunk& chunk, const Plane& params, int64_t pixel, int64_t n) {
    tile.gradient(static_cast<const Arithmetic<S>*>(a.grad_nll)[chunk.image]);
    write_tile(tile.gradients, params, n, params.at(static_cast<S*>(a.grad_params), chunk.image, pixel));
  };
  return parallel(a.batch * chunks_of(a.pixels),
                  [&](int64_t begin, int64_t end) { return for_each_vector<S, C>(a, begin, end, write); });
}

template <class S, int C>
int sample_chunks(const LogisticMixtureSample& a, int64_t begin, int64_t end) {
  const Mixture<double, C> mixture(a.components, a.levels);
  const Plane params{mixture.rows(), a.pixels, a.params_innermost != 0};
  Scratch memory(mixture.scratch());
  if (memory.failed()) return kNoMemory;
  MixtureDraw<C> draw(mixture, a.temperature, memory);
  double component_u[kChunk], logistic_u[kChunk * C];
  for (int64_t item = begin; item < end; ++item) {
    const Chunk chunk(item, a.pixels);
    uint8_t* to = static_cast<uint8_t*>(a.draw) + chunk.image * C * a.pixels;
    const uint32_t element = static_cast<uint32_t>(a.first_element + chunk.first * C);
    const uint64_t seed = static_cast<uint64_t>(a.seed), image = static_cast<uint64_t>(a.first_index + chunk.image);
    // As many as whole vectors of pixels read.
    const int64_t count = round_up(chunk.end - chunk.first, kLanes<double>);
    uniforms(seed, image, element, C, 0, count, component_u);
    uniforms(seed, image, element, 1, 1, count * C, logistic_u);
    for (int64_t pixel = chunk.first; pixel < chunk.end; pixel += kLanes<double>) {
      const int64_t n = min(chunk.end - pixel, kLanes<double>);
      const int64_t done = pixel - chunk.first;
      draw.levels(params.at(static_cast<const S*>(a.params), chunk.image, pixel), params, n, component_u + done,
                  logistic_u + done * C);
      for (int64_t c = 0; c < C; ++c)
        for (int64_t i = 0; i < n; ++i)
          to[c * a.pixels + pixel + i] = static_cast<uint8_t>(draw.level[c * kLanes<double> + i]);
    }
  }
  return kOk;
}

template <class S, int C>
int sample(const LogisticMixtureSample& a) {
  return parallel(a.batch * chunks_of(a.pixels),
                  [&](int64_t begin, int64_t end) { return sample_chunks<S, C>(a, begin, end); });
}

// One channel or three.
template <class S>
int forward(const LogisticMixtureNllForward& a) {
  return a.channels == 1 ? forward<S, 1>(a) : forward<S, 3>(a);
}
template <class S>
int backward(const LogisticMixtureNllBackward& a) {
  return a.channels == 1 ? backward<S, 1>(a) : backward<S, 3>(a);
}
template <class S>
int sample(const LogisticMixtureSample& a) {
  return a.channels == 1 ? sample<S, 1>(a) : sample<S, 3>(a);
}

}  // namespace

GENFAST_KERNEL(logistic_mixture_nll_forward, LogisticMixtureNllForward, forward)
GENFAST_KERNEL(logistic_mixture_nll_backward, LogisticMixtureNllBackward, backward)
GENFAST_KERNEL(logistic_mixture_sample, LogisticMixtureSample, sample)

}  // namespace GENFAST_ISA
}  // namespace genfast
