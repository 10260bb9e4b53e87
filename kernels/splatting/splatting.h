// Splatting of 3D Gaussians for a batch of cameras: project, draw, and back.
//
// project turns every Gaussian into a record for each camera, orders the visible ones by depth and says how much
// workspace draw needs. draw lists the splats of each tile of 16 x 16 pixels and composites. backward reads what
// both left.
#pragma once

#include "abi.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct StudioSplatScene {
  int64_t cameras, splats;
  int32_t sh_terms;  // 1, 4, 9 or 16
  int32_t width, height;
  int32_t antialias;
  StudioLaunch launch;
  int64_t capacity;  // on CUDA, the most (tile, splat) pairs, so that nothing waits for the device; 0: all there are
  const float* means;            // [splats 3]
  const float* quats_wxyz;       // [splats 4]
  const float* scales;           // [splats 3]
  const float* opacities;        // [splats]
  const float* sh;               // [splats sh_terms 3]
  const float* world_to_camera;  // [cameras 4 4]
  const float* intrinsics;       // [cameras 3 3]
  const float* background;       // [cameras 3]
  const float* means2d_probe;    // [cameras splats 2], or NULL
} StudioSplatScene;

typedef struct StudioSplatProject {
  StudioSplatScene scene;
  float* records;            // out [cameras splats 16]
  float* radii_px;           // out [cameras splats]
  int32_t* order;            // out [cameras splats 3], for draw: visible splats by depth, and their tiles
  int64_t* counts;           // out [cameras 2]: visible splats, and at most how many (tile, splat) pairs they make
  int64_t* workspace_bytes;  // out [1]
} StudioSplatProject;

typedef struct StudioSplatDraw {
  StudioSplatScene scene;
  const float* records;
  const int32_t* order;
  const int64_t* counts;
  uint8_t* workspace;  // out, 64-byte aligned
  int64_t* left_out;   // out [1]: pairs beyond the capacity, those of the last splats; always 0 on a CPU
  float* rgb;          // out [cameras 3 height width]
  float* alpha;        // out [cameras 1 height width]
  float* depth;        // out [cameras 1 height width]
  float* normal;       // out [cameras 3 height width]
} StudioSplatDraw;

typedef struct StudioSplatBackward {
  StudioSplatScene scene;
  const float* records;
  const int64_t* counts;
  const uint8_t* workspace;
  const float *rgb, *alpha, *depth, *normal;          // what draw made
  const float *v_rgb, *v_alpha, *v_depth, *v_normal;  // the loss's gradient on it; NULL is zero
  float *v_means, *v_quats_wxyz, *v_scales, *v_opacities, *v_sh, *v_background;  // out, of the inputs' shapes
  float* v_means2d_probe;                                                        // out, or NULL
} StudioSplatBackward;

STUDIO_API int32_t studio_splat_project(const StudioSplatProject* arguments, int64_t bytes);
STUDIO_API int32_t studio_splat_draw(const StudioSplatDraw* arguments, int64_t bytes);
STUDIO_API int32_t studio_splat_backward(const StudioSplatBackward* arguments, int64_t bytes);

#ifdef __cplusplus
}
#endif
