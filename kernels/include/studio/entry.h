// From one C entry to the copy of its code that suits the CPU.
//
// kernels/<operator>/cpu.cpp is compiled once per instruction set with STUDIO_ISA naming the namespace that keeps
// the copies apart. It ends with STUDIO_ENTRY(studio_blur, blur, StudioBlur) for each of its functions
//     void blur(const StudioBlur& arguments);   // may throw; in namespace studio, inline namespace STUDIO_ISA
// and the base copy then also defines the C entry that picks among them.
//
// Beware of templates from std: their instances have one name in all copies, the linker keeps any one of them, and
// that may be the one with instructions that this CPU lacks. Types of the ISA namespace as template arguments, or
// none of std in hot files, are safe; tests/kernels/test_symbols.py looks for offenders.
#pragma once

#include "abi.h"

#ifndef STUDIO_ISA
#define STUDIO_ISA plain
#endif

#define STUDIO_NAMESPACE_BEGIN namespace studio { inline namespace STUDIO_ISA {
#define STUDIO_NAMESPACE_END } }

namespace studio {

enum class Isa { base, v3, v4 };

// The choice made once from STUDIO_ISA and the CPU. Throws where the wish cannot be met.
Isa chosen_isa();

// Runs body(arguments); an exception becomes studio_last_error() and the return value 1. So does a struct of another
// size than this library was built with: the caller's size is bytes, the library's is expected.
int guarded(void (*body)(const void* arguments), const void* arguments, int64_t bytes, int64_t expected) noexcept;

}  // namespace studio

#if !defined(STUDIO_HAS_V3)
#define STUDIO_IF_V3(...)
#else
#define STUDIO_IF_V3(...) __VA_ARGS__
#endif
#if !defined(STUDIO_HAS_V4)
#define STUDIO_IF_V4(...)
#else
#define STUDIO_IF_V4(...) __VA_ARGS__
#endif

#if defined(STUDIO_DEFINE_ENTRIES)
#define STUDIO_ENTRY(entry, function, Arguments)                                        \
  namespace studio {                                                                    \
  STUDIO_IF_V3(inline namespace v3 { void function(const Arguments&); })                \
  STUDIO_IF_V4(inline namespace v4 { void function(const Arguments&); })                \
  }                                                                                     \
  extern "C" STUDIO_API int32_t entry(const Arguments* arguments, int64_t bytes) {      \
    return studio::guarded(                                                             \
        [](const void* untyped) {                                                       \
          const Arguments& typed = *static_cast<const Arguments*>(untyped);             \
          switch (studio::chosen_isa()) {                                               \
            STUDIO_IF_V4(case studio::Isa::v4: return studio::v4::function(typed);)     \
            STUDIO_IF_V3(case studio::Isa::v3: return studio::v3::function(typed);)     \
            default: return studio::STUDIO_ISA::function(typed);                        \
          }                                                                             \
        },                                                                              \
        arguments, bytes, sizeof(Arguments));                                           \
  }
#else
#define STUDIO_ENTRY(entry, function, Arguments)
#endif
