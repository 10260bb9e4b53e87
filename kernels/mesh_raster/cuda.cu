// The mesh operators on CUDA: a thread for each pixel, and for each face to rasterize. Gradients on positions,
// attributes and texels are summed by atomics, so two runs may differ in the last bits; all else is the same each time.
#include "mesh_raster/elements.h"
#include "studio/cuda.cuh"

STUDIO_NAMESPACE_BEGIN
namespace {

int64_t pixels_of(const StudioMesh& mesh) { return mesh.views * mesh.width * mesh.height; }

void rasterize(const StudioMeshRasterize& task) {
  const StudioMesh& mesh = task.mesh;
  const int64_t pixels = pixels_of(mesh);
  const DeviceBuffer<uint64_t> nearest(mesh.launch, pixels);
  set_to_zero(mesh.launch, nearest.data(), pixels);
  draw_faces(mesh.launch, mesh.views, MeshFaces(mesh, nearest.data()));
  launch(mesh.launch, pixels, ShadePixel{task, nearest.data()});
}

void rasterize_backward(const StudioMeshRasterizeBackward& task) {
  const StudioMesh& mesh = task.mesh;
  set_to_zero(mesh.launch, task.v_positions, 4 * mesh.views * mesh.vertices);
  if (task.v_slopes != nullptr) {
    launch(mesh.launch, pixels_of(mesh), ShadePixelBackward<true, true>{task});
  } else if (task.v_depth != nullptr) {
    launch(mesh.launch, pixels_of(mesh), ShadePixelBackward<true, false>{task});
  } else {
    launch(mesh.launch, pixels_of(mesh), ShadePixelBackward<false, false>{task});
  }
}

void interpolate(const StudioMeshInterpolateForward& task) {
  launch(task.in.launch, task.in.views * task.in.pixels, InterpolatePixel{task});
}

void interpolate_backward(const StudioMeshInterpolateBackward& task) {
  const StudioMeshInterpolate& in = task.in;
  set_to_zero(in.launch, task.v_attributes, (in.own_attributes != 0 ? in.views : 1) * in.vertices * in.channels);
  launch(in.launch, in.views * in.pixels, InterpolatePixelBackward{task});
}

void texture(const StudioTextureForward& task) {
  launch(task.in.launch, task.in.views * task.in.pixels, TexturePixel{task});
}

void texture_backward(const StudioTextureBackward& task) {
  const StudioTexture& in = task.in;
  for (int level = 0; level < in.levels; ++level) {
    set_to_zero(in.launch, task.v_texels[level], in.textures * in.heights[level] * in.widths[level] * in.channels);
  }
  launch(in.launch, in.views * in.pixels, TexturePixelBackward{task});
}

void antialias(const StudioAntialiasForward& task) {
  launch(task.in.mesh.launch, pixels_of(task.in.mesh), MarkPixel{task});
  launch(task.in.mesh.launch, pixels_of(task.in.mesh), AntialiasPixel{task});
}

void antialias_backward(const StudioAntialiasBackward& task) {
  const StudioMesh& mesh = task.in.mesh;
  set_to_zero(mesh.launch, task.v_positions, 4 * mesh.views * mesh.vertices);
  launch(mesh.launch, pixels_of(mesh), AntialiasPixelBackward{task});
}

}  // namespace
STUDIO_NAMESPACE_END

STUDIO_CUDA_ENTRY(studio_mesh_rasterize, rasterize, StudioMeshRasterize)
STUDIO_CUDA_ENTRY(studio_mesh_rasterize_backward, rasterize_backward, StudioMeshRasterizeBackward)
STUDIO_CUDA_ENTRY(studio_mesh_interpolate, interpolate, StudioMeshInterpolateForward)
STUDIO_CUDA_ENTRY(studio_mesh_interpolate_backward, interpolate_backward, StudioMeshInterpolateBackward)
STUDIO_CUDA_ENTRY(studio_texture, texture, StudioTextureForward)
STUDIO_CUDA_ENTRY(studio_texture_backward, texture_backward, StudioTextureBackward)
STUDIO_CUDA_ENTRY(studio_antialias, antialias, StudioAntialiasForward)
STUDIO_CUDA_ENTRY(studio_antialias_backward, antialias_backward, StudioAntialiasBackward)
