// The shared formulas in double against central differences, and in SIMD against libm.
#include <cmath>
#include <vector>

#include "check.h"
#include "studio/math/gaussian.h"
#include "studio/math/spherical_harmonics.h"
#include "studio/simd.h"

using namespace studio;

namespace {

constexpr int PARAMETERS = 11;  // mean, quaternion, scale, opacity

Gaussian<double> gaussian_of(const double* p) {
  return make_gaussian<double>({p[0], p[1], p[2]}, {p[3], p[4], p[5], p[6]}, {p[7], p[8], p[9]}, p[10]);
}

Camera<double> camera() {
  const double world_to_camera[16] = {0.8, 0.0, -0.6, 0.1, 0.36, -0.8, 0.48, -0.05, -0.48, -0.6, -0.64, 2.0, 0, 0, 0, 1};
  const double intrinsics[9] = {70, 0, 33, 0, 65, 30, 0, 0, 1};
  return Camera<double>::from(world_to_camera, intrinsics, 64, 64);
}

double loss(const double* p, const ProjectionGradient<double>& v, bool antialias) {
  const Projection<double> r = project(gaussian_of(p), camera(), antialias);
  return v.mean_x * r.mean_x + v.mean_y * r.mean_y + v.depth * r.depth + v.conic_xx * r.conic_xx +
         v.conic_xy * r.conic_xy + v.conic_yy * r.conic_yy + v.opacity * r.opacity + dot(v.normal, r.normal) +
         dot(v.direction, r.direction);
}

void projection_matches_differences(bool antialias, double mean_scale) {
  Random random;
  for (int trial = 0; trial < 20; ++trial) {
    double p[PARAMETERS];
    for (double& x : p) x = random();
    for (int i = 0; i < 3; ++i) p[i] *= mean_scale, p[7 + i] = 0.02 + 0.05 * std::fabs(p[7 + i]);
    p[10] = 0.6;
    const ProjectionGradient<double> v{random(), random(), random(), 50 * random(), 50 * random(), 50 * random(),
                                       random(), {random(), random(), random()}, {random(), random(), random()}};
    const Gaussian<double> g = gaussian_of(p);
    GaussianGradient<double> total = zero_gradient<double>();
    project_vjp(g, camera(), antialias, v, total);
    Quat<double> quat;
    Vec3<double> scale;
    make_gaussian_vjp(g, {p[3], p[4], p[5], p[6]}, total, quat, scale);
    const double analytic[PARAMETERS] = {total.mean.x, total.mean.y, total.mean.z, quat.w,  quat.x,       quat.y,
                                         quat.z,       scale.x,      scale.y,      scale.z, total.opacity};
    for (int i = 0; i < PARAMETERS; ++i) {
      const double step = 1e-6, kept = p[i];
      p[i] = kept + step;
      const double above = loss(p, v, antialias);
      p[i] = kept - step;
      const double below = loss(p, v, antialias);
      p[i] = kept;
      const double numeric = (above - below) / (2 * step);
      CHECK(std::fabs(numeric - analytic[i]) < 1e-5 * (1 + std::fabs(numeric)));
    }
  }
}

void harmonics_match_differences() {
  Random random;
  double d[3] = {0.48, -0.6, 0.64}, s[16];
  for (double& x : s) x = random();
  const auto value = [&](const double* x) {
    const double n = std::sqrt(x[0] * x[0] + x[1] * x[1] + x[2] * x[2]);
    double basis[16], sum = 0;
    sh_basis<16>(Vec3<double>{x[0] / n, x[1] / n, x[2] / n}, basis);
    for (int k = 0; k < 16; ++k) sum += basis[k] * s[k];
    return sum;
  };
  const Vec3<double> unit{d[0], d[1], d[2]}, v = sh_basis_vjp<16>(unit, s);
  const Vec3<double> tangent = v - dot(v, unit) * unit;
  const double analytic[3] = {tangent.x, tangent.y, tangent.z};
  for (int i = 0; i < 3; ++i) {
    const double kept = d[i], step = 1e-6;
    d[i] = kept + step;
    const double above = value(d);
    d[i] = kept - step;
    const double below = value(d);
    d[i] = kept;
    CHECK(std::fabs((above - below) / (2 * step) - analytic[i]) < 1e-6);
  }
}

void vectors_match_libm() {
  for (double x = -20.0; x < 20.0; x += 0.0137) {
    const double e = studio::exp2(Float(static_cast<float>(x)))[LANES - 1];
    CHECK(std::fabs(e / std::exp2(static_cast<double>(static_cast<float>(x))) - 1.0) < 1e-6);
    const float y = std::exp2(static_cast<float>(x));
    CHECK(std::fabs(studio::log2(Float(y))[0] - std::log2(static_cast<double>(y))) < 3e-6);
  }
  float rows[LANES][8];
  const float* in[LANES];
  float back[LANES][8];
  float* out[LANES];
  for (int lane = 0; lane < LANES; ++lane) {
    in[lane] = rows[lane], out[lane] = back[lane];
    for (int i = 0; i < 8; ++i) rows[lane][i] = static_cast<float>(lane * 8 + i);
  }
  Float columns[8];
  load_rows(in, columns);
  store_rows(columns, out, LANES);
  for (int lane = 0; lane < LANES; ++lane) {
    for (int i = 0; i < 8; ++i) CHECK(columns[i][lane] == rows[lane][i] && back[lane][i] == rows[lane][i]);
  }
}

}  // namespace

int main() {
  for (bool antialias : {false, true}) {
    projection_matches_differences(antialias, 0.4);
    projection_matches_differences(antialias, 3.0);  // many beyond the frustum's margin
  }
  harmonics_match_differences();
  vectors_match_libm();
}
