// What the shared maths asks of a number type, for float and double. simd.h offers the same for vectors of floats,
// so that one formula serves scalar code, SIMD and CUDA.
#pragma once

#include <math.h>

#include "studio/entry.h"

#if defined(__CUDACC__)
#define HD __host__ __device__ __forceinline__
#else
#define HD inline __attribute__((always_inline))
#endif

STUDIO_NAMESPACE_BEGIN

HD float sqrt(float x) { return ::sqrtf(x); }
HD double sqrt(double x) { return ::sqrt(x); }
HD float exp2(float x) { return ::exp2f(x); }
HD double exp2(double x) { return ::exp2(x); }
HD float log2(float x) { return ::log2f(x); }
HD double log2(double x) { return ::log2(x); }
HD float abs(float x) { return ::fabsf(x); }
HD double abs(double x) { return ::fabs(x); }

HD float trunc(float x) { return ::truncf(x); }
HD double trunc(double x) { return ::trunc(x); }

// a b + c, rounded once where the machine can. Left to the compiler, two uses of one formula may round differently.
HD float fused(float a, float b, float c) {
#if defined(__FMA__) || defined(__ARM_FEATURE_FMA) || defined(__CUDACC__)
  return ::fmaf(a, b, c);
#else
  return a * b + c;
#endif
}

HD double fused(double a, double b, double c) {
#if defined(__FMA__) || defined(__ARM_FEATURE_FMA) || defined(__CUDACC__)
  return ::fma(a, b, c);
#else
  return a * b + c;
#endif
}

// As in SIMD, the second value where either is not a number.
HD float min(float a, float b) { return a < b ? a : b; }
HD double min(double a, double b) { return a < b ? a : b; }
HD float max(float a, float b) { return a > b ? a : b; }
HD double max(double a, double b) { return a > b ? a : b; }

HD bool any(bool condition) { return condition; }
HD float select(bool condition, float yes, float no) { return condition ? yes : no; }
HD double select(bool condition, double yes, double no) { return condition ? yes : no; }

// What a comparison of Ts gives.
template <class T>
using Condition = decltype(T(0) < T(0));

template <class T>
HD auto is_finite(T x) {
  return abs(x) <= T(3.4028235e38f);
}

STUDIO_NAMESPACE_END
