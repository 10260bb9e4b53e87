// Scratch memory of one call, aligned to cache lines and left uninitialised.
#pragma once

#include <stdint.h>
#include <stdlib.h>

#include <new>

#include "studio/entry.h"

STUDIO_NAMESPACE_BEGIN

template <class T>
class Buffer {
 public:
  explicit Buffer(int64_t count) {
    const uint64_t bytes = (static_cast<uint64_t>(count) * sizeof(T) + 64) / 64 * 64;  // never 0
    data_ = static_cast<T*>(aligned_alloc(64, bytes));
    if (data_ == nullptr) throw std::bad_alloc();
  }
  ~Buffer() { free(data_); }
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;

  T* data() const { return data_; }
  T& operator[](int64_t index) const { return data_[index]; }

 private:
  T* data_;
};

STUDIO_NAMESPACE_END
