// Compositing on CUDA: a thread for each ray.
#include "compositing/elements.h"
#include "studio/cuda.cuh"

STUDIO_NAMESPACE_BEGIN
namespace {

void forward(const StudioComposite& in) { launch(in.launch, in.rays, Composite{{in}}); }
void backward(const StudioComposite& in) { launch(in.launch, in.rays, CompositeBackward{{in}}); }

}  // namespace
STUDIO_NAMESPACE_END

STUDIO_CUDA_ENTRY(studio_composite, forward, StudioComposite)
STUDIO_CUDA_ENTRY(studio_composite_backward, backward, StudioComposite)
