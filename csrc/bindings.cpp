#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <map>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "dispatch.h"

namespace py = pybind11;

namespace {

constexpr int64_t kMostMembers = 64;

// An entry as Python calls it: entry(dtype, members of its arguments ...). A tensor is its address: the caller has
// checked it and keeps it alive.
struct Function {
  int number;  // in ops.def
  std::vector<std::string> names;
  std::vector<bool> doubles;
  PyMethodDef method;
};

// "const void *a, *b; double c;" as names, and which of them are doubles.
void read_members(const std::string& text, Function& to) {
  std::string name, type;
  for (const char c : text) {
    const bool of_name = c == '_' || (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z');
    if (of_name) {
      name += c;
    } else if (c == ',' || c == ';') {
      to.names.push_back(name);
      to.doubles.push_back(type == "double");
      name.clear();
      if (c == ';') type.clear();
    } else if (!name.empty()) {  // a word of the type
      type = name;
      name.clear();
    }
  }
}

std::vector<Function>& functions() {
  static std::vector<Function> all;
  return all;
}

constexpr std::pair<const char*, genfast::Type> kTypes[] = {
    {"float32", genfast::Type::kFloat32}, {"float64", genfast::Type::kFloat64}, {"bfloat16", genfast::Type::kBfloat16}};

bool type_of(PyObject* name, genfast::Type* type) {
  for (const auto& [known, of] : kTypes)
    if (PyUnicode_Check(name) && PyUnicode_CompareWithASCIIString(name, known) == 0) return *type = of, true;
  PyErr_Format(PyExc_ValueError, "dtype must be float32, float64 or bfloat16; got %S", name);
  return false;
}

// No pybind11 in here: its calls take twice as long.
PyObject* call(PyObject* self, PyObject* const* given, Py_ssize_t count) {
  const Function& function = *static_cast<const Function*>(PyCapsule_GetPointer(self, nullptr));
  const Py_ssize_t expected = static_cast<Py_ssize_t>(function.names.size());
  if (count != expected + 1)
    return PyErr_Format(PyExc_TypeError, "%s: expected a dtype and %zd numbers; got %zd arguments",
                        function.method.ml_name, expected, count);
  // The struct of the arguments: a type, padded to 8 bytes, then members of 8 bytes.
  union Member {
    genfast::Type type;
    int64_t number;
    double real;
  } members[1 + kMostMembers];
  if (!type_of(given[0], &members[0].type)) return nullptr;
  for (Py_ssize_t i = 0; i < expected; ++i) {
    if (function.doubles[static_cast<size_t>(i)])
      members[i + 1].real = PyFloat_AsDouble(given[i + 1]);
    else
      members[i + 1].number = PyLong_AsLongLong(given[i + 1]);
    if (PyErr_Occurred()) return nullptr;
  }
  int status;
  Py_BEGIN_ALLOW_THREADS;
  status = genfast::run(function.number, members);
  Py_END_ALLOW_THREADS;
  if (status == genfast::kNoMemory) return PyErr_NoMemory();
  if (status != genfast::kOk)
    return PyErr_Format(PyExc_RuntimeError, "%s: no kernel serves %U", function.method.ml_name, given[0]);
  Py_RETURN_NONE;
}

// Puts these threads in the mode of the kernels if `modes` is empty; else each in its own. Gives the modes before.
std::vector<uint64_t> exchange_float_modes(std::vector<uint64_t> modes, int64_t threads) {
  if (modes.empty()) modes.assign(static_cast<size_t>(threads), genfast::kKernelFloatMode);
  genfast::exchange_float_modes(modes.data(), static_cast<int64_t>(modes.size()));
  return modes;
}

void define_entries(py::module_& m) {
  int count;
  const genfast::Entry* entries = genfast::entries(&count);
  std::vector<Function>& all = functions();
  all.reserve(static_cast<size_t>(count));  // so that none of them moves
  for (int i = static_cast<int>(all.size()); i < count; ++i) {
    const auto address = reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(call));
    all.push_back({i, {}, {}, {entries[i].name, address, METH_FASTCALL, nullptr}});
    read_members(entries[i].members, all.back());
    if (all.back().names.size() > kMostMembers) throw std::length_error(entries[i].name);
  }
  for (Function& function : all) {
    const py::capsule self(&function);
    m.add_object(function.method.ml_name,
                 py::reinterpret_steal<py::object>(PyCFunction_New(&function.method, self.ptr())));
  }
}

std::map<std::string, std::vector<std::string>> signatures() {
  std::map<std::string, std::vector<std::string>> found;
  for (const Function& function : functions()) found[function.method.ml_name] = function.names;
  return found;
}

std::vector<std::string> isas() {
  int count;
  const genfast::Isa* all = genfast::compiled_isas(&count);
  std::vector<std::string> names;
  for (int i = 0; i < count; ++i)
    if (all[i].supported()) names.push_back(all[i].name);
  return names;
}

void set_isa(const std::string& name) {
  int count;
  const genfast::Isa* all = genfast::compiled_isas(&count);
  for (int i = 0; i < count; ++i) {
    if (name != all[i].name) continue;
    if (!all[i].supported()) throw std::runtime_error("set_isa: this CPU lacks what " + name + " needs");
    return genfast::use_isa(all[i]);
  }
  std::string known;
  for (int i = 0; i < count; ++i) known += std::string(i ? ", " : "") + all[i].name;
  throw py::value_error("set_isa: expected one of " + known + "; got " + name);
}

}  // namespace

PYBIND11_MODULE(_C, m, py::mod_gil_not_used()) {
  if (!genfast::isa()) throw py::import_error("built for CPUs that have what this one lacks");
  m.doc() = "The CPU kernels of genfast. Tensors are passed by address; genfast._native.backends is the only caller.";
  m.def("isas", isas, "The instruction sets that were compiled in and that this CPU has, best last.");
  m.def("isa", [] { return genfast::isa()->name; }, "The one in use.");
  m.def("set_isa", set_isa, py::arg("name"));
  m.def("exchange_float_modes", exchange_float_modes, py::arg("modes"), py::arg("threads"));
  m.def("set_parallel_for", genfast::set_parallel_for, py::arg("address"));
  m.def("signatures", signatures, "Entry -> the names of what it takes after the dtype, in order.");
  define_entries(m);
}
