// Which face each pixel shows on a CPU, and where on it; and the way back to the vertices.
#pragma once

#include "mesh_raster/cpu_lanes.h"
#include "mesh_raster/mesh.h"
#include "studio/math/fragment.h"

STUDIO_NAMESPACE_BEGIN

// The corners of the pixels' faces, and the pixels' places.
struct LaneFragments {
  ClipCorners<Float> corners;
  ScreenPlace<Float> place;

  LaneFragments(const StudioMesh& mesh, int64_t view, int column, int row, const PixelLanes& lanes) {
    const int32_t* indices = indices_of(mesh, view, 0);
    const float* positions = mesh.positions + 4 * view * mesh.vertices;
    for (int i = 0; i < 3; ++i) {
      Float columns[4];
      gather_rows([&](int lane) { return positions + 4 * int64_t(lanes.vertices(indices, lane)[i]); }, columns);
      corners.x[i] = columns[0], corners.y[i] = columns[1], corners.z[i] = columns[2], corners.w[i] = columns[3];
    }
    alignas(64) static constexpr float CENTRES[16] = {0.5f, 1.5f, 2.5f,  3.5f,  4.5f,  5.5f,  6.5f,  7.5f,
                                                      8.5f, 9.5f, 10.5f, 11.5f, 12.5f, 13.5f, 14.5f, 15.5f};
    const float half_width = 0.5f * static_cast<float>(mesh.width), half_height = 0.5f * static_cast<float>(mesh.height);
    place.half_width = half_width, place.half_height = half_height;
    place.right = Float(half_width - static_cast<float>(column)) - Float::load(CENTRES);
    place.below = half_height - (static_cast<float>(row) + 0.5f);
  }
};

// The fragments of the pixels in the rows from y0 to before y1, whose faces are known.
template <bool SLOPES>
void shade(const StudioMeshRasterize& task, int64_t view, int y0, int y1) {
  const StudioMesh& mesh = task.mesh;
  const int64_t pixels = int64_t(mesh.width) * mesh.height;
  for (int row = y0; row < y1; ++row) {
    const int32_t* face = task.face + view * pixels + int64_t(row) * mesh.width;
    for (int column = 0; column < mesh.width; column += LANES) {
      const PixelLanes lanes(face, column, mesh.width, mesh.faces);
      const auto store = [&](Float values, float* planes, int64_t plane, float nothing) {
        store_lanes(lanes.or_else(values, nothing), planes + plane * pixels + int64_t(row) * mesh.width + column,
                    mesh.width - column);
      };
      if (!lanes.any()) {
        store(1.0f, task.depth, view, 1);
        for (int i = 0; i < 3; ++i) store(0.0f, task.weights, 3 * view + i, 0);
        for (int i = 0; SLOPES && i < 6; ++i) store(0.0f, task.slopes, 6 * view + i, 0);
        continue;
      }
      const LaneFragments at(mesh, view, column, row, lanes);
      const Fragment<Float> f = fragment(at.corners, at.place);
      store(f.depth, task.depth, view, 1);
      for (int i = 0; i < 3; ++i) {
        store(f.weights[i], task.weights, 3 * view + i, 0);
        if (!SLOPES) continue;
        store(f.slopes_x[i], task.slopes, 6 * view + i, 0);
        store(f.slopes_y[i], task.slopes, 6 * view + 3 + i, 0);
      }
    }
  }
}

// Adds the gradients of the pixels in the rows from y0 to before y1 to those of the view's vertices.
template <bool DEPTH, bool SLOPES>
void add_positions_vjp(const StudioMeshRasterizeBackward& task, int64_t view, int64_t y0, int64_t y1,
                       float* v_positions) {
  const StudioMesh& mesh = task.mesh;
  const int64_t pixels = int64_t(mesh.width) * mesh.height;
  const int32_t* indices = indices_of(mesh, view, 0);
  for (int64_t row = y0; row < y1; ++row) {
    const int32_t* face = task.face + view * pixels + row * mesh.width;
    for (int column = 0; column < mesh.width; column += LANES) {
      const PixelLanes lanes(face, column, mesh.width, mesh.faces);
      if (!lanes.any()) continue;
      const LaneFragments at(mesh, view, column, static_cast<int>(row), lanes);
      const auto plane = [&](const float* planes, int64_t count, int64_t index) {
        const int64_t first = (count * view + index) * pixels + row * mesh.width + column;
        return load_lanes(planes == nullptr ? nullptr : planes + first, mesh.width - column);
      };
      Fragment<Float> v;
      v.depth = DEPTH ? plane(task.v_depth, 1, 0) : Float(0.0f);
      for (int i = 0; i < 3; ++i) {
        v.weights[i] = plane(task.v_weights, 3, i);
        v.slopes_x[i] = SLOPES ? plane(task.v_slopes, 6, i) : Float(0.0f);
        v.slopes_y[i] = SLOPES ? plane(task.v_slopes, 6, 3 + i) : Float(0.0f);
      }
      const ClipCorners<Float> out = fragment_vjp<DEPTH, SLOPES>(at.corners, at.place, v);
      alignas(64) float values[3][LANES][4];
      for (int i = 0; i < 3; ++i) spread({out.x[i], out.y[i], out.z[i], out.w[i]}, values[i]);
      lanes.add_to_corners([&](int corner, int lane) { return load_quad(values[corner][lane]); },
                           [&](int corner, int lane) {
                             return v_positions + 4 * int64_t(lanes.vertices(indices, lane)[corner]);
                           });
    }
  }
}

STUDIO_NAMESPACE_END
