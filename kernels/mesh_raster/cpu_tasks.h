// How the mesh operators' work is cut into tasks of a CPU, and what is refused before.
#pragma once

#include <string.h>

#include <stdexcept>

#include "mesh_raster/mesh_raster.h"
#include "rasterize/cpu_zbuffer.h"
#include "studio/buffer.h"
#include "studio/index.h"
#include "studio/parallel.h"
#include "studio/simd.h"

STUDIO_NAMESPACE_BEGIN

inline constexpr int BAND_ROWS = 32;
inline constexpr int64_t PIXEL_CHUNK = 4096;

// Refuses an array with a number below `least` or not below `end`.
inline void check_range(const int32_t* values, int64_t count, int64_t least, int64_t end, const char* complaint) {
  const int32_t low = static_cast<int32_t>(least), high = static_cast<int32_t>(end - 1);
  bool wrong = end <= least && count > 0;
  for (int64_t i = 0; i < count; ++i) wrong |= (values[i] < low) | (values[i] > high);
  if (wrong) throw std::runtime_error(complaint);
}

inline void check_indices(const int32_t* indices, int64_t count, int64_t vertices) {
  check_range(indices, count, 0, vertices, "faces name vertices that are not there");
}

inline void check_mesh(const StudioMesh& mesh) {
  if (mesh.width < 1 || mesh.height < 1 || mesh.width > MAX_SIDE || mesh.height > MAX_SIDE) {
    throw std::runtime_error("width and height must be 1 to 32767");
  }
  if (mesh.faces > INT32_MAX / 2 || mesh.vertices > INT32_MAX) throw std::runtime_error("more than a billion faces");
  check_indices(mesh.indices, 3 * mesh.faces * (mesh.own_faces != 0 ? mesh.views : 1), mesh.vertices);
}

[[noreturn]] inline void refuse_face() { throw std::runtime_error("pixels show faces that are not there"); }

// body(view, first, end) over `count` things of each view, in chunks.
template <class Body>
void for_chunks(int threads, int64_t views, int64_t count, int64_t chunk, Body&& body) {
  const int64_t chunks = (count + chunk - 1) / chunk;
  parallel_for(threads, views * chunks, [&](int64_t task, int) {
    const int64_t first = task % chunks * chunk;
    body(task / chunks, first, min_of(first + chunk, count));
  });
}

template <class Body>
void for_pixels(int threads, int64_t views, int64_t pixels, Body&& body) {
  for_chunks(threads, views, pixels, PIXEL_CHUNK, body);
}

template <class Body>
void for_faces(const StudioMesh& mesh, Body&& body) {
  for_chunks(mesh.launch.threads, mesh.views, mesh.faces, FACE_CHUNK, body);
}

// body(view, first row, row after the last) over bands of rows.
template <class Body>
void for_bands(const StudioMesh& mesh, Body&& body) {
  for_chunks(mesh.launch.threads, mesh.views, mesh.height, BAND_ROWS, [&](int64_t view, int64_t y0, int64_t y1) {
    body(view, static_cast<int>(y0), static_cast<int>(y1));
  });
}

// What pixels add to the rows of some arrays: each part of the pixels has rows of its own, and these are added up in
// the order of the parts, so that sums do not depend on the number of threads. Rows are padded to whole quads.
class RowSums {
 public:
  RowSums(int64_t arrays, int64_t parts, int64_t rows, int64_t channels, float* out)
      : arrays_(arrays),
        parts_(parts),
        rows_(rows),
        channels_(channels),
        out_(out),
        in_place_(parts == 1 && channels % 4 == 0),
        stride_((channels + 3) / 4 * 4),
        sums_(in_place_ ? 0 : arrays * parts * rows * stride_) {}

  // How many parts are worth their while: each costs a pass over the rows, but a few tasks there should be for several
  // threads.
  static int64_t parts(int64_t arrays, int64_t pixels, int64_t rows) {
    constexpr int64_t TASKS = 4, MOST = 16;
    const int64_t few = pixels > 2 * rows && arrays > 0 ? TASKS / arrays : 1;
    return max_of(1, min_of(max_of(few, pixels / (8 * rows + 1)), MOST));
  }

  int64_t stride() const { return stride_; }

  // The rows of one part, set to 0.
  float* begin(int64_t array, int64_t part) const {
    float* rows = (in_place_ ? out_ : sums_.data()) + (array * parts_ + part) * rows_ * stride_;
    memset(rows, 0, rows_ * stride_ * sizeof(float));
    return rows;
  }

  void finish(int threads) const {
    if (in_place_) return;
    for_chunks(threads, arrays_, rows_, PIXEL_CHUNK, [&](int64_t array, int64_t first, int64_t end) {
      for (int64_t row = first; row < end; ++row) {
        for (int64_t c = 0; c < channels_; c += 4) {
          const float* from = sums_.data() + (array * parts_ * rows_ + row) * stride_ + c;
          Quad sum = load_quad(from);
          for (int64_t part = 1; part < parts_; ++part) sum += load_quad(from + part * rows_ * stride_);
          float* to = out_ + (array * rows_ + row) * channels_ + c;
          for (int64_t i = 0; i < 4 && c + i < channels_; ++i) to[i] = sum[i];
        }
      }
    });
  }

 private:
  const int64_t arrays_, parts_, rows_, channels_;
  float* const out_;
  const bool in_place_;
  const int64_t stride_;
  const Buffer<float> sums_;
};

STUDIO_NAMESPACE_END
