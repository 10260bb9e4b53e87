// Trilinear interpolation in a cell: from its eight corners to a point in it, and the derivatives along the point.
// Corner c lies at (c & 1, c >> 1 & 1, c >> 2 & 1).
#pragma once

#include "studio/math/vector.h"

STUDIO_NAMESPACE_BEGIN

template <class T>
HD void corner_weights(const Vec3<T>& f, T (&weights)[8]) {
  const T x[2] = {T(1) - f.x, f.x}, y[2] = {T(1) - f.y, f.y}, z[2] = {T(1) - f.z, f.z};
  for (int c = 0; c < 8; ++c) weights[c] = x[c & 1] * (y[c >> 1 & 1] * z[c >> 2]);
}

// The weights' derivative along u.
template <class T>
HD void corner_weights_along(const Vec3<T>& f, const Vec3<T>& u, T (&weights)[8]) {
  const T x[2] = {T(1) - f.x, f.x}, y[2] = {T(1) - f.y, f.y}, z[2] = {T(1) - f.z, f.z};
  const T ux[2] = {-u.x, u.x}, uy[2] = {-u.y, u.y}, uz[2] = {-u.z, u.z};
  for (int c = 0; c < 8; ++c) {
    const int i = c & 1, j = c >> 1 & 1, k = c >> 2;
    weights[c] = ux[i] * (y[j] * z[k]) + x[i] * (uy[j] * z[k] + y[j] * uz[k]);
  }
}

// The gradient along f of the sum of weight times value.
template <class T>
HD Vec3<T> corner_gradient(const T (&value)[8], const Vec3<T>& f) {
  T edge[4], face_y[2], face_z[2];  // differences along x, then what is left of them along y and z
  for (int i = 0; i < 4; ++i) edge[i] = value[2 * i] + f.x * (value[2 * i + 1] - value[2 * i]);
  const T x00 = value[1] - value[0], x10 = value[3] - value[2], x01 = value[5] - value[4], x11 = value[7] - value[6];
  const T near = x00 + f.y * (x10 - x00), far = x01 + f.y * (x11 - x01);
  for (int k = 0; k < 2; ++k) {
    face_y[k] = edge[2 * k + 1] - edge[2 * k];
    face_z[k] = edge[2 * k] + f.y * face_y[k];
  }
  return {near + f.z * (far - near), face_y[0] + f.z * (face_y[1] - face_y[0]), face_z[1] - face_z[0]};
}

// The second derivatives of the same sum, times u. Those along one axis twice are 0.
template <class T>
HD Vec3<T> corner_hessian_times(const T (&value)[8], const Vec3<T>& f, const Vec3<T>& u) {
  const auto mixed = [&](int base, int one, int other) {
    return value[base + one + other] - value[base + one] - value[base + other] + value[base];
  };
  const T xy0 = mixed(0, 1, 2), xz0 = mixed(0, 1, 4), yz0 = mixed(0, 2, 4);
  const T xy = xy0 + f.z * (mixed(4, 1, 2) - xy0);
  const T xz = xz0 + f.y * (mixed(2, 1, 4) - xz0);
  const T yz = yz0 + f.x * (mixed(1, 2, 4) - yz0);
  return {u.y * xy + u.z * xz, u.x * xy + u.z * yz, u.x * xz + u.y * yz};
}

STUDIO_NAMESPACE_END
