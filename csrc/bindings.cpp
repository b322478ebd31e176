#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <stdexcept>
#include <string>
#include <utility>
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

// A Python number as the member of an argument struct that it stands for. An address comes from a tensor that the
// caller has checked and keeps alive.
struct Argument {
  py::handle value;

  operator const void*() const { return reinterpret_cast<const void*>(value.cast<uintptr_t>()); }
  operator void*() const { return reinterpret_cast<void*>(value.cast<uintptr_t>()); }
  operator int64_t() const { return value.cast<int64_t>(); }
  operator double() const { return value.cast<double>(); }
};

template <class Arguments, size_t... I>
void call(const char* name, int (*kernel)(const Arguments&), const std::string& dtype, const py::args& given,
          std::index_sequence<I...>) {
  if (given.size() != sizeof...(I))
    throw py::type_error(std::string(name) + ": expected " + std::to_string(sizeof...(I)) + " numbers; got " +
                         std::to_string(given.size()));
  const Arguments arguments{type_of(dtype), Argument{given[I]}...};
  int status;
  {
    py::gil_scoped_release release;
    status = kernel(arguments);
  }
  if (status == genfast::kNoMemory) throw std::bad_alloc();
  if (status != genfast::kOk) throw std::runtime_error(std::string(name) + ": no kernel serves " + dtype);
}

template <class Arguments>
void define(py::module_& m, const char* name, int (*genfast::Kernels::*kernel)(const Arguments&)) {
  constexpr size_t count = sizeof(Arguments) / 8 - 1;  // all members but the type, which is padded to 8 bytes
  m.def(name, [name, kernel](const std::string& dtype, const py::args& given) {
    call(name, genfast::kernels().*kernel, dtype, given, std::make_index_sequence<count>());
  });
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
  m.doc() = "The CPU kernels of genfast. Tensors are passed by address; genfast._native.backends is the only caller.";
  m.def("levels", levels, "Instruction-set levels that were compiled in and that this CPU has, best last.");
  m.def("level", [] { return genfast::kernels().level; }, "The level in use.");
  m.def("set_level", set_level, py::arg("name"));
  m.def("set_parallel_for", genfast::set_parallel_for, py::arg("address"));

#define OP(name, Arguments) define<genfast::Arguments>(m, #name, &genfast::Kernels::name);
  GENFAST_OPS(OP)
#undef OP
}
