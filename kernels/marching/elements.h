// What one thread of CUDA does: plain code, which the tests also run on the CPU.
#pragma once

#include "marching/marching.h"
#include "studio/math/marching.h"

STUDIO_NAMESPACE_BEGIN

// Ray number `ray`. visit(t, point) for each of its samples.
struct MarchElement {
  StudioMarch in;

  template <class Visit>
  HD void march(int64_t ray, Visit&& visit) const {
    const float *o = in.origins + 3 * ray, *d = in.directions + 3 * ray;
    const Vec3<float> origin = {o[0], o[1], o[2]}, direction = {d[0], d[1], d[2]};
    const Span span = cross_cube(origin, direction, in.near);
    int left = in.max_samples;
    for (int k = 0; k < STUDIO_MARCH_STEPS && left > 0; ++k) {
      const float t = time_of(span.enter, static_cast<float>(k), in.jitter[ray], in.step);
      if (!(t < span.leave)) return;
      const Vec3<float> point = point_at(origin, direction, t);
      if (!is_occupied(in.occupied, cell_at(point, static_cast<uint32_t>(in.resolution)))) continue;
      visit(t, point);
      --left;
    }
  }
};

struct MarchCount : MarchElement {
  HD void operator()(int64_t ray) const {
    int64_t count = 0;
    march(ray, [&](float, const Vec3<float>&) { ++count; });
    in.counts[ray] = count;
  }
};

struct MarchWrite : MarchElement {
  HD void operator()(int64_t ray) const {
    int64_t next = in.starts[ray];
    march(ray, [&](float t, const Vec3<float>& point) {
      float* position = in.positions + 3 * next;
      in.t[next++] = t;
      position[0] = point.x, position[1] = point.y, position[2] = point.z;
    });
  }
};

STUDIO_NAMESPACE_END
