// Which splats each tile of the picture must draw, in order of depth.
#pragma once

#include <string.h>

#include <stdexcept>

#include "splatting/splatting.h"
#include "studio/buffer.h"
#include "studio/math/compositing.h"
#include "studio/simd.h"

STUDIO_NAMESPACE_BEGIN

inline constexpr int TILE = 16;  // pixels
// A tile is drawn in blocks of one pixel a lane, 4 pixels wide: small splats then waste few lanes.
inline constexpr int BLOCK_WIDTH = 4, BLOCK_HEIGHT = LANES / BLOCK_WIDTH;
inline constexpr int BLOCKS = TILE * TILE / LANES, BLOCKS_ACROSS = TILE / BLOCK_WIDTH;
inline constexpr int CHUNK = 64;  // splats of a tile that are taken together: the bits of one word
inline constexpr uint32_t NONE = 0xffffffffu;

// The tiles that a visible splat's box touches, both ends included.
struct TileSpan {
  uint16_t x0, y0, x1, y1;

  static HD TileSpan of(const SplatRecord& splat, int width, int height) {
    const auto tile = [](float pixel) { return static_cast<uint16_t>(static_cast<int>(pixel) / TILE); };
    return {tile(max(splat.mean_x - splat.half_x - 0.5f, 0.0f)), tile(max(splat.mean_y - splat.half_y - 0.5f, 0.0f)),
            tile(min(splat.mean_x + splat.half_x - 0.5f, static_cast<float>(width - 1))),
            tile(min(splat.mean_y + splat.half_y - 0.5f, static_cast<float>(height - 1)))};
  }
  HD int64_t size() const { return int64_t(x1 - x0 + 1) * (y1 - y0 + 1); }
  // The ellipse then touches the same tiles as its box.
  HD bool is_line() const { return x0 == x1 || y0 == y1; }
};

// What listing needs of a splat on one camera, apart from the much larger records.
struct Footprint {
  float depth;  // negative: not visible
  TileSpan tiles;
};

// An entry of StudioSplatProject::order.
struct OrderedSplat {
  uint32_t splat;
  TileSpan tiles;
};
static_assert(sizeof(OrderedSplat) == 12, "three int32");

struct SlotRange {
  uint32_t begin, count;
};

// What draw leaves for backward, all in one workspace. A slot is one (splat, tile) pair; slots are numbered by camera,
// then splats in order of depth, then tiles, so that a splat's slots are neighbours.
struct Workspace {
  int64_t tiles_x, tiles_y, tiles;  // of one camera
  int64_t bytes;
  int64_t* camera_begin;   // [cameras] first slot of each camera
  int64_t* tile_begin;     // [cameras tiles] where the tile's list begins in tile_slots
  int32_t* tile_count;     // [cameras tiles]
  int32_t* tile_reached;   // [cameras tiles] splats looked at before all pixels were closed
  int64_t* chunk_begin;    // [cameras tiles] the tile's first row in chunk_hits
  SlotRange* splat_slots;  // [cameras splats]
  uint32_t* slot_splat;    // [slots]
  uint32_t* slot_tile;     // [slots]
  uint32_t* tile_slots;    // [slots]
  uint64_t* chunk_hits;    // [chunks BLOCKS] which splats of the chunk show in each block

  Workspace(const StudioSplatScene& scene, const int64_t* counts, const uint8_t* base) {
    tiles_x = (scene.width + TILE - 1) / TILE;
    tiles_y = (scene.height + TILE - 1) / TILE;
    tiles = tiles_x * tiles_y;
    int64_t slots = 0;
    for (int64_t c = 0; c < scene.cameras; ++c) slots += counts[2 * c + 1];
    if (slots >= NONE) {
      throw std::runtime_error("the splats cover more than 4 billion tiles; make them smaller or fewer");
    }
    uint8_t* next = const_cast<uint8_t*>(base);
    const auto take = [&](auto*& array, int64_t count) {
      array = reinterpret_cast<std::remove_reference_t<decltype(array)>>(next);
      next += (count * static_cast<int64_t>(sizeof *array) + 63) / 64 * 64;
    };
    const int64_t all_tiles = scene.cameras * tiles;
    take(camera_begin, scene.cameras);
    take(tile_begin, all_tiles);
    take(tile_count, all_tiles);
    take(tile_reached, all_tiles);
    take(chunk_begin, all_tiles);
    take(splat_slots, scene.cameras * scene.splats);
    take(slot_splat, slots);
    take(slot_tile, slots);
    take(tile_slots, slots);
    take(chunk_hits, (slots / CHUNK + all_tiles) * BLOCKS);
    bytes = next - base;
  }
};

// Visible splats of one camera by depth, equal depths by index: radix sort on the bits that differ.
inline void order_by_depth(const StudioSplatProject& arguments, const Footprint* footprints, int64_t camera) {
  const int64_t splats = arguments.scene.splats;
  struct Item {
    uint32_t key, splat;
  };
  Buffer<Item> items(splats), turned(splats);
  int64_t count = 0, slots = 0;
  uint32_t least = NONE, most = 0;
  for (int64_t i = 0; i < splats; ++i) {
    if (!(footprints[i].depth >= 0.0f)) continue;
    uint32_t key;
    memcpy(&key, &footprints[i].depth, 4);  // positive floats sort as their bits
    least = key < least ? key : least;
    most = key > most ? key : most;
    items[count++] = {key, static_cast<uint32_t>(i)};
    slots += footprints[i].tiles.size();
  }
  constexpr int DIGIT = 11;
  Item *from = items.data(), *to = turned.data();
  for (int shift = 0; shift < 32 && count > 0 && ((most - least) >> shift) != 0; shift += DIGIT) {
    uint32_t begin[1 << DIGIT] = {};
    const auto digit = [&](const Item& item) { return ((item.key - least) >> shift) & ((1 << DIGIT) - 1); };
    for (int64_t i = 0; i < count; ++i) ++begin[digit(from[i])];
    uint32_t sum = 0;
    for (uint32_t& b : begin) {
      const uint32_t here = b;
      b = sum;
      sum += here;
    }
    for (int64_t i = 0; i < count; ++i) to[begin[digit(from[i])]++] = from[i];
    Item* const swapped = from;
    from = to, to = swapped;
  }
  OrderedSplat* order = reinterpret_cast<OrderedSplat*>(arguments.order) + camera * splats;
  for (int64_t i = 0; i < count; ++i) order[i] = {from[i].splat, footprints[from[i].splat].tiles};
  arguments.counts[2 * camera] = count;
  arguments.counts[2 * camera + 1] = slots;
}

// Fills the workspace's lists for one camera. camera_begin is known.
inline void list_tiles(const StudioSplatDraw& arguments, const Workspace& work, int64_t camera) {
  const StudioSplatScene& scene = arguments.scene;
  const SplatRecord* records = reinterpret_cast<const SplatRecord*>(arguments.records) + camera * scene.splats;
  const OrderedSplat* order = reinterpret_cast<const OrderedSplat*>(arguments.order) + camera * scene.splats;
  SlotRange* splat_slots = work.splat_slots + camera * scene.splats;
  int32_t* tile_count = work.tile_count + camera * work.tiles;
  int64_t* tile_begin = work.tile_begin + camera * work.tiles;
  memset(splat_slots, 0, scene.splats * sizeof *splat_slots);
  memset(tile_count, 0, work.tiles * sizeof *tile_count);

  // The test below takes tiles in the shape of a block of pixels, a tile a lane.
  alignas(64) float lane_left[LANES], lane_top[LANES];
  for (int lane = 0; lane < LANES; ++lane) {
    lane_left[lane] = static_cast<float>(lane % BLOCK_WIDTH * TILE) + 0.5f;
    lane_top[lane] = static_cast<float>(lane / BLOCK_WIDTH * TILE) + 0.5f;
  }
  const Float tile_left = Float::load(lane_left), tile_top = Float::load(lane_top);

  int64_t slot = work.camera_begin[camera];
  const auto add = [&](uint32_t splat, int64_t tile) {
    work.slot_splat[slot] = splat;
    work.slot_tile[slot] = static_cast<uint32_t>(tile);
    ++tile_count[tile];
    ++slot;
  };
  const int64_t count = arguments.counts[2 * camera];
  for (int64_t i = 0; i < count; ++i) {
    constexpr int AHEAD = 16;
    if (i + AHEAD < count && !order[i + AHEAD].tiles.is_line()) __builtin_prefetch(&records[order[i + AHEAD].splat]);
    const uint32_t splat = order[i].splat;
    const TileSpan span = order[i].tiles;
    const int64_t first = slot;
    if (span.is_line()) {
      for (int y = span.y0; y <= span.y1; ++y) {
        for (int x = span.x0; x <= span.x1; ++x) add(splat, y * work.tiles_x + x);
      }
    } else {
      for (int y = span.y0; y <= span.y1; y += BLOCK_HEIGHT) {
        const Float top = tile_top + static_cast<float>(y * TILE);
        for (int x = span.x0; x <= span.x1; x += BLOCK_WIDTH) {
          const Float left = tile_left + static_cast<float>(x * TILE);
          const Mask hit = reaches(records[splat], left, top, left + (TILE - 1.0f), top + (TILE - 1.0f)) &
                           (left < Float(static_cast<float>((span.x1 + 1) * TILE))) &
                           (top < Float(static_cast<float>((span.y1 + 1) * TILE)));
          for (uint32_t bits = hit.bits(); bits != 0; bits &= bits - 1) {
            const int lane = __builtin_ctz(bits);
            add(splat, (y + lane / BLOCK_WIDTH) * work.tiles_x + x + lane % BLOCK_WIDTH);
          }
        }
      }
    }
    splat_slots[splat] = {static_cast<uint32_t>(first), static_cast<uint32_t>(slot - first)};
  }

  const int64_t begin = work.camera_begin[camera], end = slot;
  Buffer<uint32_t> next(work.tiles);
  int64_t sum = begin, chunks = begin / CHUNK + camera * work.tiles;
  for (int64_t tile = 0; tile < work.tiles; ++tile) {
    tile_begin[tile] = sum;
    next[tile] = static_cast<uint32_t>(sum);
    work.chunk_begin[camera * work.tiles + tile] = chunks;
    sum += tile_count[tile];
    chunks += (tile_count[tile] + CHUNK - 1) / CHUNK;
  }
  for (slot = begin; slot < end; ++slot) work.tile_slots[next[work.slot_tile[slot]]++] = static_cast<uint32_t>(slot);
}

STUDIO_NAMESPACE_END
