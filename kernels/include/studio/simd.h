// Vectors of floats at the width that the instruction set of this compilation likes best: 16 lanes with AVX-512,
// 8 with AVX2, 4 elsewhere. Arithmetic is the compilers' vector extension; intrinsics fill in what it lacks.
#pragma once

#include <stdint.h>

#if defined(__AVX__)
#include <immintrin.h>
#elif defined(__SSE2__)
#include <emmintrin.h>
#endif

#include "studio/scalar.h"

STUDIO_NAMESPACE_BEGIN

#if defined(__AVX512F__) && defined(__AVX512DQ__)
inline constexpr int LANES = 16;
#elif defined(__AVX2__)
inline constexpr int LANES = 8;
#else
inline constexpr int LANES = 4;
#endif

typedef float RawFloat __attribute__((vector_size(4 * LANES)));
typedef int32_t RawInt __attribute__((vector_size(4 * LANES)));
typedef uint32_t RawUint __attribute__((vector_size(4 * LANES)));  // its sums may wrap

// One truth value a lane.
struct Mask {
#if defined(__AVX512F__) && defined(__AVX512DQ__)
  __mmask16 raw;
  HD uint32_t bits() const { return raw; }
#else
  RawInt raw;  // 0 or -1
  HD uint32_t bits() const {
#if defined(__AVX2__)
    return static_cast<uint32_t>(_mm256_movemask_ps(reinterpret_cast<__m256>(raw)));
#elif defined(__SSE2__)
    return static_cast<uint32_t>(_mm_movemask_ps(reinterpret_cast<__m128>(raw)));
#else
    uint32_t all = 0;
    for (int i = 0; i < LANES; ++i) all |= (raw[i] & 1u) << i;
    return all;
#endif
  }
#endif
  friend HD Mask operator&(Mask a, Mask b) { return {static_cast<decltype(raw)>(a.raw & b.raw)}; }
  friend HD Mask operator|(Mask a, Mask b) { return {static_cast<decltype(raw)>(a.raw | b.raw)}; }
};

HD bool any(Mask mask) { return mask.bits() != 0; }

struct Float {
  RawFloat raw;

  HD Float() = default;
  HD Float(float value) : raw(value - RawFloat{}) {}
  HD explicit Float(RawFloat value) : raw(value) {}

  static HD Float load(const float* from) {
    Float result;
    __builtin_memcpy(&result.raw, from, sizeof result.raw);
    return result;
  }
  HD void store(float* to) const { __builtin_memcpy(to, &raw, sizeof raw); }
  HD float operator[](int lane) const { return raw[lane]; }

  friend HD Float operator-(Float a) { return Float(-a.raw); }
  friend HD Float operator+(Float a, Float b) { return Float(a.raw + b.raw); }
  friend HD Float operator-(Float a, Float b) { return Float(a.raw - b.raw); }
  friend HD Float operator*(Float a, Float b) { return Float(a.raw * b.raw); }
  friend HD Float operator/(Float a, Float b) { return Float(a.raw / b.raw); }
  HD Float& operator+=(Float b) { return *this = *this + b; }
  HD Float& operator-=(Float b) { return *this = *this - b; }
  HD Float& operator*=(Float b) { return *this = *this * b; }

#if defined(__AVX512F__) && defined(__AVX512DQ__)
  friend HD Mask operator<(Float a, Float b) { return {_mm512_cmp_ps_mask(a.raw, b.raw, _CMP_LT_OQ)}; }
  friend HD Mask operator<=(Float a, Float b) { return {_mm512_cmp_ps_mask(a.raw, b.raw, _CMP_LE_OQ)}; }
  friend HD Mask operator==(Float a, Float b) { return {_mm512_cmp_ps_mask(a.raw, b.raw, _CMP_EQ_OQ)}; }
#else
  friend HD Mask operator<(Float a, Float b) { return {a.raw < b.raw}; }
  friend HD Mask operator<=(Float a, Float b) { return {a.raw <= b.raw}; }
  friend HD Mask operator==(Float a, Float b) { return {a.raw == b.raw}; }
#endif
  friend HD Mask operator>(Float a, Float b) { return b < a; }
  friend HD Mask operator>=(Float a, Float b) { return b <= a; }
};

#if defined(__AVX512F__) && defined(__AVX512DQ__)
HD Float select(Mask mask, Float yes, Float no) { return Float(_mm512_mask_blend_ps(mask.raw, no.raw, yes.raw)); }
HD Float min(Float a, Float b) { return Float(_mm512_min_ps(a.raw, b.raw)); }
HD Float max(Float a, Float b) { return Float(_mm512_max_ps(a.raw, b.raw)); }
HD Float sqrt(Float a) { return Float(_mm512_sqrt_ps(a.raw)); }
#else
HD Float select(Mask mask, Float yes, Float no) { return Float(mask.raw ? yes.raw : no.raw); }
#if defined(__AVX2__)
HD Float min(Float a, Float b) { return Float(_mm256_min_ps(a.raw, b.raw)); }
HD Float max(Float a, Float b) { return Float(_mm256_max_ps(a.raw, b.raw)); }
HD Float sqrt(Float a) { return Float(_mm256_sqrt_ps(a.raw)); }
#elif defined(__SSE2__)
HD Float min(Float a, Float b) { return Float(_mm_min_ps(a.raw, b.raw)); }
HD Float max(Float a, Float b) { return Float(_mm_max_ps(a.raw, b.raw)); }
HD Float sqrt(Float a) { return Float(_mm_sqrt_ps(a.raw)); }
#else
HD Float min(Float a, Float b) { return select(a < b, a, b); }
HD Float max(Float a, Float b) { return select(a > b, a, b); }
HD Float sqrt(Float a) {
  Float root;
  for (int i = 0; i < LANES; ++i) root.raw[i] = __builtin_sqrtf(a.raw[i]);
  return root;
}
#endif
#endif

// a b + c, rounded once where the machine can: see scalar.h.
HD Float fused(Float a, Float b, Float c) {
#if defined(__AVX512F__) && defined(__AVX512DQ__)
  return Float(_mm512_fmadd_ps(a.raw, b.raw, c.raw));
#elif defined(__AVX2__) && defined(__FMA__)
  return Float(_mm256_fmadd_ps(a.raw, b.raw, c.raw));
#elif defined(__ARM_FEATURE_FMA)
  Float sum;
  for (int i = 0; i < LANES; ++i) sum.raw[i] = __builtin_fmaf(a.raw[i], b.raw[i], c.raw[i]);
  return sum;
#else
  return a * b + c;
#endif
}

// Cut off towards zero; for numbers that fit an int.
HD Float trunc(Float a) { return Float(__builtin_convertvector(__builtin_convertvector(a.raw, RawInt), RawFloat)); }

// Four neighbouring floats: what a row of an array or of a picture is cut into.
typedef float Quad __attribute__((vector_size(16)));
inline constexpr int QUADS = LANES / 4;

HD Quad load_quad(const float* from) {
  Quad quad;
  __builtin_memcpy(&quad, from, sizeof quad);
  return quad;
}
HD void store_quad(Quad quad, float* to) { __builtin_memcpy(to, &quad, sizeof quad); }

#if defined(__has_builtin) && __has_builtin(__builtin_shufflevector)
#define STUDIO_SHUFFLE(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#else
#define STUDIO_SHUFFLE(a, b, ...) __builtin_shuffle(a, b, (RawInt){__VA_ARGS__})
#endif

// The lanes i, j, k, l of each four, where 4 and more are those of b.
#define STUDIO_OF(i, four) ((i) % 4 + 4 * (four) + ((i) < 4 ? 0 : LANES))
#define STUDIO_FOUR(i, j, k, l, four) STUDIO_OF(i, four), STUDIO_OF(j, four), STUDIO_OF(k, four), STUDIO_OF(l, four)
#if defined(__AVX512F__) && defined(__AVX512DQ__)
#define STUDIO_SHUFFLE_FOURS(a, b, i, j, k, l)                                                                   \
  STUDIO_SHUFFLE(a, b, STUDIO_FOUR(i, j, k, l, 0), STUDIO_FOUR(i, j, k, l, 1), STUDIO_FOUR(i, j, k, l, 2),       \
                 STUDIO_FOUR(i, j, k, l, 3))
#elif defined(__AVX2__)
#define STUDIO_SHUFFLE_FOURS(a, b, i, j, k, l) \
  STUDIO_SHUFFLE(a, b, STUDIO_FOUR(i, j, k, l, 0), STUDIO_FOUR(i, j, k, l, 1))
#else
#define STUDIO_SHUFFLE_FOURS(a, b, i, j, k, l) STUDIO_SHUFFLE(a, b, STUDIO_FOUR(i, j, k, l, 0))
#endif

// Each four neighbouring lanes of four vectors as rows of a square, turned.
HD void transpose(RawFloat (&v)[4]) {
  const RawFloat ab_low = STUDIO_SHUFFLE_FOURS(v[0], v[1], 0, 4, 1, 5);
  const RawFloat ab_high = STUDIO_SHUFFLE_FOURS(v[0], v[1], 2, 6, 3, 7);
  const RawFloat cd_low = STUDIO_SHUFFLE_FOURS(v[2], v[3], 0, 4, 1, 5);
  const RawFloat cd_high = STUDIO_SHUFFLE_FOURS(v[2], v[3], 2, 6, 3, 7);
  v[0] = STUDIO_SHUFFLE_FOURS(ab_low, cd_low, 0, 1, 4, 5), v[1] = STUDIO_SHUFFLE_FOURS(ab_low, cd_low, 2, 3, 6, 7);
  v[2] = STUDIO_SHUFFLE_FOURS(ab_high, cd_high, 0, 1, 4, 5), v[3] = STUDIO_SHUFFLE_FOURS(ab_high, cd_high, 2, 3, 6, 7);
}

// A vector from its quads. Kept in registers: small stores followed by one wide load would wait for each other.
HD Float join(const Quad (&quads)[QUADS]) {
#if defined(__AVX512F__) && defined(__AVX512DQ__)
  // Masked copies, which more of the machine can do at a time than insertions.
  __m512 all = _mm512_castps128_ps512(quads[0]);
  all = _mm512_mask_broadcast_f32x4(all, 0x00f0, quads[1]);
  all = _mm512_mask_broadcast_f32x4(all, 0x0f00, quads[2]);
  return Float(_mm512_mask_broadcast_f32x4(all, 0xf000, quads[3]));
#elif defined(__AVX2__)
  return Float(_mm256_insertf128_ps(_mm256_castps128_ps256(quads[0]), quads[1], 1));
#else
  return Float(quads[0]);
#endif
}

HD void split(Float all, Quad (&quads)[QUADS]) {
#if defined(__AVX512F__) && defined(__AVX512DQ__)
  quads[0] = _mm512_castps512_ps128(all.raw), quads[1] = _mm512_extractf32x4_ps(all.raw, 1);
  quads[2] = _mm512_extractf32x4_ps(all.raw, 2), quads[3] = _mm512_extractf32x4_ps(all.raw, 3);
#elif defined(__AVX2__)
  quads[0] = _mm256_castps256_ps128(all.raw), quads[1] = _mm256_extractf128_ps(all.raw, 1);
#else
  quads[0] = all.raw;
#endif
}

// Rows of WIDTH floats, one for each lane at row_of(lane), to one vector a column.
template <int WIDTH, class RowOf>
HD void gather_rows(RowOf&& row_of, Float (&columns)[WIDTH]) {
  if constexpr (WIDTH % 4 == 0) {
    for (int i = 0; i < WIDTH; i += 4) {
      RawFloat square[4];
      for (int j = 0; j < 4; ++j) {
        Quad quads[QUADS];
        for (int part = 0; part < QUADS; ++part) quads[part] = load_quad(row_of(4 * part + j) + i);
        square[j] = join(quads).raw;
      }
      transpose(square);
      for (int j = 0; j < 4; ++j) columns[i + j] = Float(square[j]);
    }
  } else {
    for (int i = 0; i < WIDTH; ++i) {
      Quad quads[QUADS];
      for (int lane = 0; lane < LANES; ++lane) quads[lane / 4][lane % 4] = row_of(lane)[i];
      columns[i] = join(quads);
    }
  }
}

template <int WIDTH>
HD void load_rows(const float* const (&rows)[LANES], Float (&columns)[WIDTH]) {
  gather_rows([&](int lane) { return rows[lane]; }, columns);
}

// The way back, for the first `lanes` rows.
template <int WIDTH>
HD void store_rows(const Float (&columns)[WIDTH], float* const (&rows)[LANES], int lanes) {
  if constexpr (WIDTH % 4 == 0) {
    for (int i = 0; i < WIDTH; i += 4) {
      RawFloat square[4];
      for (int j = 0; j < 4; ++j) square[j] = columns[i + j].raw;
      transpose(square);
      for (int lane = 0; lane < lanes; ++lane) {
        __builtin_memcpy(rows[lane] + i, reinterpret_cast<const float*>(&square[lane % 4]) + lane / 4 * 4, sizeof(Quad));
      }
    }
  } else {
    alignas(64) float turned[WIDTH][LANES];
    for (int i = 0; i < WIDTH; ++i) columns[i].store(turned[i]);
    for (int lane = 0; lane < lanes; ++lane) {
      for (int i = 0; i < WIDTH; ++i) rows[lane][i] = turned[i][lane];
    }
  }
}

HD RawInt bits_of(Float a) { return reinterpret_cast<RawInt>(a.raw); }
HD RawUint unsigned_bits_of(Float a) { return reinterpret_cast<RawUint>(a.raw); }
HD Float float_of(RawInt bits) { return Float(reinterpret_cast<RawFloat>(bits)); }
HD Float float_of(RawUint bits) { return Float(reinterpret_cast<RawFloat>(bits)); }
HD Float abs(Float a) { return float_of(bits_of(a) & 0x7fffffff); }

// 2^x to 2e-7 relative for -126 <= x <= 127; nonsense, but no trap and no slow denormal, elsewhere.
// Adding 1.5 * 2^23 rounds to the nearest integer, which is left in the low bits.
HD Float exp2(Float x) {
  const Float magic = 12582912.0f;
  const Float shifted = x + magic;
  const Float f = x - (shifted - magic);
  Float p = 1.32546024e-3f;
  p = p * f + 9.67199918e-3f;
  p = p * f + 5.55077932e-2f;
  p = p * f + 2.40222319e-1f;
  p = p * f + 6.93146930e-1f;
  p = p * f + 1.0f;
  return float_of(unsigned_bits_of(p) + (unsigned_bits_of(shifted) << 23));
}

// log2 of positive normal numbers, to 3e-7 absolute near 1 and relative elsewhere: x = 2^e m with m in
// [sqrt(1/2), sqrt(2)), and log2(m) is odd in (m - 1) / (m + 1).
HD Float log2(Float x) {
  const RawInt exponent = reinterpret_cast<RawInt>(unsigned_bits_of(x) - 0x3f3504f3) >> 23;
  const Float m = float_of(unsigned_bits_of(x) - (reinterpret_cast<RawUint>(exponent) << 23));
  const Float s = (m - 1.0f) / (m + 1.0f), s2 = s * s;
  Float p = 0.32059890f;
  p = p * s2 + 0.41219858f;
  p = p * s2 + 0.57707802f;
  p = p * s2 + 0.96179669f;
  p = p * s2 + 2.88539008f;
  return p * s + Float(__builtin_convertvector(exponent, RawFloat));
}

STUDIO_NAMESPACE_END
