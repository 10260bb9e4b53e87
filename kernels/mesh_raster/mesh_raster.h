// The parts of a differentiable mesh renderer: rasterize, interpolate, sample textures, antialias. Each works on a
// batch of views; pixel arrays are [views channels height width] with row 0 on top.
#pragma once

#include "abi.h"

#ifdef __cplusplus
extern "C" {
#endif

// Triangles in clip space: on the screen x / w runs from -1 on the left to 1, y / w from -1 at the bottom to 1.
typedef struct StudioMesh {
  int64_t views, vertices, faces;
  int32_t width, height;
  int32_t own_faces;       // 0: all views share the faces
  int32_t cull;            // 1: faces that wind clockwise as seen are not drawn
  StudioLaunch launch;
  const float* positions;  // [views vertices 4]
  const int32_t* indices;  // [faces 3] or [views faces 3]
} StudioMesh;

typedef struct StudioMeshRasterize {
  StudioMesh mesh;
  int32_t* face;   // out [views h w], -1 where there is none
  float* weights;  // out [views 3 h w] of the face's corners, perspective-correct; 0 where there is no face
  float* depth;    // out [views h w], z / w; 1 where there is no face
  float* slopes;   // out [views 2 3 h w], of the weights per pixel rightwards and downwards; or NULL
} StudioMeshRasterize;

typedef struct StudioMeshRasterizeBackward {
  StudioMesh mesh;
  const int32_t* face;
  const float *v_weights, *v_depth, *v_slopes;  // the loss's gradient; NULL is zero
  float* v_positions;                           // out [views vertices 4]
} StudioMeshRasterizeBackward;

typedef struct StudioMeshInterpolate {
  int64_t views, vertices, faces, channels, pixels;  // pixels of one view
  int32_t own_faces, own_attributes;                 // 0: shared by the views
  StudioLaunch launch;
  const float* attributes;  // [vertices channels] or [views vertices channels]
  const int32_t* indices;   // [faces 3] or [views faces 3]
  const int32_t* face;      // [views pixels], -1 gives 0
  const float* weights;     // [views 3 pixels]
} StudioMeshInterpolate;

typedef struct StudioMeshInterpolateForward {
  StudioMeshInterpolate in;
  float* out;  // [views channels pixels]
} StudioMeshInterpolateForward;

typedef struct StudioMeshInterpolateBackward {
  StudioMeshInterpolate in;
  const float* v_out;
  float* v_attributes;  // out, or NULL
  float* v_weights;     // out, or NULL
} StudioMeshInterpolateBackward;

#define STUDIO_TEXTURE_LEVELS 16

typedef struct StudioTexture {
  int64_t views, textures, channels, pixels;  // textures: 1 or views; pixels of one view
  int64_t heights[STUDIO_TEXTURE_LEVELS], widths[STUDIO_TEXTURE_LEVELS];
  int32_t levels;
  int32_t wrap;  // 0 repeat, 1 clamp, 2 mirror
  StudioLaunch launch;
  const float* texels[STUDIO_TEXTURE_LEVELS];  // [textures height width channels], row 0 at v = 1
  const float* uv;                             // [views 2 pixels]; not finite reads as 0
  const float* level;                          // [views pixels], or NULL: the first
} StudioTexture;

typedef struct StudioTextureForward {
  StudioTexture in;
  float* out;  // [views channels pixels]
} StudioTextureForward;

typedef struct StudioTextureBackward {
  StudioTexture in;
  const float* v_out;
  float* v_texels[STUDIO_TEXTURE_LEVELS];  // out; the first NULL: none
  float* v_uv;                             // out, or NULL
  float* v_level;                          // out, or NULL
} StudioTextureBackward;

typedef struct StudioAntialias {
  StudioMesh mesh;
  int64_t channels;
  // For each face and corner, across the opposite edge: 2 x the neighbouring face, + 1 if both run along the edge in
  // the same direction; or -1 where there is not exactly one neighbour. Of the indices' shape.
  const int32_t* neighbours;
  const int32_t* face;  // [views h w]
  const float* depth;   // [views h w]
  const float* image;   // [views channels h w]
} StudioAntialias;

typedef struct StudioAntialiasForward {
  StudioAntialias in;
  float* out;      // [views channels h w]
  uint8_t* marks;  // out [views h w]: bit 0, 1: the pixel and the next one rightwards, downwards were blended
} StudioAntialiasForward;

typedef struct StudioAntialiasBackward {
  StudioAntialias in;
  const uint8_t* marks;
  const float* v_out;
  float* v_image;      // out [views channels h w]
  float* v_positions;  // out [views vertices 4]
} StudioAntialiasBackward;

STUDIO_API int32_t studio_mesh_rasterize(const StudioMeshRasterize* arguments, int64_t bytes);
STUDIO_API int32_t studio_mesh_rasterize_backward(const StudioMeshRasterizeBackward* arguments, int64_t bytes);
STUDIO_API int32_t studio_mesh_interpolate(const StudioMeshInterpolateForward* arguments, int64_t bytes);
STUDIO_API int32_t studio_mesh_interpolate_backward(const StudioMeshInterpolateBackward* arguments, int64_t bytes);
STUDIO_API int32_t studio_texture(const StudioTextureForward* arguments, int64_t bytes);
STUDIO_API int32_t studio_texture_backward(const StudioTextureBackward* arguments, int64_t bytes);
STUDIO_API int32_t studio_antialias(const StudioAntialiasForward* arguments, int64_t bytes);
STUDIO_API int32_t studio_antialias_backward(const StudioAntialiasBackward* arguments, int64_t bytes);

#ifdef __cplusplus
}
#endif
