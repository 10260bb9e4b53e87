// The nearest triangle of each sample on a CPU: vectors over triangles to set them up, over samples to draw them.
//
// The screen is drawn in bands of rows. Each band looks through the bounds of all faces, in their order, so that the
// picture does not depend on the number of threads; of equally near faces the first one stays.
#pragma once

#include <stdexcept>

#include "studio/buffer.h"
#include "studio/math/triangle.h"
#include "studio/simd.h"

STUDIO_NAMESPACE_BEGIN

inline constexpr int64_t FACE_CHUNK = 4096;   // faces or vertices in one task
inline constexpr float MARGIN_PX = 1e-2f;  // more than rounding can move a corner
inline constexpr float ABOVE_ZERO = 1.17549435e-38f;  // the least normal number
inline constexpr int MAX_SIDE = 32767;     // samples, for Bounds

// Homogeneous samples (x / w, y / w), and a number a that is linear in space: a / w says how near the vertex is.
struct ScreenVertex {
  float x, y, w, a;
};

// The triangles of one view.
struct ScreenMesh {
  const ScreenVertex* vertices;
  const int32_t* faces;
  float most;  // drawn where 0 < a / w <= most
  int columns, rows;
  bool cull;  // faces that wind clockwise as seen are not drawn

  const ScreenVertex& corner(int64_t face, int i) const { return vertices[faces[3 * face + i]]; }
};

// The samples that a face may cover: columns x0 <= x <= x1 and rows y0 <= y <= y1. Empty has y0 > y1.
struct Bounds {
  int16_t x0, y0, x1, y1;
};
inline constexpr Bounds NO_BOUNDS{0, INT16_MAX, -1, -1};

// The corners of LANES faces, one a lane.
struct LaneCorners {
  Vec3<Float> u[3];
  Float a[3];

  LaneCorners(const ScreenMesh& mesh, const int64_t (&faces)[LANES]) {
    for (int i = 0; i < 3; ++i) {
      const float* rows[LANES];
      for (int lane = 0; lane < LANES; ++lane) rows[lane] = &mesh.corner(faces[lane], i).x;
      Float columns[4];
      load_rows(rows, columns);
      u[i] = {columns[0], columns[1], columns[2]};
      a[i] = columns[3];
    }
  }
};

// Bounds of the faces from begin to before end. Faces that pass through the camera's plane or the near plane may reach
// anywhere.
inline void find_bounds(const ScreenMesh& mesh, int64_t begin, int64_t end, Bounds* bounds) {
  const Float zero = 0.0f, most = mesh.most, half = 0.5f;
  const Float last_x = static_cast<float>(mesh.columns - 1), last_y = static_cast<float>(mesh.rows - 1);
  for (int64_t first = begin; first < end; first += LANES) {
    int64_t faces[LANES];
    for (int lane = 0; lane < LANES; ++lane) faces[lane] = first + lane < end ? first + lane : end - 1;
    const LaneCorners corners(mesh, faces);
    Float finite = 0.0f, x0 = INFINITY, y0 = INFINITY, x1 = -INFINITY, y1 = -INFINITY;
    Float least_w = INFINITY, most_w = -INFINITY, most_a = -INFINITY, least_beyond = INFINITY, most_beyond = -INFINITY;
    for (int i = 0; i < 3; ++i) {
      const Vec3<Float>& u = corners.u[i];
      const Float a = corners.a[i], inverse = Float(1.0f) / u.z, x = u.x * inverse, y = u.y * inverse;
      const Float beyond = most * u.z - a;
      finite += (u.x + u.y + u.z + a) * zero;
      x0 = min(x0, x), x1 = max(x1, x), y0 = min(y0, y), y1 = max(y1, y);
      least_w = min(least_w, u.z), most_w = max(most_w, u.z), most_a = max(most_a, a);
      least_beyond = min(least_beyond, beyond), most_beyond = max(most_beyond, beyond);
    }
    Mask seen = (finite == zero) & (most_w > zero) & (most_a > zero) & (most_beyond >= zero);
    if (mesh.cull) seen = seen & (signed_volume(corners.u) < zero);
    const Mask whole = (least_w > zero) & (least_beyond >= zero);
    // Sample i lies at i + 0.5. Clamped before rounding, for numbers that no integer holds.
    const Float margin = MARGIN_PX;
    x0 = select(whole, max(x0 - half - margin, zero), zero), y0 = select(whole, max(y0 - half - margin, zero), zero);
    x1 = select(whole, max(min(x1 - half + margin, last_x), Float(-1.0f)), last_x);
    y1 = select(whole, max(min(y1 - half + margin, last_y), Float(-1.0f)), last_y);
    const Float limit = static_cast<float>(MAX_SIDE);
    x0 = min(x0, limit), y0 = min(y0, limit);
    const Float low_x = trunc(x0), low_y = trunc(y0);
    x0 = select(low_x < x0, low_x + 1.0f, low_x), y0 = select(low_y < y0, low_y + 1.0f, low_y);
    x1 = trunc(x1 + 1.0f) - 1.0f, y1 = trunc(y1 + 1.0f) - 1.0f;
    const uint32_t bits = (seen & (x0 <= x1) & (y0 <= y1)).bits();
    const auto at = [](Float value, int lane) { return static_cast<int16_t>(value[lane]); };
    for (int lane = 0; lane < LANES && first + lane < end; ++lane) {
      bounds[first + lane] =
          (bits >> lane & 1) != 0 ? Bounds{at(x0, lane), at(y0, lane), at(x1, lane), at(y1, lane)} : NO_BOUNDS;
    }
  }
}

// The nearest face of each sample in the rows y0 to y1 - 1 of one view, in blocks of one sample a lane.
class Layer {
 public:
  static constexpr int BLOCK_WIDTH = 4, BLOCK_HEIGHT = LANES / BLOCK_WIDTH;

  Layer(int y0, int y1, int columns, bool exists = true)
      : y0(y0),
        y1(y1),
        columns(columns),
        blocks_across_((columns + BLOCK_WIDTH - 1) / BLOCK_WIDTH),
        size_(exists ? (y1 - y0 + BLOCK_HEIGHT - 1) / BLOCK_HEIGHT * blocks_across_ * LANES : 0),
        nearness(size_),
        nearest(size_) {
    for (int64_t i = 0; i < size_; ++i) nearness[i] = 0, nearest[i] = -1;
  }

  int64_t block(int column, int row) const {
    return ((row - y0) / BLOCK_HEIGHT * blocks_across_ + column / BLOCK_WIDTH) * LANES;
  }
  int64_t at(int column, int row) const {
    return block(column, row) + (row - y0) % BLOCK_HEIGHT * BLOCK_WIDTH + column % BLOCK_WIDTH;
  }

  const int y0, y1, columns;

 private:
  const int64_t blocks_across_, size_;

 public:
  const Buffer<float> nearness;   // 0 where there is no face
  const Buffer<int32_t> nearest;  // -1 where there is no face
};

// The centres of a block's samples from its corner.
inline constexpr struct Places {
  alignas(64) float x[LANES]{}, y[LANES]{};
  constexpr Places() {
    for (int i = 0; i < LANES; ++i) {
      x[i] = static_cast<float>(i % Layer::BLOCK_WIDTH) + 0.5f, y[i] = static_cast<float>(i / Layer::BLOCK_WIDTH) + 0.5f;
    }
  }
} PLACES;

// Faces without holes.
struct KeepAll {
  static constexpr bool tests(int64_t) { return false; }
  void turn_to(int64_t) {}
  bool operator()(float, float) const { return true; }
};

// One face of LANES that were set up together.
template <class Keep>
void draw_face(const ScreenTriangle<Float>& lanes, int lane, int64_t face, Bounds box, float most, Keep& keep,
               const Layer& layer) {
  const Float place_x = Float::load(PLACES.x), place_y = Float::load(PLACES.y);
  const auto plane = [lane](const Vec3<Float>& v) { return Vec3<Float>{v.x[lane], v.y[lane], v.z[lane]}; };
  const Vec3<Float> e0 = plane(lanes.edges[0]), e1 = plane(lanes.edges[1]), e2 = plane(lanes.edges[2]);
  const Vec3<Float> nearness = plane(lanes.nearness);
  const Float least0 = lanes.least[0][lane], least1 = lanes.least[1][lane], least2 = lanes.least[2][lane];
  const bool tested = keep.tests(face);
  if (tested) keep.turn_to(face);

  const int y0 = box.y0 > layer.y0 ? box.y0 : layer.y0, y1 = box.y1 < layer.y1 - 1 ? box.y1 : layer.y1 - 1;
  for (int row = y0 - (y0 - layer.y0) % Layer::BLOCK_HEIGHT; row <= y1; row += Layer::BLOCK_HEIGHT) {
    const Float y = place_y + static_cast<float>(row);
    for (int column = box.x0 / Layer::BLOCK_WIDTH * Layer::BLOCK_WIDTH; column <= box.x1; column += Layer::BLOCK_WIDTH) {
      const Float x = place_x + static_cast<float>(column);
      const int64_t at = layer.block(column, row);
      const Float before = Float::load(layer.nearness.data() + at), here = on_screen(nearness, x, y);
      Mask wins = (on_screen(e0, x, y) >= least0) & (on_screen(e1, x, y) >= least1) &
                  (on_screen(e2, x, y) >= least2) & (here > before) & (here <= Float(most));
      if (!any(wins)) continue;
      if (tested) {
        alignas(64) float kept[LANES];
        const uint32_t bits = wins.bits();
        for (int i = 0; i < LANES; ++i) kept[i] = (bits >> i & 1) != 0 && keep(x[i], y[i]) ? 1.0f : 0.0f;
        wins = Float::load(kept) > Float(0.0f);
      }
      select(wins, here, before).store(layer.nearness.data() + at);
      float* nearest = reinterpret_cast<float*>(layer.nearest.data() + at);
      const Float id = float_of(static_cast<int32_t>(face) - RawInt{});
      select(wins, id, Float::load(nearest)).store(nearest);
    }
  }
}

// Draws the faces whose bounds reach into the layers; layer_of(face) says which one a face is drawn to.
template <class LayerOf, class Keep>
void draw_faces(const ScreenMesh& mesh, int64_t count, const Bounds* bounds, int y0, int y1, LayerOf&& layer_of,
                Keep&& keep) {
  int64_t faces[LANES];
  int waiting = 0;
  const auto draw = [&] {
    for (int lane = waiting; lane < LANES; ++lane) faces[lane] = faces[0];
    const LaneCorners corners(mesh, faces);
    ScreenTriangle<Float> lanes;
    const uint32_t drawn = set_up(corners.u, corners.a, Float(ABOVE_ZERO), lanes).bits();
    for (int lane = 0; lane < waiting; ++lane) {
      if ((drawn >> lane & 1) == 0) continue;
      draw_face(lanes, lane, faces[lane], bounds[faces[lane]], mesh.most, keep, layer_of(faces[lane]));
    }
    waiting = 0;
  };
  for (int64_t face = 0; face < count; ++face) {
    if (bounds[face].y0 >= y1 || bounds[face].y1 < y0) continue;
    faces[waiting++] = face;
    if (waiting == LANES) draw();
  }
  if (waiting > 0) draw();
}

STUDIO_NAMESPACE_END
