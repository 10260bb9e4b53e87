// A thread for each element: how elements.h of an operator becomes its CUDA entries.
//
// A C++ compiler makes of the same sources a library in which one thread does the work of all, one element after
// another, on a CPU. The tests run it where there is no GPU.
#pragma once

#if defined(__CUDACC__)
#include <cuda_runtime.h>
#endif

#include <string.h>

#include <stdexcept>
#include <string>

#include "abi.h"
#include "studio/block.h"
#include "studio/buffer.h"
#include "studio/entry.h"

STUDIO_NAMESPACE_BEGIN

#if defined(__CUDACC__)

inline void check(cudaError_t status) {
  if (status != cudaSuccess) throw std::runtime_error(std::string("CUDA: ") + cudaGetErrorString(status));
}

inline cudaStream_t stream_of(const StudioLaunch& where) {
  check(cudaSetDevice(where.device));
  return static_cast<cudaStream_t>(where.stream);
}

inline unsigned grid(int64_t blocks) {
  if (blocks > INT32_MAX) throw std::runtime_error("too many elements for one CUDA launch");
  return static_cast<unsigned>(blocks);
}

template <class Element>
__global__ void __launch_bounds__(BLOCK_THREADS) for_each(int64_t count, Element element) {
  const int64_t i = int64_t(blockIdx.x) * BLOCK_THREADS + threadIdx.x;
  if (i < count) element(i);
}

// element(i) for each i below count.
template <class Element>
void launch(const StudioLaunch& where, int64_t count, const Element& element) {
  if (count == 0) return;
  const unsigned blocks = grid((count + BLOCK_THREADS - 1) / BLOCK_THREADS);
  for_each<<<blocks, BLOCK_THREADS, 0, stream_of(where)>>>(count, element);
  check(cudaGetLastError());
}

template <class Element>
__global__ void __launch_bounds__(BLOCK_THREADS) for_each_block(Element element) {
  __shared__ typename Element::Shared shared;
  element(blockIdx.x, static_cast<int>(threadIdx.x), shared);
}

// element(block, thread, what the block's threads share) for BLOCK_THREADS threads of each block.
template <class Element>
void launch_blocks(const StudioLaunch& where, int64_t blocks, const Element& element) {
  if (blocks == 0) return;
  for_each_block<<<grid(blocks), BLOCK_THREADS, 0, stream_of(where)>>>(element);
  check(cudaGetLastError());
}

template <class T>
void fill_bytes(const StudioLaunch& where, T* values, uint8_t byte, int64_t count) {
  if (values == nullptr || count == 0) return;
  check(cudaMemsetAsync(values, byte, count * sizeof(T), stream_of(where)));
}

// A number from the device, which the host waits for.
inline int64_t read(const StudioLaunch& where, const int64_t* value) {
  int64_t found = 0;
  check(cudaMemcpyAsync(&found, value, sizeof found, cudaMemcpyDeviceToHost, stream_of(where)));
  check(cudaStreamSynchronize(stream_of(where)));
  return found;
}

// Memory of one call, in the order of its stream.
template <class T>
class DeviceBuffer {
 public:
  DeviceBuffer(const StudioLaunch& where, int64_t count) : stream_(stream_of(where)) {
    check(cudaMallocAsync(&data_, count > 0 ? count * sizeof(T) : 1, stream_));
  }
  ~DeviceBuffer() { cudaFreeAsync(data_, stream_); }
  DeviceBuffer(const DeviceBuffer&) = delete;
  DeviceBuffer& operator=(const DeviceBuffer&) = delete;
  T* data() const { return static_cast<T*>(data_); }

 private:
  void* data_ = nullptr;
  cudaStream_t stream_;
};

#else

template <class Element>
void launch(const StudioLaunch&, int64_t count, const Element& element) {
  for (int64_t i = 0; i < count; ++i) element(i);
}

template <class Element>
void launch_blocks(const StudioLaunch&, int64_t blocks, const Element& element) {
  typename Element::Shared shared;
  for (int64_t block = 0; block < blocks; ++block) {
    for (int thread = 0; thread < BLOCK_THREADS; ++thread) element(block, thread, shared);
  }
}

template <class T>
void fill_bytes(const StudioLaunch&, T* values, uint8_t byte, int64_t count) {
  if (values != nullptr) memset(values, byte, count * sizeof(T));
}

inline int64_t read(const StudioLaunch&, const int64_t* value) { return *value; }

template <class T>
class DeviceBuffer : public Buffer<T> {
 public:
  DeviceBuffer(const StudioLaunch&, int64_t count) : Buffer<T>(count) {}
};

#endif

template <class T>
void set_to_zero(const StudioLaunch& where, T* values, int64_t count) {
  fill_bytes(where, values, 0, count);
}

STUDIO_NAMESPACE_END

#define STUDIO_CUDA_ENTRY(entry, function, Arguments)                                                             \
  extern "C" STUDIO_API int32_t entry(const Arguments* arguments, int64_t bytes) {                                \
    return studio::guarded([](const void* untyped) { studio::function(*static_cast<const Arguments*>(untyped)); }, \
                           arguments, bytes, sizeof(Arguments));                                                  \
  }
