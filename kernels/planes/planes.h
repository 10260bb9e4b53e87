// K-planes (Fridovich-Keil et al. 2023; HexPlane with a product, Cao and Johnson 2023): a point of space, or of space
// and time, to the product over all pairs of its axes of a bilinear sample of that pair's plane; so at each scale.
//
// A coordinate outside [0, 1] counts as the nearest inside, with no slope along it. A point with a NaN gives NaN
// features, slopes of 0 and nothing to the planes.
#pragma once

#include "abi.h"

#define STUDIO_PLANES_SCALES 8
#define STUDIO_PLANES_AXES 4

#ifdef __cplusplus
extern "C" {
#endif

// Planes lie one behind the other in the order of the pairs (0, 1), (0, 2) ... (1, 2) ...; that of axes (a, b) has
// resolution[b] rows of resolution[a] texels of `channels` numbers. The first texel is at 0, the last at 1.
typedef struct StudioPlaneScale {
  int64_t first;                            // texel
  int32_t resolution[STUDIO_PLANES_AXES];   // at least 2
} StudioPlaneScale;

typedef struct StudioPlanes {
  StudioLaunch launch;
  int64_t points, texels;
  int32_t scales, axes, channels, unused;
  StudioPlaneScale scale[STUDIO_PLANES_SCALES];
  const float* positions;   // [n axes]
  const float* planes;      // [texels c]
  const float* v_features;  // [n scales c]; of backward, as are the two below
  float* features;          // [n scales c]; of sample
  float* v_planes;          // [texels c] or null
  float* v_positions;       // [n axes] or null
} StudioPlanes;

STUDIO_API int32_t studio_planes_sample(const StudioPlanes* arguments, int64_t bytes);
STUDIO_API int32_t studio_planes_backward(const StudioPlanes* arguments, int64_t bytes);

#ifdef __cplusplus
}
#endif
