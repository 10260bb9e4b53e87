// Silhouettes on a CPU: first where there may be one, then a close look at these pairs of pixels alone.
#pragma once

#include "mesh_raster/antialias.h"
#include "mesh_raster/cpu_tasks.h"

STUDIO_NAMESPACE_BEGIN

// A growing array of plain values.
template <class T>
class List {
 public:
  List() = default;
  ~List() { free(items_); }
  List(const List&) = delete;
  List& operator=(const List&) = delete;

  void add(const T& item) {
    if (count_ == capacity_) {
      capacity_ = 2 * capacity_ + 64;
      void* larger = realloc(static_cast<void*>(items_), capacity_ * sizeof(T));
      if (larger == nullptr) throw std::bad_alloc();
      items_ = static_cast<T*>(larger);
    }
    items_[count_++] = item;
  }
  const T* begin() const { return items_; }
  const T* end() const { return items_ + count_; }

 private:
  T* items_ = nullptr;
  int64_t count_ = 0, capacity_ = 0;
};

// An edge of a face on the screen, where pixel i lies at i; `whole` where it passes behind the camera.
struct ScreenEdge {
  float px, py, qx, qy;
  bool whole;
};

// facing_of for each of the faces from first to before end.
inline void find_facing(const StudioMesh& mesh, int64_t view, int64_t first, int64_t end, int8_t* facing) {
  const int32_t* indices = indices_of(mesh, view, 0);
  const float* positions = mesh.positions + 4 * view * mesh.vertices;
  for (; first < end; first += LANES) {
    const int count = static_cast<int>(min_of(LANES, end - first));
    Vec3<Float> u[3];
    for (int i = 0; i < 3; ++i) {
      const float* rows[LANES];
      for (int lane = 0; lane < LANES; ++lane) {
        rows[lane] = positions + 4 * int64_t(indices[3 * (first + (lane < count ? lane : 0)) + i]);
      }
      Float columns[4];
      load_rows(rows, columns);
      u[i] = {columns[0], columns[1], columns[3]};
    }
    const Float volume = dot(cross(u[1] - u[0], u[2] - u[0]), u[0]);
    const uint32_t front = (volume > Float(0.0f)).bits(), back = (volume < Float(0.0f)).bits();
    for (int lane = 0; lane < count; ++lane) {
      facing[first + lane] = static_cast<int8_t>(static_cast<int>(front >> lane & 1) - static_cast<int>(back >> lane & 1));
    }
  }
}

// The silhouettes at the faces from first to before end: one each, though two faces share it.
inline void list_silhouettes(const StudioAntialias& in, int64_t view, int64_t first, int64_t end, const int8_t* facing,
                             List<ScreenEdge>& edges) {
  const StudioMesh& mesh = in.mesh;
  const float half_width = 0.5f * static_cast<float>(mesh.width), half_height = 0.5f * static_cast<float>(mesh.height);
  for (int64_t face = first; face < end; ++face) {
    if (facing[face] == 0) continue;
    const int32_t* corners = indices_of(mesh, view, face);
    const int32_t* neighbours = in.neighbours + (corners - mesh.indices);
    for (int i = 0; i < 3; ++i) {
      const int32_t next = neighbours[i] >> 1;
      const int8_t beyond = neighbours[i] < 0 ? int8_t{0} : facing[next];
      if (!is_silhouette(facing[face], neighbours[i], beyond) || (beyond != 0 && next < face)) continue;
      const float* p = mesh.positions + 4 * (view * mesh.vertices + corners[(i + 1) % 3]);
      const float* q = mesh.positions + 4 * (view * mesh.vertices + corners[(i + 2) % 3]);
      edges.add({half_width * (1 + p[0] / p[3]) - 0.5f, half_height * (1 - p[1] / p[3]) - 0.5f,
                 half_width * (1 + q[0] / q[3]) - 0.5f, half_height * (1 - q[1] / q[3]) - 0.5f,
                 !(p[3] > 0 && q[3] > 0)});
    }
  }
}

// Which pixels of the rows y0 to y1 - 1 have a silhouette edge between them and the next pixel, rightwards or
// downwards. Rather too many: only these are looked at closely.
class Marks {
 public:
  Marks(int width, int y0, int y1) : width_(width), y0_(y0), y1_(y1), marks_(int64_t(width) * (y1 - y0)) {
    memset(marks_.data(), 0, int64_t(width_) * (y1_ - y0_));
  }

  uint8_t& at(int column, int row) const { return marks_[int64_t(row - y0_) * width_ + column]; }

  void add(const ScreenEdge& edge) {
    if (edge.whole) {
      memset(marks_.data(), HORIZONTAL | VERTICAL, int64_t(width_) * (y1_ - y0_));
      return;
    }
    // Lines of pixels that the edge crosses, along which pairs are marked: rows for steep edges, else columns. Both
    // where it is hard to tell.
    const float width = abs(edge.qx - edge.px), height = abs(edge.qy - edge.py);
    const float top = static_cast<float>(y0_), bottom = static_cast<float>(y1_ - 1);
    const float right = static_cast<float>(width_ - 1);
    if (height >= 0.99f * width) cross(edge.py, edge.px, edge.qy, edge.qx, top, bottom, 0, right, HORIZONTAL);
    if (width >= 0.99f * height) cross(edge.px, edge.py, edge.qx, edge.qy, 0, right, top, bottom, VERTICAL);
  }

 private:
  // The lines from first to last between the edge's ends, and on each the pixels from low to high beside the edge.
  void cross(float p_line, float p_at, float q_line, float q_at, float first, float last, float low, float high,
             uint8_t kind) {
    constexpr float MARGIN = 0.01f;
    const float begin = max(min(p_line, q_line) - MARGIN, first), end = min(max(p_line, q_line) + MARGIN, last);
    if (!(begin <= end)) return;
    const float slope = p_line == q_line ? 0 : (q_at - p_at) / (q_line - p_line);
    const float least = min(p_at, q_at), most = max(p_at, q_at);
    for (int line = static_cast<int>(ceilf(begin)); line <= static_cast<int>(end); ++line) {
      const float middle = min(max(p_at + slope * (static_cast<float>(line) - p_line), least), most);
      const float from = max(floorf(middle - MARGIN), low), to = min(floorf(middle + MARGIN), high);
      for (float next = from; next <= to; ++next) {
        const int pixel = static_cast<int>(next);
        uint8_t& mark = kind == HORIZONTAL ? at(pixel, line) : at(line, pixel);
        mark = static_cast<uint8_t>(mark | kind);
      }
    }
  }

  const int width_, y0_, y1_;
  const Buffer<uint8_t> marks_;
};

// visit(blend, column, row, VERTICAL or HORIZONTAL) for the marked pairs that touch the rows y0 to y1 - 1, in order.
// mark_of(row) is a row of marks.
template <class MarkOf, class Visit>
void visit_blends(const StudioAntialias& in, int64_t view, int y0, int y1, MarkOf&& mark_of, Visit&& visit) {
  const int width = in.mesh.width, height = in.mesh.height;
  const int32_t* face = in.face + view * int64_t(width) * height;
  Blend blend;
  const auto look = [&](int column, int row, uint8_t mark) {
    const int64_t pixel = int64_t(row) * width + column;
    const bool across = (mark & HORIZONTAL) != 0 && row >= y0 && column + 1 < width;
    const bool down = (mark & VERTICAL) != 0 && row + 1 < height;
    if (face[pixel] >= in.mesh.faces || (across && face[pixel + 1] >= in.mesh.faces) ||
        (down && face[pixel + width] >= in.mesh.faces)) {
      refuse_face();
    }
    if (across && blend_of(in, view, column, row, false, blend)) visit(blend, column, row, HORIZONTAL);
    if (down && blend_of(in, view, column, row, true, blend)) visit(blend, column, row, VERTICAL);
  };
  for (int row = y0 > 0 ? y0 - 1 : 0; row < y1; ++row) {
    const uint8_t* marks = mark_of(row);
    constexpr int AT_ONCE = 8;
    for (int column = 0; column < width; column += AT_ONCE) {
      const int count = column + AT_ONCE < width ? AT_ONCE : width - column;
      uint64_t some = 0;
      if (count == AT_ONCE) memcpy(&some, marks + column, AT_ONCE);
      if (count == AT_ONCE && some == 0) continue;
      for (int i = 0; i < count; ++i) {
        if (marks[column + i] != 0) look(column + i, row, marks[column + i]);
      }
    }
  }
}

// The gradient of one blend on an edge.
struct EdgeGradient {
  int32_t vertices[2];
  Vec3<float> v[2];
};

STUDIO_NAMESPACE_END
