// Multiresolution hash encoding: Müller et al., Instant Neural Graphics Primitives with a Multiresolution Hash
// Encoding, 2022. Points of the unit cube to the features of the grids' corners around them, interpolated.
//
// All three entries are linear in the table or in v_features. With directions they work on the derivative of the
// interpolation along each point's direction instead of on the interpolation: so the gradients of gradients.
//
// A coordinate outside [0, 1] counts as the nearest inside, with no slope along it. A point with a NaN gives NaN
// features, slopes of 0 and nothing to the table.
#pragma once

#include "abi.h"

#define STUDIO_HASH_GRID_LEVELS 32

#ifdef __cplusplus
extern "C" {
#endif

typedef struct StudioHashLevel {
  int64_t first;        // its first entry in the table
  uint32_t resolution;  // cells along a side, at most 2^20
  uint32_t mask;        // number of entries - 1 where corners are hashed; 0: one entry for each corner, x fastest
} StudioHashLevel;

typedef struct StudioHashGrid {
  StudioLaunch launch;
  int64_t points, entries;
  int32_t levels, features;  // features of an entry: 1, 2, 4 or 8
  StudioHashLevel level[STUDIO_HASH_GRID_LEVELS];
  const float* positions;   // [n 3]
  const float* directions;  // [n 3] or null
  const float* table;       // [entries f]; of encode and slopes
  const float* v_features;  // [n levels f]; of scatter and slopes
  float* result;
} StudioHashGrid;

// result [n levels f]: the features, or their derivative along the direction.
STUDIO_API int32_t studio_hash_grid_encode(const StudioHashGrid* arguments, int64_t bytes);

// result [entries f]: the gradient on the table.
STUDIO_API int32_t studio_hash_grid_scatter(const StudioHashGrid* arguments, int64_t bytes);

// result [n 3]: the gradient on the positions.
STUDIO_API int32_t studio_hash_grid_slopes(const StudioHashGrid* arguments, int64_t bytes);

#ifdef __cplusplus
}
#endif
