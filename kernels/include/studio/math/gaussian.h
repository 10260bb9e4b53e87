// A 3D Gaussian on the screen of a pinhole camera, and back.
//
// Projection follows EWA splatting (Zwicker et al. 2001), with the opacity compensation of Mip-Splatting (Yu et al.
// 2024, eq. 9). With root = R(q) S, the screen covariance is M M^T for M = J R root, of rows root_x and root_y, and
// its determinant is |root_x x root_y|²: a sum of squares, which no rounding can make negative.
//
// T is the number type of the Gaussians (float, double, or SIMD lanes), S that of the camera.
#pragma once

#include "studio/math/compositing.h"
#include "studio/math/vector.h"

STUDIO_NAMESPACE_BEGIN

inline constexpr float NEAR_PLANE = 0.01f;
inline constexpr float LOW_PASS_PX2 = 0.3f;
inline constexpr float FRUSTUM_MARGIN = 0.15f;  // of the image, on each side

template <class S>
struct Camera {
  Mat3<S> rotation;
  Vec3<S> translation, position;
  S fx, fy, cx, cy;
  S min_slope_x, max_slope_x, min_slope_y, max_slope_y;  // where the Jacobian is held: x/z and y/z

  // From row-major matrices [4 4] and [3 3].
  static HD Camera from(const S* world_to_camera, const S* intrinsics, int width, int height) {
    Camera c;
    for (int i = 0; i < 3; ++i) {
      c.rotation.rows[i] = {world_to_camera[4 * i], world_to_camera[4 * i + 1], world_to_camera[4 * i + 2]};
    }
    c.translation = {world_to_camera[3], world_to_camera[7], world_to_camera[11]};
    c.position = S(-1) * multiply_transposed(c.rotation, c.translation);
    c.fx = intrinsics[0], c.fy = intrinsics[4], c.cx = intrinsics[2], c.cy = intrinsics[5];
    const S margin_x = S(FRUSTUM_MARGIN) * S(width) / c.fx, margin_y = S(FRUSTUM_MARGIN) * S(height) / c.fy;
    c.min_slope_x = -c.cx / c.fx - margin_x, c.max_slope_x = (S(width) - c.cx) / c.fx + margin_x;
    c.min_slope_y = -c.cy / c.fy - margin_y, c.max_slope_y = (S(height) - c.cy) / c.fy + margin_y;
    return c;
  }
};

template <class T>
struct Quat {
  T w, x, y, z;
};

// What of a Gaussian does not depend on the camera. Matrices are kept as columns: axes[j] is the j-th axis.
template <class T>
struct Gaussian {
  Vec3<T> mean, scale;
  Vec3<T> axes[3];    // of unit length
  Vec3<T> root[3];    // axes[j] * scale[j]
  Vec3<T> short_axis;
  T opacity;
};

template <class T>
HD Gaussian<T> make_gaussian(const Vec3<T>& mean, const Quat<T>& quat, const Vec3<T>& scale, T opacity) {
  const T n = T(1) / sqrt(quat.w * quat.w + quat.x * quat.x + quat.y * quat.y + quat.z * quat.z);
  const T w = quat.w * n, x = quat.x * n, y = quat.y * n, z = quat.z * n, one(1), two(2);
  Gaussian<T> g;
  g.mean = mean, g.scale = scale, g.opacity = opacity;
  g.axes[0] = {one - two * (y * y + z * z), two * (x * y + w * z), two * (x * z - w * y)};
  g.axes[1] = {two * (x * y - w * z), one - two * (x * x + z * z), two * (y * z + w * x)};
  g.axes[2] = {two * (x * z + w * y), two * (y * z - w * x), one - two * (x * x + y * y)};
  g.root[0] = scale.x * g.axes[0], g.root[1] = scale.y * g.axes[1], g.root[2] = scale.z * g.axes[2];
  const auto second = scale.y < scale.x;
  const auto third = scale.z < min(scale.x, scale.y);
  g.short_axis = select(third, g.axes[2], select(second, g.axes[1], g.axes[0]));
  return g;
}

template <class T>
struct Projection {
  T mean_x, mean_y, depth;           // px, px, world units
  T conic_xx, conic_xy, conic_yy;    // inverse covariance, 1/px²
  T opacity;                         // after compensation
  T cov_xx, cov_yy, det;             // of the low-passed covariance
  Vec3<T> normal;                    // world space, towards the camera
  Vec3<T> direction;                 // unit, from the camera
  T inverse_distance;
};

// The steps shared by the projection and its gradient.
template <class T>
struct ScreenRoot {
  Vec3<T> point;             // the mean in the camera's axes
  T inverse_z, slope_x, slope_y;
  Vec3<T> root_x, root_y, depth_row;  // rows of M, and the third row of R root
  Vec3<T> normal;            // root_x x root_y
  T xx, xy, yy, det_sharp, det;
};

template <class T, class S>
HD ScreenRoot<T> screen_root(const Gaussian<T>& g, const Camera<S>& camera) {
  ScreenRoot<T> r;
  r.point = multiply(camera.rotation, g.mean);
  r.point = {r.point.x + camera.translation.x, r.point.y + camera.translation.y, r.point.z + camera.translation.z};
  r.inverse_z = T(1) / r.point.z;
  r.slope_x = min(max(r.point.x * r.inverse_z, T(camera.min_slope_x)), T(camera.max_slope_x));
  r.slope_y = min(max(r.point.y * r.inverse_z, T(camera.min_slope_y)), T(camera.max_slope_y));
  const Vec3<T> c0 = multiply(camera.rotation, g.root[0]), c1 = multiply(camera.rotation, g.root[1]),
                c2 = multiply(camera.rotation, g.root[2]);
  r.depth_row = {c0.z, c1.z, c2.z};
  const T gain_x = camera.fx * r.inverse_z, gain_y = camera.fy * r.inverse_z;
  r.root_x = gain_x * (Vec3<T>{c0.x, c1.x, c2.x} - r.slope_x * r.depth_row);
  r.root_y = gain_y * (Vec3<T>{c0.y, c1.y, c2.y} - r.slope_y * r.depth_row);
  r.normal = cross(r.root_x, r.root_y);
  r.xx = dot(r.root_x, r.root_x) + T(LOW_PASS_PX2);
  r.xy = dot(r.root_x, r.root_y);
  r.yy = dot(r.root_y, r.root_y) + T(LOW_PASS_PX2);
  r.det_sharp = dot(r.normal, r.normal);
  // det(M M^T + e I) = det(M M^T) + e trace(M M^T) + e², with e already inside xx and yy.
  r.det = r.det_sharp + T(LOW_PASS_PX2) * (r.xx + r.yy - T(LOW_PASS_PX2));
  return r;
}

template <class T>
HD T compensation(const ScreenRoot<T>& r, bool antialias) {
  return antialias ? sqrt(r.det_sharp / r.det) : T(1);
}

template <class T, class S>
HD Projection<T> project(const Gaussian<T>& g, const Camera<S>& camera, bool antialias) {
  const ScreenRoot<T> r = screen_root(g, camera);
  const T inverse_det = T(1) / r.det;
  Projection<T> p;
  p.mean_x = camera.fx * (r.point.x * r.inverse_z) + camera.cx;
  p.mean_y = camera.fy * (r.point.y * r.inverse_z) + camera.cy;
  p.depth = r.point.z;
  p.conic_xx = r.yy * inverse_det, p.conic_xy = -r.xy * inverse_det, p.conic_yy = r.xx * inverse_det;
  p.opacity = g.opacity * compensation(r, antialias);
  p.cov_xx = r.xx, p.cov_yy = r.yy, p.det = r.det;
  const Vec3<T> to_splat{g.mean.x - camera.position.x, g.mean.y - camera.position.y, g.mean.z - camera.position.z};
  p.inverse_distance = T(1) / sqrt(dot(to_splat, to_splat));
  p.direction = p.inverse_distance * to_splat;
  const T facing = select(dot(g.short_axis, to_splat) > T(0), T(-1), T(1));
  p.normal = facing * g.short_axis;
  return p;
}

template <class T>
struct ProjectionGradient {
  T mean_x, mean_y, depth;
  T conic_xx, conic_xy, conic_yy;
  T opacity;
  Vec3<T> normal, direction;
};

// Sums over cameras.
template <class T>
struct GaussianGradient {
  Vec3<T> mean, root[3], short_axis;
  T opacity;
};

template <class T>
HD GaussianGradient<T> zero_gradient() {
  const Vec3<T> zero{T(0), T(0), T(0)};
  return {zero, {zero, zero, zero}, zero, T(0)};
}

template <class T, class S>
HD void project_vjp(const Gaussian<T>& g, const Camera<S>& camera, bool antialias,
                    const ProjectionGradient<T>& v, GaussianGradient<T>& out) {
  const ScreenRoot<T> r = screen_root(g, camera);
  const T inverse_det = T(1) / r.det, half(0.5f), two(2);
  const T a = r.yy * inverse_det, b = -r.xy * inverse_det, c = r.xx * inverse_det;

  // Inverse of a symmetric matrix: d(K) = -K d(Sigma) K. The off-diagonal stands for two entries.
  T v_xx = -(a * a * v.conic_xx + a * b * v.conic_xy + b * b * v.conic_yy);
  T v_yy = -(b * b * v.conic_xx + b * c * v.conic_xy + c * c * v.conic_yy);
  const T v_xy = -(two * a * b * v.conic_xx + (a * c + b * b) * v.conic_xy + two * b * c * v.conic_yy);

  // log(compensation) = (log(det_sharp) - log(det)) / 2.
  out.opacity += v.opacity * compensation(r, antialias);
  T v_det_sharp(0);
  if (antialias) {
    const T v_log = half * v.opacity * g.opacity * compensation(r, antialias);
    v_det_sharp = v_log * (T(1) / r.det_sharp - inverse_det);
    v_xx = v_xx - v_log * T(LOW_PASS_PX2) * inverse_det;
    v_yy = v_yy - v_log * T(LOW_PASS_PX2) * inverse_det;
  }
  const Vec3<T> v_root_x = (two * v_xx) * r.root_x + v_xy * r.root_y + (two * v_det_sharp) * cross(r.root_y, r.normal);
  const Vec3<T> v_root_y = (two * v_yy) * r.root_y + v_xy * r.root_x + (two * v_det_sharp) * cross(r.normal, r.root_x);

  // root_x = fx / z (c_x - slope_x c_z), likewise y.
  const T gain_x = camera.fx * r.inverse_z, gain_y = camera.fy * r.inverse_z;
  const Vec3<T> v_cx = gain_x * v_root_x, v_cy = gain_y * v_root_y;
  const Vec3<T> v_cz = (-r.slope_x) * v_cx - r.slope_y * v_cy;
  out.root[0] += multiply_transposed(camera.rotation, Vec3<T>{v_cx.x, v_cy.x, v_cz.x});
  out.root[1] += multiply_transposed(camera.rotation, Vec3<T>{v_cx.y, v_cy.y, v_cz.y});
  out.root[2] += multiply_transposed(camera.rotation, Vec3<T>{v_cx.z, v_cy.z, v_cz.z});
  const T x_over_z = r.point.x * r.inverse_z, y_over_z = r.point.y * r.inverse_z;
  const auto free_x = (x_over_z > T(camera.min_slope_x)) & (x_over_z < T(camera.max_slope_x));
  const auto free_y = (y_over_z > T(camera.min_slope_y)) & (y_over_z < T(camera.max_slope_y));
  const T v_x_over_z = camera.fx * v.mean_x + select(free_x, -dot(r.depth_row, v_cx), T(0));
  const T v_y_over_z = camera.fy * v.mean_y + select(free_y, -dot(r.depth_row, v_cy), T(0));
  const T through_gain = dot(r.root_x, v_root_x) + dot(r.root_y, v_root_y);  // = -z d/dz through both gains
  Vec3<T> v_point{v_x_over_z * r.inverse_z, v_y_over_z * r.inverse_z, v.depth};
  v_point.z = v_point.z - r.inverse_z * (through_gain + v_x_over_z * x_over_z + v_y_over_z * y_over_z);
  out.mean += multiply_transposed(camera.rotation, v_point);

  const Vec3<T> to_splat{g.mean.x - camera.position.x, g.mean.y - camera.position.y, g.mean.z - camera.position.z};
  const T inverse_distance = T(1) / sqrt(dot(to_splat, to_splat));
  const Vec3<T> d = inverse_distance * to_splat;
  out.mean += inverse_distance * (v.direction - dot(d, v.direction) * d);
  const T facing = select(dot(g.short_axis, to_splat) > T(0), T(-1), T(1));
  out.short_axis += facing * v.normal;
}

// The gradient on the axes to one on the (not necessarily unit) quaternion.
template <class T>
HD Quat<T> axes_vjp(const Quat<T>& quat, const Vec3<T> (&v)[3]) {
  const T n = T(1) / sqrt(quat.w * quat.w + quat.x * quat.x + quat.y * quat.y + quat.z * quat.z);
  const T w = quat.w * n, x = quat.x * n, y = quat.y * n, z = quat.z * n, two(2);
  const T v_w = two * (x * (v[1].z - v[2].y) + y * (v[2].x - v[0].z) + z * (v[0].y - v[1].x));
  const T v_x = two * (y * (v[1].x + v[0].y) + z * (v[2].x + v[0].z) + w * (v[1].z - v[2].y) -
                       two * x * (v[1].y + v[2].z));
  const T v_y = two * (x * (v[1].x + v[0].y) + z * (v[2].y + v[1].z) + w * (v[2].x - v[0].z) -
                       two * y * (v[0].x + v[2].z));
  const T v_z = two * (x * (v[2].x + v[0].z) + y * (v[2].y + v[1].z) + w * (v[0].y - v[1].x) -
                       two * z * (v[0].x + v[1].y));
  const T radial = v_w * w + v_x * x + v_y * y + v_z * z;
  return {n * (v_w - radial * w), n * (v_x - radial * x), n * (v_y - radial * y), n * (v_z - radial * z)};
}

// The end of the way back: root and short axis to quaternion and scales.
template <class T>
HD void make_gaussian_vjp(const Gaussian<T>& g, const Quat<T>& quat, const GaussianGradient<T>& v, Quat<T>& v_quat,
                          Vec3<T>& v_scale) {
  v_scale = {dot(g.axes[0], v.root[0]), dot(g.axes[1], v.root[1]), dot(g.axes[2], v.root[2])};
  const auto third = g.scale.z < min(g.scale.x, g.scale.y);
  const auto second = g.scale.y < g.scale.x;
  const Vec3<T> zero{T(0), T(0), T(0)};
  const Vec3<T> on_first_two = select(third, zero, v.short_axis);
  const Vec3<T> v_axes[3] = {g.scale.x * v.root[0] + select(second, zero, on_first_two),
                             g.scale.y * v.root[1] + select(second, on_first_two, zero),
                             g.scale.z * v.root[2] + select(third, v.short_axis, zero)};
  v_quat = axes_vjp(quat, v_axes);
}

STUDIO_NAMESPACE_END
