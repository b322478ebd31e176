#include "ops/categorical.h"

#include "core/blocks.h"
#include "core/parallel.h"
#include "core/philox.h"
#include "engine/conditionals.h"

namespace genfast {
namespace GENFAST_ISA {
namespace {

constexpr int64_t kTile = 64;  // pixels of one piece of the likelihood

// Tiles of pixels that lie one step apart in memory: along N where the levels are last (M = 1), else along M.
struct Tiles {
  int64_t batch, runs, length, levels;
  int64_t level_step, pixel_step;
  int64_t size;

  Tiles(int64_t batch, int64_t places, int64_t levels, int64_t inner, int64_t size)
      : batch(batch),
        runs(inner == 1 ? 1 : places),
        length(inner == 1 ? places : inner),
        levels(levels),
        level_step(inner),
        pixel_step(inner == 1 ? levels : 1),
        size(size) {}
  int64_t of_run() const { return pieces_of(length, size); }
  int64_t of_image() const { return runs * of_run(); }
  int64_t count() const { return batch * of_image(); }
};

struct Tile {
  int64_t image, run, first, count, pixel, logits;  // the last two are where its first pixel is in x and in logits

  Tile(const Tiles& all, int64_t index)
      : image(index / all.of_image()),
        run(index % all.of_image() / all.of_run()),
        first(index % all.of_run() * all.size),
        count(min(all.size, all.length - first)),
        pixel((image * all.runs + run) * all.length + first),
        logits((image * all.runs + run) * all.length * all.levels + first * all.pixel_step) {}
};

// Logits of a tile as columns [L][width]; columns past the last pixel are zero.
template <class T, class S>
void fill(const Tiles& all, const S* at, int64_t count, int64_t width, T* columns) {
  for (int64_t l = 0; l < all.levels; ++l)
    for (int64_t p = count; p < width; ++p) columns[l * width + p] = 0;
  if (all.pixel_step == 1) {
    for (int64_t l = 0; l < all.levels; ++l)
      for (int64_t p = 0; p < count; ++p) columns[l * width + p] = to_arithmetic(at[l * all.level_step + p]);
  } else {
    for (int64_t p = 0; p < count; ++p)
      for (int64_t l = 0; l < all.levels; ++l) columns[l * width + p] = to_arithmetic(at[p * all.pixel_step + l]);
  }
}

// One pixel: replaces its logits, padded with -inf to whole rounds of lanes, by exp(logit - largest). Gives their sum.
template <class T>
GENFAST_INLINE T exponentials_of_row(T* row, int64_t padded, T& largest) {
  constexpr int64_t lanes = kLanes<T>;
  T all[lanes];
  store(all, largest_of(row, padded / lanes, lanes));
  largest = all[0];
  for (int64_t i = 1; i < lanes; ++i) largest = all[i] > largest ? all[i] : largest;
  return exponentials_below(row, padded, broadcast(largest));
}

// The same for a vector of pixels, with the same order of summation.
template <class T>
GENFAST_INLINE Vector<T> exponentials_of_columns(T* columns, int64_t levels, Vector<T>& largest) {
  largest = largest_of(columns, levels, kTile);
  Vector<T> sum[kSumLanes];
  for (int64_t i = 0; i < kSumLanes; ++i) sum[i] = broadcast(T(0));
  for (int64_t l = 0; l < levels; ++l) {
    Vector<T> e = exp_neg<T>(load(columns + l * kTile) - largest);
    store(columns + l * kTile, e);
    sum[l % kSumLanes] += e;
  }
  return sum_of_lanes(sum);
}

// What a thread works in: exp(logit - largest) of one pixel or of a tile, and the sum and largest of each pixel.
template <class T>
struct Softmax {
  T values[kMostLevels * kTile];
  T largest[kTile], sum[kTile];
};

// Few levels fill too little of a vector to be worth a row.
GENFAST_INLINE bool by_rows(const Tiles& all) { return all.pixel_step > 1 && all.levels >= kSumLanes; }

template <class S, class T>
GENFAST_INLINE void fill_row(const S* at, int64_t levels, int64_t padded, T* row) {
  for (int64_t l = 0; l < levels; ++l) row[l] = to_arithmetic(at[l]);
  for (int64_t l = levels; l < padded; ++l) row[l] = -kInfinity<T>;
}

template <class S, class T>
void softmax_of_columns(const Tiles& all, const S* at, int64_t count, Softmax<T>& softmax) {
  fill(all, at, count, kTile, softmax.values);
  for (int64_t p = 0; p < count; p += kLanes<T>) {
    Vector<T> largest, sum = exponentials_of_columns<T>(softmax.values + p, all.levels, largest);
    store(softmax.largest + p, largest);
    store(softmax.sum + p, sum);
  }
}

template <class T>
GENFAST_INLINE double in_order(const T* terms, int64_t count, int64_t step) {
  double total = 0;
  for (int64_t i = 0; i < count; ++i) total += terms[i * step];
  return total;
}

template <class S>
int forward_tiles(const CategoricalNllForward& a, const Tiles& all, double* sums, Arithmetic<S>* terms, int64_t begin,
                  int64_t end) {
  using T = Arithmetic<S>;
  Scratch memory(sizeof(Softmax<T>));
  if (memory.failed()) return kNoMemory;
  Softmax<T>& softmax = *memory.take<Softmax<T>>(1);
  const int64_t padded = round_up(all.levels, kSumLanes);
  for (int64_t index = begin; index < end; ++index) {
    const Tile tile(all, index);
    const S* logits = static_cast<const S*>(a.logits) + tile.logits;
    const uint8_t* x = static_cast<const uint8_t*>(a.x) + tile.pixel;
    if (by_rows(all)) {
      for (int64_t p = 0; p < tile.count; ++p) {
        fill_row(logits + p * all.pixel_step, all.levels, padded, softmax.values);
        softmax.sum[p] = exponentials_of_row(softmax.values, padded, softmax.largest[p]);
      }
    } else {
      softmax_of_columns<S>(all, logits, tile.count, softmax);
    }
    T nll[kTile];
    for (int64_t p = 0; p < kTile; ++p) {
      if (p >= tile.count) {
        nll[p] = 0, softmax.sum[p] = 1;
      } else if (x[p] < all.levels) {
        nll[p] = softmax.largest[p] - to_arithmetic(logits[p * all.pixel_step + x[p] * all.level_step]);
      } else {
        nll[p] = __builtin_nanf("");
      }
    }
    for (int64_t p = 0; p < tile.count; p += kLanes<T>)
      store(nll + p, load(nll + p) + logarithm<T>(load(softmax.sum + p)));
    if (terms)
      memcpy(terms + tile.pixel, nll, static_cast<size_t>(tile.count) * sizeof *nll);
    else
      sums[index] = in_order(nll, tile.count, 1);
  }
  return kOk;
}

template <class S>
int backward_tiles(const CategoricalNllBackward& a, const Tiles& all, int64_t begin, int64_t end) {
  using T = Arithmetic<S>;
  Scratch memory(sizeof(Softmax<T>));
  if (memory.failed()) return kNoMemory;
  Softmax<T>& softmax = *memory.take<Softmax<T>>(1);
  T* values = softmax.values;
  const int64_t padded = round_up(all.levels, kSumLanes);
  for (int64_t index = begin; index < end; ++index) {
    const Tile tile(all, index);
    const S* logits = static_cast<const S*>(a.logits) + tile.logits;
    S* grad = static_cast<S*>(a.grad_logits) + tile.logits;
    const uint8_t* x = static_cast<const uint8_t*>(a.x) + tile.pixel;
    const T weight = static_cast<const T*>(a.grad_nll)[tile.image];
    if (by_rows(all)) {
      for (int64_t p = 0; p < tile.count; ++p) {
        T largest;
        fill_row(logits + p * all.pixel_step, all.levels, padded, values);
        const T sum = exponentials_of_row(values, padded, largest);
        const bool inside = x[p] < all.levels;
        if (inside) values[x[p]] -= sum;
        const Vector<T> scale = broadcast(inside ? weight / sum : T(__builtin_nanf("")));
        for (int64_t l = 0; l < all.levels; l += kLanes<T>)
          store(grad + p * all.pixel_step + l, load(values + l) * scale, all.levels - l);
      }
      continue;
    }
    softmax_of_columns<S>(all, logits, tile.count, softmax);
    T scale[kTile];
    for (int64_t p = 0; p < kTile; ++p) scale[p] = 0;
    for (int64_t p = 0; p < tile.count; ++p) {
      const bool inside = x[p] < all.levels;
      if (inside) values[x[p] * kTile + p] -= softmax.sum[p];
      scale[p] = inside ? weight / softmax.sum[p] : T(__builtin_nanf(""));
    }
    for (int64_t l = 0; l < all.levels; ++l) {
      T* row = values + l * kTile;
      for (int64_t p = 0; p < tile.count; p += kLanes<T>) {
        Vector<T> g = load(row + p) * load(scale + p);
        if (all.pixel_step == 1)
          store(grad + l * all.level_step + p, g, tile.count - p);
        else
          store(row + p, g);
      }
    }
    if (all.pixel_step > 1)
      for (int64_t p = 0; p < tile.count; ++p)
        for (int64_t l = 0; l < all.levels; ++l) assign(grad[p * all.pixel_step + l], values[l * kTile + p]);
  }
  return kOk;
}

template <class S>
int draw_tiles(const CategoricalSample& a, const Tiles& all, int64_t begin, int64_t end) {
  Scratch memory(Scratch::bytes<double>(kMostLevels * kDrawTile));
  if (memory.failed()) return kNoMemory;
  double* columns = memory.take<double>(kMostLevels * kDrawTile);
  for (int64_t index = begin; index < end; ++index) {
    const Tile tile(all, index);
    fill(all, static_cast<const S*>(a.logits) + tile.logits, tile.count, kDrawTile, columns);
    double u[kDrawTile], level[kDrawTile];
    uniforms(static_cast<uint64_t>(a.seed), static_cast<uint64_t>(a.first_index + tile.image),
             static_cast<uint32_t>(a.first_element + tile.first * all.runs + tile.run), static_cast<uint32_t>(all.runs),
             0, kDrawTile, u);
    for (int64_t p = 0; p < tile.count; p += kLanes<double>)
      store(level + p, categorical_level(columns + p, all.levels, a.temperature, load(u + p)));
    for (int64_t p = 0; p < tile.count; ++p)
      static_cast<uint8_t*>(a.draw)[tile.pixel + p] = static_cast<uint8_t>(level[p]);
  }
  return kOk;
}

template <class S>
int forward(const CategoricalNllForward& a) {
  using T = Arithmetic<S>;
  const Tiles all(a.batch, a.places, a.levels, a.inner, kTile);
  // Channels that lie interleaved are summed by the tiles that they have where one lies after the other.
  const bool interleaved = a.channels > 1 && a.channels < a.places;
  const Tiles apart(a.batch, a.channels, 1, a.places / a.channels, kTile);
  const Tiles& summed = interleaved ? apart : all;
  const int64_t count = interleaved ? a.batch * a.places : 0;
  Scratch memory(Scratch::bytes<double>(summed.count()) + Scratch::bytes<T>(count));
  if (memory.failed()) return kNoMemory;
  double* sums = memory.take<double>(summed.count());
  T* terms = interleaved ? memory.take<T>(count) : nullptr;
  const int status = parallel(
      all.count(), [&](int64_t begin, int64_t end) { return forward_tiles<S>(a, all, sums, terms, begin, end); });
  for (int64_t i = 0; interleaved && i < summed.count(); ++i) {
    const Tile tile(apart, i);
    sums[i] = in_order(terms + tile.image * a.places + tile.first * a.channels + tile.run, tile.count, a.channels);
  }
  add_blocks(sums, a.batch, summed.of_image(), static_cast<T*>(a.nll));
  return status;
}

template <class S>
int backward(const CategoricalNllBackward& a) {
  const Tiles all(a.batch, a.places, a.levels, a.inner, kTile);
  use_huge_pages(a.grad_logits, a.batch * a.places * a.levels * a.inner * static_cast<int64_t>(sizeof(S)));
  return parallel(all.count(), [&](int64_t begin, int64_t end) { return backward_tiles<S>(a, all, begin, end); });
}

template <class S>
int sample(const CategoricalSample& a) {
  const Tiles all(a.batch, a.places, a.levels, a.inner, kDrawTile);
  return parallel(all.count(), [&](int64_t begin, int64_t end) { return draw_tiles<S>(a, all, begin, end); });
}

}  // namespace

GENFAST_KERNEL(categorical_nll_forward, CategoricalNllForward, forward)
GENFAST_KERNEL(categorical_nll_backward, CategoricalNllBackward, backward)
GENFAST_KERNEL(categorical_sample, CategoricalSample, sample)

}  // namespace GENFAST_ISA
}  // namespace genfast
