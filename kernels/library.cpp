// What all operators share: version, errors, the choice of instruction set.
#include <cstdlib>
#include <cstring>
#include <exception>
#include <stdexcept>
#include <string>

#include "abi.h"
#include "studio/entry.h"

namespace studio {
namespace {

thread_local std::string last_error;

bool cpu_has([[maybe_unused]] Isa isa) {
  switch (isa) {
#if defined(STUDIO_HAS_V4)
    case Isa::v4: return __builtin_cpu_supports("x86-64-v4");
#endif
#if defined(STUDIO_HAS_V3)
    case Isa::v3: return __builtin_cpu_supports("x86-64-v3");
#endif
    case Isa::base: return true;
    default: return false;
  }
}

const char* isa_name(Isa isa) { return isa == Isa::v4 ? "v4" : isa == Isa::v3 ? "v3" : "base"; }

Isa choose_isa() {
  const char* wish = std::getenv("STUDIO_ISA");
  if (wish == nullptr || *wish == '\0') return cpu_has(Isa::v4) ? Isa::v4 : cpu_has(Isa::v3) ? Isa::v3 : Isa::base;
  for (Isa isa : {Isa::base, Isa::v3, Isa::v4}) {
    if (std::strcmp(wish, isa_name(isa)) != 0) continue;
    if (cpu_has(isa)) return isa;
    throw std::runtime_error(std::string("STUDIO_ISA=") + wish + " is not built or not supported by this CPU");
  }
  throw std::runtime_error(std::string("STUDIO_ISA=") + wish + " is none of base, v3, v4");
}

}  // namespace

Isa chosen_isa() {
  static const Isa isa = choose_isa();
  return isa;
}

int guarded(void (*body)(const void*), const void* arguments, int64_t bytes, int64_t expected) noexcept {
  try {
    if (bytes != expected) {
      throw std::runtime_error("the arguments came with " + std::to_string(bytes) + " bytes, expected " +
                               std::to_string(expected) + "; build the kernels anew");
    }
    body(arguments);
    return 0;
  } catch (const std::bad_alloc&) {
    last_error = "out of memory";
  } catch (const std::exception& error) {
    last_error = error.what();
  }
  return 1;
}

}  // namespace studio

extern "C" {

int32_t studio_abi_version(void) { return STUDIO_ABI_VERSION; }

const char* studio_last_error(void) { return studio::last_error.c_str(); }

const char* studio_isa(void) {
  const char* name = "";
  studio::guarded([](const void* out) { *(const char**)out = studio::isa_name(studio::chosen_isa()); }, &name, 0, 0);
  return name;
}

}  // extern "C"
