#include "engine/pixel_program.h"

#include "core/functions.h"
#include "core/parallel.h"
#include "engine/attention.h"
#include "engine/pixel_code.h"
#include "engine/pixel_draw.h"
#include "engine/pixel_linear.h"

namespace genfast {
namespace GENFAST_ISA {
namespace {

using program::Buffer;
using program::Instruction;
using program::Read;

constexpr int64_t kTogether = 64;  // positions that a panel of weights serves before the next one

// An instruction in the present row: it computes at pixel columns first .. end - 1, those with the remainder.
struct Ready {
  int64_t mask, remainder, first, end;
  Linear job;  // of a linear instruction, for all images at one column

  bool runs(int64_t j) const { return (j & mask) == remainder; }
  bool inside(int64_t j) const { return j >= first && j < end; }
};

// One thread's images.
class Tile {
 public:
  Tile(const PixelProgram& program, Scratch& memory)
      : p_(program),
        instructions_(static_cast<const Instruction*>(p_.instructions)),
        reads_(static_cast<const Read*>(p_.reads)),
        buffers_(static_cast<const Buffer*>(p_.buffers)),
        constants_(static_cast<const float*>(p_.constants)),
        bounds_(static_cast<const int64_t*>(p_.bounds)),
        count_of_all_(bounds_[Draws::count(p_) + 2]),
        arena_(memory.take<float>(p_.tile * p_.image_size)),
        places_(memory.take<Span>(p_.read_count)),
        row_places_(memory.take<Span>(p_.read_count)),
        ready_(memory.take<Ready>(count_of_all_)),
        biases_(memory.take<const float*>(count_of_all_ * p_.tile)),
        row_biases_(memory.take<const float*>(p_.columns + kTogether)),
        chain_at_(memory.take<int64_t>(count_of_all_)),
        memories_(memory.take<Memory>(count_of_all_)),
        scores_(memory.take<float>(most_positions(instructions_, count_of_all_))),
        draws_(program, memory),
        levels_(program),
        codes_(program, memory) {
    chains_ = memory.take<float>(place_chains(p_, chain_at_));
    for (int64_t n = 0; n < count_of_all_; ++n) {
      const Instruction& it = instructions_[n];
      if (it.kind != program::kAttention) continue;
      memories_[n].keys = zeros(memory, p_.tile * key_floats(it));
      memories_[n].values = zeros(memory, p_.tile * value_floats(it));
    }
  }

  static int64_t scratch(const PixelProgram& p) {
    const int64_t all = static_cast<const int64_t*>(p.bounds)[Draws::count(p) + 2];
    return Scratch::bytes<float>(p.tile * p.image_size) + 2 * Scratch::bytes<Span>(p.read_count) +
           Scratch::bytes<Ready>(all) + Scratch::bytes<const float*>(all * p.tile) +
           Scratch::bytes<const float*>(p.columns + kTogether) + Scratch::bytes<int64_t>(all) +
           attention_bytes(static_cast<const Instruction*>(p.instructions), all, p.tile) +
           Scratch::bytes<float>(place_chains(p, nullptr)) + Draws::scratch(p) + Codes::scratch(p);
  }

  // The images of a thread at a time, or a block of them that is coded as one.
  static int64_t block(const PixelProgram& p) { return p.coding ? p.block : p.tile; }
  void run(int64_t n) {
    codes_.start(n);
    const int64_t first = n * block(p_), end = min(p_.batch, first + block(p_));
    for (int64_t b = first; b < end; b += p_.tile) run(b, min(end - b, p_.tile));
    codes_.finish(n);
  }

 private:
  const PixelProgram& p_;
  const Instruction* instructions_;
  const Read* reads_;
  const Buffer* buffers_;
  const float* constants_;
  const int64_t* bounds_;
  int64_t count_of_all_;  // instructions
  float* arena_;
  Span *places_, *row_places_;  // of every read: images at one column, columns of one image
  Ready* ready_;                // of every instruction
  const float **biases_, **row_biases_;
  int64_t* chain_at_;  // of every instruction: where its chains are, or -1
  Memory* memories_;   // of every instruction
  float* scores_;      // of one head
  float* chains_;      // [columns][images] of each instruction
  Draws draws_;
  const Levels levels_;
  Codes codes_;
  int64_t first_ = 0, count_ = 0, row_ = 0;

  void run(int64_t first, int64_t count) {
    first_ = first, count_ = count;
    clear();
    for (int64_t n = 0; n < count_of_all_; ++n)
      for (int64_t b = 0; b < count_; ++b) biases_[n * p_.tile + b] = bias_of(instructions_[n], b);
    for (int64_t i = 0; i < p_.height; ++i) {
      start_row(row_ = i);
      row_instructions();
      if (p_.rows_apart) rows_above();
      for (int64_t j = 0; j < p_.columns; ++j)
        for (int64_t k = 0; k <= draws_.count(); ++k) {
          for (int64_t n = bounds_[k + 1]; n < bounds_[k + 2]; ++n) execute(n, j);
          if (k < draws_.count() && j < p_.width) draw(i, j, k);
        }
    }
  }

  static int64_t chains_size(const Instruction& it) { return round_up(it.count, kPanel) * kChains; }

  // What the rows above give is known for the whole row at its start: its weights need not be read for every pixel.
  // Floats that it takes; `at` may be null.
  static int64_t place_chains(const PixelProgram& p, int64_t* at) {
    const int64_t* bounds = static_cast<const int64_t*>(p.bounds);
    const Instruction* all = static_cast<const Instruction*>(p.instructions);
    int64_t size = 0;
    for (int64_t n = 0; n < bounds[Draws::count(p) + 2]; ++n) {
      const bool apart = p.rows_apart && all[n].above > 0 && evenly(p, all[n]);
      if (at) at[n] = apart ? size : -1;
      if (apart) size += p.columns * p.tile * chains_size(all[n]);
    }
    return size;
  }

  // Whether all that an instruction reads moves on by as much from each of its columns to the next.
  static bool evenly(const PixelProgram& p, const Instruction& it) {
    bool all = true;
    for (int64_t n = it.first_read; n < it.first_read + it.reads + it.adds; ++n) {
      const Read& read = static_cast<const Read*>(p.reads)[n];
      all = all && (it.column_mask + 1) >> static_cast<const Buffer*>(p.buffers)[read.buffer].shift > 0;
    }
    return all;
  }

  void rows_above() {
    for (int64_t n = bounds_[1]; n < count_of_all_; ++n)
      if (chain_at_[n] >= 0) columns_of<Part::kAbove>(n);
  }

  void clear() {
    for (int64_t n = 0; n < count_of_all_; ++n) memories_[n].seen = 0;
    for (int64_t b = 0; b < count_; ++b)
      for (const Buffer* buffer = buffers_; buffer < buffers_ + p_.buffer_count; ++buffer) {
        float* to = arena_ + b * p_.image_size + buffer->offset;
        for (int64_t n = buffer->rows * buffer->row_size; n > 0; n -= buffer->features, to += buffer->features)
          fill(*buffer, 0, buffer->features, to);
      }
  }

  void fill(const Buffer& buffer, int64_t feature, int64_t count, float* to) {
    if (buffer.fill < 0)
      memset(to, 0, static_cast<size_t>(count) * sizeof *to);
    else
      memcpy(to, constants_ + buffer.fill + feature, static_cast<size_t>(count) * sizeof *to);
  }

  void start_row(int64_t i) {
    for (int64_t n = 0; n < p_.read_count; ++n) {
      const Read& read = reads_[n];
      const Buffer& buffer = buffers_[read.buffer];
      const int64_t slot = ((i >> buffer.shift) + read.row + buffer.rows) % buffer.rows;
      float* at = arena_ + buffer.offset + slot * buffer.row_size;
      places_[n] = {at + (buffer.left + read.column) * buffer.step + read.feature, buffer.step, buffer.shift,
                    p_.image_size, read.count};
    }
    for (int64_t n = 0; n < count_of_all_; ++n) {
      const Instruction& it = instructions_[n];
      const int64_t shift = places_[it.output].shift, r = i >> shift;
      const bool runs = (i & it.row_mask) == it.row_remainder, inside = r >= it.first_row && r < it.end_row;
      Ready& ready = ready_[n];
      ready.mask = it.column_mask, ready.remainder = runs ? it.column_remainder : -1;
      ready.first = it.first_column << shift, ready.end = inside ? it.end_column << shift : ready.first;
      if (it.kind != program::kLinear) continue;
      const int64_t above = chain_at_[n] >= 0 ? it.above : 0;
      Linear& job = ready.job = linear_of(it, places_, above, it.reads);
      job.groups = 1, job.rows = count_, job.bias = biases_ + n * p_.tile;
      if (above) set_chains(job, n, chains_size(it), 0);
    }
  }

  // The product of reads first .. end - 1 of an instruction.
  Linear linear_of(const Instruction& it, const Span* places, int64_t first, int64_t end) const {
    Linear job{};
    job.spans = places + it.first_read + first, job.span_count = end - first;
    job.adds = places + it.first_add, job.add_count = it.adds;
    job.out = places[it.output], job.activation = it.activation;
    return job;
  }

  // Chains are [columns][images].
  void set_chains(Linear& job, int64_t n, int64_t step, int64_t group) const {
    job.chains = chains_ + chain_at_[n], job.chains_column = count_ * chains_size(instructions_[n]);
    job.chains_step = step, job.chains_group = group;
  }

  float* at(int64_t read, int64_t j) const { return places_[read].of(j); }

  void row_instructions() {
    for (int64_t n = bounds_[0]; n < bounds_[1];) {
      if (instructions_[n].sweep == 0) {
        row_of(n++);
        continue;
      }
      int64_t end = n;
      const int64_t sweep = instructions_[n].sweep;
      while (end < bounds_[1] && instructions_[end].sweep == sweep) ++end;
      for (int64_t c = 0; c < p_.columns; ++c)
        for (int64_t m = n; m < end; ++m) execute(m, sweep > 0 ? c : p_.columns - 1 - c);
      n = end;
    }
  }

  void row_of(int64_t n) {
    const Instruction& it = instructions_[n];
    if (!p_.rows_apart || it.kind != program::kLinear || !evenly(p_, it)) {
      for (int64_t j = 0; j < p_.columns; ++j) execute(n, j);
      return;
    }
    for (int64_t j = 0; j < p_.columns; ++j)
      if (ready_[n].runs(j) && !ready_[n].inside(j)) outside(it, j);
    columns_of<Part::kWhole>(n);
  }

  // The positions of a row inside the domain, all columns together.
  template <Part kPart>
  void columns_of(int64_t n) {
    const Instruction& it = instructions_[n];
    int64_t first = -1, columns = 0;
    for (int64_t j = 0; j < p_.columns; ++j)
      if (ready_[n].runs(j) && ready_[n].inside(j)) {
        if (first < 0) first = j;
        ++columns;
      }
    if (columns == 0) return;
    const int64_t step = it.column_mask + 1, end = it.first_add + it.adds;
    for (int64_t read = it.first_read; read < end; ++read) row_places_[read] = by_columns(places_[read], step);
    row_places_[it.output] = by_columns(places_[it.output], step);
    Linear job = linear_of(it, row_places_, 0, kPart == Part::kAbove ? it.above : it.reads);
    job.rows = columns, job.group_step = p_.image_size, job.bias = row_biases_;
    if (kPart == Part::kAbove) set_chains(job, n, step * count_ * chains_size(it), chains_size(it));
    const int64_t together = max(1, kTogether / columns);
    for (int64_t b = 0; b < count_; b += together) {
      job.groups = min(count_ - b, together);
      for (int64_t g = 0; g < job.groups; ++g)
        for (int64_t c = 0; c < columns; ++c) row_biases_[g * columns + c] = biases_[n * p_.tile + b + g];
      linear<kPart>(job, first, constants_ + it.weight, it.depth);
      for (int64_t read = it.first_read; read < end; ++read) row_places_[read].at += together * p_.image_size;
      job.out.at += together * p_.image_size;
      if (kPart == Part::kAbove) job.chains += together * chains_size(it);
    }
  }

  static Span by_columns(Span span, int64_t step) {
    span.step = (step >> span.shift) * span.column;
    return span;
  }

  const float* bias_of(const Instruction& it, int64_t b) const {
    const int64_t* labels = static_cast<const int64_t*>(p_.labels);
    return constants_ + it.bias + (it.bias_step ? labels[first_ + b] * it.bias_step : 0);
  }

  void execute(int64_t n, int64_t j) {
    const Ready& ready = ready_[n];
    const Instruction& it = instructions_[n];
    if (!ready.runs(j)) return;
    if (!ready.inside(j)) return outside(it, j);
    switch (it.kind) {
      case program::kLinear:
        if (!ready.job.chains) return linear<Part::kWhole>(ready.job, j, constants_ + it.weight, it.depth);
        return linear<Part::kRest>(ready.job, j, constants_ + it.weight + it.above_depth * kPanel, it.depth);
      case program::kLstm: return lstm(it, j);
      case program::kLookup: return lookup(it, j);
      case program::kField: return field(it, j);
      case program::kAttention: return attention(n, j);
      case program::kCopy: return map(it, j, [](auto a, auto) { return a; });
      case program::kNeg: return map(it, j, [](auto a, auto) { return -a; });
      case program::kRelu: return map(it, j, [](auto a, auto) { return relu(a); });
      case program::kElu: return map(it, j, [](auto a, auto) { return elu(a); });
      case program::kTanh: return map(it, j, [](auto a, auto) { return tanh<float>(a); });
      case program::kSigmoid: return map(it, j, [](auto a, auto) { return sigmoid<float>(a); });
      case program::kAdd: return map(it, j, [](auto a, auto b) { return a + b; });
      case program::kMul: return map(it, j, [](auto a, auto b) { return a * b; });
      case program::kGate:
        return map(it, j, [](auto a, auto b) {
          const Gate<float> gate(a, b);
          return gate.tanh * gate.sigmoid;
        });
      case program::kAffine: return affine(it, j);
      case program::kConstant: return affine(it, j);
      default: return function(it, j);
    }
  }

  void function(const Instruction& it, int64_t j) {
    switch (it.kind) {
      case program::kExp: return map(it, j, [](auto a, auto) { return full_exponential(a); });
      case program::kLog: return map(it, j, [](auto a, auto) { return full_logarithm(a); });
      case program::kLog1p: return map(it, j, [](auto a, auto) { return log1p(a); });
      case program::kSqrt: return map(it, j, [](auto a, auto) { return square_root(a); });
      case program::kReciprocal: return map(it, j, [](auto a, auto) { return broadcast(1.f) / a; });
      case program::kAbs: return map(it, j, [](auto a, auto) { return magnitude<float>(a); });
      case program::kErf: return map(it, j, [](auto a, auto) { return error_function(a); });
      case program::kSoftplus: return map(it, j, [](auto a, auto) { return softplus(a); });
      case program::kMax: return map(it, j, [](auto a, auto b) { return (a > b) | (a != a) ? a : b; });
      case program::kMin: return map(it, j, [](auto a, auto b) { return (a < b) | (a != a) ? a : b; });
      case program::kGreater: return map(it, j, [](auto a, auto b) { return a > b ? broadcast(1.f) : broadcast(0.f); });
      case program::kWhere: return where(it, j);
    }
  }

  // What lies outside the domain of an instruction reads as the fill of its buffers.
  void outside(const Instruction& it, int64_t j) {
    const int64_t written[] = {it.output, it.cell, it.visible};
    for (int64_t read : written) {
      if (read < 0) continue;
      for (int64_t b = 0; b < count_; ++b)
        fill(buffers_[reads_[read].buffer], reads_[read].feature, it.count, at(read, j) + b * p_.image_size);
    }
  }

  template <class Function>
  void map(const Instruction& it, int64_t j, const Function& function) {
    const float *a = at(it.first_read, j), *b = it.reads > 1 ? at(it.first_read + 1, j) : a;
    float* y = at(it.output, j);
    for (int64_t n = 0; n < count_; ++n, a += p_.image_size, b += p_.image_size, y += p_.image_size)
      for (int64_t f = 0; f < it.count; f += kLanes<float>) {
        const int64_t left = it.count - f;
        store(y + f, function(load(a + f, left), load(b + f, left)), left);
      }
  }

  // The row of a table whose number is the operand.
  void lookup(const Instruction& it, int64_t j) {
    const float* x = at(it.first_read, j);
    for (int64_t b = 0; b < count_; ++b) {
      const float number = x[b * p_.image_size] + 0.5f, last = static_cast<float>(it.depth - 1);
      const int64_t row = number > 0 ? static_cast<int64_t>(number < last ? number : last) : 0;
      write(it, j, b, constants_ + it.weight + row * it.count);
    }
  }

  void field(const Instruction& it, int64_t j) {
    const int64_t shift = places_[it.output].shift;
    const int64_t r = (row_ >> shift) - it.first_row, c = (j >> shift) - it.first_column;
    const int64_t* labels = static_cast<const int64_t*>(p_.labels);
    for (int64_t b = 0; b < count_; ++b) {
      const float* from = it.weight < 0
                              ? static_cast<const float*>(p_.fields) + (first_ + b) * p_.field_count + it.bias
                              : constants_ + it.weight + (it.bias_step ? labels[first_ + b] * it.bias_step : 0);
      write(it, j, b, from + r * it.row_step + c * it.column_step);
    }
  }

  // The key (1) or value (2) of position t of the first image of the tile.
  const float* remembered(const Instruction& it, int64_t which, int64_t t) const {
    const Read& read = reads_[it.first_read + which];
    const Buffer& buffer = buffers_[read.buffer];
    const int64_t row = t / it.grid_columns + it.grid_row + read.row;
    const int64_t column = buffer.left + t % it.grid_columns + it.grid_column + read.column;
    return arena_ + buffer.offset + row % buffer.rows * buffer.row_size + column * buffer.features + read.feature;
  }

  void attention(int64_t number, int64_t j) {
    const Instruction& it = instructions_[number];
    Memory& memory = memories_[number];
    const int64_t shift = places_[it.output].shift, positions = it.grid_rows * it.grid_columns;
    const int64_t p = ((row_ >> shift) - it.grid_row) * it.grid_columns + (j >> shift) - it.grid_column;
    const int64_t n = max(0, p - it.behind + 1), keys = key_floats(it), values = value_floats(it);
    for (; memory.seen < n; ++memory.seen) {
      const float *key = remembered(it, 1, memory.seen), *value = remembered(it, 2, memory.seen);
      for (int64_t b = 0; b < count_; ++b)
        remember(it, memory.seen, key + b * p_.image_size, value + b * p_.image_size, memory.keys + b * keys,
                 memory.values + b * values);
    }
    const float *query = at(it.first_read, j), *bias = it.weight < 0 ? nullptr : constants_ + it.weight + p * positions;
    float* y = at(it.output, j);
    const int64_t share = it.heads / it.groups, padded = padded_positions(it);
    for (int64_t b = 0; b < count_; ++b)
      for (int64_t h = 0; h < it.heads; ++h) {
        const float* table = bias ? bias + h * it.column_step : nullptr;
        attend(it, n, query + b * p_.image_size + h * it.key_size,
               memory.keys + b * keys + h / share * padded * it.key_size,
               memory.values + b * values + h / share * padded * padded_width(it), table,
               it.row_step ? table + it.row_step : nullptr, scores_, y + b * p_.image_size + h * it.value_size);
      }
  }

  void write(const Instruction& it, int64_t j, int64_t b, const float* from) {
    memcpy(at(it.output, j) + b * p_.image_size, from, static_cast<size_t>(it.count) * sizeof *from);
  }

  void where(const Instruction& it, int64_t j) {
    const float *a = at(it.first_read, j), *b = at(it.first_read + 1, j), *c = at(it.first_read + 2, j);
    float* y = at(it.output, j);
    for (int64_t image = 0; image < count_ * p_.image_size; image += p_.image_size)
      for (int64_t f = 0; f < it.count; f += kLanes<float>) {
        const int64_t at = image + f, n = it.count - f;
        store(y + at, load(a + at, n) != broadcast(0.f) ? load(b + at, n) : load(c + at, n), n);
      }
  }

  // weight * x + bias, or the bias alone.
  void affine(const Instruction& it, int64_t j) {
    const float* x = it.reads ? at(it.first_read, j) : nullptr;
    float* y = at(it.output, j);
    for (int64_t b = 0; b < count_; ++b, y += p_.image_size) {
      const float *weight = constants_ + it.weight, *bias = bias_of(it, b);
      for (int64_t f = 0; f < it.count; f += kLanes<float>) {
        Vector<float> value = load(bias + f);
        if (x) value = fma(load(weight + f), load(x + b * p_.image_size + f, it.count - f), value);
        store(y + f, value, it.count - f);
      }
    }
  }

  void lstm(const Instruction& it, int64_t j) {
    const float *gates = at(it.first_read, j), *before = at(it.first_read + 1, j);
    float *hidden = at(it.output, j), *cell = at(it.cell, j), *visible = it.visible < 0 ? nullptr : at(it.visible, j);
    for (int64_t b = 0; b < count_; ++b) {
      const int64_t image = b * p_.image_size, size = it.count;
      for (int64_t f = 0; f < size; f += kLanes<float>) {
        const int64_t n = size - f;
        const float* g = gates + image + f;
        const Gates<float> a =
            activate<float>(load(g, n), load(g + size, n), load(g + 2 * size, n), load(g + 3 * size, n));
        const Vector<float> c = fma(a.f, load(before + image + f, n), a.i * a.g), h = a.o * tanh<float>(c);
        store(cell + image + f, c, n);
        store(hidden + image + f, h, n);
        if (visible) store(visible + image + f, h, n);
      }
    }
  }

  void draw(int64_t i, int64_t j, int64_t k) {
    const float* parameters = at(p_.first_parameter + k, j);
    float* image = at(p_.image, j);
    const bool coupled = Draws::couples_channels(p_);
    const int64_t channel = coupled ? 0 : k, channels = coupled ? p_.channels : 1;
    if (p_.coding)
      codes_.code(parameters, first_, count_, i * p_.width + j, k);
    else
      draws_.draw(parameters, first_, count_, i * p_.width + j, k);
    for (int64_t b = 0; b < count_; ++b)
      for (int64_t c = channel; c < channel + channels; ++c) {
        const float level = static_cast<float>(levels_.level(first_ + b, c, i * p_.width + j));
        const float scaled = level * static_cast<float>(p_.scale);
        image[b * p_.image_size + c] = scaled + static_cast<float>(p_.shift);
      }
  }
};

}  // namespace

int pixel_program(const PixelProgram& p) {
  if (p.type != Type::kFloat32) return kNoKernel;
  return parallel(pieces_of(p.batch, Tile::block(p)), [&](int64_t begin, int64_t end) {
    Scratch memory(Tile::scratch(p));
    if (memory.failed()) return kNoMemory;
    Tile tile(p, memory);
    for (int64_t n = begin; n < end; ++n) tile.run(n);
    return kOk;
  });
}

}  // namespace GENFAST_ISA
}  // namespace genfast
