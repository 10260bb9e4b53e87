// Whole numbers beside the floats of scalar.h: cells of lattices and entries of tables. simd_index.h offers the same
// for vectors.
#pragma once

#include <stdint.h>

#include "studio/scalar.h"

STUDIO_NAMESPACE_BEGIN

// For 0 <= x < 2^31; cuts off towards zero.
HD uint32_t to_index(float x) { return static_cast<uint32_t>(static_cast<int32_t>(x)); }
HD uint32_t to_index(double x) { return static_cast<uint32_t>(static_cast<int32_t>(x)); }

template <class T>
using Index = decltype(to_index(T()));

// A number known to the compiler, as an argument: std::integral_constant without std.
template <int N>
struct Constant {
  static constexpr int value = N;
};

HD int64_t min_of(int64_t a, int64_t b) { return a < b ? a : b; }

// where += x, also where many threads of CUDA do so at once.
HD void add_to(float* where, float x) {
#if defined(__CUDA_ARCH__)
  atomicAdd(where, x);
#else
  *where += x;
#endif
}

STUDIO_NAMESPACE_END
