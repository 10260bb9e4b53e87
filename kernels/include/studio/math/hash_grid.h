// Where a point lies in one level of a multiresolution hash grid.
#pragma once

#include "hash_grid/hash_grid.h"
#include "studio/index.h"
#include "studio/math/trilinear.h"

STUDIO_NAMESPACE_BEGIN

// A point moved into the unit cube. slope: 1 along the axes on which it had been inside, 0 along the others.
template <class T>
struct CubePoint {
  Vec3<T> position, slope;
  decltype(T() < T()) valid;  // false where a coordinate is NaN
};

template <class T>
HD CubePoint<T> into_cube(const Vec3<T>& p) {
  const decltype(T() < T()) valid = (p.x <= p.x) & (p.y <= p.y) & (p.z <= p.z);
  const auto clamp = [&](T x) { return select(valid, min(max(x, T(0)), T(1)), T(0)); };
  const auto slope = [&](T x) { return select(valid & (x >= T(0)) & (x <= T(1)), T(1), T(0)); };
  return {{clamp(p.x), clamp(p.y), clamp(p.z)}, {slope(p.x), slope(p.y), slope(p.z)}, valid};
}

template <class T>
HD Vec3<T> times(const Vec3<T>& a, const Vec3<T>& b) {
  return {a.x * b.x, a.y * b.y, a.z * b.z};
}

// The entries of the eight corners around a point of the unit cube, counted from the level's first, and where
// between the corners the point lies.
template <class T>
HD Vec3<T> locate(const StudioHashLevel& level, const Vec3<T>& p, Index<T> (&entries)[8]) {
  const T side = T(static_cast<float>(level.resolution));
  const auto cell = [&](T x) { return min(trunc(x * side), side - T(1)); };
  const Vec3<T> low = {cell(p.x), cell(p.y), cell(p.z)};
  const bool hashed = level.mask != 0;
  const uint32_t step_y = hashed ? 2654435761u : level.resolution + 1;
  const uint32_t step_z = hashed ? 805459861u : step_y * step_y;
  Index<T> x[2], y[2], z[2];
  x[0] = to_index(low.x), y[0] = to_index(low.y) * step_y, z[0] = to_index(low.z) * step_z;
  x[1] = x[0] + 1u, y[1] = y[0] + step_y, z[1] = z[0] + step_z;
  for (int c = 0; c < 8; ++c) {
    const int i = c & 1, j = c >> 1 & 1, k = c >> 2;
    entries[c] = hashed ? (x[i] ^ y[j] ^ z[k]) & level.mask : x[i] + y[j] + z[k];
  }
  return side * p - low;
}

STUDIO_NAMESPACE_END
