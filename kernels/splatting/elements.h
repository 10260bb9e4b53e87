// What one thread of CUDA does: plain code, which the tests also run on the CPU. (tile, depth) keys are sorted for all
// cameras at once; a block draws a tile.
#pragma once

#include <string.h>

#include <stdexcept>

#include "splatting/splat.h"
#include "splatting/splatting.h"
#include "studio/block.h"
#include "studio/index.h"
#include "studio/math/compositing.h"

STUDIO_NAMESPACE_BEGIN

inline constexpr int TILE = 16;
static_assert(TILE * TILE == BLOCK_THREADS, "a thread for each pixel of a tile");

HD Camera<float> camera_of(const StudioSplatScene& scene, int64_t camera) {
  return Camera<float>::from(scene.world_to_camera + 16 * camera, scene.intrinsics + 9 * camera, scene.width,
                             scene.height);
}

template <int K>
HD Splat<K, float> load_splat(const StudioSplatScene& scene, int64_t i) {
  const float *m = scene.means + 3 * i, *q = scene.quats_wxyz + 4 * i, *s = scene.scales + 3 * i;
  Splat<K, float> splat;
  splat.quat = {q[0], q[1], q[2], q[3]};
  splat.gaussian = make_gaussian<float>({m[0], m[1], m[2]}, splat.quat, {s[0], s[1], s[2]}, scene.opacities[i]);
  for (int k = 0; k < 3 * K; ++k) splat.sh[k] = scene.sh[3 * K * i + k];
  return splat;
}

// A record as memory moves it.
struct alignas(16) RecordQuads {
  struct alignas(16) Quad4 {
    float x, y, z, w;
  } quads[RECORD / 4];
};
union AlignedRecord {
  float columns[RECORD];
  RecordQuads quads;
  SplatRecord splat;
};

HD AlignedRecord load_record(const float* records, int64_t i) {
  AlignedRecord record;
  record.quads = reinterpret_cast<const RecordQuads*>(records)[i];
  return record;
}

// visit(tile) for the tiles of one camera that a visible splat's ellipse touches.
template <class Visit>
HD void touched_tiles(const SplatRecord& splat, int width, int height, Visit&& visit) {
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

// What draw leaves for backward. A slot is a (tile, splat) pair.
struct Workspace {
  int64_t tiles_x, tiles, all_tiles, slots, bytes;
  uint32_t* slot_record;   // [slots] index into the records of all cameras, by tile and depth
  uint32_t* tile_end;      // [cameras tiles] end of each tile's slots; a tile begins where the last one ends
  int32_t* pixel_reached;  // [cameras height width] slots of its tile that a pixel looked at before it closed

  Workspace(const StudioSplatScene& scene, const int64_t* counts, const uint8_t* base) {
    tiles_x = (scene.width + TILE - 1) / TILE;
    tiles = tiles_x * ((scene.height + TILE - 1) / TILE);
    all_tiles = scene.cameras * tiles;
    slots = scene.capacity > 0 ? scene.capacity : scene.cameras > 0 ? counts[1] : 0;
    if (slots > INT32_MAX || all_tiles > INT32_MAX) {
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

  HD uint32_t tile_begin(int64_t tile) const { return tile == 0 ? 0 : tile_end[tile - 1]; }
};

// Splat i % splats before camera i / splats, likewise below.
template <int K>
struct ProjectSplat {
  StudioSplatScene scene;
  float* records;
  float* radii_px;
  int64_t* tile_counts;

  HD void operator()(int64_t i) const {
    const float* probe = scene.means2d_probe;
    AlignedRecord record;
    make_record(load_splat<K>(scene, i % scene.splats), camera_of(scene, i / scene.splats),
                probe == nullptr ? 0.0f : probe[2 * i], probe == nullptr ? 0.0f : probe[2 * i + 1],
                scene.antialias != 0, scene.width, scene.height, record.columns, radii_px[i]);
    reinterpret_cast<RecordQuads*>(records)[i] = record.quads;
    int64_t count = 0;
    if (record.splat.half_x >= 0.0f) {
      touched_tiles(record.splat, scene.width, scene.height, [&](int) { ++count; });
    }
    tile_counts[i] = count;
  }
};

// Those pairs that there is a slot for. Other slots keep their keys, which begin as UNUSED.
struct ListTiles {
  static constexpr uint64_t UNUSED = UINT64_MAX;

  StudioSplatScene scene;
  const float* records;
  const int64_t* slots_end;  // sums of the counts, a splat's own included
  int64_t tiles, slots;
  uint64_t* keys;
  uint32_t* values;
  int64_t* left_out;

  HD void operator()(int64_t i) const {
    int64_t slot = i == 0 ? 0 : slots_end[i - 1];
    if (i + 1 == scene.cameras * scene.splats) *left_out = slots_end[i] > slots ? slots_end[i] - slots : 0;
    if (slot == slots_end[i]) return;
    const SplatRecord splat = load_record(records, i).splat;
    const uint64_t first_tile = static_cast<uint64_t>(i / scene.splats * tiles);
    uint32_t depth;  // positive floats sort as their bits; the sort is stable, so equal depths stay in the splats' order
    memcpy(&depth, &splat.features[DEPTH], sizeof depth);
    touched_tiles(splat, scene.width, scene.height, [&](int tile) {
      if (slot < slots) {
        keys[slot] = (first_tile + static_cast<uint64_t>(tile)) << 32 | depth;
        values[slot] = static_cast<uint32_t>(i);
      }
      ++slot;
    });
  }
};

// The tiles from this slot's up to the next slot's end here; those before the first slot end at 0.
struct FindTileEnds {
  const uint64_t* keys;  // sorted
  int64_t slots, all_tiles;
  uint32_t* tile_end;

  HD int64_t tile_of(int64_t slot) const {
    return slot < slots && keys[slot] != ListTiles::UNUSED ? static_cast<int64_t>(keys[slot] >> 32) : all_tiles;
  }
  HD void operator()(int64_t slot) const {
    for (int64_t t = tile_of(slot); t < tile_of(slot + 1); ++t) tile_end[t] = static_cast<uint32_t>(slot + 1);
  }
};

// A thread's pixel, and its tile's slots, which the block's threads load in turn.
struct TilePixel {
  int64_t camera, pixel;
  float x, y;  // its centre
  bool inside;
  uint32_t begin, end;

  HD TilePixel(const StudioSplatScene& scene, const Workspace& work, int64_t tile, int thread) {
    camera = tile / work.tiles;
    const int64_t place = tile % work.tiles;
    const int64_t column = place % work.tiles_x * TILE + thread % TILE, row = place / work.tiles_x * TILE + thread / TILE;
    x = static_cast<float>(column) + 0.5f, y = static_cast<float>(row) + 0.5f;
    inside = column < scene.width && row < scene.height;
    pixel = row * scene.width + column;
    begin = work.tile_begin(tile), end = work.tile_end[tile];
  }
};

// What the threads of a block load for each other.
struct TileBatch {
  AlignedRecord splats[BLOCK_SHARE];
  uint32_t index[BLOCK_SHARE];
};

// Where a plane of the four images lies: the features, then alpha; null where its image is.
template <class Pointer>
HD Pointer plane_of(int plane, int64_t camera, int64_t size, Pointer rgb, Pointer alpha, Pointer depth, Pointer normal) {
  const auto at = [](Pointer image, int64_t offset) { return image == nullptr ? nullptr : image + offset; };
  if (plane < DEPTH) return at(rgb, (3 * camera + plane) * size);
  if (plane == DEPTH) return at(depth, camera * size);
  if (plane < ALPHA_PLANE) return at(normal, (3 * camera + plane - DEPTH - 1) * size);
  return at(alpha, camera * size);
}

struct DrawTile {
  using Shared = TileBatch;

  StudioSplatDraw task;
  Workspace work;

  HD void operator()(int64_t tile, int thread, Shared& batch) const {
    const StudioSplatScene& scene = task.scene;
    const TilePixel at(scene, work, tile, thread);
    Pixel<float> pixel = Pixel<float>::lit(at.inside ? 1.0f : 0.0f);
    uint32_t reached = at.begin;
    for (uint32_t first = at.begin; first < at.end; first += BLOCK_SHARE) {
      if (all_of_block(pixel.light == 0.0f)) break;  // and none still reads the last batch
      const uint32_t mine = first + share_of(thread);
      if (mine < at.end) batch.splats[share_of(thread)] = load_record(task.records, work.slot_record[mine]);
      wait_for_block();
      const uint32_t size = at.end - first < BLOCK_SHARE ? at.end - first : BLOCK_SHARE;
      for (uint32_t i = 0; i < size && pixel.light > 0.0f; ++i) {
        pixel.draw(batch.splats[i].splat, at.x, at.y);
        reached = first + i + 1;
      }
    }
    if (!at.inside) return;
    const int64_t size = int64_t(scene.width) * scene.height;
    work.pixel_reached[at.camera * size + at.pixel] = static_cast<int32_t>(reached - at.begin);
    for (int plane = 0; plane < PLANES; ++plane) {
      float* out = plane_of(plane, at.camera, size, task.rgb, task.alpha, task.depth, task.normal);
      out[at.pixel] = pixel.plane(plane, scene.background + 3 * at.camera);
    }
  }
};

inline constexpr int MOMENTS = 6;  // of a record's gradient; then follow the features'

struct DrawTileBackward {
  using Shared = TileBatch;

  StudioSplatBackward task;
  Workspace work;
  float* v_records;  // [cameras splats RECORD], begins at 0

  HD void operator()(int64_t tile, int thread, Shared& batch) const {
    const StudioSplatScene& scene = task.scene;
    const TilePixel at(scene, work, tile, thread);
    const int64_t size = int64_t(scene.width) * scene.height;
    PixelGradient<float> pixel = {at.inside ? 1.0f : 0.0f, 0.0f, {}};
    for (int plane = 0; plane < PLANES && at.inside; ++plane) {
      const float* picture = plane_of(plane, at.camera, size, task.rgb, task.alpha, task.depth, task.normal);
      const float* v = plane_of(plane, at.camera, size, task.v_rgb, task.v_alpha, task.v_depth, task.v_normal);
      if (v == nullptr) continue;
      pixel.v[plane] = v[at.pixel];
      pixel.behind += v[at.pixel] * picture[at.pixel];
    }
    const uint32_t last =
        at.begin + (at.inside ? static_cast<uint32_t>(work.pixel_reached[at.camera * size + at.pixel]) : 0);
    for (uint32_t first = at.begin; first < at.end; first += BLOCK_SHARE) {
      if (all_of_block(first >= last)) break;
      const uint32_t mine = first + share_of(thread);
      if (mine < at.end) {
        batch.index[share_of(thread)] = work.slot_record[mine];
        batch.splats[share_of(thread)] = load_record(task.records, work.slot_record[mine]);
      }
      wait_for_block();
      const uint32_t count = at.end - first < BLOCK_SHARE ? at.end - first : BLOCK_SHARE;
      for (uint32_t i = 0; i < count; ++i) {  // a warp's threads stay together: they add up
        const SplatRecord& splat = batch.splats[i].splat;
        PixelGradient<float>::Pull pull = {0.0f, 0.0f};
        if (first + i < last) pull = pixel.draw(splat, at.x, at.y);
        if (!any_of_warp(pull.weight > 0.0f)) continue;
        const float dx = at.x - splat.mean_x, dy = at.y - splat.mean_y, m = pull.log_alpha;
        float sums[MOMENTS + FEATURES] = {m, m * dx, m * dy, m * dx * dx, m * dx * dy, m * dy * dy};
        for (int f = 0; f < FEATURES; ++f) sums[MOMENTS + f] = pull.weight * pixel.v[f];
        for (float& sum : sums) sum = sum_of_warp(sum);
        if (!leads_warp(thread)) continue;
        float* out = v_records + int64_t(batch.index[i]) * RECORD;
        for (int j = 0; j < MOMENTS + FEATURES; ++j) add_to(out + j, sums[j]);
      }
    }
  }
};

// Block i is channel i % 3 of camera i / 3. v_background begins at 0.
struct BackgroundBackward {
  struct Shared {};

  StudioSplatBackward task;

  HD void operator()(int64_t i, int thread, Shared&) const {
    const int64_t size = int64_t(task.scene.width) * task.scene.height;
    float sum = 0.0f;
    for (int64_t pixel = thread; pixel < size; pixel += BLOCK_THREADS) {
      sum += task.v_rgb[i * size + pixel] * (1.0f - task.alpha[i / 3 * size + pixel]);
    }
    sum = sum_of_warp(sum);
    if (leads_warp(thread)) add_to(task.v_background + i, sum);
  }
};

template <int K>
struct SplatBackward {
  StudioSplatBackward task;
  const float* v_records;

  HD void operator()(int64_t i) const {
    const StudioSplatScene& scene = task.scene;
    const Splat<K, float> splat = load_splat<K>(scene, i);
    GaussianGradient<float> total = zero_gradient<float>();
    float v_sh[3 * K] = {};
    bool seen = false;
    for (int64_t c = 0; c < scene.cameras; ++c) {
      const int64_t record = c * scene.splats + i;
      float v_mean[2] = {0.0f, 0.0f};
      if (reinterpret_cast<const SplatRecord*>(task.records)[record].half_x >= 0.0f) {
        seen = true;
        RecordGradient<float> v;
        for (int j = 0; j < MOMENTS; ++j) v.moments[j] = v_records[record * RECORD + j];
        for (int j = 0; j < FEATURES; ++j) v.features[j] = v_records[record * RECORD + MOMENTS + j];
        record_vjp(splat, camera_of(scene, c), scene.antialias != 0, v, total, v_sh, v_mean[0], v_mean[1]);
      }
      if (task.v_means2d_probe != nullptr) {
        task.v_means2d_probe[2 * record] = v_mean[0], task.v_means2d_probe[2 * record + 1] = v_mean[1];
      }
    }
    Quat<float> quat = {0.0f, 0.0f, 0.0f, 0.0f};
    Vec3<float> scale = {0.0f, 0.0f, 0.0f};
    if (seen) make_gaussian_vjp(splat.gaussian, splat.quat, total, quat, scale);
    float* v = task.v_means + 3 * i;
    v[0] = total.mean.x, v[1] = total.mean.y, v[2] = total.mean.z;
    v = task.v_quats_wxyz + 4 * i;
    v[0] = quat.w, v[1] = quat.x, v[2] = quat.y, v[3] = quat.z;
    v = task.v_scales + 3 * i;
    v[0] = scale.x, v[1] = scale.y, v[2] = scale.z;
    task.v_opacities[i] = total.opacity;
    for (int k = 0; k < 3 * K; ++k) task.v_sh[3 * K * i + k] = v_sh[k];
  }
};

STUDIO_NAMESPACE_END
