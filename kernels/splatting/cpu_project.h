// The first and the last step on a CPU: Gaussians to records and gradients back, a Gaussian a lane.
#pragma once

#include "splatting/cpu_tiles.h"
#include "splatting/splat.h"
#include "splatting/splatting.h"
#include "studio/buffer.h"
#include "studio/simd.h"

STUDIO_NAMESPACE_BEGIN

inline constexpr int BATCH = 256;  // Gaussians that one task takes

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
HD Splat<K, Float> load_splats(const StudioSplatScene& scene, const LaneIndex& at) {
  const float* rows[LANES];
  Float mean[3], q[4], scale[3], opacity[1];
  Splat<K, Float> splats;
  at.rows(scene.means, 3, rows), load_rows(rows, mean);
  at.rows(scene.quats_wxyz, 4, rows), load_rows(rows, q);
  at.rows(scene.scales, 3, rows), load_rows(rows, scale);
  at.rows(scene.opacities, 1, rows), load_rows(rows, opacity);
  at.rows(scene.sh, 3 * K, rows), load_rows(rows, splats.sh);
  splats.quat = {q[0], q[1], q[2], q[3]};
  splats.gaussian =
      make_gaussian<Float>({mean[0], mean[1], mean[2]}, splats.quat, {scale[0], scale[1], scale[2]}, opacity[0]);
  return splats;
}

template <int K>
void project_batch(const StudioSplatProject& arguments, const Buffer<Camera<float>>& cameras,
                   const Buffer<Footprint>& footprints, int64_t batch) {
  const StudioSplatScene& scene = arguments.scene;
  const int64_t end = batch * BATCH + BATCH < scene.splats ? batch * BATCH + BATCH : scene.splats;
  for (int64_t first = batch * BATCH; first < end; first += LANES) {
    LaneIndex at;
    at.lanes = static_cast<int>(end - first < LANES ? end - first : LANES);
    for (int lane = 0; lane < LANES; ++lane) at.index[lane] = first + (lane < at.lanes ? lane : at.lanes - 1);
    const Splat<K, Float> splats = load_splats<K>(scene, at);
    for (int64_t c = 0; c < scene.cameras; ++c) {
      Float probe[2] = {0.0f, 0.0f};
      if (scene.means2d_probe != nullptr) {
        const float* rows[LANES];
        at.rows(scene.means2d_probe + 2 * c * scene.splats, 2, rows), load_rows(rows, probe);
      }
      Float record[RECORD], radius[1];
      make_record(splats, cameras[c], probe[0], probe[1], scene.antialias != 0, scene.width, scene.height, record,
                  radius[0]);
      float* rows[LANES];
      at.rows(arguments.records + RECORD * c * scene.splats, RECORD, rows), store_rows(record, rows, at.lanes);
      for (int lane = 0; lane < at.lanes; ++lane) {
        SplatRecord splat;
        memcpy(&splat, rows[lane], sizeof splat);
        const bool visible = splat.half_x >= 0.0f;
        footprints[c * scene.splats + at.index[lane]] = {
            visible ? splat.features[DEPTH] : -1.0f,
            visible ? TileSpan::of(splat, scene.width, scene.height) : TileSpan{}};
      }
      at.rows(arguments.radii_px + c * scene.splats, 1, rows), store_rows(radius, rows, at.lanes);
    }
  }
}

STUDIO_NAMESPACE_END
