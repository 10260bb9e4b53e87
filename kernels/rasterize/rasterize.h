// Draws a textured triangle mesh from a batch of cameras, forward only.
//
// A sample's colour is base colour x texture x vertex colour x light, where light is
//     ambient + hemisphere (1 + n_y) / 2 + sum over lights of max(0, n . light)
// and n the world-space normal turned to the side of the surface that the camera sees: the light stands still in the
// world, so all views agree on the colour of each side. Pixels average supersample x supersample samples.
#pragma once

#include "abi.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct StudioRasterize {
  int32_t camera_count, vertex_count, face_count, light_count;
  int32_t width, height;
  int32_t supersample;  // samples along one side of a pixel; width x supersample and height x supersample < 32768
  StudioLaunch launch;

  const float* vertices;          // [v 3]
  const int32_t* faces;           // [f 3], either winding; indices are trusted
  const int32_t* face_materials;  // [f], indices are trusted
  const float* uvs;               // [f 3 2], v up, or null where no material has a texture
  const float* vertex_colors;     // [v 3] or null
  const float* vertex_normals;    // [v 3] or null: flat

  // A material with base alpha below 1 is translucent: its nearest surface is blended over the nearest opaque one;
  // more layers of it do not show. A sample whose texture alpha is below 0.5 is cut out.
  const float* base_colors;      // [m 4]
  const int32_t* first_level;    // [m + 1]: material m has the levels first_level[m] to first_level[m + 1] - 1
  const int32_t* cut_out;        // [m]: 0 where all of the texture's alpha is 0.5 or more
  const int64_t* levels;         // [l 3]: offset into texels, height, width; each level half as large as the last
  const uint8_t* texels;         // [t 4] straight rgba, row 0 at v = 1

  const float* world_to_pixels;  // [b 3 4]: intrinsics x world_to_camera
  const float* background;       // [b 3]
  float near_depth;              // nothing nearer is drawn; > 0
  float ambient, hemisphere;
  const float* lights;           // [l 3]: direction to the light times its strength

  float* rgb;     // [b 3 h w] over the background
  float* alpha;   // [b h w], opacity, averaged over the samples
  float* depth;   // [b h w], z times opacity, likewise
  float* normal;  // [b 3 h w], unit normal times opacity, likewise
} StudioRasterize;

STUDIO_API int32_t studio_rasterize(const StudioRasterize* arguments, int64_t bytes);

#ifdef __cplusplus
}
#endif
