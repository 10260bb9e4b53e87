// Bilinear samples of planes, and where on them a point lies.
#pragma once

#include "planes/planes.h"
#include "studio/index.h"

STUDIO_NAMESPACE_BEGIN

inline constexpr int PLANES = STUDIO_PLANES_AXES * (STUDIO_PLANES_AXES - 1) / 2;

// A coordinate among the texels of its axis: between texel `cell` and the next, at `f` of the way.
template <class T>
struct AxisCell {
  uint32_t cell;
  T f, slope;  // slope: of the texel coordinate along the position, 0 outside [0, 1]
};

template <class T>
HD AxisCell<T> locate_on_axis(T x, int32_t resolution) {
  const T steps = T(resolution - 1), along = min(max(x, T(0)), T(1)) * steps;  // the 0 where x is NaN
  const T low = min(trunc(along), steps - T(1));
  return {to_index(low), along - low, x >= T(0) && x <= T(1) ? steps : T(0)};
}

// A point's place on one plane: the offset of the first of four texels in the numbers of the scale, the way from
// there to the texels on the right and below, and the weights. N is what the cells count in.
template <class T>
struct PlaneCell {
  int64_t offset, right, below;
  T u, v;
};

template <class T>
HD PlaneCell<T> locate_on_plane(const AxisCell<T>& u, const AxisCell<T>& v, int64_t columns, int64_t channels) {
  return {(v.cell * columns + u.cell) * channels, channels, columns * channels, u.f, v.f};
}

// V: one channel or a vector of them.
template <class V>
struct Bilinear {
  V value, along_u, along_v;
};

template <class V, class T>
HD V bilinear_value(const V (&texel)[4], const T& u, const T& v) {
  const V top = texel[0] + u * (texel[1] - texel[0]), bottom = texel[2] + u * (texel[3] - texel[2]);
  return top + v * (bottom - top);
}

template <class V, class T>
HD Bilinear<V> bilinear(const V (&texel)[4], const T& u, const T& v) {
  const V right = texel[1] - texel[0], right_below = texel[3] - texel[2];
  const V top = texel[0] + u * right, bottom = texel[2] + u * right_below;
  return {top + v * (bottom - top), right + v * (right_below - right), bottom - top};
}

// From the gradient on the product of COUNT values to that on each of them, without dividing.
template <int COUNT, class V>
HD void product_vjp(const V& v_product, const Bilinear<V> (&samples)[COUNT], V (&v_values)[COUNT]) {
  V before = v_product;
  for (int p = 0; p < COUNT; ++p) {
    v_values[p] = before;
    before = before * samples[p].value;
  }
  V after = samples[COUNT - 1].value;
  for (int p = COUNT - 2; p >= 0; --p) {
    v_values[p] = v_values[p] * after;
    after = after * samples[p].value;
  }
}

STUDIO_NAMESPACE_END
