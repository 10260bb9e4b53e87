// A ray's way through the unit cube, and the cells of a grid there.
#pragma once

#include "marching/marching.h"
#include "studio/index.h"
#include "studio/math/vector.h"

STUDIO_NAMESPACE_BEGIN

struct Span {
  float enter, leave;  // of a ray that misses, enter >= leave
};

// The slab test. Along an axis on which the ray does not move, it is between the planes for ever or never.
HD Span cross_cube(const Vec3<float>& origin, const Vec3<float>& direction, float near) {
  const float o[3] = {origin.x, origin.y, origin.z}, d[3] = {direction.x, direction.y, direction.z};
  const Span missed = {0, 0};
  Span span = {max(near, 0.0f), 3.0e38f};
  bool moves = false;
  for (int axis = 0; axis < 3; ++axis) {
    if (!is_finite(o[axis]) || !is_finite(d[axis])) return missed;
    if (d[axis] == 0) {
      if (!(o[axis] >= 0 && o[axis] <= 1)) return missed;
      continue;
    }
    moves = true;
    const float at_0 = (0 - o[axis]) / d[axis], at_1 = (1 - o[axis]) / d[axis];
    span.enter = max(span.enter, min(at_0, at_1)), span.leave = min(span.leave, max(at_0, at_1));
  }
  return moves ? span : missed;
}

// The number of the cell that holds a point of the unit cube, or a point that rounding has moved just out of it.
template <class T>
HD Index<T> cell_at(const Vec3<T>& p, uint32_t resolution) {
  const T side = T(static_cast<float>(resolution));
  const auto cell = [&](T x) { return to_index(min(max(x * side, T(0)), side - T(1))); };
  return (cell(p.x) * resolution + cell(p.y)) * resolution + cell(p.z);
}

HD bool is_occupied(const uint32_t* bits, uint32_t cell) { return bits[cell >> 5] >> (cell & 31) & 1; }

// T: a step of a ray, or a vector of steps.
template <class T>
HD T time_of(float enter, T k, float jitter, float step) {
  return (k + T(jitter)) * T(step) + T(enter);
}

template <class T>
HD Vec3<T> point_at(const Vec3<float>& origin, const Vec3<float>& direction, T t) {
  return {T(origin.x) + t * T(direction.x), T(origin.y) + t * T(direction.y), T(origin.z) + t * T(direction.z)};
}

STUDIO_NAMESPACE_END
