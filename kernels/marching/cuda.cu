// Marching on CUDA: a thread for each ray.
#include "marching/elements.h"
#include "studio/cuda.cuh"

STUDIO_NAMESPACE_BEGIN
namespace {

void count(const StudioMarch& in) { launch(in.launch, in.rays, MarchCount{{in}}); }
void write(const StudioMarch& in) { launch(in.launch, in.rays, MarchWrite{{in}}); }

}  // namespace
STUDIO_NAMESPACE_END

STUDIO_CUDA_ENTRY(studio_march_count, count, StudioMarch)
STUDIO_CUDA_ENTRY(studio_march_write, write, StudioMarch)
