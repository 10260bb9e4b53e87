// The C ABI of the kernels: what a caller of any language sees.
//
// Each operator adds one header, kernels/<operator>/<operator>.h, with a plain struct of pointers, sizes and flags for
// each entry and the entry itself: int studio_<operator>_<verb>(const Studio...*, int64_t bytes), where bytes is the
// size of the struct as the caller knows it. It returns 0, or 1 with the reason in studio_last_error(). All arrays are
// C-contiguous and belong to the caller; the caller asks for sizes with a query entry where they depend on the data.
#pragma once

#include <stdint.h>

#if defined(_WIN32)
#define STUDIO_API __declspec(dllexport)
#else
#define STUDIO_API __attribute__((visibility("default")))
#endif

// Grows when the meaning of any struct changes but not its size; the Python side refuses another number.
#define STUDIO_ABI_VERSION 2

#ifdef __cplusplus
extern "C" {
#endif

// Where an entry runs.
typedef struct StudioLaunch {
  int32_t threads;  // on the CPU
  int32_t device;   // on CUDA, with the stream
  void* stream;
} StudioLaunch;

STUDIO_API int32_t studio_abi_version(void);

// Why the last entry called on this thread returned 1; valid until the next call on this thread.
STUDIO_API const char* studio_last_error(void);

// The instruction set that the CPU entries run on: "base", "v3" (AVX2) or "v4" (AVX-512).
// STUDIO_ISA=base|v3|v4 in the environment asks for one; one that the CPU lacks or that was not built is an error
// that every entry reports.
STUDIO_API const char* studio_isa(void);

#ifdef __cplusplus
}
#endif
