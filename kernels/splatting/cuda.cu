// Splatting on CUDA, in the same formulas as the CPU: a thread a Gaussian to project and to carry gradients back, a
// thread a pixel and a block a tile to draw. (tile, depth) keys are sorted for all cameras at once.
//
// Gradients on records are summed by atomics, a warp at a time, so two runs may differ in the last bits.
#include <cub/device/device_radix_sort.cuh>
#include <cub/device/device_scan.cuh>
#include <stdexcept>
#include <string>

#include "splatting/splat.h"
#include "splatting/splatting.h"
#include "studio/math/compositing.h"

STUDIO_NAMESPACE_BEGIN

namespace {

constexpr int TILE = 16, TILE_THREADS = TILE * TILE, THREADS = 256;

void check(cudaError_t status) {
  if (status != cudaSuccess) throw std::runtime_error(std::string("CUDA: ") + cudaGetErrorString(status));
}

// Memory of one call, in the order of its stream.
template <class T>
class DeviceBuffer {
 public:
  DeviceBuffer(int64_t count, cudaStream_t stream) : stream_(stream) {
    check(cudaMallocAsync(&data_, count > 0 ? count * sizeof(T) : 1, stream));
  }
  ~DeviceBuffer() { cudaFreeAsync(data_, stream_); }
  DeviceBuffer(const DeviceBuffer&) = delete;
  DeviceBuffer& operator=(const DeviceBuffer&) = delete;
  T* data() const { return static_cast<T*>(data_); }

 private:
  void* data_ = nullptr;
  cudaStream_t stream_;
};

// work(i) for each i below count.
template <class Work>
__global__ void __launch_bounds__(THREADS) for_each(int64_t count, Work work) {
  const int64_t i = int64_t(blockIdx.x) * THREADS + threadIdx.x;
  if (i < count) work(i);
}

template <class Work>
void launch(int64_t count, cudaStream_t stream, Work work) {
  if (count == 0) return;
  const int64_t blocks = (count + THREADS - 1) / THREADS;
  if (blocks > INT32_MAX) throw std::runtime_error("too many splats and cameras for one CUDA launch");
  for_each<<<static_cast<unsigned>(blocks), THREADS, 0, stream>>>(count, work);
  check(cudaGetLastError());
}

__device__ Camera<float> camera_of(const StudioSplatScene& scene, int64_t camera) {
  return Camera<float>::from(scene.world_to_camera + 16 * camera, scene.intrinsics + 9 * camera, scene.width,
                             scene.height);
}

template <int K>
__device__ Splat<K, float> load_splat(const StudioSplatScene& scene, int64_t i) {
  const float *m = scene.means + 3 * i, *q = scene.quats_wxyz + 4 * i, *s = scene.scales + 3 * i;
  Splat<K, float> splat;
  splat.quat = {q[0], q[1], q[2], q[3]};
  splat.gaussian = make_gaussian<float>({m[0], m[1], m[2]}, splat.quat, {s[0], s[1], s[2]}, scene.opacities[i]);
  for (int k = 0; k < 3 * K; ++k) splat.sh[k] = scene.sh[3 * K * i + k];
  return splat;
}

// visit(tile) for the tiles of one camera that a visible splat's ellipse touches.
template <class Visit>
__device__ void touched_tiles(const SplatRecord& splat, int width, int height, Visit&& visit) {
  const int x0 = static_cast<int>(max(splat.mean_x - splat.half_x - 0.5f, 0.0f)) / TILE;
  const int y0 = static_cast<int>(max(splat.mean_y - splat.half_y - 0.5f, 0.0f)) / TILE;
  const int x1 = static_cast<int>(min(splat.mean_x + splat.half_x - 0.5f, static_cast<float>(width - 1))) / TILE;
  const int y1 = static_cast<int>(min(splat.mean_y + splat.half_y - 0.5f, static_cast<float>(height - 1))) / TILE;
  const int tiles_x = (width + TILE - 1) / TILE;
  for (int y = y0; y <= y1; ++y) {
    for (int x = x0; x <= x1; ++x) {
      const float left = static_cast<float>(x * TILE) + 0.5f, top = static_cast<float>(y * TILE) + 0.5f;
      if (reaches(splat, left, top, left + (TILE - 1.0f), top + (TILE - 1.0f))) visit(y * tiles_x + x);
    }
  }
}

// What draw leaves for backward.
struct Workspace {
  int64_t tiles_x, tiles, all_tiles, slots, bytes;
  uint32_t* slot_record;   // [slots] index into the records of all cameras, by tile and depth
  uint32_t* tile_end;      // [cameras tiles] end of each tile's slots; a tile begins where the last one ends
  int32_t* pixel_reached;  // [cameras height width] slots of its tile that a pixel looked at before it closed

  Workspace(const StudioSplatScene& scene, const int64_t* counts, const uint8_t* base) {
    tiles_x = (scene.width + TILE - 1) / TILE;
    tiles = tiles_x * ((scene.height + TILE - 1) / TILE);
    all_tiles = scene.cameras * tiles;
    slots = counts[1];
    if (slots > INT32_MAX || all_tiles > INT32_MAX || scene.cameras * scene.splats > INT32_MAX) {
      throw std::runtime_error("the splats cover more than 2 billion tiles; make them smaller or fewer");
    }
    uint8_t* next = const_cast<uint8_t*>(base);
    const auto take = [&](auto*& array, int64_t count) {
      array = reinterpret_cast<std::remove_reference_t<decltype(array)>>(next);
      next += (count * static_cast<int64_t>(sizeof *array) + 255) / 256 * 256;
    };
    take(slot_record, slots);
    take(tile_end, all_tiles);
    take(pixel_reached, scene.cameras * scene.width * scene.height);
    bytes = next - base;
  }

  __device__ uint32_t tile_begin(int64_t tile) const { return tile == 0 ? 0 : tile_end[tile - 1]; }
};

// call(std::integral_constant<int, sh_terms>)
template <class Call>
void with_sh_terms(int terms, Call&& call) {
  switch (terms) {
    case 1: return call(std::integral_constant<int, 1>());
    case 4: return call(std::integral_constant<int, 4>());
    case 9: return call(std::integral_constant<int, 9>());
    case 16: return call(std::integral_constant<int, 16>());
    default: throw std::runtime_error("sh must have 1, 4, 9 or 16 coefficients");
  }
}

template <int K>
struct ProjectSplat {
  StudioSplatScene scene;
  float* records;
  float* radii_px;
  int32_t* tile_counts;

  __device__ void operator()(int64_t i) const {
    const int64_t camera = i / scene.splats;
    const Splat<K, float> splat = load_splat<K>(scene, i % scene.splats);
    const float* probe = scene.means2d_probe;
    union {
      float columns[RECORD];
      float4 quads[RECORD / 4];
      SplatRecord splat;
    } record;
    make_record(splat, camera_of(scene, camera), probe == nullptr ? 0.0f : probe[2 * i],
                probe == nullptr ? 0.0f : probe[2 * i + 1], scene.antialias != 0, scene.width, scene.height,
                record.columns, radii_px[i]);
    for (int q = 0; q < RECORD / 4; ++q) reinterpret_cast<float4*>(records)[i * (RECORD / 4) + q] = record.quads[q];
    int32_t count = 0;
    if (record.splat.half_x >= 0.0f) {
      touched_tiles(record.splat, scene.width, scene.height, [&](int) { ++count; });
    }
    tile_counts[i] = count;
  }
};

struct ListTiles {
  StudioSplatScene scene;
  const SplatRecord* records;
  const int32_t* tile_counts;
  const int64_t* slots_end;  // inclusive sums of the counts
  int64_t tiles;
  uint64_t* keys;
  uint32_t* values;

  __device__ void operator()(int64_t i) const {
    if (tile_counts[i] == 0) return;
    const SplatRecord splat = records[i];
    const uint64_t first_tile = static_cast<uint64_t>(i / scene.splats * tiles);
    int64_t slot = slots_end[i] - tile_counts[i];
    touched_tiles(splat, scene.width, scene.height, [&](int tile) {
      // Positive floats sort as their bits; the sort is stable, so equal depths stay in the splats' order.
      keys[slot] = (first_tile + tile) << 32 | __float_as_uint(splat.features[3]);
      values[slot] = static_cast<uint32_t>(i);
      ++slot;
    });
  }
};

struct FindTileEnds {
  const uint64_t* keys;
  int64_t slots, all_tiles;
  uint32_t* tile_end;

  // The tiles from this slot's up to the next slot's end here; those before the first slot end at 0.
  __device__ void operator()(int64_t slot) const {
    const int64_t tile = static_cast<int64_t>(keys[slot] >> 32);
    const int64_t next = slot + 1 < slots ? static_cast<int64_t>(keys[slot + 1] >> 32) : all_tiles;
    for (int64_t t = tile; t < next; ++t) tile_end[t] = static_cast<uint32_t>(slot + 1);
  }
};

// A block's pixels and its share of the tile's splats, 256 at a time through shared memory.
struct TilePixel {
  int64_t tile, camera, pixel;
  int x, y;
  bool inside;
  uint32_t begin, end;

  __device__ TilePixel(const StudioSplatScene& scene, const Workspace& work) {
    tile = blockIdx.x;
    camera = tile / work.tiles;
    const int64_t place = tile % work.tiles;
    x = static_cast<int>(place % work.tiles_x) * TILE + threadIdx.x % TILE;
    y = static_cast<int>(place / work.tiles_x) * TILE + threadIdx.x / TILE;
    inside = x < scene.width && y < scene.height;
    pixel = int64_t(y) * scene.width + x;
    begin = work.tile_begin(tile), end = work.tile_end[tile];
  }
  __device__ float center_x() const { return static_cast<float>(x) + 0.5f; }
  __device__ float center_y() const { return static_cast<float>(y) + 0.5f; }
};

__device__ void load_record(const float* records, uint32_t index, SplatRecord& to) {
  const float4* from = reinterpret_cast<const float4*>(records) + int64_t(index) * (RECORD / 4);
  for (int q = 0; q < RECORD / 4; ++q) reinterpret_cast<float4*>(&to)[q] = from[q];
}

// Where a plane of the four images lies: the features, then alpha; null where its image is.
template <class Pointer>
__device__ Pointer plane_of(int plane, int64_t camera, int64_t size, Pointer rgb, Pointer alpha, Pointer depth,
                            Pointer normal) {
  const auto at = [](Pointer image, int64_t offset) { return image == nullptr ? nullptr : image + offset; };
  if (plane < DEPTH) return at(rgb, (3 * camera + plane) * size);
  if (plane == DEPTH) return at(depth, camera * size);
  if (plane < ALPHA_PLANE) return at(normal, (3 * camera + plane - DEPTH - 1) * size);
  return at(alpha, camera * size);
}

__global__ void __launch_bounds__(TILE_THREADS) draw_tiles(StudioSplatDraw arguments, Workspace work) {
  __shared__ alignas(16) SplatRecord batch[TILE_THREADS];
  const StudioSplatScene& scene = arguments.scene;
  const TilePixel at(scene, work);
  Pixel<float> pixel = Pixel<float>::lit(at.inside ? 1.0f : 0.0f);
  uint32_t reached = at.begin;
  for (uint32_t first = at.begin; first < at.end; first += TILE_THREADS) {
    if (__syncthreads_and(pixel.light == 0.0f)) break;
    const uint32_t mine = first + threadIdx.x;
    if (mine < at.end) load_record(arguments.records, work.slot_record[mine], batch[threadIdx.x]);
    __syncthreads();
    const uint32_t size = at.end - first < TILE_THREADS ? at.end - first : TILE_THREADS;
    for (uint32_t i = 0; i < size && pixel.light > 0.0f; ++i) {
      pixel.draw(batch[i], at.center_x(), at.center_y());
      reached = first + i + 1;
    }
  }
  if (!at.inside) return;
  const int64_t size = int64_t(scene.width) * scene.height;
  work.pixel_reached[at.camera * size + at.pixel] = static_cast<int32_t>(reached - at.begin);
  for (int plane = 0; plane < PLANES; ++plane) {
    float* out = plane_of(plane, at.camera, size, arguments.rgb, arguments.alpha, arguments.depth, arguments.normal);
    out[at.pixel] = pixel.plane(plane, scene.background + 3 * at.camera);
  }
}

__device__ float warp_sum(float value) {
  for (int offset = 16; offset > 0; offset /= 2) value += __shfl_xor_sync(0xffffffffu, value, offset);
  return value;
}

// v_records [cameras splats RECORD]: six moments, then seven features.
constexpr int MOMENTS = 6;

__global__ void __launch_bounds__(TILE_THREADS)
    draw_tiles_vjp(StudioSplatBackward arguments, Workspace work, float* v_records) {
  __shared__ alignas(16) SplatRecord batch[TILE_THREADS];
  __shared__ uint32_t index[TILE_THREADS];
  const StudioSplatScene& scene = arguments.scene;
  const TilePixel at(scene, work);
  const int64_t size = int64_t(scene.width) * scene.height;
  PixelGradient<float> pixel = {at.inside ? 1.0f : 0.0f, 0.0f, {}};
  for (int plane = 0; plane < PLANES && at.inside; ++plane) {
    const float* picture =
        plane_of(plane, at.camera, size, arguments.rgb, arguments.alpha, arguments.depth, arguments.normal);
    const float* v =
        plane_of(plane, at.camera, size, arguments.v_rgb, arguments.v_alpha, arguments.v_depth, arguments.v_normal);
    if (v == nullptr) continue;
    pixel.v[plane] = v[at.pixel];
    pixel.behind += v[at.pixel] * picture[at.pixel];
  }
  const uint32_t last = at.begin + (at.inside ? work.pixel_reached[at.camera * size + at.pixel] : 0);
  for (uint32_t first = at.begin; first < at.end; first += TILE_THREADS) {
    if (__syncthreads_and(first >= last)) break;
    const uint32_t mine = first + threadIdx.x;
    if (mine < at.end) {
      index[threadIdx.x] = work.slot_record[mine];
      load_record(arguments.records, index[threadIdx.x], batch[threadIdx.x]);
    }
    __syncthreads();
    const uint32_t count = at.end - first < TILE_THREADS ? at.end - first : TILE_THREADS;
    for (uint32_t i = 0; i < count; ++i) {  // a warp's threads stay together: they add up
      PixelGradient<float>::Pull pull = {0.0f, 0.0f};
      if (first + i < last) pull = pixel.draw(batch[i], at.center_x(), at.center_y());
      if (!__any_sync(0xffffffffu, pull.weight > 0.0f)) continue;
      const float dx = at.center_x() - batch[i].mean_x, dy = at.center_y() - batch[i].mean_y, m = pull.log_alpha;
      float sums[MOMENTS + FEATURES] = {m, m * dx, m * dy, m * dx * dx, m * dx * dy, m * dy * dy};
      for (int f = 0; f < FEATURES; ++f) sums[MOMENTS + f] = pull.weight * pixel.v[f];
      for (float& sum : sums) sum = warp_sum(sum);
      if (threadIdx.x % 32 == 0) {
        float* out = v_records + int64_t(index[i]) * RECORD;
        for (int j = 0; j < MOMENTS + FEATURES; ++j) atomicAdd(out + j, sums[j]);
      }
    }
  }
}

template <int K>
struct SplatVjp {
  StudioSplatBackward arguments;
  const float* v_records;

  __device__ void operator()(int64_t i) const {
    const StudioSplatScene& scene = arguments.scene;
    const Splat<K, float> splat = load_splat<K>(scene, i);
    GaussianGradient<float> total = zero_gradient<float>();
    float v_sh[3 * K] = {};
    bool seen = false;
    for (int64_t c = 0; c < scene.cameras; ++c) {
      const int64_t record = c * scene.splats + i;
      float v_mean[2] = {0.0f, 0.0f};
      if (arguments.records[record * RECORD + 13] >= 0.0f) {  // half_x: visible
        seen = true;
        RecordGradient<float> v;
        for (int j = 0; j < MOMENTS; ++j) v.moments[j] = v_records[record * RECORD + j];
        for (int j = 0; j < FEATURES; ++j) v.features[j] = v_records[record * RECORD + MOMENTS + j];
        record_vjp(splat, camera_of(scene, c), scene.antialias != 0, v, total, v_sh, v_mean[0], v_mean[1]);
      }
      if (arguments.v_means2d_probe != nullptr) {
        arguments.v_means2d_probe[2 * record] = v_mean[0];
        arguments.v_means2d_probe[2 * record + 1] = v_mean[1];
      }
    }
    Quat<float> quat = {0.0f, 0.0f, 0.0f, 0.0f};
    Vec3<float> scale = {0.0f, 0.0f, 0.0f};
    if (seen) make_gaussian_vjp(splat.gaussian, splat.quat, total, quat, scale);
    float* v = arguments.v_means + 3 * i;
    v[0] = total.mean.x, v[1] = total.mean.y, v[2] = total.mean.z;
    v = arguments.v_quats_wxyz + 4 * i;
    v[0] = quat.w, v[1] = quat.x, v[2] = quat.y, v[3] = quat.z;
    v = arguments.v_scales + 3 * i;
    v[0] = scale.x, v[1] = scale.y, v[2] = scale.z;
    arguments.v_opacities[i] = total.opacity;
    for (int k = 0; k < 3 * K; ++k) arguments.v_sh[3 * K * i + k] = v_sh[k];
  }
};

// A block for each camera and channel.
__global__ void __launch_bounds__(THREADS) background_vjp(StudioSplatBackward arguments) {
  __shared__ float sums[THREADS / 32];
  const int64_t size = int64_t(arguments.scene.width) * arguments.scene.height;
  const float* v = arguments.v_rgb == nullptr ? nullptr : arguments.v_rgb + blockIdx.x * size;
  const float* alpha = arguments.alpha + blockIdx.x / 3 * size;
  float sum = 0.0f;
  for (int64_t i = threadIdx.x; i < size && arguments.v_rgb != nullptr; i += THREADS) sum += v[i] * (1.0f - alpha[i]);
  sum = warp_sum(sum);
  if (threadIdx.x % 32 == 0) sums[threadIdx.x / 32] = sum;
  __syncthreads();
  if (threadIdx.x != 0) return;
  for (int i = 1; i < THREADS / 32; ++i) sum += sums[i];
  arguments.v_background[blockIdx.x] = sum;
}

// Runs a cub algorithm with the scratch memory that it asks for.
template <class Algorithm>
void run_cub(cudaStream_t stream, Algorithm&& algorithm) {
  size_t bytes = 0;
  check(algorithm(nullptr, bytes));
  DeviceBuffer<uint8_t> scratch(static_cast<int64_t>(bytes), stream);
  check(algorithm(scratch.data(), bytes));
}

struct Widen {
  const int32_t* from;
  int64_t* to;
  __device__ void operator()(int64_t i) const { to[i] = from[i]; }
};

// Inclusive sums in 64 bits: cub adds in the type of its input.
void sum_counts(const int32_t* counts, int64_t* sums, int64_t count, cudaStream_t stream) {
  DeviceBuffer<int64_t> wide(count, stream);
  launch(count, stream, Widen{counts, wide.data()});
  run_cub(stream, [&](void* scratch, size_t& bytes) {
    return cub::DeviceScan::InclusiveSum(scratch, bytes, wide.data(), sums, static_cast<int>(count), stream);
  });
}

void check_sizes(const StudioSplatScene& scene) {
  if (scene.cameras * scene.splats > INT32_MAX) throw std::runtime_error("more than 2 billion splats over all cameras");
  if (scene.width < 1 || scene.height < 1 || scene.width > 65536 || scene.height > 65536) {
    throw std::runtime_error("width and height must be 1 to 65536");
  }
  check(cudaSetDevice(scene.device));
}

// counts[1] is the number of (tile, splat) pairs of all cameras; reading it waits for the stream, once a draw.
void project_splats(const StudioSplatProject& arguments) {
  const StudioSplatScene& scene = arguments.scene;
  check_sizes(scene);
  const cudaStream_t stream = static_cast<cudaStream_t>(scene.stream);
  const int64_t count = scene.cameras * scene.splats;
  for (int64_t c = 0; c < 2 * scene.cameras; ++c) arguments.counts[c] = 0;
  if (count > 0) {
    with_sh_terms(scene.sh_terms, [&](auto terms) {
      launch(count, stream,
             ProjectSplat<terms.value>{scene, arguments.records, arguments.radii_px, arguments.order});
    });
    DeviceBuffer<int64_t> sums(count, stream);
    sum_counts(arguments.order, sums.data(), count, stream);
    check(cudaMemcpyAsync(&arguments.counts[1], sums.data() + count - 1, sizeof(int64_t), cudaMemcpyDeviceToHost,
                          stream));
    check(cudaStreamSynchronize(stream));
  }
  *arguments.workspace_bytes = Workspace(scene, arguments.counts, nullptr).bytes;
}

void draw_splats(const StudioSplatDraw& arguments) {
  const StudioSplatScene& scene = arguments.scene;
  check_sizes(scene);
  const cudaStream_t stream = static_cast<cudaStream_t>(scene.stream);
  const Workspace work(scene, arguments.counts, arguments.workspace);
  const int64_t count = scene.cameras * scene.splats;
  check(cudaMemsetAsync(work.tile_end, 0, work.all_tiles * sizeof(uint32_t), stream));
  if (work.slots > 0) {
    DeviceBuffer<int64_t> sums(count, stream);
    sum_counts(arguments.order, sums.data(), count, stream);
    DeviceBuffer<uint64_t> keys(work.slots, stream), sorted_keys(work.slots, stream);
    DeviceBuffer<uint32_t> values(work.slots, stream);
    launch(count, stream,
           ListTiles{scene, reinterpret_cast<const SplatRecord*>(arguments.records), arguments.order, sums.data(),
                     work.tiles, keys.data(), values.data()});
    int bits = 32;
    while (bits < 64 && (work.all_tiles >> (bits - 32)) != 0) ++bits;
    run_cub(stream, [&](void* scratch, size_t& bytes) {
      return cub::DeviceRadixSort::SortPairs(scratch, bytes, keys.data(), sorted_keys.data(), values.data(),
                                             work.slot_record, static_cast<int>(work.slots), 0, bits, stream);
    });
    launch(work.slots, stream, FindTileEnds{sorted_keys.data(), work.slots, work.all_tiles, work.tile_end});
  }
  if (work.all_tiles > 0) {
    draw_tiles<<<static_cast<unsigned>(work.all_tiles), TILE_THREADS, 0, stream>>>(arguments, work);
    check(cudaGetLastError());
  }
}

void draw_splats_vjp(const StudioSplatBackward& arguments) {
  const StudioSplatScene& scene = arguments.scene;
  check_sizes(scene);
  const cudaStream_t stream = static_cast<cudaStream_t>(scene.stream);
  const Workspace work(scene, arguments.counts, arguments.workspace);
  const int64_t count = scene.cameras * scene.splats * RECORD;
  DeviceBuffer<float> v_records(count, stream);
  check(cudaMemsetAsync(v_records.data(), 0, count * sizeof(float), stream));
  if (work.all_tiles > 0) {
    draw_tiles_vjp<<<static_cast<unsigned>(work.all_tiles), TILE_THREADS, 0, stream>>>(arguments, work,
                                                                                      v_records.data());
    check(cudaGetLastError());
    background_vjp<<<static_cast<unsigned>(3 * scene.cameras), THREADS, 0, stream>>>(arguments);
    check(cudaGetLastError());
  }
  with_sh_terms(scene.sh_terms, [&](auto terms) {
    launch(scene.splats, stream, SplatVjp<terms.value>{arguments, v_records.data()});
  });
}

// The C entries differ in nothing but the type of their arguments.
template <class Arguments, void (*function)(const Arguments&)>
int32_t guarded_call(const Arguments* arguments, int64_t bytes) {
  return guarded([](const void* untyped) { function(*static_cast<const Arguments*>(untyped)); }, arguments, bytes,
                 sizeof(Arguments));
}

}  // namespace

STUDIO_NAMESPACE_END

extern "C" {

STUDIO_API int32_t studio_splat_project(const StudioSplatProject* arguments, int64_t bytes) {
  return studio::guarded_call<StudioSplatProject, studio::project_splats>(arguments, bytes);
}
STUDIO_API int32_t studio_splat_draw(const StudioSplatDraw* arguments, int64_t bytes) {
  return studio::guarded_call<StudioSplatDraw, studio::draw_splats>(arguments, bytes);
}
STUDIO_API int32_t studio_splat_backward(const StudioSplatBackward* arguments, int64_t bytes) {
  return studio::guarded_call<StudioSplatBackward, studio::draw_splats_vjp>(arguments, bytes);
}

}  // extern "C"
