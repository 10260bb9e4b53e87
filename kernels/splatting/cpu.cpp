// Splatting on a CPU: vectors over Gaussians to project, over pixels to draw. Every sum has one order whatever the
// number of threads: a tile's pixels, then a splat's tiles, then the cameras.
#include "splatting/cpu_draw.h"
#include "splatting/cpu_project.h"
#include "splatting/splatting.h"
#include "studio/parallel.h"

STUDIO_NAMESPACE_BEGIN

namespace {

void read_cameras(const StudioSplatScene& scene, const Buffer<Camera<float>>& cameras) {
  for (int64_t c = 0; c < scene.cameras; ++c) {
    cameras[c] = Camera<float>::from(scene.world_to_camera + 16 * c, scene.intrinsics + 9 * c, scene.width, scene.height);
  }
}

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

// Partials lie in the order of tiles and depth: each is a cache miss, which is better had all at once.
void prefetch_partials(const BackwardTask& task, const int64_t* active, int count) {
  const StudioSplatScene& scene = task.arguments.scene;
  constexpr int READ = 0, INTO_L2 = 2;
  for (int64_t c = 0; c < scene.cameras; ++c) {
    const SlotRange* ranges = task.work.splat_slots + c * scene.splats;
    for (int i = 0; i < count; ++i) __builtin_prefetch(&task.slot_partial[ranges[active[i]].begin], READ, INTO_L2);
  }
  for (int64_t c = 0; c < scene.cameras; ++c) {
    const SlotRange* ranges = task.work.splat_slots + c * scene.splats;
    for (int i = 0; i < count; ++i) {
      const SlotRange range = ranges[active[i]];
      for (uint32_t slot = range.begin; slot < range.begin + range.count; ++slot) {
        if (task.slot_partial[slot] == NONE) continue;
        __builtin_prefetch(task.partials + int64_t(task.slot_partial[slot]) * PARTIAL, READ, INTO_L2);
      }
    }
  }
}

// One splat's partials of one camera, summed.
HD void sum_partials(const BackwardTask& task, SlotRange range, float (&out)[PARTIAL]) {
  Float sum[PARTIAL / LANES];
  for (Float& part : sum) part = 0.0f;
  for (uint32_t slot = range.begin; slot < range.begin + range.count; ++slot) {
    if (task.slot_partial[slot] == NONE) continue;
    const float* partial = task.partials + int64_t(task.slot_partial[slot]) * PARTIAL;
    for (int i = 0; i < PARTIAL / LANES; ++i) sum[i] += Float::load(partial + i * LANES);
  }
  for (int i = 0; i < PARTIAL / LANES; ++i) sum[i].store(out + i * LANES);
}

// Gathers each splat's partials and carries them to the parameters, for the splats of one batch.
template <int K>
void splats_vjp(const BackwardTask& task, const Buffer<Camera<float>>& cameras, int64_t batch) {
  const StudioSplatBackward& arguments = task.arguments;
  const StudioSplatScene& scene = arguments.scene;
  const int64_t begin = batch * BATCH, end = begin + BATCH < scene.splats ? begin + BATCH : scene.splats;
  memset(arguments.v_means + 3 * begin, 0, 3 * (end - begin) * sizeof(float));
  memset(arguments.v_quats_wxyz + 4 * begin, 0, 4 * (end - begin) * sizeof(float));
  memset(arguments.v_scales + 3 * begin, 0, 3 * (end - begin) * sizeof(float));
  memset(arguments.v_opacities + begin, 0, (end - begin) * sizeof(float));
  memset(arguments.v_sh + 3 * K * begin, 0, 3 * K * (end - begin) * sizeof(float));
  int64_t active[BATCH];
  int active_count = 0;
  for (int64_t i = begin; i < end; ++i) {
    bool any_camera = false;
    for (int64_t c = 0; c < scene.cameras; ++c) any_camera |= task.touched[c * scene.splats + i] != 0;
    if (any_camera) active[active_count++] = i;
  }

  prefetch_partials(task, active, active_count);
  for (int first = 0; first < active_count; first += LANES) {
    LaneIndex at;
    at.lanes = active_count - first < LANES ? active_count - first : LANES;
    for (int lane = 0; lane < LANES; ++lane) at.index[lane] = active[first + (lane < at.lanes ? lane : at.lanes - 1)];
    const Splat<K, Float> splats = load_splats<K>(scene, at);
    GaussianGradient<Float> total = zero_gradient<Float>();
    Float v_sh[3 * K];
    for (Float& v : v_sh) v = 0.0f;

    for (int64_t c = 0; c < scene.cameras; ++c) {
      alignas(64) float sums[LANES][PARTIAL], drawn[LANES];
      for (int lane = 0; lane < LANES; ++lane) {
        const int64_t place = c * scene.splats + at.index[lane];
        drawn[lane] = task.touched[place];
        sum_partials(task, drawn[lane] != 0.0f ? task.work.splat_slots[place] : SlotRange{}, sums[lane]);
      }
      const Mask seen = Float::load(drawn) > Float(0.0f);
      if (!any(seen)) continue;
      const float* rows[LANES];
      for (int lane = 0; lane < LANES; ++lane) rows[lane] = sums[lane];
      Float columns[PARTIAL];
      load_rows(rows, columns);
      RecordGradient<Float> v;
      for (int i = 0; i < 6; ++i) v.moments[i] = columns[i];
      for (int i = 0; i < FEATURES; ++i) v.features[i] = columns[FEATURE_PART + i];

      // A splat that this camera does not see may have no finite projection here: only seen ones are added.
      GaussianGradient<Float> part = zero_gradient<Float>();
      Float v_sh_part[3 * K], v_probe[2];
      for (Float& value : v_sh_part) value = 0.0f;
      record_vjp(splats, cameras[c], scene.antialias != 0, v, part, v_sh_part, v_probe[0], v_probe[1]);
      const Vec3<Float> zero{0.0f, 0.0f, 0.0f};
      total.mean += select(seen, part.mean, zero);
      for (int j = 0; j < 3; ++j) total.root[j] += select(seen, part.root[j], zero);
      total.short_axis += select(seen, part.short_axis, zero);
      total.opacity += select(seen, part.opacity, Float(0.0f));
      for (int k = 0; k < 3 * K; ++k) v_sh[k] += select(seen, v_sh_part[k], Float(0.0f));
      if (arguments.v_means2d_probe != nullptr) {
        for (int lane = 0; lane < at.lanes; ++lane) {
          if (drawn[lane] == 0.0f) continue;
          float* out = arguments.v_means2d_probe + 2 * (c * scene.splats + at.index[lane]);
          out[0] = v_probe[0][lane], out[1] = v_probe[1][lane];
        }
      }
    }

    Quat<Float> v_quat;
    Vec3<Float> v_scale;
    make_gaussian_vjp(splats.gaussian, splats.quat, total, v_quat, v_scale);
    float* rows[LANES];
    const Float mean[3] = {total.mean.x, total.mean.y, total.mean.z}, opacity[1] = {total.opacity};
    const Float quat[4] = {v_quat.w, v_quat.x, v_quat.y, v_quat.z}, scale[3] = {v_scale.x, v_scale.y, v_scale.z};
    at.rows(arguments.v_means, 3, rows), store_rows(mean, rows, at.lanes);
    at.rows(arguments.v_quats_wxyz, 4, rows), store_rows(quat, rows, at.lanes);
    at.rows(arguments.v_scales, 3, rows), store_rows(scale, rows, at.lanes);
    at.rows(arguments.v_opacities, 1, rows), store_rows(opacity, rows, at.lanes);
    at.rows(arguments.v_sh, 3 * K, rows), store_rows(v_sh, rows, at.lanes);
  }
}

void background_vjp(const StudioSplatBackward& arguments, int64_t camera) {
  const int64_t size = int64_t(arguments.scene.width) * arguments.scene.height;
  const float* alpha = arguments.alpha + camera * size;
  for (int channel = 0; channel < 3; ++channel) {
    const float* v = arguments.v_rgb + (3 * camera + channel) * size;
    if (arguments.v_rgb == nullptr) {
      arguments.v_background[3 * camera + channel] = 0.0f;
      continue;
    }
    Float sum = 0.0f;
    double rest = 0.0;
    int64_t i = 0;
    for (; i + LANES <= size; i += LANES) sum += Float::load(v + i) * (Float(1.0f) - Float::load(alpha + i));
    for (; i < size; ++i) rest += v[i] * (1.0f - alpha[i]);
    for (int lane = 0; lane < LANES; ++lane) rest += sum[lane];
    arguments.v_background[3 * camera + channel] = static_cast<float>(rest);
  }
}

}  // namespace

void splat_project(const StudioSplatProject& arguments) {
  const StudioSplatScene& scene = arguments.scene;
  if (scene.splats > INT32_MAX) throw std::runtime_error("more than 2 billion splats");
  if (scene.width < 1 || scene.height < 1 || scene.width > 65536 || scene.height > 65536) {
    throw std::runtime_error("width and height must be 1 to 65536");
  }
  Buffer<Camera<float>> cameras(scene.cameras);
  Buffer<Footprint> footprints(scene.cameras * scene.splats);
  read_cameras(scene, cameras);
  with_sh_terms(scene.sh_terms, [&](auto terms) {
    parallel_for(scene.launch.threads, (scene.splats + BATCH - 1) / BATCH,
                 [&](int64_t batch, int) { project_batch<terms.value>(arguments, cameras, footprints, batch); });
  });
  parallel_for(scene.launch.threads, scene.cameras, [&](int64_t c, int) {
    order_by_depth(arguments, footprints.data() + c * scene.splats, c);
  });
  *arguments.workspace_bytes = Workspace(scene, arguments.counts, nullptr).bytes;
}

void splat_draw(const StudioSplatDraw& arguments) {
  const StudioSplatScene& scene = arguments.scene;
  const Workspace work(scene, arguments.counts, arguments.workspace);
  *arguments.left_out = 0;
  int64_t slots = 0;
  for (int64_t c = 0; c < scene.cameras; ++c) {
    work.camera_begin[c] = slots;
    slots += arguments.counts[2 * c + 1];
  }
  parallel_for(scene.launch.threads, scene.cameras, [&](int64_t c, int) { list_tiles(arguments, work, c); });
  parallel_for(scene.launch.threads, scene.cameras * work.tiles,
               [&](int64_t i, int) { draw_tile(arguments, work, i / work.tiles, i % work.tiles); });
}

void splat_backward(const StudioSplatBackward& arguments) {
  const StudioSplatScene& scene = arguments.scene;
  const Workspace work(scene, arguments.counts, arguments.workspace);
  const int64_t tiles = scene.cameras * work.tiles;
  int64_t slots = 0, reached = 0;
  for (int64_t c = 0; c < scene.cameras; ++c) slots += arguments.counts[2 * c + 1];
  Buffer<int64_t> partial_begin(tiles);
  for (int64_t tile = 0; tile < tiles; ++tile) {
    partial_begin[tile] = reached;
    reached += work.tile_reached[tile];
  }
  Buffer<float> partials(reached * PARTIAL);
  Buffer<uint32_t> slot_partial(slots);
  Buffer<uint8_t> touched(scene.cameras * scene.splats);
  memset(slot_partial.data(), 0xff, slots * sizeof(uint32_t));
  memset(touched.data(), 0, scene.cameras * scene.splats);
  static const PixelMoments moments;
  const BackwardTask task{arguments,       work,           moments, partial_begin.data(), partials.data(),
                          slot_partial.data(), touched.data()};
  parallel_for(scene.launch.threads, tiles, [&](int64_t i, int) { draw_tile_vjp(task, i / work.tiles, i % work.tiles); });

  if (arguments.v_means2d_probe != nullptr) {
    memset(arguments.v_means2d_probe, 0, 2 * scene.cameras * scene.splats * sizeof(float));
  }
  Buffer<Camera<float>> cameras(scene.cameras);
  read_cameras(scene, cameras);
  with_sh_terms(scene.sh_terms, [&](auto terms) {
    parallel_for(scene.launch.threads, (scene.splats + BATCH - 1) / BATCH,
                 [&](int64_t batch, int) { splats_vjp<terms.value>(task, cameras, batch); });
  });
  parallel_for(scene.launch.threads, scene.cameras, [&](int64_t c, int) { background_vjp(arguments, c); });
}

STUDIO_NAMESPACE_END

STUDIO_ENTRY(studio_splat_project, splat_project, StudioSplatProject)
STUDIO_ENTRY(studio_splat_draw, splat_draw, StudioSplatDraw)
STUDIO_ENTRY(studio_splat_backward, splat_backward, StudioSplatBackward)
