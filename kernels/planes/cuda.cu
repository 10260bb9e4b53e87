// Factored planes on CUDA: a thread for each channel of each point and scale. Gradients are summed by atomics, so two
// runs may differ in the last bits.
#include "planes/elements.h"
#include "studio/cuda.cuh"

STUDIO_NAMESPACE_BEGIN
namespace {

template <template <int> class Element>
void run(const StudioPlanes& in) {
  const int64_t count = in.points * in.scales * in.channels;
  switch (in.axes) {
    case 2: return launch(in.launch, count, Element<2>{{in}});
    case 3: return launch(in.launch, count, Element<3>{{in}});
    case 4: return launch(in.launch, count, Element<4>{{in}});
    default: throw std::runtime_error("planes need 2 to 4 axes");
  }
}

void sample(const StudioPlanes& in) { run<PlanesSample>(in); }

void backward(const StudioPlanes& in) {
  set_to_zero(in.launch, in.v_planes, in.texels * in.channels);
  set_to_zero(in.launch, in.v_positions, in.points * in.axes);
  run<PlanesBackward>(in);
}

}  // namespace
STUDIO_NAMESPACE_END

STUDIO_CUDA_ENTRY(studio_planes_sample, sample, StudioPlanes)
STUDIO_CUDA_ENTRY(studio_planes_backward, backward, StudioPlanes)
