// Streams of words beside those of images: symbols of one distribution, and the checksum of decoded levels.
#pragma once

#include "core/arguments.h"

namespace genfast {

// Codes symbols that share one distribution; symbol s has the parts edges[s] .. edges[s + 1] - 1 of 2^24.
GENFAST_ARGUMENTS(RangeCoder,
  const void* edges;   // uint32 [symbols + 1], ascending from 0 to 2^24
  void* values;        // int64 [count], in or out
  void* words;         // uint32 [count + 2], out or in
  void* word_count;    // int64 [1]; a decoder makes it -1 where no encoder can have written the words
  int64_t decodes, symbols, count;
)

// CRC-32C (Castagnoli) of bytes.
GENFAST_ARGUMENTS(Crc32c,
  const void* bytes;
  void* result;  // uint32 [1]: the checksum of what came before, 0 at first; then that of all
  int64_t count;
)

}  // namespace genfast
