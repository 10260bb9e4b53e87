// Attributes of vertices at one pixel: the bodies of CUDA's loops; a CPU takes pixels by lanes (cpu_interpolate.h).
#pragma once

#include "mesh_raster/mesh_raster.h"
#include "studio/scalar.h"

STUDIO_NAMESPACE_BEGIN

// The corners of the face that a pixel shows, as rows of `attributes`; false where it shows none.
HD bool corners_at(const StudioMeshInterpolate& in, int64_t view, int64_t pixel, int64_t (&corners)[3]) {
  const int32_t face = in.face[view * in.pixels + pixel];
  if (face < 0) return false;
  const int32_t* indices = in.indices + 3 * ((in.own_faces != 0 ? view * in.faces : 0) + face);
  for (int i = 0; i < 3; ++i) corners[i] = (in.own_attributes != 0 ? view * in.vertices : 0) + indices[i];
  return true;
}

HD void interpolate_at(const StudioMeshInterpolateForward& task, int64_t channels, int64_t view, int64_t pixel) {
  const StudioMeshInterpolate& in = task.in;
  float* out = task.out + view * channels * in.pixels + pixel;
  int64_t corners[3];
  if (!corners_at(in, view, pixel, corners)) {
    for (int64_t c = 0; c < channels; ++c) out[c * in.pixels] = 0;
    return;
  }
  const float* weights = in.weights + 3 * view * in.pixels + pixel;
  const float w0 = weights[0], w1 = weights[in.pixels], w2 = weights[2 * in.pixels];
  const float *a0 = in.attributes + corners[0] * channels, *a1 = in.attributes + corners[1] * channels,
              *a2 = in.attributes + corners[2] * channels;
  for (int64_t c = 0; c < channels; ++c) out[c * in.pixels] = w0 * a0[c] + w1 * a1[c] + w2 * a2[c];
}

HD void weights_vjp_at(const StudioMeshInterpolateBackward& task, int64_t channels, int64_t view, int64_t pixel) {
  const StudioMeshInterpolate& in = task.in;
  const float* v_out = task.v_out + view * channels * in.pixels + pixel;
  float v[3] = {0, 0, 0};
  int64_t corners[3];
  if (corners_at(in, view, pixel, corners)) {
    for (int64_t c = 0; c < channels; ++c) {
      for (int i = 0; i < 3; ++i) v[i] += v_out[c * in.pixels] * in.attributes[corners[i] * channels + c];
    }
  }
  for (int i = 0; i < 3; ++i) task.v_weights[(3 * view + i) * in.pixels + pixel] = v[i];
}

// add(pointer, value) for each number that the pixel adds to the rows of v_attributes for which owns(row).
template <class Owns, class Add>
HD void attributes_vjp_at(const StudioMeshInterpolateBackward& task, int64_t channels, int64_t view, int64_t pixel,
                          Owns&& owns, Add&& add) {
  const StudioMeshInterpolate& in = task.in;
  const float* v_out = task.v_out + view * channels * in.pixels + pixel;
  int64_t corners[3];
  if (!corners_at(in, view, pixel, corners)) return;
  for (int i = 0; i < 3; ++i) {
    if (!owns(corners[i])) continue;
    const float weight = in.weights[(3 * view + i) * in.pixels + pixel];
    float* row = task.v_attributes + corners[i] * channels;
    for (int64_t c = 0; c < channels; ++c) add(row + c, weight * v_out[c * in.pixels]);
  }
}

STUDIO_NAMESPACE_END
