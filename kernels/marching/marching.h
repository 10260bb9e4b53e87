// Rays through an occupancy grid in the unit cube (Müller et al. 2022, section 5.4 and appendix E.1): the samples of a
// regular lattice along each ray that lie in occupied cells, packed without gaps.
//
// Sample k of a ray lies at t = t0 + (k + jitter) step, where t0 is the ray's entry into the cube or `near`, whichever
// is later, for t < the ray's exit. A ray with a number that is not finite, or no direction, has no samples.
#pragma once

#include "abi.h"

#define STUDIO_MARCH_STEPS (1 << 18)  // of one ray; more than fit into the cube's diagonal at the smallest step

#ifdef __cplusplus
extern "C" {
#endif

typedef struct StudioMarch {
  StudioLaunch launch;
  int64_t rays;
  int32_t resolution;       // cells along a side, 1 to 1024
  int32_t max_samples;      // of one ray: the first
  float step, near;
  const float* origins;     // [r 3]
  const float* directions;  // [r 3]
  const float* jitter;      // [r], 0 to 1
  const uint32_t* occupied; // [ceil(resolution^3 / 32)] bits, lowest first, of the cells [x y z]
  int64_t* counts;          // [r]; of count
  const int64_t* starts;    // [r + 1], sums of the counts; of write, as are the two below
  float* t;                 // [s]
  float* positions;         // [s 3]: origin + t direction
} StudioMarch;

// How many samples each ray has.
STUDIO_API int32_t studio_march_count(const StudioMarch* arguments, int64_t bytes);
// The samples themselves.
STUDIO_API int32_t studio_march_write(const StudioMarch* arguments, int64_t bytes);

#ifdef __cplusplus
}
#endif
