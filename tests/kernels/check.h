// The least a test needs.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <vector>

#include "abi.h"

#define CHECK(condition)                                                        \
  do {                                                                          \
    if (!(condition)) {                                                         \
      std::fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition);      \
      std::exit(1);                                                             \
    }                                                                           \
  } while (false)

// Numbers in [-1, 1), the same on every machine.
struct Random {
  unsigned long long state = 1;
  double operator()() {
    state = state * 6364136223846793005ull + 1442695040888963407ull;
    return static_cast<double>(state >> 11) / 4503599627370496.0 - 1.0;
  }
};

using Floats = std::vector<float>;

inline Floats random_floats(int64_t count, double low, double high, unsigned long long seed) {
  Random random{seed};
  Floats values(count);
  for (float& x : values) x = static_cast<float>(low + (high - low) * 0.5 * (random() + 1));
  return values;
}

// What no operator may stumble over: not numbers, infinite, beyond any integer, next to nothing.
inline void make_strange(Floats& values, int64_t every) {
  const float strange[] = {NAN, INFINITY, -INFINITY, 1e30f, -1e30f, 3e9f, 1e-40f, -0.0f, 1.0f, 0.0f};
  for (size_t i = 0, k = 0; i < values.size(); i += every, ++k) values[i] = strange[k % std::size(strange)];
}

// What an entry returned, which should be 0.
inline void run(int32_t failed) {
  if (failed) std::fprintf(stderr, "%s\n", studio_last_error());
  CHECK(!failed);
}

inline void check_refused(int32_t failed, const char* words) {
  CHECK(failed == 1);
  if (std::strstr(studio_last_error(), words) == nullptr) std::fprintf(stderr, "%s\n", studio_last_error());
  CHECK(std::strstr(studio_last_error(), words) != nullptr);
}

// run(threads) gives the same bits whatever the number of threads.
template <class Run>
Floats check_threads(Run&& run) {
  const Floats one = run(1);
  for (int threads : {2, 5}) {
    const Floats several = run(threads);
    CHECK(one.size() == several.size());
    CHECK(one.empty() || std::memcmp(one.data(), several.data(), one.size() * sizeof(float)) == 0);
  }
  return one;
}

inline void append(Floats& to, const Floats& values) { to.insert(to.end(), values.begin(), values.end()); }
