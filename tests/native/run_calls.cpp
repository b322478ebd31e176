// Runs recorded calls of kernels once more, without Python: run_calls ISA CALLS MEMORY OUT. Of no argument: prints the
// isas that were compiled in and that this CPU has.
//
// CALLS is a text of words: for each call `call ENTRY DTYPE`, then NAME VALUE for each member of its arguments in
// order. An address is @ and a place in MEMORY, or 0; the calls run one after the other on that memory, which then goes
// to OUT. tests/support/aarch64.py writes both files. The caller rounds towards zero and flushes subnormal numbers.
#include <stdlib.h>
#include <string.h>

#include <fstream>
#include <iostream>
#include <iterator>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include "core/float_mode.h"
#include "dispatch.h"

namespace {

#if defined(__aarch64__)
constexpr uint64_t kForeignMode = genfast::kFloatMode | 0x1c00000;  // of FPCR: RMode, FZ
#else
constexpr uint64_t kForeignMode = genfast::kFloatMode | 0xe040;  // of MXCSR: DAZ, RC, FTZ
#endif

struct Member {
  std::string name;
  bool address, real;
};

[[noreturn]] void fail(const std::string& text) {
  std::cerr << "run_calls: " << text << '\n';
  exit(1);
}

// Of declarations "const void *a, *b; double c;".
std::vector<Member> members_of(const std::string& text) {
  std::vector<Member> members;
  std::istringstream declarations(text);
  for (std::string declaration; std::getline(declarations, declaration, ';');) {
    for (char& c : declaration)
      if (c == '*' || c == ',') c = ' ';
    std::istringstream words(declaration);
    std::string type, name;
    while (words >> type && type == "const") continue;
    while (words >> name) members.push_back({name, type == "void", type == "double"});
  }
  return members;
}

const genfast::Entry& entry_of(const std::string& name) {
  int count;
  const genfast::Entry* entries = genfast::entries(&count);
  for (const genfast::Entry* entry = entries; entry < entries + count; ++entry)
    if (name == entry->name) return *entry;
  fail("ENTRY must be one of csrc/ops.def; got " + name);
}

genfast::Type type_of(const std::string& name) {
  if (name == "float32") return genfast::Type::kFloat32;
  if (name == "float64") return genfast::Type::kFloat64;
  if (name == "bfloat16") return genfast::Type::kBfloat16;
  fail("DTYPE must be float32, float64 or bfloat16; got " + name);
}

void use_isa(const std::string& name) {
  int count;
  const genfast::Isa* all = genfast::compiled_isas(&count);
  for (int i = 0; i < count; ++i)
    if (name == all[i].name && all[i].supported()) return genfast::use_isa(all[i]);
  fail("ISA must be one that this CPU has; got " + name);
}

// The 8 bytes of a member.
uint64_t read_member(const Member& member, const std::string& value, char* memory, size_t size) {
  const bool is_place = value[0] == '@';
  const char* digits = value.c_str() + is_place;
  char* end = nullptr;
  uint64_t bits;
  if (member.real) {
    const double real = strtod(digits, &end);
    memcpy(&bits, &real, sizeof bits);
  } else {
    bits = static_cast<uint64_t>(strtoll(digits, &end, 10));
  }
  const bool fits = is_place ? member.address && bits < size : !member.address || !bits;
  if (!fits || *end || end == digits)
    fail(member.name + " must be " + (member.address ? "a place in MEMORY, or 0" : "a number") + "; got " + value);
  return is_place ? bits + reinterpret_cast<uintptr_t>(memory) : bits;
}

void run_call(std::istream& calls, char* memory, size_t size) {
  std::string called, type, name, value;
  calls >> called >> type;
  const genfast::Entry& entry = entry_of(called);
  std::vector<uint64_t> arguments{static_cast<uint64_t>(type_of(type))};
  for (const Member& member : members_of(entry.members)) {
    if (!(calls >> name >> value) || name != member.name) fail(called + ": expected " + member.name + "; got " + name);
    arguments.push_back(read_member(member, value, memory, size));
  }
  int count;
  const genfast::Entry* entries = genfast::entries(&count);
  const uint64_t before = genfast::float_mode();
  genfast::set_float_mode(kForeignMode);
  const int status = genfast::run(static_cast<int>(&entry - entries), arguments.data());
  const uint64_t after = genfast::float_mode() & ~genfast::kFloatFlags;
  genfast::set_float_mode(before);
  if (after != kForeignMode) fail(called + ": expected the caller's floating-point mode; got " + std::to_string(after));
  if (status != genfast::kOk) fail(called + ": expected status 0; got " + std::to_string(status));
}

}  // namespace

int main(int count, char** words) {
  if (count == 1) {
    int isas;
    const genfast::Isa* all = genfast::compiled_isas(&isas);
    for (int i = 0; i < isas; ++i)
      if (all[i].supported()) std::cout << all[i].name << '\n';
    return 0;
  }
  if (count != 5) fail("expected ISA CALLS MEMORY OUT");
  use_isa(words[1]);
  std::ifstream calls(words[2]), file(words[3], std::ios::binary);
  const std::vector<char> bytes{std::istreambuf_iterator<char>(file), {}};
  void* memory;
  if (bytes.empty() || posix_memalign(&memory, 64, bytes.size()))
    fail("MEMORY must be a file that fits; got " + std::string(words[3]));
  memcpy(memory, bytes.data(), bytes.size());
  std::string word;
  while (calls >> word) {
    if (word != "call") fail("expected call; got " + word);
    run_call(calls, static_cast<char*>(memory), bytes.size());
  }
  std::ofstream out(words[4], std::ios::binary);
  out.write(static_cast<char*>(memory), static_cast<std::streamsize>(bytes.size()));
  out.close();
  if (!out) fail("OUT must be a file that can be written; got " + std::string(words[4]));
}
