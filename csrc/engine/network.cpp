#include "engine/network.h"

#include "engine/network_tile.h"

namespace genfast {
namespace GENFAST_ISA {

int network_forward(const NetworkForward& a) {
  if (a.type != Type::kFloat32) return kNoKernel;
  Network network(a.network, a.constants);
  Scratch memory(network.packed_bytes());
  if (memory.failed()) return kNoMemory;
  network.pack(memory);
  const network::Map &from = network.header.input, &to = network.header.output;
  const int64_t row = from.columns * from.features, outputs = to.rows * to.columns * to.features;
  const auto write = [&](int64_t b, float* input) {
    for (int64_t i = 0; i < from.rows; ++i)
      memcpy(input + i * from.row, static_cast<const float*>(a.input) + (b * from.rows + i) * row,
             static_cast<size_t>(row) * sizeof *input);
  };
  const auto read = [&](int64_t b, const float* output) {
    memcpy(static_cast<float*>(a.output) + b * outputs, output, static_cast<size_t>(outputs) * sizeof *output);
    return static_cast<int>(kOk);
  };
  return run_network(network, a.batch, static_cast<const int64_t*>(a.labels), write, read);
}

}  // namespace GENFAST_ISA
}  // namespace genfast
