// Attributes of vertices at the pixels, on a CPU.
#pragma once

#include "mesh_raster/cpu_lanes.h"

STUDIO_NAMESPACE_BEGIN

// Rows of one view's attributes, of which four channels are read at once: those of the last rows from a copy with room
// behind.
class AttributeRows {
 public:
  AttributeRows(const StudioMeshInterpolate& in, int64_t view)
      : channels_(in.channels),
        total_(in.vertices * channels_),
        tail_(total_ > 3 ? total_ - 3 : 0),
        values_(in.attributes + (in.own_attributes != 0 ? view * total_ : 0)) {
    for (int64_t i = tail_; i < total_; ++i) copy_[i - tail_] = values_[i];
  }

  // Four numbers of each lane's row for one corner of its face.
  HD void gather(const PixelLanes& lanes, const int32_t* indices, int corner, int64_t channel, Float (&columns)[4]) const {
    gather_rows(
        [&](int lane) {
          const int64_t first = lanes.vertices(indices, lane)[corner] * channels_ + channel;
          return first < tail_ ? values_ + first : copy_ + (first - tail_);
        },
        columns);
  }

 private:
  const int64_t channels_, total_, tail_;  // tail_: from here on fewer than four numbers are left
  const float* const values_;
  float copy_[8] = {};
};

HD const int32_t* indices_of(const StudioMeshInterpolate& in, int64_t view) {
  return in.indices + (in.own_faces != 0 ? 3 * view * in.faces : 0);
}

inline void interpolate_pixels(const StudioMeshInterpolateForward& task, int64_t view, int64_t first, int64_t end) {
  const StudioMeshInterpolate& in = task.in;
  const int32_t* indices = indices_of(in, view);
  const AttributeRows attributes(in, view);
  for (; first < end; first += LANES) {
    const PixelLanes lanes(in.face + view * in.pixels, first, end, in.faces);
    float* out = task.out + view * in.channels * in.pixels + first;
    if (!lanes.any()) {
      for (int64_t c = 0; c < in.channels; ++c) store_lanes(0.0f, out + c * in.pixels, end - first);
      continue;
    }
    Float weights[3];
    for (int i = 0; i < 3; ++i) weights[i] = load_lanes(in.weights + (3 * view + i) * in.pixels + first, end - first);
    for (int64_t c = 0; c < in.channels; c += 4) {
      Float columns[3][4];
      for (int i = 0; i < 3; ++i) attributes.gather(lanes, indices, i, c, columns[i]);
      for (int64_t k = 0; k < 4 && c + k < in.channels; ++k) {
        const Float sum = weights[0] * columns[0][k] + weights[1] * columns[1][k] + weights[2] * columns[2][k];
        store_lanes(lanes.or_else(sum, 0), out + (c + k) * in.pixels, end - first);
      }
    }
  }
}

// Gradients on the weights of some pixels, or what the pixels add to those on attributes [vertices stride], or both.
inline void interpolate_vjp(const StudioMeshInterpolateBackward& task, int64_t view, int64_t first, int64_t end,
                            float* v_weights, float* v_attributes, int64_t stride) {
  const StudioMeshInterpolate& in = task.in;
  const int32_t* indices = indices_of(in, view);
  const AttributeRows attributes(in, view);
  for (; first < end; first += LANES) {
    const PixelLanes lanes(in.face + view * in.pixels, first, end, in.faces);
    const int64_t count = end - first;
    Float v[3] = {0.0f, 0.0f, 0.0f};
    if (lanes.any()) {
      alignas(64) float weights[3][LANES];
      for (int i = 0; v_attributes != nullptr && i < 3; ++i) {
        load_lanes(in.weights + (3 * view + i) * in.pixels + first, count).store(weights[i]);
      }
      for (int64_t c = 0; c < in.channels; c += 4) {
        Float incoming[4];
        for (int64_t k = 0; k < 4; ++k) {
          const float* plane = task.v_out + (view * in.channels + c + k) * in.pixels + first;
          incoming[k] = load_lanes(c + k < in.channels ? plane : nullptr, count);
        }
        if (v_weights != nullptr) {
          Float columns[3][4];
          for (int i = 0; i < 3; ++i) attributes.gather(lanes, indices, i, c, columns[i]);
          for (int k = 0; k < 4; ++k) {
            if (c + k >= in.channels) break;
            for (int i = 0; i < 3; ++i) v[i] += incoming[k] * columns[i][k];
          }
        }
        if (v_attributes == nullptr) continue;
        alignas(64) float values[LANES][4];
        spread(incoming, values);
        lanes.add_to_corners(
            [&](int corner, int lane) { return weights[corner][lane] * load_quad(values[lane]); },
            [&](int corner, int lane) { return v_attributes + lanes.vertices(indices, lane)[corner] * stride + c; });
      }
    }
    for (int i = 0; v_weights != nullptr && i < 3; ++i) {
      store_lanes(lanes.or_else(v[i], 0), v_weights + (3 * view + i) * in.pixels + first, count);
    }
  }
}

STUDIO_NAMESPACE_END
