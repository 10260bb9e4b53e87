// What one thread of CUDA does: plain code, which the tests also run on the CPU.
#pragma once

#include "hash_grid/hash_grid.h"
#include "studio/math/hash_grid.h"

STUDIO_NAMESPACE_BEGIN

HD Vec3<float> point_of(const float* values, int64_t i) {
  return {values[3 * i], values[3 * i + 1], values[3 * i + 2]};
}

// Point i / levels in level i % levels.
struct HashElement {
  StudioHashGrid in;

  struct Corners {
    uint32_t entries[8];
    float weights[8];
    bool valid;
  };

  HD Corners corners(int64_t point, const StudioHashLevel& level) const {
    Corners corners;
    const CubePoint<float> at = into_cube(point_of(in.positions, point));
    const Vec3<float> f = locate(level, at.position, corners.entries);
    if (in.directions == nullptr) {
      corner_weights(f, corners.weights);
    } else {
      const float side = static_cast<float>(level.resolution);
      corner_weights_along(f, side * times(at.slope, point_of(in.directions, point)), corners.weights);
    }
    corners.valid = at.valid;
    return corners;
  }
};

struct HashEncode : HashElement {
  HD void operator()(int64_t i) const {
    const StudioHashLevel& level = in.level[i % in.levels];
    const Corners at = corners(i / in.levels, level);
    for (int k = 0; k < in.features; ++k) {
      float sum = 0;
      for (int c = 0; c < 8; ++c) sum += at.weights[c] * in.table[(level.first + at.entries[c]) * in.features + k];
      in.result[i * in.features + k] = at.valid || in.directions != nullptr ? sum : NAN;
    }
  }
};

// The result begins at 0.
struct HashScatter : HashElement {
  HD void operator()(int64_t i) const {
    const StudioHashLevel& level = in.level[i % in.levels];
    const Corners at = corners(i / in.levels, level);
    if (!at.valid) return;
    for (int c = 0; c < 8; ++c) {
      float* entry = in.result + (level.first + at.entries[c]) * in.features;
      for (int k = 0; k < in.features; ++k) add_to(entry + k, at.weights[c] * in.v_features[i * in.features + k]);
    }
  }
};

// Point i in all levels, so that no thread waits for another.
struct HashSlopes {
  StudioHashGrid in;

  HD void operator()(int64_t i) const {
    const CubePoint<float> at = into_cube(point_of(in.positions, i));
    Vec3<float> sum = {0, 0, 0};
    for (int l = 0; l < in.levels && at.valid; ++l) {
      const StudioHashLevel& level = in.level[l];
      const float* v_features = in.v_features + (i * in.levels + l) * in.features;
      const float side = static_cast<float>(level.resolution);
      uint32_t entries[8];
      const Vec3<float> f = locate(level, at.position, entries);
      float values[8];
      for (int c = 0; c < 8; ++c) {
        const float* entry = in.table + (level.first + entries[c]) * in.features;
        values[c] = 0;
        for (int k = 0; k < in.features; ++k) values[c] += v_features[k] * entry[k];
      }
      if (in.directions == nullptr) {
        sum += side * corner_gradient(values, f);
      } else {
        sum += side * side * corner_hessian_times(values, f, times(at.slope, point_of(in.directions, i)));
      }
    }
    sum = times(at.slope, sum);
    in.result[3 * i] = sum.x, in.result[3 * i + 1] = sum.y, in.result[3 * i + 2] = sum.z;
  }
};

STUDIO_NAMESPACE_END
