// The faces of a mesh as one of its views sees them.
#pragma once

#include "mesh_raster/mesh_raster.h"
#include "studio/math/triangle.h"

STUDIO_NAMESPACE_BEGIN

inline constexpr int8_t FRONT = 1, BACK = -1;

// In pixels; its a is 0 at the far plane and 2 w at the near one.
HD ScreenVertex screen_vertex(const StudioMesh& mesh, const float* position) {
  const float half_width = 0.5f * static_cast<float>(mesh.width), half_height = 0.5f * static_cast<float>(mesh.height);
  const float x = position[0], y = position[1], z = position[2], w = position[3];
  return {half_width * (x + w), half_height * (w - y), w, w - z};
}

HD const int32_t* indices_of(const StudioMesh& mesh, int64_t view, int64_t face) {
  return mesh.indices + 3 * ((mesh.own_faces != 0 ? view * mesh.faces : 0) + face);
}

HD bool are_vertices(const int32_t* corners, int64_t vertices) {
  bool all = true;
  for (int i = 0; i < 3; ++i) all &= corners[i] >= 0 && corners[i] < vertices;
  return all;
}

// 1 or -1: from which side the face is seen; 0 where it is not, or is not there.
HD int8_t facing_of(const StudioMesh& mesh, int64_t view, int64_t face) {
  if (face >= mesh.faces) return 0;
  const int32_t* corners = indices_of(mesh, view, face);
  if (!are_vertices(corners, mesh.vertices)) return 0;
  Vec3<float> u[3];
  for (int i = 0; i < 3; ++i) {
    const float* p = mesh.positions + 4 * (view * mesh.vertices + corners[i]);
    u[i] = {p[0], p[1], p[3]};
  }
  const float volume = dot(cross(u[1] - u[0], u[2] - u[0]), u[0]);
  return volume > 0 ? FRONT : volume < 0 ? BACK : 0;
}

STUDIO_NAMESPACE_END
