// From a Gaussian to its record on one camera and back, for one Gaussian or one a lane.
#pragma once

#include "studio/math/gaussian.h"
#include "studio/math/spherical_harmonics.h"

STUDIO_NAMESPACE_BEGIN

// A Gaussian with its colour coefficients.
template <int K, class T>
struct Splat {
  Gaussian<T> gaussian;
  Quat<T> quat;
  T sh[3 * K];

  // Before the clamp at 0.
  HD Vec3<T> raw_color(const T (&basis)[K]) const {
    Vec3<T> color{T(0.5f), T(0.5f), T(0.5f)};
    for (int k = 0; k < K; ++k) {
      color.x += basis[k] * sh[3 * k], color.y += basis[k] * sh[3 * k + 1], color.z += basis[k] * sh[3 * k + 2];
    }
    return color;
  }
};

inline constexpr int RECORD = 16;  // floats of a SplatRecord

// The columns of a SplatRecord. A splat is visible when all of it is finite, it lies before the camera, it is opaque
// enough, and the box of its ellipse holds the centre of some pixel; half_x of others is -1.
template <int K, class T, class S>
HD void make_record(const Splat<K, T>& splat, const Camera<S>& camera, T probe_x, T probe_y, bool antialias,
                    int image_width, int image_height, T (&record)[RECORD], T& radius_px) {
  const Projection<T> p = project(splat.gaussian, camera, antialias);
  const T x = p.mean_x + probe_x, y = p.mean_y + probe_y;
  T basis[K];
  sh_basis<K>(p.direction, basis);
  const Vec3<T> raw = splat.raw_color(basis);

  const T log2_opacity = log2(p.opacity);
  const T reach2 = max((log2_opacity - T(LOG2_MIN_ALPHA)) * T(2.0f / LOG2_E), T(0));
  const T half_x = sqrt(reach2 * p.cov_xx), half_y = sqrt(reach2 * p.cov_yy);
  // ceil(low) <= floor(high), with both inside the image.
  const T width(static_cast<float>(image_width)), height(static_cast<float>(image_height));
  const T low_x = min(max(x - half_x - T(0.5f), T(0)), width), high_x = min(x + half_x - T(0.5f), width - T(1));
  const T low_y = min(max(y - half_y - T(0.5f), T(0)), height), high_y = min(y + half_y - T(0.5f), height - T(1));
  const auto in_picture = (high_x >= T(0)) & (low_x <= trunc(high_x)) & (high_y >= T(0)) & (low_y <= trunc(high_y));
  const auto finite = is_finite(p.opacity + p.depth + x + y + p.det + half_x + half_y) &
                      is_finite(raw.x + raw.y + raw.z + p.normal.x + p.normal.y + p.normal.z);
  const auto visible =
      (p.opacity >= T(1.0f / 255.0f)) & (p.depth > T(NEAR_PLANE)) & (p.depth < T(3e38f)) & in_picture & finite;

  const T columns[RECORD] = {x,
                             y,
                             p.conic_xx * T(0.5f * LOG2_E),
                             p.conic_xy * T(LOG2_E),
                             p.conic_yy * T(0.5f * LOG2_E),
                             log2_opacity,
                             max(raw.x, T(0)),
                             max(raw.y, T(0)),
                             max(raw.z, T(0)),
                             p.depth,
                             p.normal.x,
                             p.normal.y,
                             p.normal.z,
                             select(visible, half_x, T(-1)),
                             half_y,
                             T(0)};
  for (int i = 0; i < RECORD; ++i) record[i] = columns[i];
  radius_px = select(visible, max(half_x, half_y), T(0));
}

// The gradient on one camera's record, as sums over pixels of
//   v, v dx, v dy, v dx², v dx dy, v dy²   with v the gradient on log(alpha) and (dx, dy) = pixel - mean, and of
//   w times the gradient on each feature   with w the splat's weight.
template <class T>
struct RecordGradient {
  T moments[6], features[FEATURES];
};

// Adds to `out` and `v_sh`; (v_mean_x, v_mean_y) is the gradient on the mean in pixels.
template <int K, class T, class S>
HD void record_vjp(const Splat<K, T>& splat, const Camera<S>& camera, bool antialias, const RecordGradient<T>& v,
                   GaussianGradient<T>& out, T (&v_sh)[3 * K], T& v_mean_x, T& v_mean_y) {
  const Projection<T> p = project(splat.gaussian, camera, antialias);
  ProjectionGradient<T> g;
  g.mean_x = p.conic_xx * v.moments[1] + p.conic_xy * v.moments[2];
  g.mean_y = p.conic_xy * v.moments[1] + p.conic_yy * v.moments[2];
  g.conic_xx = T(-0.5f) * v.moments[3], g.conic_xy = -v.moments[4], g.conic_yy = T(-0.5f) * v.moments[5];
  g.opacity = v.moments[0] / p.opacity;
  g.depth = v.features[3];
  g.normal = {v.features[4], v.features[5], v.features[6]};

  T basis[K], through[K];
  sh_basis<K>(p.direction, basis);
  const Vec3<T> raw = splat.raw_color(basis);
  const Vec3<T> v_color{select(raw.x >= T(0), v.features[0], T(0)), select(raw.y >= T(0), v.features[1], T(0)),
                        select(raw.z >= T(0), v.features[2], T(0))};
  for (int k = 0; k < K; ++k) {
    through[k] = splat.sh[3 * k] * v_color.x + splat.sh[3 * k + 1] * v_color.y + splat.sh[3 * k + 2] * v_color.z;
    v_sh[3 * k] += basis[k] * v_color.x;
    v_sh[3 * k + 1] += basis[k] * v_color.y;
    v_sh[3 * k + 2] += basis[k] * v_color.z;
  }
  g.direction = sh_basis_vjp<K>(p.direction, through);
  project_vjp(splat.gaussian, camera, antialias, g, out);
  v_mean_x = g.mean_x, v_mean_y = g.mean_y;
}

STUDIO_NAMESPACE_END
