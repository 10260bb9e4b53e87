// Silhouettes between neighbouring pixels: Laine et al., "Modular Primitives for High-Performance Differentiable
// Rendering" (2020), section 3.5. The bodies of the CPU's and CUDA's loops.
//
// Where two neighbouring pixels show different faces, the nearer one is A, the other B. If a silhouette edge of A's
// surface crosses the line from A's centre to B's after a share t of the way, A's surface covers t - 1/2 of B, or
// misses 1/2 - t of A, and that much of one pixel's colour is blended into the other. Edges nearer to vertical count
// between neighbours in a row, the others between neighbours in a column.
//
// The paper looks at the edges of A's face alone; here the line is followed across up to MAX_STEPS faces of A's
// surface: faces are small near outlines, where they are seen from the side, and outlines would be missed.
#pragma once

#include "mesh_raster/mesh.h"

STUDIO_NAMESPACE_BEGIN

inline constexpr int MAX_STEPS = 128;

inline constexpr uint8_t HORIZONTAL = 1, VERTICAL = 2;  // marks of a pixel: it blends with the next one that way

// Whether an edge of a face is a silhouette, given what face_neighbours says of it and the facing of the neighbour:
// nothing continues the surface there, or what does is folded behind it.
HD bool is_silhouette(int8_t facing, int32_t neighbour, int8_t facing_beyond) {
  return neighbour < 0 || facing_beyond != ((neighbour & 1) != 0 ? -facing : facing);
}

// A silhouette edge from p to q crosses the way from A to B.
struct Crossing {
  bool found;
  float t;
  int32_t p, q;
  float p_along, p_across, p_w, q_along, q_across, q_w;  // homogeneous pixels around A, along the way and across it
};

// The way leads from A's centre to the next pixel rightwards (or downwards: vertical) for step 1, back for step -1.
HD Crossing find_crossing(const StudioAntialias& in, int64_t view, int32_t face, int32_t target, float right, float below,
                          bool vertical, float step) {
  const StudioMesh& mesh = in.mesh;
  const float half_width = 0.5f * static_cast<float>(mesh.width), half_height = 0.5f * static_cast<float>(mesh.height);
  Crossing out{};
  int entry = -1;
  int8_t facing = facing_of(mesh, view, face);
  if (facing == 0) return out;
  for (int hop = 0; hop < MAX_STEPS; ++hop) {
    const int32_t* corners = indices_of(mesh, view, face);
    float along[3], across[3], w[3];
    for (int i = 0; i < 3; ++i) {
      const float* p = mesh.positions + 4 * (view * mesh.vertices + corners[i]);
      const float x = fused(half_width, p[0], right * p[3]), y = fused(-half_height, p[1], below * p[3]);
      along[i] = vertical ? y : x, across[i] = vertical ? x : y, w[i] = p[3];
    }
    // Edge functions at A, positive inside, and how much they lose on the way to B. Rows grow downwards, which turns
    // the sign of the face's side, and so does the swap of the axes.
    const float inside = (facing > 0) == vertical ? 1.0f : -1.0f;
    int exit = -1;
    float first = 0;
    for (int i = 0; i < 3; ++i) {
      if (i == entry) continue;
      const int j = (i + 1) % 3, k = (i + 2) % 3;
      const float at_a = inside * fused(along[j], across[k], -(along[k] * across[j]));
      const float loss = inside * step * fused(w[j], across[k], -(w[k] * across[j]));
      if (!(at_a <= loss) || !(loss > 0)) continue;
      const float t = at_a / loss;
      if (exit >= 0 && !(t < first)) continue;
      exit = i, first = t;
    }
    if (exit < 0) return out;
    const int j = (exit + 1) % 3, k = (exit + 2) % 3;
    const int32_t neighbour = in.neighbours[(corners - mesh.indices) + exit], next = neighbour >> 1;
    const int8_t facing_beyond = neighbour < 0 ? 0 : facing_of(mesh, view, next);
    if (is_silhouette(facing, neighbour, facing_beyond)) {
      const float steep = abs(w[j] * across[k] - w[k] * across[j]), flat = abs(w[j] * along[k] - w[k] * along[j]);
      out.found = vertical ? steep > flat : steep >= flat;
      out.t = min(max(first, 0.0f), 1.0f);
      out.p = corners[j], out.q = corners[k];
      out.p_along = along[j], out.p_across = across[j], out.p_w = w[j];
      out.q_along = along[k], out.q_across = across[k], out.q_w = w[k];
      return out;
    }
    if (next == target) return out;
    const int32_t* others = indices_of(mesh, view, next);
    for (int i = 0; i < 3; ++i) {
      if (others[i] != corners[j] && others[i] != corners[k]) entry = i;
    }
    face = next, facing = facing_beyond;
  }
  return out;
}

// What two neighbouring pixels do to each other.
struct Blend {
  int64_t giver, receiver;  // pixels of the view
  float weight;
  float slope;  // d weight / d t
  float right, below, step;
  bool vertical;
  Crossing crossing;
};

// Between the pixel in this column and row and the next one rightwards or downwards.
HD bool blend_of(const StudioAntialias& in, int64_t view, int column, int row, bool vertical, Blend& out) {
  const int64_t pixels = int64_t(in.mesh.width) * in.mesh.height, first = int64_t(row) * in.mesh.width + column;
  const int64_t second = first + (vertical ? in.mesh.width : 1);
  const int32_t* face = in.face + view * pixels;
  if (face[first] == face[second]) return false;
  const float* depth = in.depth + view * pixels;
  const bool first_nearer =
      face[second] < 0 || (face[first] >= 0 && depth[first] <= depth[second]);
  const int64_t a = first_nearer ? first : second, b = first_nearer ? second : first;
  const int a_column = first_nearer || vertical ? column : column + 1, a_row = first_nearer || !vertical ? row : row + 1;
  out.right = 0.5f * static_cast<float>(in.mesh.width) - (static_cast<float>(a_column) + 0.5f);
  out.below = 0.5f * static_cast<float>(in.mesh.height) - (static_cast<float>(a_row) + 0.5f);
  out.step = first_nearer ? 1.0f : -1.0f;
  out.vertical = vertical;
  out.crossing = find_crossing(in, view, face[a], face[b], out.right, out.below, vertical, out.step);
  if (!out.crossing.found) return false;
  const float beyond = out.crossing.t - 0.5f;
  out.giver = beyond > 0 ? a : b, out.receiver = beyond > 0 ? b : a;
  out.weight = abs(beyond), out.slope = beyond > 0 ? 1.0f : -1.0f;
  return true;
}

// The gradient on the edge's ends in clip space, from that on the weight. x, y and w; z has none.
HD void blend_vjp(const StudioMesh& mesh, const Blend& blend, float v_weight, Vec3<float>& v_p, Vec3<float>& v_q) {
  const Crossing& c = blend.crossing;
  // t = step N / D with N = p_along q_across - q_along p_across and D the same with w for along.
  const float down = c.p_w * c.q_across - c.q_w * c.p_across;
  const float v_t = c.t > 0 && c.t < 1 ? blend.slope * v_weight : 0;
  const float v_top = blend.step * v_t / down, v_down = -v_t * c.t / down;
  const float v_p_along = v_top * c.q_across, v_q_along = -v_top * c.p_across;
  const float v_p_across = -v_top * c.q_along - v_down * c.q_w, v_q_across = v_top * c.p_along + v_down * c.p_w;
  const float half_width = 0.5f * static_cast<float>(mesh.width), half_height = 0.5f * static_cast<float>(mesh.height);
  const auto to_clip = [&](float along, float across, float w) {
    const float x = blend.vertical ? across : along, y = blend.vertical ? along : across;
    return Vec3<float>{half_width * x, -half_height * y, w + blend.right * x + blend.below * y};
  };
  v_p = to_clip(v_p_along, v_p_across, v_down * c.q_across);
  v_q = to_clip(v_q_along, v_q_across, -v_down * c.p_across);
}

STUDIO_NAMESPACE_END
