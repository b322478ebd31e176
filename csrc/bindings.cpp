#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <stdexcept>
#include <string>
#include <vector>

#include "dispatch.h"

namespace py = pybind11;
using genfast::Type;

namespace {

Type type_of(const std::string& name) {
  if (name == "float32") return Type::kFloat32;
  if (name == "float64") return Type::kFloat64;
  if (name == "bfloat16") return Type::kBfloat16;
  throw py::value_error("dtype must be float32, float64 or bfloat16; got " + name);
}

// Addresses come from tensors that the caller has checked and keeps alive.
const void* in(uintptr_t address) { return reinterpret_cast<const void*>(address); }
void* out(uintptr_t address) { return reinterpret_cast<void*>(address); }

template <class Arguments>
void call(int (*kernel)(const Arguments&), const Arguments& arguments) {
  int status;
  {
    py::gil_scoped_release release;
    status = kernel(arguments);
  }
  if (status == genfast::kNoMemory) throw std::bad_alloc();
  if (status != genfast::kOk) throw std::runtime_error("no kernel serves this dtype");
}

std::vector<std::string> levels() {
  int count;
  const genfast::Kernels* all = genfast::compiled_levels(&count);
  std::vector<std::string> names;
  for (int i = 0; i < count; ++i)
    if (all[i].supported()) names.push_back(all[i].level);
  return names;
}

void set_level(const std::string& name) {
  int count;
  const genfast::Kernels* all = genfast::compiled_levels(&count);
  for (int i = 0; i < count; ++i) {
    if (name != all[i].level) continue;
    if (!all[i].supported()) throw std::runtime_error("set_level: this CPU lacks what " + name + " needs");
    return genfast::use_level(all[i]);
  }
  std::string known;
  for (int i = 0; i < count; ++i) known += std::string(i ? ", " : "") + all[i].level;
  throw py::value_error("set_level: expected one of " + known + "; got " + name);
}

}  // namespace

PYBIND11_MODULE(_C, m, py::mod_gil_not_used()) {
  m.doc() = "The CPU kernels of genfast. Tensors are passed by address; genfast._backends is the only caller.";
  m.def("levels", levels, "Instruction-set levels that were compiled in and that this CPU has, best last.");
  m.def("level", [] { return genfast::kernels().level; }, "The level in use.");
  m.def("set_level", set_level, py::arg("name"));
  m.def("set_parallel_for", genfast::set_parallel_for, py::arg("address"));

  using A = uintptr_t;
  using N = int64_t;
  m.def("diagonal_lstm_forward", [](const std::string& dtype, A gates, A weight, A h0, A c0, A hidden, A saved_gates,
                                    A saved_cells, N B, N H, N W, N D, N C) {
    call(genfast::kernels().diagonal_lstm_forward, {type_of(dtype), in(gates), in(weight), in(h0), in(c0), out(hidden),
                                                    out(saved_gates), out(saved_cells), B, H, W, D, C});
  });
  m.def("diagonal_lstm_backward",
        [](const std::string& dtype, A grad_hidden, A hidden, A saved_gates, A saved_cells, A weight, A h0, A c0,
           A grad_gates, A grad_weight, A grad_h0, A grad_c0, N B, N H, N W, N D, N C) {
          call(genfast::kernels().diagonal_lstm_backward,
               {type_of(dtype), in(grad_hidden), in(hidden), in(saved_gates), in(saved_cells), in(weight), in(h0),
                in(c0), out(grad_gates), out(grad_weight), out(grad_h0), out(grad_c0), B, H, W, D, C});
        });
  m.def("diagonal_block_forward",
        [](const std::string& dtype, A x, A input_weight, A input_bias, A weight, A h0, A c0, A output_weight,
           A output_bias, A y, A hidden, A saved_gates, A saved_cells, N B, N H, N W, N F, N C) {
          call(genfast::kernels().diagonal_block_forward,
               {type_of(dtype), in(x), in(input_weight), in(input_bias), in(weight), in(h0), in(c0), in(output_weight),
                in(output_bias), out(y), out(hidden), out(saved_gates), out(saved_cells), B, H, W, F, C});
        });
  m.def("diagonal_block_backward",
        [](const std::string& dtype, A grad_y, A x, A hidden, A saved_gates, A saved_cells, A input_weight, A weight,
           A h0, A c0, A output_weight, A grad_x, A grad_input_weight, A grad_input_bias, A grad_weight, A grad_h0,
           A grad_c0, A grad_output_weight, A grad_output_bias, N B, N H, N W, N F, N C) {
          call(genfast::kernels().diagonal_block_backward, {type_of(dtype),
                                                            in(grad_y),
                                                            in(x),
                                                            in(hidden),
                                                            in(saved_gates),
                                                            in(saved_cells),
                                                            in(input_weight),
                                                            in(weight),
                                                            in(h0),
                                                            in(c0),
                                                            in(output_weight),
                                                            out(grad_x),
                                                            out(grad_input_weight),
                                                            out(grad_input_bias),
                                                            out(grad_weight),
                                                            out(grad_h0),
                                                            out(grad_c0),
                                                            out(grad_output_weight),
                                                            out(grad_output_bias),
                                                            B,
                                                            H,
                                                            W,
                                                            F,
                                                            C});
        });
}
