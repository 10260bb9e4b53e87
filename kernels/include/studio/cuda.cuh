// A thread for each element: how elements.h of an operator becomes its CUDA entries.
#pragma once

#include <cuda_runtime.h>

#include <stdexcept>
#include <string>

#include "abi.h"
#include "studio/entry.h"

STUDIO_NAMESPACE_BEGIN

inline void check(cudaError_t status) {
  if (status != cudaSuccess) throw std::runtime_error(std::string("CUDA: ") + cudaGetErrorString(status));
}

inline constexpr int THREADS = 256;

template <class Element>
__global__ void __launch_bounds__(THREADS) for_each(int64_t count, Element element) {
  const int64_t i = int64_t(blockIdx.x) * THREADS + threadIdx.x;
  if (i < count) element(i);
}

// element(i) for each i below count.
template <class Element>
void launch(const StudioLaunch& where, int64_t count, const Element& element) {
  if (count == 0) return;
  const int64_t blocks = (count + THREADS - 1) / THREADS;
  if (blocks > INT32_MAX) throw std::runtime_error("too many elements for one CUDA launch");
  check(cudaSetDevice(where.device));
  for_each<<<static_cast<unsigned>(blocks), THREADS, 0, static_cast<cudaStream_t>(where.stream)>>>(count, element);
  check(cudaGetLastError());
}

// Sums by atomics begin at 0.
inline void set_to_zero(const StudioLaunch& where, float* values, int64_t count) {
  if (values == nullptr || count == 0) return;
  check(cudaSetDevice(where.device));
  check(cudaMemsetAsync(values, 0, count * sizeof(float), static_cast<cudaStream_t>(where.stream)));
}

STUDIO_NAMESPACE_END

#define STUDIO_CUDA_ENTRY(entry, function, Arguments)                                                             \
  extern "C" STUDIO_API int32_t entry(const Arguments* arguments, int64_t bytes) {                                \
    return studio::guarded([](const void* untyped) { studio::function(*static_cast<const Arguments*>(untyped)); }, \
                           arguments, bytes, sizeof(Arguments));                                                  \
  }
