// The first and the last step on a CPU: Gaussians to records and gradients back, a Gaussian a lane.
#pragma once

#include "splatting/splatting.h"
#include "studio/buffer.h"
#include "studio/math/gaussian.h"
#include "studio/math/spherical_harmonics.h"
#include "studio/parallel.h"
#include "studio/simd.h"

STUDIO_NAMESPACE_BEGIN

inline constexpr int BATCH = 256;  // Gaussians that one task takes

// Rows of `width` floats, one for each lane, to one vector a column and back.
template <int WIDTH>
HD void load_rows(const float* const (&rows)[LANES], Float (&columns)[WIDTH]) {
  alignas(64) float turned[WIDTH][LANES];
  for (int lane = 0; lane < LANES; ++lane) {
    for (int i = 0; i < WIDTH; ++i) turned[i][lane] = rows[lane][i];
  }
  for (int i = 0; i < WIDTH; ++i) columns[i] = Float::load(turned[i]);
}

template <int WIDTH>
HD void store_rows(const Float (&columns)[WIDTH], float* const (&rows)[LANES], int lanes) {
  alignas(64) float turned[WIDTH][LANES];
  for (int i = 0; i < WIDTH; ++i) columns[i].store(turned[i]);
  for (int lane = 0; lane < lanes; ++lane) {
    for (int i = 0; i < WIDTH; ++i) rows[lane][i] = turned[i][lane];
  }
}

// Some Gaussians of a scene, at most one a lane. Idle lanes repeat the last one.
struct LaneIndex {
  int64_t index[LANES];
  int lanes;

  template <class Pointer>
  HD void rows(Pointer base, int64_t width, Pointer (&out)[LANES]) const {
    for (int lane = 0; lane < LANES; ++lane) out[lane] = base + index[lane] * width;
  }
};

template <int K>
struct LoadedSplats {
  Gaussian<Float> gaussian;
  Quat<Float> quat;
  Float sh[3 * K];

  HD LoadedSplats(const StudioSplatScene& scene, const LaneIndex& at) {
    const float* rows[LANES];
    Float mean[3], q[4], scale[3], opacity[1];
    at.rows(scene.means, 3, rows), load_rows(rows, mean);
    at.rows(scene.quats_wxyz, 4, rows), load_rows(rows, q);
    at.rows(scene.scales, 3, rows), load_rows(rows, scale);
    at.rows(scene.opacities, 1, rows), load_rows(rows, opacity);
    at.rows(scene.sh, 3 * K, rows), load_rows(rows, sh);
    quat = {q[0], q[1], q[2], q[3]};
    gaussian = make_gaussian<Float>({mean[0], mean[1], mean[2]}, quat, {scale[0], scale[1], scale[2]}, opacity[0]);
  }

  // Before the clamp at 0.
  HD Vec3<Float> raw_color(const Float (&basis)[K]) const {
    Vec3<Float> color{0.5f, 0.5f, 0.5f};
    for (int k = 0; k < K; ++k) {
      color.x += basis[k] * sh[3 * k], color.y += basis[k] * sh[3 * k + 1], color.z += basis[k] * sh[3 * k + 2];
    }
    return color;
  }
};

HD Mask is_finite(Float a) { return abs(a) <= Float(3.4028235e38f); }

template <int K>
void project_batch(const StudioSplatProject& arguments, const Buffer<Camera<float>>& cameras, int64_t batch) {
  const StudioSplatScene& scene = arguments.scene;
  const int64_t end = batch * BATCH + BATCH < scene.splats ? batch * BATCH + BATCH : scene.splats;
  for (int64_t first = batch * BATCH; first < end; first += LANES) {
    LaneIndex at;
    at.lanes = static_cast<int>(end - first < LANES ? end - first : LANES);
    for (int lane = 0; lane < LANES; ++lane) at.index[lane] = first + (lane < at.lanes ? lane : at.lanes - 1);
    const LoadedSplats<K> splats(scene, at);
    for (int64_t c = 0; c < scene.cameras; ++c) {
      Projection<Float> p = project(splats.gaussian, cameras[c], scene.antialias != 0);
      if (scene.means2d_probe != nullptr) {
        const float* rows[LANES];
        Float probe[2];
        at.rows(scene.means2d_probe + 2 * c * scene.splats, 2, rows), load_rows(rows, probe);
        p.mean_x += probe[0], p.mean_y += probe[1];
      }
      Float basis[K];
      sh_basis<K>(p.direction, basis);
      const Vec3<Float> raw = splats.raw_color(basis);

      const Float log2_opacity = log2(p.opacity);
      const Float reach2 = max((log2_opacity - LOG2_MIN_ALPHA) * (2.0f / LOG2_E), 0.0f);
      const Float half_x = sqrt(reach2 * p.cov_xx), half_y = sqrt(reach2 * p.cov_yy);
      const float width = static_cast<float>(scene.width), height = static_cast<float>(scene.height);
      // Does the box hold the centre of a pixel of the image? ceil(low) <= floor(high), with both inside the image.
      const Float low_x = min(max(p.mean_x - half_x - 0.5f, 0.0f), width);
      const Float low_y = min(max(p.mean_y - half_y - 0.5f, 0.0f), height);
      const Float high_x = min(p.mean_x + half_x - 0.5f, width - 1.0f);
      const Float high_y = min(p.mean_y + half_y - 0.5f, height - 1.0f);
      const Mask visible = (p.opacity >= Float(1.0f / 255.0f)) & (p.depth > Float(NEAR_PLANE)) &
                           (high_x >= Float(0.0f)) & (high_y >= Float(0.0f)) & (low_x <= trunc(high_x)) &
                           (low_y <= trunc(high_y)) & is_finite(p.opacity) & is_finite(p.depth) &
                           is_finite(p.mean_x + p.mean_y) & is_finite(p.det) & is_finite(half_x + half_y) &
                           is_finite(raw.x + raw.y + raw.z) & is_finite(p.normal.x);

      const Float columns[16] = {p.mean_x,
                                 p.mean_y,
                                 p.conic_xx * (0.5f * LOG2_E),
                                 p.conic_xy * LOG2_E,
                                 p.conic_yy * (0.5f * LOG2_E),
                                 log2_opacity,
                                 max(raw.x, 0.0f),
                                 max(raw.y, 0.0f),
                                 max(raw.z, 0.0f),
                                 p.depth,
                                 p.normal.x,
                                 p.normal.y,
                                 p.normal.z,
                                 select(visible, half_x, Float(-1.0f)),
                                 half_y,
                                 Float(0.0f)};
      float* rows[LANES];
      at.rows(arguments.records + 16 * c * scene.splats, 16, rows);
      store_rows(columns, rows, at.lanes);
      const Float radius[1] = {select(visible, max(half_x, half_y), Float(0.0f))};
      at.rows(arguments.radii_px + c * scene.splats, 1, rows);
      store_rows(radius, rows, at.lanes);
    }
  }
}

// The gradients on one camera's records, from sums over pixels of
//   v, v dx, v dy, v dx², v dx dy, v dy²   with v the gradient on log(alpha) and (dx, dy) = pixel - mean, and of
//   w times the gradient on each feature   with w the splat's weight.
struct RecordGradient {
  Float moments[6], features[7];
};

template <int K>
HD void splat_vjp(const StudioSplatBackward& arguments, const LoadedSplats<K>& splats, const Camera<float>& camera,
                  const RecordGradient& v, GaussianGradient<Float>& out, Float (&v_sh)[3 * K], Float (&v_probe)[2]) {
  const bool antialias = arguments.scene.antialias != 0;
  const Projection<Float> p = project(splats.gaussian, camera, antialias);
  ProjectionGradient<Float> g;
  g.mean_x = p.conic_xx * v.moments[1] + p.conic_xy * v.moments[2];
  g.mean_y = p.conic_xy * v.moments[1] + p.conic_yy * v.moments[2];
  g.conic_xx = -0.5f * v.moments[3], g.conic_xy = -v.moments[4], g.conic_yy = -0.5f * v.moments[5];
  g.opacity = v.moments[0] / p.opacity;
  g.depth = v.features[3];
  g.normal = {v.features[4], v.features[5], v.features[6]};

  Float basis[K], through[K];
  sh_basis<K>(p.direction, basis);
  const Vec3<Float> raw = splats.raw_color(basis);
  const Vec3<Float> v_color{select(raw.x >= Float(0.0f), v.features[0], Float(0.0f)),
                            select(raw.y >= Float(0.0f), v.features[1], Float(0.0f)),
                            select(raw.z >= Float(0.0f), v.features[2], Float(0.0f))};
  for (int k = 0; k < K; ++k) {
    through[k] = splats.sh[3 * k] * v_color.x + splats.sh[3 * k + 1] * v_color.y + splats.sh[3 * k + 2] * v_color.z;
    v_sh[3 * k] += basis[k] * v_color.x;
    v_sh[3 * k + 1] += basis[k] * v_color.y;
    v_sh[3 * k + 2] += basis[k] * v_color.z;
  }
  g.direction = sh_basis_vjp<K>(p.direction, through);
  project_vjp(splats.gaussian, camera, antialias, g, out);
  v_probe[0] = g.mean_x, v_probe[1] = g.mean_y;
}

STUDIO_NAMESPACE_END
