// Hash encoding on CUDA: a thread for each point and level. Gradients on the table are summed by atomics, so two runs
// may differ in the last bits.
#include "hash_grid/elements.h"
#include "studio/cuda.cuh"

STUDIO_NAMESPACE_BEGIN
namespace {

void encode(const StudioHashGrid& in) { launch(in.launch, in.points * in.levels, HashEncode{{in}}); }

void scatter(const StudioHashGrid& in) {
  set_to_zero(in.launch, in.result, in.entries * in.features);
  launch(in.launch, in.points * in.levels, HashScatter{{in}});
}

void slopes(const StudioHashGrid& in) { launch(in.launch, in.points, HashSlopes{in}); }

}  // namespace
STUDIO_NAMESPACE_END

STUDIO_CUDA_ENTRY(studio_hash_grid_encode, encode, StudioHashGrid)
STUDIO_CUDA_ENTRY(studio_hash_grid_scatter, scatter, StudioHashGrid)
STUDIO_CUDA_ENTRY(studio_hash_grid_slopes, slopes, StudioHashGrid)
