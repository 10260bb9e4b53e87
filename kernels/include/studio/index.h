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
HD int64_t max_of(int64_t a, int64_t b) { return a > b ? a : b; }

// These also where many threads of CUDA do so at once. where += x:
HD void add_to(float* where, float x) {
#if defined(__CUDA_ARCH__)
  atomicAdd(where, x);
#else
  *where += x;
#endif
}

// where becomes the larger of both.
HD void raise_to(uint64_t* where, uint64_t value) {
#if defined(__CUDA_ARCH__)
  atomicMax(reinterpret_cast<unsigned long long*>(where), static_cast<unsigned long long>(value));
#else
  *where = value > *where ? value : *where;
#endif
}

// where before 1 was added to it.
HD int64_t count_up(int64_t* where) {
#if defined(__CUDA_ARCH__)
  return static_cast<int64_t>(atomicAdd(reinterpret_cast<unsigned long long*>(where), 1ull));
#else
  return (*where)++;
#endif
}

STUDIO_NAMESPACE_END
