// Volume rendering along rays whose samples lie packed one behind the other (Max 1995; Mildenhall et al. 2020, eq. 3).
// Sample i has optical depth d_i = density times length, lets exp(-d_i) of the light pass, and weighs
//     w_i = T_i (1 - exp(-d_i)),   T_i = exp(-sum of d_j over the ray's samples before i).
// A ray ends, for good, before the first sample with T_i < min_transmittance.
#pragma once

#include "abi.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct StudioComposite {
  StudioLaunch launch;
  int64_t rays, samples;
  int32_t channels;
  float min_transmittance;
  int64_t color_stride;         // from one sample's colour to the next one's, in numbers
  const int64_t* starts;        // [r + 1]: ray r has the samples starts[r] to starts[r + 1] - 1
  const float* optical_depths;  // [s], not negative
  const float* colors;          // [s color_stride], of which the first c
  const float* t;               // [s]

  float* rgb;            // [r c], sum of w colour
  float* opacity;        // [r], sum of w
  float* depth;          // [r], sum of w t
  float* weights;        // [s]
  float* transmittance;  // [s], T, 0 beyond the ray's end

  // Of backward alone: the loss's gradient on the five above, null for zero, and on the inputs, null where not wanted.
  const float *v_rgb, *v_opacity, *v_depth, *v_weights, *v_transmittance;
  float *v_optical_depths, *v_colors, *v_t;
} StudioComposite;

STUDIO_API int32_t studio_composite(const StudioComposite* arguments, int64_t bytes);
STUDIO_API int32_t studio_composite_backward(const StudioComposite* arguments, int64_t bytes);

#ifdef __cplusplus
}
#endif
