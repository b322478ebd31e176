// Runs a network (genfast/engine/network.py): instructions over whole feature maps, image by image.
//
// `network` is one table of int64: a Header, its instructions, then what they name by its place in the table.
#pragma once

#include "core/arguments.h"

namespace genfast {

GENFAST_ARGUMENTS(NetworkForward,
  const void *network, *constants;  // int64 and float
  const void* input;                // float [B, rows, columns, features] of the input
  const void* labels;               // int64 [B], or null
  void* output;                     // float [B, rows, columns, features] of the output
  int64_t batch;
)

namespace network {

// A feature map [rows][columns][features] in the floats of an image: `at` is its first value, `row` the step from row
// to row. What lies around it, as far as a convolution reads it, is zero.
struct Map {
  int64_t at, rows, columns, features, row;
};

enum Kind : int64_t { kConvolve, kActivate, kAdd, kGather };

struct Instruction {
  int64_t kind, activation;  // one of program::Activation, after all else
  Map from, added, to;       // `added` has no rows where nothing is added
  // A convolution: the window, its step, and how far the first one begins above and left of the map. Weights are
  // [height][width][features][features of `to`], biases are padded by zeros; bias_step is that from label to label.
  int64_t height, width, row_stride, column_stride, top, left;
  int64_t weight, bias, bias_step;
  int64_t runs, run_count;  // of a gather: (from, to, length), places in the floats of an image
};

struct Header {
  int64_t instructions, image_size;  // image_size: floats of an image
  Map input, output;                 // there are none between the rows of the output
};

}  // namespace network

}  // namespace genfast
