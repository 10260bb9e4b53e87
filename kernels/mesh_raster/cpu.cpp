// The mesh operators on a CPU. Where pixels add to the numbers of vertices or texels, each number has one owner among
// the tasks, who looks through the pixels in their order: sums do not depend on the number of threads.
#include <string.h>

#include <memory>
#include <stdexcept>

#include "mesh_raster/antialias.h"
#include "mesh_raster/interpolate.h"
#include "mesh_raster/mesh_raster.h"
#include "mesh_raster/texture.h"
#include "rasterize/cpu_zbuffer.h"
#include "studio/math/fragment.h"
#include "studio/parallel.h"

STUDIO_NAMESPACE_BEGIN
namespace {

constexpr int BAND_ROWS = 32;
constexpr int64_t PIXEL_CHUNK = 4096;

// Refuses an array with a number below `least` or not below `end`.
void check_range(const int32_t* values, int64_t count, int64_t least, int64_t end, const char* complaint) {
  const int32_t low = static_cast<int32_t>(least), high = static_cast<int32_t>(end - 1);
  bool wrong = end <= least && count > 0;
  for (int64_t i = 0; i < count; ++i) wrong |= (values[i] < low) | (values[i] > high);
  if (wrong) throw std::runtime_error(complaint);
}

void check_indices(const int32_t* indices, int64_t count, int64_t vertices) {
  check_range(indices, count, 0, vertices, "faces name vertices that are not there");
}

void check_pixels(const int32_t* face, int64_t count, int64_t faces) {
  check_range(face, count, -1, faces, "pixels show faces that are not there");
}

void check_mesh(const StudioMesh& mesh) {
  if (mesh.width < 1 || mesh.height < 1 || mesh.width > MAX_SIDE || mesh.height > MAX_SIDE) {
    throw std::runtime_error("width and height must be 1 to 32767");
  }
  if (mesh.faces > INT32_MAX / 2 || mesh.vertices > INT32_MAX) throw std::runtime_error("more than a billion faces");
  check_indices(mesh.indices, 3 * mesh.faces * (mesh.own_faces != 0 ? mesh.views : 1), mesh.vertices);
}

// body(view, first, end) over the pixels of all views, in chunks.
template <class Body>
void for_pixels(int threads, int64_t views, int64_t pixels, Body&& body) {
  const int64_t chunks = (pixels + PIXEL_CHUNK - 1) / PIXEL_CHUNK;
  parallel_for(threads, views * chunks, [&](int64_t task, int) {
    const int64_t first = task % chunks * PIXEL_CHUNK, end = first + PIXEL_CHUNK;
    body(task / chunks, first, end < pixels ? end : pixels);
  });
}

// body(view, first row, row after the last) over bands of rows.
template <class Body>
void for_bands(const StudioMesh& mesh, Body&& body) {
  const int64_t bands = (mesh.height + BAND_ROWS - 1) / BAND_ROWS;
  parallel_for(mesh.launch.threads, mesh.views * bands, [&](int64_t task, int) {
    const int y0 = static_cast<int>(task % bands) * BAND_ROWS;
    body(task / bands, y0, y0 + BAND_ROWS < mesh.height ? y0 + BAND_ROWS : mesh.height);
  });
}

// body(view, first, end) over the faces of all views, in chunks.
template <class Body>
void for_faces(const StudioMesh& mesh, Body&& body) {
  const int64_t chunks = (mesh.faces + FACE_CHUNK - 1) / FACE_CHUNK;
  parallel_for(mesh.launch.threads, mesh.views * chunks, [&](int64_t task, int) {
    const int64_t first = task % chunks * FACE_CHUNK, end = first + FACE_CHUNK;
    body(task / chunks, first, end < mesh.faces ? end : mesh.faces);
  });
}

template <int COUNT>
struct Channels {
  HD operator int64_t() const { return COUNT; }
};

// call(channels), with the usual numbers of channels known to the compiler.
template <class Call>
void with_channels(int64_t channels, Call&& call) {
  switch (channels) {
    case 1: return call(Channels<1>());
    case 2: return call(Channels<2>());
    case 3: return call(Channels<3>());
    case 4: return call(Channels<4>());
    default: return call(channels);
  }
}

// Shares of the rows of an array among tasks.
struct Owner {
  int64_t self, count;

  HD bool operator()(int64_t row) const { return count == 1 || (row >> 4) % count == self; }
};

alignas(64) constexpr float LANE_CENTRES[16] = {0.5f, 1.5f, 2.5f,  3.5f,  4.5f,  5.5f,  6.5f,  7.5f,
                                                8.5f, 9.5f, 10.5f, 11.5f, 12.5f, 13.5f, 14.5f, 15.5f};

// LANES neighbouring pixels of one view, and the corners of their faces.
struct PixelLanes {
  uint32_t covered = 0;
  int32_t vertices[3][LANES];
  ClipCorners<Float> corners;
  ScreenPlace<Float> place;

  // Uncovered lanes have corners of zeros. Nothing is covered where `wanted` has none of the vertices.
  PixelLanes(const StudioMesh& mesh, int64_t view, const int32_t* face, int64_t first, int64_t end, Owner wanted) {
    const int count = end - first < LANES ? static_cast<int>(end - first) : LANES;
    int32_t most = -1;
    for (int lane = 0; lane < count; ++lane) most = most < face[first + lane] ? face[first + lane] : most;
    if (most < 0) return;
    bool owned = wanted.count == 1;
    static constexpr float nothing[4] = {0, 0, 0, 0};
    const float* rows[3][LANES];
    const float* positions = mesh.positions + 4 * view * mesh.vertices;
    const int32_t* all_indices = indices_of(mesh, view, 0);
    for (int lane = 0; lane < LANES; ++lane) {
      const int32_t here = lane < count ? face[first + lane] : -1;
      if (here < 0) {
        for (int i = 0; i < 3; ++i) rows[i][lane] = nothing;
        continue;
      }
      covered |= 1u << lane;
      for (int i = 0; i < 3; ++i) {
        const int32_t vertex = all_indices[3 * int64_t(here) + i];
        vertices[i][lane] = vertex;
        rows[i][lane] = positions + 4 * int64_t(vertex);
        owned |= wanted(vertex);
      }
    }
    if (!owned) covered = 0;
    if (covered == 0) return;
    for (int i = 0; i < 3; ++i) {
      Float columns[4];
      load_rows(rows[i], columns);
      corners.x[i] = columns[0], corners.y[i] = columns[1], corners.z[i] = columns[2], corners.w[i] = columns[3];
    }
    const float half_width = 0.5f * static_cast<float>(mesh.width), half_height = 0.5f * static_cast<float>(mesh.height);
    const int64_t column = first % mesh.width, row = first / mesh.width;
    place.half_width = half_width, place.half_height = half_height;
    if (column + LANES <= mesh.width) {
      place.right = Float(half_width - static_cast<float>(column)) - Float::load(LANE_CENTRES);
      place.below = half_height - (static_cast<float>(row) + 0.5f);
      return;
    }
    alignas(64) float right[LANES], below[LANES];
    int64_t x = column, y = row;
    for (int lane = 0; lane < LANES; ++lane) {
      right[lane] = half_width - (static_cast<float>(x) + 0.5f);
      below[lane] = half_height - (static_cast<float>(y) + 0.5f);
      if (++x == mesh.width) x = 0, ++y;
    }
    place.right = Float::load(right), place.below = Float::load(below);
  }
};

void store_lanes(Float values, float* to, int64_t count) {
  if (count >= LANES) return values.store(to);
  for (int64_t lane = 0; lane < count; ++lane) to[lane] = values[static_cast<int>(lane)];
}

Float load_lanes(const float* from, int64_t count) {
  if (from == nullptr) return 0.0f;
  if (count >= LANES) return Float::load(from);
  alignas(64) float values[LANES] = {};
  for (int64_t lane = 0; lane < count; ++lane) values[lane] = from[lane];
  return Float::load(values);
}

// The fragments of the pixels from first to before end, whose faces are known.
template <bool SLOPES>
void shade(const StudioMeshRasterize& task, int64_t view, int64_t first, int64_t end) {
  const StudioMesh& mesh = task.mesh;
  const int64_t pixels = int64_t(mesh.width) * mesh.height;
  for (; first < end; first += LANES) {
    const PixelLanes lanes(mesh, view, task.face + view * pixels, first, end, {0, 1});
    Fragment<Float> f;
    if (lanes.covered != 0) {
      f = fragment(lanes.corners, lanes.place);
      alignas(64) float missing[LANES];
      for (int lane = 0; lane < LANES; ++lane) missing[lane] = (lanes.covered >> lane & 1) != 0 ? 0.0f : 1.0f;
      f.depth += Float::load(missing);
    } else {
      for (int i = 0; i < 3; ++i) f.weights[i] = f.slopes_x[i] = f.slopes_y[i] = 0.0f;
      f.depth = 1.0f;
    }
    const int64_t count = end - first;
    store_lanes(f.depth, task.depth + view * pixels + first, count);
    for (int i = 0; i < 3; ++i) {
      store_lanes(f.weights[i], task.weights + (3 * view + i) * pixels + first, count);
      if (!SLOPES) continue;
      store_lanes(f.slopes_x[i], task.slopes + (6 * view + i) * pixels + first, count);
      store_lanes(f.slopes_y[i], task.slopes + (6 * view + 3 + i) * pixels + first, count);
    }
  }
}

// Adds the gradients of one view's pixels to the vertices that the task owns.
template <bool SLOPES>
void positions_vjp(const StudioMeshRasterizeBackward& task, int64_t view, Owner owner) {
  const StudioMesh& mesh = task.mesh;
  const int64_t pixels = int64_t(mesh.width) * mesh.height;
  float* v_positions = task.v_positions + 4 * view * mesh.vertices;
  const auto plane = [&](const float* planes, int64_t count, int64_t index, int64_t first) {
    return load_lanes(planes == nullptr ? nullptr : planes + (count * view + index) * pixels + first, pixels - first);
  };
  for (int64_t first = 0; first < pixels; first += LANES) {
    const PixelLanes lanes(mesh, view, task.face + view * pixels, first, pixels, owner);
    if (lanes.covered == 0) continue;
    Fragment<Float> v;
    v.depth = plane(task.v_depth, 1, 0, first);
    for (int i = 0; i < 3; ++i) {
      v.weights[i] = plane(task.v_weights, 3, i, first);
      v.slopes_x[i] = SLOPES ? plane(task.v_slopes, 6, i, first) : Float(0.0f);
      v.slopes_y[i] = SLOPES ? plane(task.v_slopes, 6, 3 + i, first) : Float(0.0f);
    }
    const ClipCorners<Float> out = fragment_vjp<SLOPES>(lanes.corners, lanes.place, v);
    alignas(64) float values[3][LANES][4];
    for (int i = 0; i < 3; ++i) {
      const Float columns[4] = {out.x[i], out.y[i], out.z[i], out.w[i]};
      float* rows[LANES];
      for (int lane = 0; lane < LANES; ++lane) rows[lane] = values[i][lane];
      store_rows(columns, rows, LANES);
    }
    const int32_t* face = task.face + view * pixels + first;
    for (uint32_t bits = lanes.covered; bits != 0;) {
      const int lane = __builtin_ctz(bits);
      Quad sums[3];
      for (int i = 0; i < 3; ++i) sums[i] = load_quad(values[i][lane]);
      int next = lane + 1;
      for (; next < LANES && (bits >> next & 1) != 0 && face[next] == face[lane]; ++next) {
        for (int i = 0; i < 3; ++i) sums[i] += load_quad(values[i][next]);
      }
      for (int i = 0; i < 3; ++i) {
        const int32_t vertex = lanes.vertices[i][lane];
        if (!owner(vertex)) continue;
        float* to = v_positions + 4 * int64_t(vertex);
        store_quad(load_quad(to) + sums[i], to);
      }
      bits = next < 32 ? bits >> next << next : 0;
    }
  }
}

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

constexpr uint8_t HORIZONTAL = 1, VERTICAL = 2;

// An edge of a face on the screen, where pixel i lies at i; `whole` where it passes behind the camera.
struct ScreenEdge {
  float px, py, qx, qy;
  bool whole;
};

// The silhouettes of one view: one each, though two faces share it.
void list_silhouettes(const StudioAntialias& in, int64_t view, List<ScreenEdge>& edges) {
  const StudioMesh& mesh = in.mesh;
  const Buffer<int8_t> facing(mesh.faces);
  for (int64_t first = 0; first < mesh.faces; first += LANES) {
    Vec3<Float> u[3];
    for (int i = 0; i < 3; ++i) {
      const float* rows[LANES];
      for (int lane = 0; lane < LANES; ++lane) {
        const int64_t face = first + lane < mesh.faces ? first + lane : first;
        rows[lane] = mesh.positions + 4 * (view * mesh.vertices + indices_of(mesh, view, face)[i]);
      }
      Float columns[4];
      load_rows(rows, columns);
      u[i] = {columns[0], columns[1], columns[3]};
    }
    const Float volume = dot(cross(u[1] - u[0], u[2] - u[0]), u[0]);
    const uint32_t front = (volume > Float(0.0f)).bits(), back = (volume < Float(0.0f)).bits();
    for (int lane = 0; lane < LANES && first + lane < mesh.faces; ++lane) {
      facing[first + lane] = static_cast<int8_t>(static_cast<int>(front >> lane & 1) - static_cast<int>(back >> lane & 1));
    }
  }
  const float half_width = 0.5f * static_cast<float>(mesh.width), half_height = 0.5f * static_cast<float>(mesh.height);
  for (int64_t face = 0; face < mesh.faces; ++face) {
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
      for (int pixel = static_cast<int>(from); static_cast<float>(pixel) <= to; ++pixel) {
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
  Blend blend;
  const auto look = [&](int column, int row, uint8_t mark) {
    if ((mark & HORIZONTAL) != 0 && row >= y0 && column + 1 < width && blend_of(in, view, column, row, false, blend)) {
      visit(blend, column, row, HORIZONTAL);
    }
    if ((mark & VERTICAL) != 0 && row + 1 < height && blend_of(in, view, column, row, true, blend)) {
      visit(blend, column, row, VERTICAL);
    }
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

}  // namespace

void mesh_rasterize(const StudioMeshRasterize& task) {
  const StudioMesh& mesh = task.mesh;
  check_mesh(mesh);
  const int64_t pixels = int64_t(mesh.width) * mesh.height;
  const Buffer<ScreenVertex> projected(mesh.views * mesh.vertices);
  const Buffer<Bounds> bounds(mesh.views * mesh.faces);
  const float half_width = 0.5f * static_cast<float>(mesh.width), half_height = 0.5f * static_cast<float>(mesh.height);
  for_pixels(mesh.launch.threads, mesh.views, mesh.vertices, [&](int64_t view, int64_t first, int64_t end) {
    for (int64_t i = view * mesh.vertices + first; i < view * mesh.vertices + end; ++i) {
      const float x = mesh.positions[4 * i], y = mesh.positions[4 * i + 1], z = mesh.positions[4 * i + 2];
      const float w = mesh.positions[4 * i + 3];
      projected[i] = {half_width * (x + w), half_height * (w - y), w, w - z};
    }
  });
  const auto seen_from = [&](int64_t view) {
    return ScreenMesh{projected.data() + view * mesh.vertices, indices_of(mesh, view, 0), 2, mesh.width, mesh.height,
                      mesh.cull != 0};
  };
  for_faces(mesh, [&](int64_t view, int64_t first, int64_t end) {
    find_bounds(seen_from(view), first, end, bounds.data() + view * mesh.faces);
  });
  for_bands(mesh, [&](int64_t view, int y0, int y1) {
    const Layer layer(y0, y1, mesh.width);
    draw_faces(seen_from(view), mesh.faces, bounds.data() + view * mesh.faces, y0, y1,
               [&](int64_t) -> const Layer& { return layer; }, KeepAll());
    int32_t* face = task.face + view * pixels;
    for (int row = y0; row < y1; ++row) {
      int column = 0;
      for (; column + Layer::BLOCK_WIDTH <= mesh.width; column += Layer::BLOCK_WIDTH) {
        memcpy(face + int64_t(row) * mesh.width + column, &layer.nearest[layer.at(column, row)], sizeof(Quad));
      }
      for (; column < mesh.width; ++column) {
        face[int64_t(row) * mesh.width + column] = layer.nearest[layer.at(column, row)];
      }
    }
    const auto shade_band = task.slopes == nullptr ? shade<false> : shade<true>;
    shade_band(task, view, int64_t(y0) * mesh.width, int64_t(y1) * mesh.width);
  });
}

void mesh_rasterize_backward(const StudioMeshRasterizeBackward& task) {
  const StudioMesh& mesh = task.mesh;
  if (mesh.views == 0) return;
  const int64_t shares = (mesh.launch.threads + mesh.views - 1) / mesh.views;
  memset(task.v_positions, 0, 4 * mesh.views * mesh.vertices * sizeof(float));
  const auto add_view = task.v_slopes == nullptr ? positions_vjp<false> : positions_vjp<true>;
  parallel_for(mesh.launch.threads, mesh.views * shares, [&](int64_t i, int) {
    add_view(task, i / shares, {i % shares, shares});
  });
}

void mesh_interpolate(const StudioMeshInterpolateForward& task) {
  const StudioMeshInterpolate& in = task.in;
  check_indices(in.indices, 3 * in.faces * (in.own_faces != 0 ? in.views : 1), in.vertices);
  check_pixels(in.face, in.views * in.pixels, in.faces);
  with_channels(in.channels, [&](auto channels) {
    for_pixels(in.launch.threads, in.views, in.pixels, [&](int64_t view, int64_t first, int64_t end) {
      for (int64_t pixel = first; pixel < end; ++pixel) interpolate_at(task, channels, view, pixel);
    });
  });
}

void mesh_interpolate_backward(const StudioMeshInterpolateBackward& task) {
  const StudioMeshInterpolate& in = task.in;
  with_channels(in.channels, [&](auto channels) {
    if (task.v_weights != nullptr) {
      for_pixels(in.launch.threads, in.views, in.pixels, [&](int64_t view, int64_t first, int64_t end) {
        for (int64_t pixel = first; pixel < end; ++pixel) weights_vjp_at(task, channels, view, pixel);
      });
    }
    if (task.v_attributes == nullptr) return;
    const int64_t rows = in.vertices * (in.own_attributes != 0 ? in.views : 1);
    memset(task.v_attributes, 0, rows * in.channels * sizeof(float));
    const int64_t shares = in.launch.threads;
    parallel_for(in.launch.threads, shares, [&](int64_t share, int) {
      const Owner owner{share, shares};
      for (int64_t view = 0; view < in.views; ++view) {
        for (int64_t pixel = 0; pixel < in.pixels; ++pixel) {
          attributes_vjp_at(task, channels, view, pixel, [&](int64_t row) { return owner(row); },
                            [](float* to, float value) { *to += value; });
        }
      }
    });
  });
}

void texture(const StudioTextureForward& task) {
  const StudioTexture& in = task.in;
  with_channels(in.channels, [&](auto channels) {
    for_pixels(in.launch.threads, in.views, in.pixels, [&](int64_t view, int64_t first, int64_t end) {
      for (int64_t pixel = first; pixel < end; ++pixel) texture_at(task, channels, view, pixel);
    });
  });
}

void texture_backward(const StudioTextureBackward& task) {
  const StudioTexture& in = task.in;
  with_channels(in.channels, [&](auto channels) {
    if (task.v_uv != nullptr || task.v_level != nullptr) {
      for_pixels(in.launch.threads, in.views, in.pixels, [&](int64_t view, int64_t first, int64_t end) {
        for (int64_t pixel = first; pixel < end; ++pixel) place_vjp_at(task, channels, view, pixel);
      });
    }
    if (task.v_texels[0] == nullptr) return;
    for (int level = 0; level < in.levels; ++level) {
      const int64_t count = in.textures * in.heights[level] * in.widths[level] * in.channels;
      memset(task.v_texels[level], 0, count * sizeof(float));
    }
    const int64_t shares = in.launch.threads;
    parallel_for(in.launch.threads, shares, [&](int64_t share, int) {
      const Owner owner{share, shares};
      for (int64_t view = 0; view < in.views; ++view) {
        for (int64_t pixel = 0; pixel < in.pixels; ++pixel) {
          texels_vjp_at(task, channels, view, pixel, [&](int64_t texel) { return owner(texel); },
                        [](float* to, float value) { *to += value; });
        }
      }
    });
  });
}

void antialias(const StudioAntialiasForward& task) {
  const StudioAntialias& in = task.in;
  check_mesh(in.mesh);
  check_pixels(in.face, in.mesh.views * in.mesh.width * in.mesh.height, in.mesh.faces);
  check_range(in.neighbours, 3 * in.mesh.faces * (in.mesh.own_faces != 0 ? in.mesh.views : 1), -1, 2 * in.mesh.faces,
              "neighbours are those of other faces");
  const std::unique_ptr<List<ScreenEdge>[]> silhouettes(new List<ScreenEdge>[in.mesh.views]);
  parallel_for(in.mesh.launch.threads, in.mesh.views,
               [&](int64_t view, int) { list_silhouettes(in, view, silhouettes[view]); });
  const int64_t width = in.mesh.width, pixels = width * in.mesh.height;
  for_bands(in.mesh, [&](int64_t view, int y0, int y1) {
    const int above = y0 > 0 ? y0 - 1 : 0;
    Marks candidates(in.mesh.width, above, y1);
    for (const ScreenEdge& edge : silhouettes[view]) candidates.add(edge);
    const float* image = in.image + view * in.channels * pixels;
    float* out = task.out + view * in.channels * pixels;
    uint8_t* marks = task.marks + view * pixels;
    memset(marks + y0 * width, 0, (y1 - y0) * width);
    for (int64_t c = 0; c < in.channels; ++c) {
      memcpy(out + c * pixels + y0 * width, image + c * pixels + y0 * width, (y1 - y0) * width * sizeof(float));
    }
    const auto row_of = [&](int row) { return &candidates.at(0, row); };
    visit_blends(in, view, y0, y1, row_of, [&](const Blend& blend, int column, int row, uint8_t kind) {
      if (row >= y0) marks[row * width + column] = static_cast<uint8_t>(marks[row * width + column] | kind);
      if (blend.receiver < y0 * width || blend.receiver >= y1 * width) return;
      for (int64_t at = 0; at < in.channels * pixels; at += pixels) {
        out[at + blend.receiver] += blend.weight * (image[at + blend.giver] - image[at + blend.receiver]);
      }
    });
  });
}

void antialias_backward(const StudioAntialiasBackward& task) {
  const StudioAntialias& in = task.in;
  const int64_t width = in.mesh.width, pixels = width * in.mesh.height;
  const int64_t bands = (in.mesh.height + BAND_ROWS - 1) / BAND_ROWS;
  const std::unique_ptr<List<EdgeGradient>[]> edges(new List<EdgeGradient>[in.mesh.views * bands]);
  for_bands(in.mesh, [&](int64_t view, int y0, int y1) {
    List<EdgeGradient>& gradients = edges[view * bands + y0 / BAND_ROWS];
    const float *image = in.image + view * in.channels * pixels, *v_out = task.v_out + view * in.channels * pixels;
    float* v_image = task.v_image + view * in.channels * pixels;
    for (int64_t c = 0; c < in.channels; ++c) {
      memcpy(v_image + c * pixels + y0 * width, v_out + c * pixels + y0 * width, (y1 - y0) * width * sizeof(float));
    }
    const auto owns = [&](int64_t pixel) { return pixel >= y0 * width && pixel < y1 * width; };
    const auto row_of = [&](int row) { return task.marks + view * pixels + row * width; };
    visit_blends(in, view, y0, y1, row_of, [&](const Blend& blend, int, int row, uint8_t) {
      const bool gives = owns(blend.giver), takes = owns(blend.receiver);
      float v_weight = 0;
      for (int64_t at = 0; at < in.channels * pixels; at += pixels) {
        const float g = v_out[at + blend.receiver];
        if (gives) v_image[at + blend.giver] += blend.weight * g;
        if (takes) v_image[at + blend.receiver] -= blend.weight * g;
        v_weight += g * (image[at + blend.giver] - image[at + blend.receiver]);
      }
      if (row < y0 || v_weight == 0) return;
      EdgeGradient edge{{blend.crossing.p, blend.crossing.q}, {}};
      blend_vjp(in.mesh, blend, v_weight, edge.v[0], edge.v[1]);
      gradients.add(edge);
    });
  });
  parallel_for(in.mesh.launch.threads, in.mesh.views, [&](int64_t view, int) {
    float* v_positions = task.v_positions + 4 * view * in.mesh.vertices;
    memset(v_positions, 0, 4 * in.mesh.vertices * sizeof(float));
    for (int64_t band = 0; band < bands; ++band) {
      for (const EdgeGradient& edge : edges[view * bands + band]) {
        for (int end = 0; end < 2; ++end) {
          float* to = v_positions + 4 * int64_t(edge.vertices[end]);
          to[0] += edge.v[end].x, to[1] += edge.v[end].y, to[3] += edge.v[end].z;
        }
      }
    }
  });
}

STUDIO_NAMESPACE_END

STUDIO_ENTRY(studio_mesh_rasterize, mesh_rasterize, StudioMeshRasterize)
STUDIO_ENTRY(studio_mesh_rasterize_backward, mesh_rasterize_backward, StudioMeshRasterizeBackward)
STUDIO_ENTRY(studio_mesh_interpolate, mesh_interpolate, StudioMeshInterpolateForward)
STUDIO_ENTRY(studio_mesh_interpolate_backward, mesh_interpolate_backward, StudioMeshInterpolateBackward)
STUDIO_ENTRY(studio_texture, texture, StudioTextureForward)
STUDIO_ENTRY(studio_texture_backward, texture_backward, StudioTextureBackward)
STUDIO_ENTRY(studio_antialias, antialias, StudioAntialiasForward)
STUDIO_ENTRY(studio_antialias_backward, antialias_backward, StudioAntialiasBackward)
