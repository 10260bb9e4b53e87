// The nearest triangle of each sample on a CPU: vectors over triangles to set them up, over samples to draw them.
//
// The screen is drawn in bands of rows. Each band looks through the bounds of all faces, in their order, so that the
// picture does not depend on the number of threads; of equally near faces the first one stays.
#pragma once

#include <stdexcept>

#include "studio/buffer.h"
#include "studio/index.h"
#include "studio/math/triangle.h"
#include "studio/simd.h"

STUDIO_NAMESPACE_BEGIN

inline constexpr int64_t FACE_CHUNK = 4096;   // faces or vertices in one task

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

// The rows that LANES neighbouring faces may cover: faces that lie together in the list often lie together in space.
struct RowSpan {
  int16_t y0, y1;
};

// Bounds of all faces of some views.
class FaceBounds {
 public:
  struct View {
    int64_t faces;
    Bounds* bounds;  // [faces]
    RowSpan* spans;  // [faces / LANES], of the bounds before some were taken out
  };

  FaceBounds(int64_t views, int64_t faces)
      : faces_(faces), groups_((faces + LANES - 1) / LANES), bounds_(views * faces), spans_(views * groups_) {}

  View of(int64_t view) const { return {faces_, bounds_.data() + view * faces_, spans_.data() + view * groups_}; }

 private:
  const int64_t faces_, groups_;
  const Buffer<Bounds> bounds_;
  const Buffer<RowSpan> spans_;
};

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

// Bounds of the faces from begin, a multiple of LANES, to before end.
inline void find_bounds(const ScreenMesh& mesh, int64_t begin, int64_t end, const FaceBounds::View& out) {
  for (int64_t first = begin; first < end; first += LANES) {
    int64_t faces[LANES];
    for (int lane = 0; lane < LANES; ++lane) faces[lane] = first + lane < end ? first + lane : end - 1;
    const LaneCorners corners(mesh, faces);
    const SampleBox<Float> box = sample_box(corners.u, corners.a, mesh.most, mesh.cull, mesh.columns, mesh.rows);
    const uint32_t reached = box.reached.bits();
    RowSpan span{INT16_MAX, -1};
    for (int lane = 0; lane < LANES && first + lane < end; ++lane) {
      const auto at = [lane](Float value) { return static_cast<int16_t>(value[lane]); };
      if ((reached >> lane & 1) == 0) {
        out.bounds[first + lane] = NO_BOUNDS;
        continue;
      }
      const Bounds bounds{at(box.x0), at(box.y0), at(box.x1), at(box.y1)};
      out.bounds[first + lane] = bounds;
      span.y0 = bounds.y0 < span.y0 ? bounds.y0 : span.y0, span.y1 = bounds.y1 > span.y1 ? bounds.y1 : span.y1;
    }
    out.spans[first / LANES] = span;
  }
}

// What is drawn at once, one sample a lane.
inline constexpr int BLOCK_WIDTH = 4, BLOCK_HEIGHT = QUADS;

// The nearest face of each sample in the rows y0 to y1 - 1 of one view. Blocks may begin at any sample: behind the last
// column and row there is room for the rest of them.
class Layer {
 public:
  Layer(int y0, int y1, int columns, bool exists = true)
      : y0(y0),
        y1(y1),
        columns(columns),
        stride(columns + BLOCK_WIDTH - 1),
        size_(exists ? stride * (y1 - y0 + BLOCK_HEIGHT - 1) : 0),
        nearness(size_),
        nearest(size_) {
    for (int64_t i = 0; i < size_; ++i) nearness[i] = 0, nearest[i] = -1;
  }

  int64_t at(int column, int row) const { return (row - y0) * stride + column; }

  const int y0, y1, columns;
  const int64_t stride;

 private:
  const int64_t size_;

 public:
  const Buffer<float> nearness;   // 0 where there is no face
  const Buffer<int32_t> nearest;  // -1 where there is no face
};

// A block of a layer whose rows lie `stride` apart.
HD Float load_block(const float* from, int64_t stride) {
  Quad rows[QUADS];
  for (int i = 0; i < QUADS; ++i) rows[i] = load_quad(from + i * stride);
  return join(rows);
}

HD void store_block(Float block, float* to, int64_t stride) {
  Quad rows[QUADS];
  split(block, rows);
  for (int i = 0; i < QUADS; ++i) store_quad(rows[i], to + i * stride);
}

// The centres of a block's samples from its corner.
inline constexpr struct Places {
  alignas(64) float x[LANES]{}, y[LANES]{};
  constexpr Places() {
    for (int i = 0; i < LANES; ++i) {
      x[i] = static_cast<float>(i % BLOCK_WIDTH) + 0.5f, y[i] = static_cast<float>(i / BLOCK_WIDTH) + 0.5f;
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
  const Float id = float_of(static_cast<int32_t>(face) - RawInt{});
  for (int row = y0; row <= y1; row += BLOCK_HEIGHT) {
    const Float y = place_y + static_cast<float>(row);
    for (int column = box.x0; column <= box.x1; column += BLOCK_WIDTH) {
      const Float x = place_x + static_cast<float>(column);
      float* nearness_at = layer.nearness.data() + layer.at(column, row);
      const Float before = load_block(nearness_at, layer.stride), here = on_screen(nearness, x, y);
      Mask wins = (on_screen(e0, x, y) >= least0) & (on_screen(e1, x, y) >= least1) &
                  (on_screen(e2, x, y) >= least2) & (here > before) & (here <= Float(most));
      if (!any(wins)) continue;
      if (tested) {
        alignas(64) float kept[LANES];
        const uint32_t bits = wins.bits();
        for (int i = 0; i < LANES; ++i) kept[i] = (bits >> i & 1) != 0 && keep(x[i], y[i]) ? 1.0f : 0.0f;
        wins = Float::load(kept) > Float(0.0f);
      }
      store_block(select(wins, here, before), nearness_at, layer.stride);
      float* nearest_at = reinterpret_cast<float*>(layer.nearest.data() + layer.at(column, row));
      store_block(select(wins, id, load_block(nearest_at, layer.stride)), nearest_at, layer.stride);
    }
  }
}

// Draws the faces whose bounds reach into the layers; layer_of(face) says which one a face is drawn to.
template <class LayerOf, class Keep>
void draw_faces(const ScreenMesh& mesh, const FaceBounds::View& all, int y0, int y1, LayerOf&& layer_of, Keep&& keep) {
  int64_t faces[LANES];
  int waiting = 0;
  const auto draw = [&] {
    for (int lane = waiting; lane < LANES; ++lane) faces[lane] = faces[0];
    const LaneCorners corners(mesh, faces);
    ScreenTriangle<Float> lanes;
    const uint32_t drawn = set_up(corners.u, corners.a, Float(ABOVE_ZERO), lanes).bits();
    for (int lane = 0; lane < waiting; ++lane) {
      if ((drawn >> lane & 1) == 0) continue;
      draw_face(lanes, lane, faces[lane], all.bounds[faces[lane]], mesh.most, keep, layer_of(faces[lane]));
    }
    waiting = 0;
  };
  const auto reaches = [&](const auto& rows) { return rows.y0 < y1 && rows.y1 >= y0; };
  for (int64_t first = 0; first < all.faces; first += LANES) {
    if (!reaches(all.spans[first / LANES])) continue;
    for (int64_t face = first; face < min_of(first + LANES, all.faces); ++face) {
      if (!reaches(all.bounds[face])) continue;
      faces[waiting++] = face;
      if (waiting == LANES) draw();
    }
  }
  if (waiting > 0) draw();
}

STUDIO_NAMESPACE_END
