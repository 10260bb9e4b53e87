// Drawing textured meshes on CUDA: a thread for each face to find what samples show, then one for each pixel.
#include "rasterize/elements.h"
#include "studio/cuda.cuh"

STUDIO_NAMESPACE_BEGIN
namespace {

void rasterize(const StudioRasterize& in) {
  check(in);
  const int64_t pixels = int64_t(in.camera_count) * in.width * in.height;
  const int64_t samples = pixels * in.supersample * in.supersample;
  const DeviceBuffer<uint64_t> nearest(in.launch, 2 * samples);
  set_to_zero(in.launch, nearest.data(), 2 * samples);
  const SurfaceFaces faces(in, nearest.data(), nearest.data() + samples);
  draw_faces(in.launch, in.camera_count, faces);
  launch(in.launch, pixels, ShadeSurfacePixel{faces});
}

}  // namespace
STUDIO_NAMESPACE_END

STUDIO_CUDA_ENTRY(studio_rasterize, rasterize, StudioRasterize)
