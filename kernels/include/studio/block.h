// What the threads of a CUDA block do together. On a CPU one thread runs after another, each as if alone in its block.
#pragma once

#include <stdint.h>

#include "studio/scalar.h"

STUDIO_NAMESPACE_BEGIN

inline constexpr int BLOCK_THREADS = 256;

// Of what a block loads together: how much at once, and which part is this thread's.
#if defined(__CUDACC__)
inline constexpr uint32_t BLOCK_SHARE = BLOCK_THREADS;
HD uint32_t share_of(int thread) { return static_cast<uint32_t>(thread); }
#else
inline constexpr uint32_t BLOCK_SHARE = 1;
HD uint32_t share_of(int) { return 0; }
#endif

// All threads of the block come here before any goes on.
HD void wait_for_block() {
#if defined(__CUDA_ARCH__)
  __syncthreads();
#endif
}

HD bool all_of_block(bool condition) {
#if defined(__CUDA_ARCH__)
  return __syncthreads_and(condition) != 0;
#else
  return condition;
#endif
}

// A warp's 32 threads come here together.
HD bool any_of_warp(bool condition) {
#if defined(__CUDA_ARCH__)
  return __any_sync(0xffffffffu, condition) != 0;
#else
  return condition;
#endif
}

HD float sum_of_warp(float value) {
#if defined(__CUDA_ARCH__)
  for (int offset = 16; offset > 0; offset /= 2) value += __shfl_xor_sync(0xffffffffu, value, offset);
#endif
  return value;
}

// Of each warp's threads one speaks for all.
HD bool leads_warp([[maybe_unused]] int thread) {
#if defined(__CUDA_ARCH__)
  return thread % 32 == 0;
#else
  return true;
#endif
}

STUDIO_NAMESPACE_END
