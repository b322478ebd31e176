// The border to Python: how the arguments of a kernel are declared, and what it returns.
#pragma once

#include <stdint.h>

namespace genfast {

enum Status : int { kOk = 0, kNoMemory = 1, kNoKernel = 2 };

enum class Type : int { kFloat32, kFloat64, kBfloat16 };

// An entry of a kernel, whose arguments are one of the structs below.
using Kernel = int (*)(const void* arguments);

// Whether `text` begins with `word`.
constexpr bool begins_with(const char* text, const char* word) {
  for (; *word; ++text, ++word)
    if (*text != *word) return false;
  return true;
}

// The members that declarations "void *a, *b; int64_t c; double d;" make; -1 if one has another type.
constexpr int64_t count_members(const char* text) {
  int64_t count = 0;
  while (*text) {
    const char* type = begins_with(text, "const ") ? text + 6 : text;
    if (!begins_with(type, "void") && !begins_with(type, "int64_t ") && !begins_with(type, "double ")) return -1;
    for (; *text && *text != ';'; ++text) count += *text == ',';
    for (++count; *text == ';' || *text == ' ';) ++text;
  }
  return count;
}

// A struct of a type and members of 8 bytes, declared as usual, in the order in which Python passes them. The text of
// the declarations is kept: it tells the bindings the names, and which members are doubles.
#define GENFAST_ARGUMENTS(Name, ...)                                     \
  struct Name {                                                          \
    static constexpr char kMembers[] = #__VA_ARGS__;                     \
    Type type;                                                           \
    __VA_ARGS__                                                          \
  };                                                                     \
  static_assert(sizeof(Name) == 8 * (1 + count_members(Name::kMembers)), \
                #Name ": pointers to void, int64_t and double alone");

}  // namespace genfast
