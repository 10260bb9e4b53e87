// Whole numbers beside the vectors of simd.h.
#pragma once

#include "studio/index.h"
#include "studio/simd.h"

STUDIO_NAMESPACE_BEGIN

HD RawUint to_index(Float x) { return reinterpret_cast<RawUint>(__builtin_convertvector(x.raw, RawInt)); }

HD Mask is_negative(RawInt values) {
#if defined(__AVX512F__) && defined(__AVX512DQ__)
  return {_mm512_movepi32_mask(reinterpret_cast<__m512i>(values))};
#else
  return {values < RawInt{}};
#endif
}

HD RawInt load_ints(const int32_t* from) {
  RawInt values;
  __builtin_memcpy(&values, from, sizeof values);
  return values;
}

typedef double Doubles __attribute__((vector_size(16)));

// 1, 2, 4 or 8 neighbouring floats.
template <int WIDTH>
struct Row {
  static constexpr int PARTS = WIDTH < 4 ? 1 : WIDTH / 4;
  Quad parts[PARTS];  // where WIDTH is less than 4, the rest is 0

  static HD Row zero() {
    Row row;
    for (Quad& part : row.parts) part = Quad{};
    return row;
  }
  static HD Row load(const float* from) {
    Row row;
    if constexpr (WIDTH == 1) {
      row.parts[0] = Quad{*from, 0, 0, 0};
    } else if constexpr (WIDTH == 2) {
      double both;  // one move rather than two
      __builtin_memcpy(&both, from, sizeof both);
      row.parts[0] = reinterpret_cast<Quad>(Doubles{both, 0});
    } else {
      for (int i = 0; i < PARTS; ++i) row.parts[i] = load_quad(from + 4 * i);
    }
    return row;
  }
  HD void store(float* to) const {
    if constexpr (WIDTH == 1) {
      *to = parts[0][0];
    } else if constexpr (WIDTH == 2) {
      const double both = reinterpret_cast<Doubles>(parts[0])[0];
      __builtin_memcpy(to, &both, sizeof both);
    } else {
      for (int i = 0; i < PARTS; ++i) store_quad(parts[i], to + 4 * i);
    }
  }

  // this + weight x other
  HD Row plus(float weight, const Row& other) const {
    Row sum;
    for (int i = 0; i < PARTS; ++i) sum.parts[i] = parts[i] + weight * other.parts[i];
    return sum;
  }
  HD float dot(const Row& other) const {
    Quad products = parts[0] * other.parts[0];
    for (int i = 1; i < PARTS; ++i) products += parts[i] * other.parts[i];
    float sum = products[0];
    for (int i = 1; i < (WIDTH < 4 ? WIDTH : 4); ++i) sum += products[i];
    return sum;
  }
};

STUDIO_NAMESPACE_END
