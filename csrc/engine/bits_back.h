// Codes a block of images by a latent variable model on one stack (genfast/engine/bits_back.py): z is popped under
// q(z | x), then x pushed under p(x | z) and z under the prior, which costs log q(z | x) - log p(x, z).
//
// A group of images is popped at once, so that its networks run together. The first group is one image, as there are
// few bits to pop yet; image number n begins one of 1 + n / growth, at most `most`.
#pragma once

#include "core/arguments.h"

namespace genfast {

GENFAST_ARGUMENTS(BitsBack,
  const void *encoder, *encoder_constants, *decoder, *decoder_constants;  // networks: see network.h
  const void* labels;              // int64 [B], or null
  void* images;                    // uint8 [B, C, H, W]; decoding writes them
  void* words;                     // uint32 [capacity]; encoding writes them
  void* count;                     // int64 [1]: the words of the block. After decoding 0, or -1 if they were damaged
  int64_t batch, capacity, most, growth;
  int64_t channels, height, width, levels, head, components, latents;
)

// The coder alone: intervals are uint32 [B, 2], start and frequency.
GENFAST_ARGUMENTS(AnsPush,
  const void* intervals;
  void *words, *count;  // uint32 [capacity] and int64 [1], out
  int64_t batch, capacity;
)
// Of symbols with cumulative frequencies, uint32 [B, S + 1], pops the last one first, from [count] words.
GENFAST_ARGUMENTS(AnsPop,
  const void *cumulative, *words;
  void *symbols, *left;  // int64 [B], and int64 [1]: the words that are left; out
  int64_t batch, symbol_count, count;
)

}  // namespace genfast
