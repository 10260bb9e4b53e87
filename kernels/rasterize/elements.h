// What one thread of CUDA does: plain code, which the tests also run on the CPU.
#pragma once

#include "rasterize/cuda_zbuffer.h"
#include "rasterize/shading.h"

STUDIO_NAMESPACE_BEGIN

// Of the faces of a surface those that are translucent are drawn to a layer of their own.
struct SurfaceFaces {
  StudioRasterize in;
  int columns, rows;
  float most;
  bool cull = false;
  uint64_t *opaque, *glass;  // [cameras rows columns]

  SurfaceFaces(const StudioRasterize& surface, uint64_t* opaque, uint64_t* glass)
      : in(surface),
        columns(in.width * in.supersample),
        rows(in.height * in.supersample),
        most(1 / in.near_depth),
        opaque(opaque),
        glass(glass) {}

  HD int64_t count() const { return in.face_count; }
  HD int64_t samples() const { return int64_t(columns) * rows; }

  HD void corners_of(int64_t camera, int64_t face, Vector (&u)[3], float (&a)[3]) const {
    for (int k = 0; k < 3; ++k) {
      const ScreenVertex vertex = project_vertex(in, camera, in.faces[3 * face + k]);
      u[k] = {vertex.x, vertex.y, vertex.w}, a[k] = vertex.a;
    }
  }
  HD bool corners(int64_t i, Vector (&u)[3], float (&a)[3]) const {
    corners_of(i / count(), i % count(), u, a);
    return opacity(in, i % count()) > 0;
  }
  HD uint64_t* layer(int64_t i) const {
    return (opacity(in, i % count()) < 1 ? glass : opaque) + i / count() * samples();
  }
  HD bool keeps(int64_t i, const Triangle& triangle, float x, float y) const {
    const int64_t face = i % count();
    return in.cut_out[in.face_materials[face]] == 0 || studio::keeps(in, face, triangle, x, y);
  }
};

// The faces are found; pixel i % pixels of camera i / pixels.
struct ShadeSurfacePixel {
  SurfaceFaces faces;

  HD void operator()(int64_t i) const {
    const StudioRasterize& in = faces.in;
    const int64_t pixels = int64_t(in.width) * in.height, camera = i / pixels, pixel = i % pixels;
    const auto set_up_face = [&](int32_t face, Triangle& out) {
      Vector u[3];
      float a[3];
      faces.corners_of(camera, face, u, a);
      set_up(u, a, ABOVE_ZERO, out);
    };
    const int k = in.supersample;
    const int64_t first_row = pixel / in.width * k, first_column = pixel % in.width * k;
    float sums[8] = {};
    Shader shader(in), glass_shader(in);
    for (int64_t row = first_row; row < first_row + k; ++row) {
      for (int64_t column = first_column; column < first_column + k; ++column) {
        const float x = static_cast<float>(column) + 0.5f, y = static_cast<float>(row) + 0.5f;
        const int64_t sample = camera * faces.samples() + row * faces.columns + column;
        const uint64_t opaque = faces.opaque[sample], glass = faces.glass[sample];
        float seen_through = 1;
        if (is_nearer(glass, opaque)) {
          glass_shader.turn_to(face_of(glass), set_up_face);
          glass_shader.add(x, y, glass_shader.opacity(), sums, 1);
          seen_through -= glass_shader.opacity();
        }
        if (opaque == 0) continue;
        shader.turn_to(face_of(opaque), set_up_face);
        shader.add(x, y, seen_through, sums, 1);
      }
    }
    const float share = 1.f / static_cast<float>(k * k), alpha = sums[7] * share;
    in.alpha[i] = alpha;
    in.depth[i] = sums[3] * share;
    for (int c = 0; c < 3; ++c) {
      const int64_t at = (3 * camera + c) * pixels + pixel;
      in.rgb[at] = sums[c] * share + (1 - alpha) * in.background[3 * camera + c];
      in.normal[at] = sums[4 + c] * share;
    }
  }
};

STUDIO_NAMESPACE_END
