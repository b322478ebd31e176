// Runs a pixel program (genfast/engine/program.py): whole images, pixel by pixel, in one call.
//
// The tables are int64 and row by row; what they hold is said at the structs below. Levels are uint8, or int32 where
// there are more than 256 of them, which only a categorical head has. Addresses that may be null: labels, given with
// known, evidence, fields, log_probs, log_evidence, parameters, and what codes images.
//
// Coding: each block of images has a stream of its own, see pixel_code.h, of which a thread codes one tile after the
// other, pixel by pixel, draw by draw, image by image. It is done at temperature 1 and draws nothing.
#pragma once

#include "core/arguments.h"

namespace genfast {

GENFAST_ARGUMENTS(PixelProgram,
  const void *instructions, *reads, *buffers, *constants;  // Instruction, Read, Buffer; float
  const void* bounds;              // int64 [draws + 3]: instructions of `row`, then of `pixel[0]` .. `pixel[draws]`
  const void* labels;              // int64 [B]
  const void *given, *known;       // levels and uint8 [B, C, H, W]
  const void* evidence;            // float [B, C, H, W, L]
  const void* fields;              // float [B, field_count]
  void* images;                    // levels [B, C, H, W], out; read where they are encoded
  void *log_probs, *log_evidence;  // double [B, draws, H, W], out
  void* parameters;                // float [B, P, H, W], out
  void* words;                     // uint32 [blocks][most_words], a stream for each block
  void* word_counts;               // int64 [blocks]; a decoder makes those -1 that no encoder can have written
  void* intervals;                 // uint32 [B, C, H, W, 2], out of an encoder: the first part and the number of parts
  void* memory;                    // float [B, image_size], the buffers between calls for parts of a row; may be null
  int64_t read_count, buffer_count;
  int64_t image_size;   // floats of the buffers of one image
  int64_t batch, tile;  // images, and how many of them a thread takes at a time
  int64_t rows_apart;   // 1: whole rows by columns, and of pixels too what rows above give; the results are the same
  int64_t coding, block, most_words;  // images in a block
  int64_t channels, height, width, columns, levels;
  int64_t head, components, parameter_count, field_count;
  int64_t image, first_parameter;  // reads: where the levels of a pixel go; the parameters of draw 0, 1, ..
  int64_t first_column, end_column;  // of images of one row with `memory`: those of this call, the first one at 0
  int64_t first_element;             // of the random numbers: that of column 0
  int64_t seed, first_index, draw;
  double temperature, scale, shift;
)

namespace program {

// Position (r, c) of a buffer of stride 2^shift belongs to pixel (r 2^shift, c 2^shift).
struct Buffer {
  int64_t offset, features, step;       // step: from column to column; 0 where a single position is kept
  int64_t shift, rows, left, row_size;  // row_size: of all columns
  int64_t fill;                         // in the constants, or -1: zeros
};

struct Read {
  int64_t buffer, row, column, feature, count;
};

enum Kind : int64_t {
  kLinear,
  kLstm,
  kLookup,
  kField,
  kCopy,
  kNeg,
  kRelu,
  kElu,
  kTanh,
  kSigmoid,
  kAdd,
  kMul,
  kGate,
  kAffine,
  kConstant,
  kExp,
  kLog,
  kLog1p,
  kSqrt,
  kReciprocal,
  kAbs,
  kErf,
  kSoftplus,
  kMax,
  kMin,
  kGreater,
  kWhere,
  kAttention
};
enum Activation : int64_t { kNone, kOfRelu, kOfElu, kOfTanh, kOfSigmoid };
enum Head : int64_t { kBernoulli, kCategorical, kMixture };
enum Coding : int64_t { kNoCoding, kEncode, kDecode };

struct Instruction {
  int64_t kind, sweep, count, activation;
  int64_t output, cell, visible;                                   // reads, written; the last two may be -1
  int64_t row_mask, row_remainder, column_mask, column_remainder;  // masks: the modulus less one
  int64_t first_row, end_row, first_column, end_column;
  int64_t first_read, reads, first_add, adds, depth;  // depth: the values of all reads, the rows of a lookup
  int64_t above, above_depth;  // in `pixel`: how many of the reads, the first ones, are of rows above, and their depth
  // In the constants; panels [depth][16], zero beyond `count`; step from label to label. Of a lookup [depth][count]; of
  // a field [rows][columns][count], or -1: that lies in the fields of the request, from `bias` on.
  int64_t weight, bias, bias_step;
  int64_t row_step, column_step;  // of a field, 0 where it is the same in all rows or columns
  // Of attention, as in program.Attention. Its table is at `weight`, or that is -1; its heads are `column_step` apart,
  // and what multiplies weights is `row_step` behind it, or that is 0.
  int64_t heads, groups, key_size, value_size;
  int64_t grid_rows, grid_columns, grid_row, grid_column, behind, nan;
};

}  // namespace program

}  // namespace genfast
