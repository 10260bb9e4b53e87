// Splatting on CUDA, in the same formulas as the CPU: a thread a Gaussian to project and to carry gradients back, a
// thread a pixel and a block a tile to draw. (tile, depth) keys are sorted for all cameras at once.
//
// Gradients on records are summed by atomics, a warp at a time, so two runs may differ in the last bits.
#if defined(__CUDACC__)
#include <cub/device/device_radix_sort.cuh>
#include <cub/device/device_scan.cuh>
#else
#include <algorithm>
#include <numeric>
#include <vector>
#endif

#include "splatting/elements.h"
#include "studio/cuda.cuh"

STUDIO_NAMESPACE_BEGIN
namespace {

#if defined(__CUDACC__)

// Runs a cub algorithm with the scratch memory that it asks for.
template <class Algorithm>
void run_cub(const StudioLaunch& where, Algorithm&& algorithm) {
  size_t bytes = 0;
  const cudaStream_t stream = stream_of(where);
  check(algorithm(nullptr, bytes, stream));
  const DeviceBuffer<uint8_t> scratch(where, static_cast<int64_t>(bytes));
  check(algorithm(scratch.data(), bytes, stream));
}

#endif

// Each value becomes the sum of those up to it.
void sum_up(const StudioLaunch& where, int64_t* values, int64_t count) {
#if defined(__CUDACC__)
  run_cub(where, [&](void* scratch, size_t& bytes, cudaStream_t stream) {
    return cub::DeviceScan::InclusiveSum(scratch, bytes, values, values, static_cast<int>(count), stream);
  });
#else
  (void)where;
  std::partial_sum(values, values + count, values);
#endif
}

// Stable, by the lowest bits of the keys.
void sort_pairs(const StudioLaunch& where, const uint64_t* keys, uint64_t* sorted_keys, const uint32_t* values,
                uint32_t* sorted_values, int64_t count, int bits) {
#if defined(__CUDACC__)
  run_cub(where, [&](void* scratch, size_t& bytes, cudaStream_t stream) {
    return cub::DeviceRadixSort::SortPairs(scratch, bytes, keys, sorted_keys, values, sorted_values,
                                           static_cast<int>(count), 0, bits, stream);
  });
#else
  (void)where;
  std::vector<int64_t> order(count);
  std::iota(order.begin(), order.end(), 0);
  const uint64_t mask = bits < 64 ? (uint64_t{1} << bits) - 1 : UINT64_MAX;
  std::stable_sort(order.begin(), order.end(),
                   [&](int64_t a, int64_t b) { return (keys[a] & mask) < (keys[b] & mask); });
  for (int64_t i = 0; i < count; ++i) sorted_keys[i] = keys[order[i]], sorted_values[i] = values[order[i]];
#endif
}

// call(Constant<sh_terms>())
template <class Call>
void with_sh_terms(int terms, Call&& call) {
  switch (terms) {
    case 1: return call(Constant<1>());
    case 4: return call(Constant<4>());
    case 9: return call(Constant<9>());
    case 16: return call(Constant<16>());
    default: throw std::runtime_error("sh must have 1, 4, 9 or 16 coefficients");
  }
}

void check_sizes(const StudioSplatScene& scene) {
  if (scene.cameras * scene.splats > INT32_MAX) throw std::runtime_error("more than 2 billion splats over all cameras");
  if (scene.width < 1 || scene.height < 1 || scene.width > 65536 || scene.height > 65536) {
    throw std::runtime_error("width and height must be 1 to 65536");
  }
}

// On CUDA, order is one number for each record: the sum of the tiles that it and those before it touch.
int64_t* slots_end(const int32_t* order) { return reinterpret_cast<int64_t*>(const_cast<int32_t*>(order)); }

// counts[1] is the number of (tile, splat) pairs of all cameras: without a capacity, reading it waits for the stream.
void project_splats(const StudioSplatProject& task) {
  const StudioSplatScene& scene = task.scene;
  check_sizes(scene);
  const int64_t count = scene.cameras * scene.splats;
  for (int64_t c = 0; c < 2 * scene.cameras; ++c) task.counts[c] = 0;
  if (count > 0) {
    with_sh_terms(scene.sh_terms, [&](auto terms) {
      launch(scene.launch, count,
             ProjectSplat<decltype(terms)::value>{scene, task.records, task.radii_px, slots_end(task.order)});
    });
    sum_up(scene.launch, slots_end(task.order), count);
    if (scene.capacity == 0) task.counts[1] = read(scene.launch, slots_end(task.order) + count - 1);
  }
  *task.workspace_bytes = Workspace(scene, task.counts, nullptr).bytes;
}

void draw_splats(const StudioSplatDraw& task) {
  const StudioSplatScene& scene = task.scene;
  check_sizes(scene);
  const Workspace work(scene, task.counts, task.workspace);
  const int64_t count = scene.cameras * scene.splats;
  set_to_zero(scene.launch, work.tile_end, work.all_tiles);
  set_to_zero(scene.launch, task.left_out, 1);
  if (work.slots > 0 && count > 0) {
    const DeviceBuffer<uint64_t> keys(scene.launch, work.slots), sorted_keys(scene.launch, work.slots);
    const DeviceBuffer<uint32_t> values(scene.launch, work.slots);
    if (scene.capacity > 0) fill_bytes(scene.launch, keys.data(), 0xff, work.slots);  // UNUSED
    launch(scene.launch, count,
           ListTiles{scene, task.records, slots_end(task.order), work.tiles, work.slots, keys.data(), values.data(),
                     task.left_out});
    int bits = 32;  // that UNUSED, too, differs from every tile in
    while ((work.all_tiles >> (bits - 32)) != 0) ++bits;
    sort_pairs(scene.launch, keys.data(), sorted_keys.data(), values.data(), work.slot_record, work.slots, bits);
    launch(scene.launch, work.slots, FindTileEnds{sorted_keys.data(), work.slots, work.all_tiles, work.tile_end});
  }
  launch_blocks(scene.launch, work.all_tiles, DrawTile{task, work});
}

void draw_splats_vjp(const StudioSplatBackward& task) {
  const StudioSplatScene& scene = task.scene;
  check_sizes(scene);
  const Workspace work(scene, task.counts, task.workspace);
  const int64_t count = scene.cameras * scene.splats * RECORD;
  const DeviceBuffer<float> v_records(scene.launch, count);
  set_to_zero(scene.launch, v_records.data(), count);
  set_to_zero(scene.launch, task.v_background, 3 * scene.cameras);
  launch_blocks(scene.launch, work.all_tiles, DrawTileBackward{task, work, v_records.data()});
  if (task.v_rgb != nullptr) launch_blocks(scene.launch, 3 * scene.cameras, BackgroundBackward{task});
  with_sh_terms(scene.sh_terms, [&](auto terms) {
    launch(scene.launch, scene.splats, SplatBackward<decltype(terms)::value>{task, v_records.data()});
  });
}

}  // namespace
STUDIO_NAMESPACE_END

STUDIO_CUDA_ENTRY(studio_splat_project, project_splats, StudioSplatProject)
STUDIO_CUDA_ENTRY(studio_splat_draw, draw_splats, StudioSplatDraw)
STUDIO_CUDA_ENTRY(studio_splat_backward, draw_splats_vjp, StudioSplatBackward)
