#include "ops/upfirdn2d.h"

#include "core/interleave.h"
#include "core/math.h"
#include "core/parallel.h"

namespace genfast {
namespace GENFAST_ISA {
namespace {

constexpr int64_t kColumns = 4096;     // outputs of a row that are made at once, or one vector of every phase
constexpr int64_t kPiece = 64 * 1024;  // outputs of a piece of work, or one row
constexpr int64_t kMostLanes = 16;     // of a vector of any isa
constexpr int kTogether = 4;           // vectors that share the taps
// Rows that are prepared at once: a load across two vectors that were stored just before waits for both.
constexpr int64_t kAhead = 8;

GENFAST_INLINE int64_t floor_of(int64_t a, int64_t b) { return a / b - (a % b < 0); }
GENFAST_INLINE int64_t rest_of(int64_t a, int64_t b) { return a - floor_of(a, b) * b; }
GENFAST_INLINE int64_t ceil_of(int64_t a, int64_t b) { return -floor_of(-a, b); }

GENFAST_INLINE int64_t power_of_two(int64_t least) {
  int64_t power = 1;
  while (power < least) power *= 2;
  return power;
}

// y[o] = sum over k of f[k] z[o down + taps - 1 - k], z[before + up i] = x[i].
struct Axis {
  int64_t in, out, taps, up, down, before;

  // What tap k of output o reads is x[position / up], where that is whole.
  GENFAST_INLINE int64_t position(int64_t o, int64_t k) const { return o * down + taps - 1 - k - before; }
  // The first tap of output o that meets a sample; each up-th after it does too, one sample earlier.
  GENFAST_INLINE int64_t first_tap(int64_t o) const { return rest_of(position(o, 0), up); }

  Axis transposed() const { return {out, in, taps, down, up, taps - 1 - before}; }
};

// The polyphase form of resampling by up / down. Outputs o = t phases + c of one phase c use the same taps, and their
// samples advance by `step` as t grows by 1. A row is therefore split into input phases, each of every step-th sample:
// a vector over t then reads contiguous samples of one input phase.
struct Polyphase {
  int64_t phases, step, count;           // `count` of the phases have outputs
  int64_t* begins;                       // [count + 1], into the next two
  int64_t *tap, *offset;                 // of each phase, taps ascending; the offset is that of t = 0 in a prepared row
  int64_t* starts;                       // [input_phases] which of every step-th samples are read
  int64_t input_phases, lowest, length;  // an input phase is `length` samples from t + lowest on
  int64_t block;                         // t of a block of columns

  // Whether each of one or two phases has so many taps.
  bool each(int64_t taps) const { return begins[1] == taps && begins[count] == count * taps; }

  static int64_t gcd(int64_t a, int64_t b) { return b ? gcd(b, a % b) : a; }
  static int64_t bytes(const Axis& a) {
    return Scratch::bytes<int64_t>(min(a.up, a.out) + 1) + 3 * Scratch::bytes<int64_t>(a.taps);
  }

  Polyphase(const Axis& axis, Scratch& memory) {
    const int64_t common = gcd(axis.up, axis.down);
    phases = axis.up / common, step = axis.down / common, count = min(phases, axis.out);
    begins = memory.take<int64_t>(min(axis.up, axis.out) + 1);
    tap = memory.take<int64_t>(axis.taps), offset = memory.take<int64_t>(axis.taps);
    starts = memory.take<int64_t>(axis.taps);
    input_phases = 0, lowest = 0;
    int64_t total = 0, highest = 0;
    for (int64_t c = 0; c < count; ++c) {
      begins[c] = total;
      for (int64_t k = axis.first_tap(c); k < axis.taps; k += axis.up, ++total) {
        const int64_t at = floor_of(floor_of(axis.position(c, k), axis.up), step);
        tap[total] = k;
        lowest = total ? min(lowest, at) : at, highest = total ? max(highest, at) : at;
      }
    }
    begins[count] = total;
    const int64_t width = pieces_of(axis.out, phases), most = max(kColumns / phases / kMostLanes, 1);
    block = min(most, pieces_of(width, kMostLanes)) * kMostLanes;
    length = block + highest - lowest;
    for (int64_t c = 0; c < count; ++c)
      for (int64_t n = begins[c]; n < begins[c + 1]; ++n) {
        const int64_t sample = floor_of(axis.position(c, tap[n]), axis.up), at = floor_of(sample, step);
        const int64_t start = sample - at * step;
        int64_t phase = 0;
        while (phase < input_phases && starts[phase] != start) ++phase;
        if (phase == input_phases) starts[input_phases++] = start;
        offset[n] = phase * length + at - lowest;
      }
    // Both halves of pairs are taken apart at once.
    if (step == 2 && input_phases == 2 && starts[0] == 1)
      for (int64_t n = 0; n < total; ++n) offset[n] += offset[n] < length ? length : -length;
    if (step == 2 && input_phases == 2) starts[0] = 0, starts[1] = 1;
  }
};

// A prepared row and the taps that it meets, in the order of Polyphase.
template <class T>
struct Line {
  const T* row;
  const T* taps;
};

template <class S>
struct Map {
  using T = Arithmetic<S>;
  const S* x;
  S* y;
  Axis v, h;
  const Polyphase& polyphase;
  bool separable;
  const T* taps;                // [KH or 1][total taps]
  const T* vertical;            // [KH], of a filter that is separable
  int64_t ring, prepared_ring;  // powers of two: rows that are kept filtered (if separable), and prepared
  int64_t band;                 // output rows of a piece

  int64_t bands() const { return pieces_of(v.out, band); }
  int64_t blocks() const { return ceil_of(h.out, polyphase.block * polyphase.phases); }
  int64_t total() const { return polyphase.begins[polyphase.count]; }
  int64_t row_size() const { return max(polyphase.input_phases, 1) * polyphase.length; }
  int64_t block_size() const { return min(polyphase.block * polyphase.phases, round_up(h.out, kMostLanes)); }
};

// to [length] = row[start + step (first + i)], 0 beyond the row.
template <class S, class T>
void take_input_phase(const S* row, int64_t width, int64_t start, int64_t step, int64_t first, int64_t length, T* to) {
  const int64_t count = step == 1 ? width : width > start ? pieces_of(width - start, step) : 0;
  const int64_t begin = min(max(-first, 0), length), end = max(begin, min(count - first, length));
  for (int64_t i = 0; i < begin; ++i) to[i] = 0;
  const S* from = row + start + step * first;
  if (step == 1)
    for (int64_t i = begin; i < end; i += kLanes<T>) store(to + i, load(from + i, end - i), end - i);
  else
    for (int64_t i = begin; i < end; ++i) to[i] = to_arithmetic(from[i * step]);
  for (int64_t i = end; i < length; ++i) to[i] = 0;
}

// The same for both halves of pairs.
template <class S, class T>
void take_pairs(const S* row, int64_t width, int64_t first, int64_t length, T* even, T* odd) {
  const int64_t begin = min(max(-first, 0), length), end = max(begin, min(width / 2 - first, length));
  const int64_t whole = begin + (end - begin) / kLanes<T> * kLanes<T>;
  for (int64_t i = begin; i < whole; i += kLanes<T>) {
    const S* from = row + 2 * (first + i);
    Vector<T> a = load(from), b = load(from + kLanes<T>);
    separate<T>(a, b);
    store(even + i, a), store(odd + i, b);
  }
  take_input_phase(row, width, 0, 2, first + whole, length - whole, even + whole);
  take_input_phase(row, width, 1, 2, first + whole, length - whole, odd + whole);
  for (int64_t i = 0; i < begin; ++i) even[i] = odd[i] = 0;
}

template <class S>
void prepare(const Map<S>& map, const S* row, int64_t t, Arithmetic<S>* to) {
  const Polyphase& c = map.polyphase;
  const int64_t first = t + c.lowest;
  if (c.step == 2 && c.input_phases == 2) return take_pairs(row, map.h.in, first, c.length, to, to + c.length);
  for (int64_t phase = 0; phase < c.input_phases; ++phase)
    take_input_phase(row, map.h.in, c.starts[phase], c.step, first, c.length, to + phase * c.length);
}

// Several vectors are whole ones.
template <int V, class S>
GENFAST_INLINE void store_vector(S* to, Vector<Arithmetic<S>> x, int64_t left) {
  if constexpr (V > 1)
    store(to, x);
  else if (left > 0)
    store(to, x, left);
}

// sum[v] = the outputs t + v lanes and so on of a phase: lines, then taps ascending. Each phase has kTaps taps, any
// number if that is 0: known numbers of taps and lines halve the time of small filters.
template <class T, int V, int kTaps = 0>
GENFAST_INLINE void sum_taps(const Polyphase& polyphase, int64_t c, const Line<T>* lines, int64_t count, int64_t t,
                             Vector<T> (&sum)[V]) {
#pragma GCC unroll 4
  for (int v = 0; v < V; ++v) sum[v] = broadcast(T(0));
  const int64_t first = kTaps ? c * kTaps : polyphase.begins[c], last = kTaps ? first + kTaps : polyphase.begins[c + 1];
  for (const Line<T>* line = lines; line < lines + count; ++line)
#pragma GCC unroll 4
    for (int64_t n = first; n < last; ++n) {
      const Vector<T> tap = broadcast(line->taps[n]);
      const T* at = line->row + polyphase.offset[n] + t;
#pragma GCC unroll 4
      for (int v = 0; v < V; ++v) sum[v] = fma(tap, load(at + v * kLanes<T>), sum[v]);
    }
}

// The outputs of V vectors of t. `width` outputs are left.
template <class T, int V, int kTaps, class S>
GENFAST_INLINE void filter_vectors(const Polyphase& polyphase, const Line<T>* lines, int64_t count, int64_t t,
                                   int64_t width, S* to) {
  constexpr int64_t lanes = kLanes<T>;
  Vector<T> even[V], odd[V];
  sum_taps<T, V, kTaps>(polyphase, 0, lines, count, t, even);
  if (polyphase.phases == 2) sum_taps<T, V, kTaps>(polyphase, 1, lines, count, t, odd);
#pragma GCC unroll 4
  for (int v = 0; v < V; ++v) {
    if (polyphase.phases == 2) {
      interleave<T>(even[v], odd[v]);
      store_vector<V>(to + 2 * v * lanes, even[v], width - 2 * v * lanes);
      store_vector<V>(to + (2 * v + 1) * lanes, odd[v], width - (2 * v + 1) * lanes);
    } else {
      store_vector<V>(to + v * lanes, even[v], width - v * lanes);
    }
  }
}

// `width` outputs of a row, of one phase or of two.
template <class T, int kTaps, class S>
void filter_phases(const Polyphase& polyphase, const Line<T>* lines, int64_t count, int64_t width, S* to) {
  constexpr int64_t lanes = kLanes<T>;
  const int64_t apart = polyphase.phases;
  int64_t t = 0;
  for (; (t + kTogether * lanes) * apart <= width; t += kTogether * lanes)
    filter_vectors<T, kTogether, kTaps>(polyphase, lines, count, t, width - t * apart, to + t * apart);
  for (; t * apart < width; t += lanes)
    filter_vectors<T, 1, kTaps>(polyphase, lines, count, t, width - t * apart, to + t * apart);
}

// `width` outputs of a row.
template <class T, class S>
void filter_row(const Polyphase& polyphase, const Line<T>* lines, int64_t count, int64_t width, S* to) {
  constexpr int64_t lanes = kLanes<T>;
  const int64_t apart = polyphase.phases;
  if (polyphase.count == apart && apart <= 2) {
    if (polyphase.each(2)) return filter_phases<T, 2>(polyphase, lines, count, width, to);
    if (polyphase.each(4)) return filter_phases<T, 4>(polyphase, lines, count, width, to);
    return filter_phases<T, 0>(polyphase, lines, count, width, to);
  }
  for (int64_t c = 0; c < min(polyphase.count, width); ++c)
    for (int64_t t = 0, at = c; at < width; t += lanes) {
      Vector<T> sum[1];
      sum_taps<T, 1>(polyphase, c, lines, count, t, sum);
      T made[lanes];
      store(made, sum[0]);
      for (int64_t i = 0; i < lanes && at < width; ++i, at += apart) assign(to[at], made[i]);
    }
}

// to = the sum of lines, each times its tap; kCount of them, any number if that is 0.
template <class T, int V, int kCount, class S>
GENFAST_INLINE void add_vectors(const Line<T>* lines, int64_t count, int64_t at, int64_t width, S* to) {
  const int64_t last = kCount ? kCount : count;
  Vector<T> sum[V];
#pragma GCC unroll 4
  for (int v = 0; v < V; ++v) sum[v] = broadcast(T(0));
#pragma GCC unroll 4
  for (int64_t n = 0; n < last; ++n) {
    const Vector<T> tap = broadcast(*lines[n].taps);
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v) sum[v] = fma(tap, load(lines[n].row + at + v * kLanes<T>), sum[v]);
  }
#pragma GCC unroll 4
  for (int v = 0; v < V; ++v) store_vector<V>(to + at + v * kLanes<T>, sum[v], width - at - v * kLanes<T>);
}

template <class T, int kCount, class S>
void add_lines(const Line<T>* lines, int64_t count, int64_t width, S* to) {
  int64_t at = 0;
  for (; at + kTogether * kLanes<T> <= width; at += kTogether * kLanes<T>)
    add_vectors<T, kTogether, kCount>(lines, count, at, width, to);
  for (; at < width; at += kLanes<T>) add_vectors<T, 1, kCount>(lines, count, at, width, to);
}

template <class T, class S>
void add_rows(const Line<T>* lines, int64_t count, int64_t width, S* to) {
  if (count == 2) return add_lines<T, 2>(lines, count, width, to);
  if (count == 4) return add_lines<T, 4>(lines, count, width, to);
  add_lines<T, 0>(lines, count, width, to);
}

// The rows that an output row reads: `count` of them, the last is `row`, which meets tap `tap`, and each before it the
// up-th tap after that. Steps from output row to output row without a division.
struct Reads {
  const Axis& axis;
  int64_t steps, rest;  // of `down` by `up`, and of the last tap
  int64_t tap_steps, tap_rest;
  int64_t next, next_tap;
  int64_t row, tap, count;

  Reads(const Axis& of, int64_t o)
      : axis(of),
        steps(of.down / of.up),
        rest(of.down % of.up),
        tap_steps((of.taps - 1) / of.up),
        tap_rest((of.taps - 1) % of.up),
        next(floor_of(of.position(o, 0), of.up)),
        next_tap(of.first_tap(o)) {}

  GENFAST_INLINE void advance() {
    const int64_t above = max(next - axis.in + 1, 0);
    row = next - above, tap = next_tap + above * axis.up;
    count = min(tap_steps + (next_tap <= tap_rest) - above, row + 1);
    next += steps, next_tap += rest;
    if (next_tap >= axis.up) ++next, next_tap -= axis.up;
  }
};

// Output rows [begin, end) of a block of columns from t on. Input rows are prepared, and filtered along the row if
// the filter is separable, when the first output row needs them, and kept in a ring.
template <class S>
void filter_band(const Map<S>& map, const S* x, int64_t begin, int64_t end, int64_t t, Line<Arithmetic<S>>* lines,
                 Arithmetic<S>* prepared, Arithmetic<S>* ring, S* y) {
  using T = Arithmetic<S>;
  const int64_t column = t * map.polyphase.phases, width = min(map.h.out - column, map.block_size());
  const int64_t total = map.total(), row_size = map.row_size(), size = map.block_size();
  const int64_t mask = map.ring - 1, prepared_mask = map.prepared_ring - 1;
  const int64_t ahead = map.v.down > map.v.taps ? 1 : kAhead;
  const int64_t last = min(floor_of(map.v.position(end - 1, 0), map.v.up), map.v.in - 1);
  int64_t ready = 0, prepared_end = 0;
  Reads reads(map.v, begin);
  for (int64_t o = begin; o < end; ++o) {
    reads.advance();
    for (int64_t i = max(ready, reads.row - reads.count + 1); reads.count > 0 && i <= reads.row; ++i) {
      if (i >= prepared_end) {
        prepared_end = min(i + ahead, last + 1);
        for (int64_t r = i; r < prepared_end; ++r)
          prepare(map, x + r * map.h.in, t, prepared + (r & prepared_mask) * row_size);
      }
      if (map.separable) {
        const Line<T> line{prepared + (i & prepared_mask) * row_size, map.taps};
        filter_row<T, T>(map.polyphase, &line, 1, width, ring + (i & mask) * size);
      }
      ready = i + 1;
    }
    for (int64_t i = 0, k = reads.tap; i < reads.count; ++i, k += map.v.up)
      if (map.separable)
        lines[i] = {ring + ((reads.row - i) & mask) * size, map.vertical + k};
      else
        lines[i] = {prepared + ((reads.row - i) & prepared_mask) * row_size, map.taps + k * total};
    S* to = y + o * map.h.out + column;
    const int64_t count = max(reads.count, 0);
    if (map.separable)
      add_rows<T, S>(lines, count, width, to);
    else
      filter_row<T, S>(map.polyphase, lines, count, width, to);
  }
}

template <class S>
int filter_pieces(const Map<S>& map, int64_t begin, int64_t end) {
  using T = Arithmetic<S>;
  const int64_t reads = (map.v.taps - 1) / map.v.up + 1;
  const int64_t kept = map.ring * map.block_size(), prepared_size = map.prepared_ring * map.row_size();
  Scratch memory(Scratch::bytes<Line<T>>(reads) + Scratch::bytes<T>(prepared_size) + Scratch::bytes<T>(kept));
  if (memory.failed()) return kNoMemory;
  Line<T>* lines = memory.take<Line<T>>(reads);
  T *prepared = memory.take<T>(prepared_size), *ring = memory.take<T>(kept);
  for (int64_t index = begin; index < end; ++index) {
    const int64_t plane = index / map.bands(), first = index % map.bands() * map.band;
    const S* x = map.x + plane * map.v.in * map.h.in;
    S* y = map.y + plane * map.v.out * map.h.out;
    for (int64_t block = 0; block < map.blocks(); ++block)
      filter_band(map, x, first, min(first + map.band, map.v.out), block * map.polyphase.block, lines, prepared, ring,
                  y);
  }
  return kOk;
}

// One dimension of taps is used along both axes. The transposed map reads them backwards.
template <class S>
int filter(const void* x, const void* taps, void* y, int64_t planes, Axis v, Axis h, bool separable, bool backwards) {
  using T = Arithmetic<S>;
  if (!planes || !v.out || !h.out) return kOk;
  const int64_t lines = separable ? 1 : v.taps, count = lines * h.taps;
  Scratch memory(Polyphase::bytes(h) + Scratch::bytes<T>(count) + Scratch::bytes<T>(h.taps));
  if (memory.failed()) return kNoMemory;
  const Polyphase polyphase(h, memory);
  T *sorted = memory.take<T>(count), *vertical = memory.take<T>(h.taps);
  const S* from = static_cast<const S*>(taps);
  const int64_t total = polyphase.begins[polyphase.count];
  for (int64_t k = 0; k < lines; ++k)
    for (int64_t n = 0; n < total; ++n) {
      const int64_t at = k * h.taps + polyphase.tap[n];
      sorted[k * total + n] = to_arithmetic(from[backwards ? count - 1 - at : at]);
    }
  for (int64_t k = 0; k < h.taps; ++k) vertical[k] = to_arithmetic(from[backwards ? h.taps - 1 - k : k]);
  const int64_t band = min(max(kPiece / h.out, 1), v.out);
  const int64_t reads = (v.taps - 1) / v.up + 1;
  const int64_t ring = separable ? power_of_two(reads) : 0, prepared = power_of_two(kAhead + (separable ? 0 : reads));
  use_huge_pages(y, planes * v.out * h.out * static_cast<int64_t>(sizeof(S)));
  const Map<S> map{
      static_cast<const S*>(x), static_cast<S*>(y), v, h, polyphase, separable, sorted, vertical, ring, prepared, band};
  return parallel(
      planes * map.bands(), [&](int64_t begin, int64_t end) { return filter_pieces(map, begin, end); },
      grain_of(band * h.out));
}

template <class A>
Axis vertical_of(const A& a) {
  return {a.height, a.out_height, a.taps_v ? a.taps_v : a.taps_h, a.up_v, a.down_v, a.top};
}
template <class A>
Axis horizontal_of(const A& a) {
  return {a.width, a.out_width, a.taps_h, a.up_h, a.down_h, a.left};
}

template <class S>
int forward(const Upfirdn2dForward& a) {
  return filter<S>(a.x, a.filter, a.y, a.planes, vertical_of(a), horizontal_of(a), !a.taps_v, false);
}
template <class S>
int backward(const Upfirdn2dBackward& a) {
  const Axis v = vertical_of(a).transposed(), h = horizontal_of(a).transposed();
  return filter<S>(a.grad_y, a.filter, a.grad_x, a.planes, v, h, !a.taps_v, true);
}

}  // namespace

GENFAST_KERNEL(upfirdn2d_forward, Upfirdn2dForward, forward)
GENFAST_KERNEL(upfirdn2d_backward, Upfirdn2dBackward, backward)

}  // namespace GENFAST_ISA
}  // namespace genfast
