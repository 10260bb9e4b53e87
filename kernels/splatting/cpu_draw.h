// Drawing a tile, and the gradient of drawing it, a pixel a lane.
#pragma once

#include "splatting/cpu_tiles.h"

STUDIO_NAMESPACE_BEGIN

// The four images are eight planes.
struct Planes {
  const float* plane[PLANES];  // the features, then alpha; null where an image is

  HD Planes(const StudioSplatScene& scene, int64_t camera, const float* rgb, const float* alpha, const float* depth,
            const float* normal) {
    const int64_t size = int64_t(scene.width) * scene.height;
    for (int i = 0; i < 3; ++i) {
      plane[i] = rgb == nullptr ? nullptr : rgb + (3 * camera + i) * size;
      plane[DEPTH + 1 + i] = normal == nullptr ? nullptr : normal + (3 * camera + i) * size;
    }
    plane[DEPTH] = depth == nullptr ? nullptr : depth + camera * size;
    plane[ALPHA_PLANE] = alpha == nullptr ? nullptr : alpha + camera * size;
  }
};

// Where one tile lies, and its pixels in blocks.
struct TilePlace {
  int left, top, width, height;  // of the tile, then of the picture

  HD TilePlace(const StudioSplatScene& scene, const Workspace& work, int64_t tile)
      : left(static_cast<int>(tile % work.tiles_x) * TILE),
        top(static_cast<int>(tile / work.tiles_x) * TILE),
        width(scene.width),
        height(scene.height) {}

  HD int block_left(int block) const { return left + block % BLOCKS_ACROSS * BLOCK_WIDTH; }
  HD int block_top(int block) const { return top + block / BLOCKS_ACROSS * BLOCK_HEIGHT; }

  HD Float pixel_x(int block) const {
    alignas(64) float x[LANES];
    for (int lane = 0; lane < LANES; ++lane) x[lane] = static_cast<float>(lane % BLOCK_WIDTH) + 0.5f;
    return Float::load(x) + static_cast<float>(block_left(block));
  }
  HD Float pixel_y(int block) const {
    alignas(64) float y[LANES];
    for (int lane = 0; lane < LANES; ++lane) y[lane] = static_cast<float>(lane / BLOCK_WIDTH) + 0.5f;
    return Float::load(y) + static_cast<float>(block_top(block));
  }

  // 1 in the picture, 0 outside.
  HD Float inside(int block) const {
    const Mask within = (pixel_x(block) < Float(static_cast<float>(width))) &
                        (pixel_y(block) < Float(static_cast<float>(height)));
    return select(within, Float(1.0f), Float(0.0f));
  }
  // The block's part of a plane; 0 outside the picture.
  HD Float load(int block, const float* plane) const {
    const int x = block_left(block), y = block_top(block);
    const float* pixels = plane + int64_t(y) * width + x;
    Quad rows[QUADS] = {};
    if (holds(block)) {
      for (int row = 0; row < BLOCK_HEIGHT; ++row) rows[row] = load_quad(pixels + row * width);
    } else {
      for (int row = 0; row < BLOCK_HEIGHT && y + row < height; ++row) {
        for (int i = 0; i < BLOCK_WIDTH && x + i < width; ++i) rows[row][i] = pixels[row * width + i];
      }
    }
    return join(rows);
  }

  HD void store(int block, Float value, float* plane) const {
    const int x = block_left(block), y = block_top(block);
    float* pixels = plane + int64_t(y) * width + x;
    alignas(64) float values[LANES];
    value.store(values);
    if (holds(block)) {
      for (int row = 0; row < BLOCK_HEIGHT; ++row) {
        store_quad(load_quad(values + row * BLOCK_WIDTH), pixels + row * width);
      }
    } else {
      for (int row = 0; row < BLOCK_HEIGHT && y + row < height; ++row) {
        for (int i = 0; i < BLOCK_WIDTH && x + i < width; ++i) pixels[row * width + i] = values[row * BLOCK_WIDTH + i];
      }
    }
  }

 private:
  HD bool holds(int block) const {
    return block_left(block) + BLOCK_WIDTH <= width && block_top(block) + BLOCK_HEIGHT <= height;
  }
};
static_assert(BLOCK_WIDTH == 4, "a row of a block is a quad");

// The rectangles of pixel centres of a tile's blocks, a block a lane.
struct BlockRectangles {
  Float left[BLOCKS / LANES + (BLOCKS < LANES)], top[BLOCKS / LANES + (BLOCKS < LANES)];

  HD explicit BlockRectangles(const TilePlace& place) {
    for (int i = 0; i < BLOCKS / LANES; ++i) {
      alignas(64) float x[LANES], y[LANES];
      for (int lane = 0; lane < LANES; ++lane) {
        x[lane] = static_cast<float>(place.block_left(i * LANES + lane)) + 0.5f;
        y[lane] = static_cast<float>(place.block_top(i * LANES + lane)) + 0.5f;
      }
      left[i] = Float::load(x), top[i] = Float::load(y);
    }
  }

  // One bit a block.
  HD uint64_t reached_by(const SplatRecord& splat) const {
    uint64_t bits = 0;
    for (int i = 0; i < BLOCKS / LANES; ++i) {
      const Mask hit =
          reaches(splat, left[i], top[i], left[i] + (BLOCK_WIDTH - 1.0f), top[i] + (BLOCK_HEIGHT - 1.0f));
      bits |= uint64_t(hit.bits()) << (i * LANES);
    }
    return bits;
  }
};
static_assert(BLOCKS % LANES == 0 && BLOCKS <= 64, "blocks are the bits of a word");

// Records lie in no useful order: those of the next chunk are asked for while this one is drawn.
HD void prefetch_chunk(const SplatRecord* records, const Workspace& work, const uint32_t* slots, int begin, int count) {
  const int end = begin + CHUNK < count ? begin + CHUNK : count;
  for (int i = begin; i < end; ++i) __builtin_prefetch(&records[work.slot_splat[slots[i]]]);
}

inline void draw_tile(const StudioSplatDraw& arguments, const Workspace& work, int64_t camera, int64_t tile) {
  const StudioSplatScene& scene = arguments.scene;
  const SplatRecord* records = reinterpret_cast<const SplatRecord*>(arguments.records) + camera * scene.splats;
  const int64_t at = camera * work.tiles + tile;
  const uint32_t* slots = work.tile_slots + work.tile_begin[at];
  const int count = work.tile_count[at];
  const TilePlace place(scene, work, tile);
  const BlockRectangles rectangles(place);
  prefetch_chunk(records, work, slots, 0, count);

  Pixel<Float> states[BLOCKS];
  uint64_t open = 0;
  for (int block = 0; block < BLOCKS; ++block) {
    states[block] = Pixel<Float>::lit(place.inside(block));
    open |= uint64_t(any(states[block].light > Float(0.0f))) << block;
  }

  int reached = 0;
  for (uint64_t* chunk_hits = work.chunk_hits + work.chunk_begin[at] * BLOCKS; reached < count && open != 0;
       reached += CHUNK, chunk_hits += BLOCKS) {
    const int size = count - reached < CHUNK ? count - reached : CHUNK;
    const SplatRecord* chunk[CHUNK];
    for (int block = 0; block < BLOCKS; ++block) chunk_hits[block] = 0;
    for (int i = 0; i < size; ++i) chunk[i] = &records[work.slot_splat[slots[reached + i]]];
    prefetch_chunk(records, work, slots, reached + CHUNK, count);
    for (int i = 0; i < size; ++i) {
      for (uint64_t bits = rectangles.reached_by(*chunk[i]) & open; bits != 0; bits &= bits - 1) {
        chunk_hits[__builtin_ctzll(bits)] |= uint64_t(1) << i;
      }
    }
    for (uint64_t blocks = open; blocks != 0; blocks &= blocks - 1) {
      const int block = __builtin_ctzll(blocks);
      Pixel<Float> state = states[block];
      const Float x = place.pixel_x(block), y = place.pixel_y(block);
      uint64_t shown = 0;
      for (uint64_t hits = chunk_hits[block]; hits != 0; hits &= hits - 1) {
        const int i = __builtin_ctzll(hits);
        const Contribution<Float> c = state.draw(*chunk[i], x, y);
        shown |= uint64_t(any(c.weight > Float(0.0f))) << i;
        if (!any(c.open)) {
          open &= ~(uint64_t(1) << block);
          break;
        }
      }
      chunk_hits[block] = shown;
      states[block] = state;
    }
  }
  work.tile_reached[at] = reached < count ? reached : count;

  const Planes out(scene, camera, arguments.rgb, arguments.alpha, arguments.depth, arguments.normal);
  const float* background = scene.background + 3 * camera;
  for (int block = 0; block < BLOCKS; ++block) {
    for (int plane = 0; plane < PLANES; ++plane) {
      place.store(block, states[block].plane(plane, background), const_cast<float*>(out.plane[plane]));
    }
  }
}

// What a tile's backward pass hands on for one slot: the moments and features of a RecordGradient.
inline constexpr int PARTIAL = 16, FEATURE_PART = 8;

// Half a PARTIAL in native vectors.
inline constexpr int ROW_LANES = LANES < 8 ? LANES : 8, ROW_PARTS = 8 / ROW_LANES;
typedef float RawRow __attribute__((vector_size(4 * ROW_LANES)));
struct Row {
  RawRow part[ROW_PARTS];
};

// 1, x, y, x², xy, y² of each pixel from the middle of its tile, in blocks.
struct PixelMoments {
  alignas(64) float row[BLOCKS][LANES][8];

  PixelMoments() {
    for (int block = 0; block < BLOCKS; ++block) {
      for (int lane = 0; lane < LANES; ++lane) {
        const float x = static_cast<float>(block % BLOCKS_ACROSS * BLOCK_WIDTH + lane % BLOCK_WIDTH) - 7.5f;
        const float y = static_cast<float>(block / BLOCKS_ACROSS * BLOCK_HEIGHT + lane / BLOCK_WIDTH) - 7.5f;
        const float values[8] = {1.0f, x, y, x * x, x * y, y * y, 0.0f, 0.0f};
        memcpy(row[block][lane], values, sizeof values);
      }
    }
  }
};

struct BackwardTask {
  const StudioSplatBackward& arguments;
  const Workspace& work;
  const PixelMoments& moments;
  const int64_t* partial_begin;   // [cameras tiles]
  float* partials;                // [... PARTIAL]
  uint32_t* slot_partial;         // [slots] NONE where the slot shows nowhere
  uint8_t* touched;               // [cameras splats]
};

inline void draw_tile_vjp(const BackwardTask& task, int64_t camera, int64_t tile) {
  const StudioSplatBackward& arguments = task.arguments;
  const StudioSplatScene& scene = arguments.scene;
  const Workspace& work = task.work;
  const SplatRecord* records = reinterpret_cast<const SplatRecord*>(arguments.records) + camera * scene.splats;
  const int64_t at = camera * work.tiles + tile;
  const uint32_t* slots = work.tile_slots + work.tile_begin[at];
  const int count = work.tile_reached[at];
  if (count == 0) return;
  prefetch_chunk(records, work, slots, 0, count);
  const TilePlace place(scene, work, tile);
  const Planes picture(scene, camera, arguments.rgb, arguments.alpha, arguments.depth, arguments.normal);
  const Planes v_picture(scene, camera, arguments.v_rgb, arguments.v_alpha, arguments.v_depth, arguments.v_normal);

  PixelGradient<Float> states[BLOCKS];
  alignas(64) float v_rows[BLOCKS][LANES][8];  // the gradient on the picture, a pixel a row
  for (int block = 0; block < BLOCKS; ++block) {
    PixelGradient<Float>& state = states[block];
    state.light = place.inside(block), state.behind = 0.0f;
    for (int plane = 0; plane < PLANES; ++plane) {
      state.v[plane] = 0.0f;
      if (v_picture.plane[plane] == nullptr) continue;
      state.v[plane] = place.load(block, v_picture.plane[plane]);
      state.behind += state.v[plane] * place.load(block, picture.plane[plane]);
    }
    float* rows[LANES];
    for (int lane = 0; lane < LANES; ++lane) rows[lane] = v_rows[block][lane];
    store_rows(state.v, rows, LANES);
  }

  int64_t next = task.partial_begin[at];
  const uint64_t* chunk_hits = work.chunk_hits + work.chunk_begin[at] * BLOCKS;
  for (int reached = 0; reached < count; reached += CHUNK, chunk_hits += BLOCKS) {
    uint64_t shown = 0;
    for (int block = 0; block < BLOCKS; ++block) shown |= chunk_hits[block];
    prefetch_chunk(records, work, slots, reached + CHUNK, count);
    if (shown == 0) continue;
    const SplatRecord* chunk[CHUNK];
    alignas(64) float sums[CHUNK][PARTIAL];
    for (uint64_t bits = shown; bits != 0; bits &= bits - 1) {
      const int i = __builtin_ctzll(bits);
      chunk[i] = &records[work.slot_splat[slots[reached + i]]];
      memset(sums[i], 0, sizeof sums[i]);
    }

    for (int block = 0; block < BLOCKS; ++block) {
      if (chunk_hits[block] == 0) continue;
      PixelGradient<Float> state = states[block];
      const Float x = place.pixel_x(block), y = place.pixel_y(block);
      alignas(64) float v_log_alpha[CHUNK + 3][LANES], weight[CHUNK + 3][LANES];
      int index[CHUNK + 3], hit_count = 0;
      for (uint64_t hits = chunk_hits[block]; hits != 0; hits &= hits - 1) {
        const int i = __builtin_ctzll(hits);
        const PixelGradient<Float>::Pull pull = state.draw(*chunk[i], x, y);
        pull.log_alpha.store(v_log_alpha[hit_count]);
        pull.weight.store(weight[hit_count]);
        index[hit_count++] = i;
      }
      states[block].light = state.light, states[block].behind = state.behind;

      // Sums over the block's pixels are a matrix product, four splats at a time.
      constexpr int GROUP = 4;
      for (int first = 0; first < hit_count; first += GROUP) {
        Row m[GROUP] = {}, w[GROUP] = {};
        for (int lane = 0; lane < LANES; ++lane) {
          Row moment, v;
          memcpy(&moment, task.moments.row[block][lane], sizeof moment);
          memcpy(&v, v_rows[block][lane], sizeof v);
          for (int j = 0; j < GROUP; ++j) {
            for (int part = 0; part < ROW_PARTS; ++part) {
              m[j].part[part] += v_log_alpha[first + j][lane] * moment.part[part];
              w[j].part[part] += weight[first + j][lane] * v.part[part];
            }
          }
        }
        for (int j = 0; j < GROUP && first + j < hit_count; ++j) {
          Row old[2];
          float* sum = sums[index[first + j]];
          memcpy(old, sum, sizeof old);
          for (int part = 0; part < ROW_PARTS; ++part) {
            old[0].part[part] += m[j].part[part];
            old[1].part[part] += w[j].part[part];
          }
          memcpy(sum, old, sizeof old);
        }
      }
    }

    for (uint64_t bits = shown; bits != 0; bits &= bits - 1) {
      const int i = __builtin_ctzll(bits);
      const uint32_t slot = slots[reached + i];
      float* out = task.partials + next * PARTIAL;
      memcpy(out, sums[i], sizeof sums[i]);
      // Moments about the tile's middle become moments about the mean.
      const float dx = static_cast<float>(place.left) + 8.0f - chunk[i]->mean_x;
      const float dy = static_cast<float>(place.top) + 8.0f - chunk[i]->mean_y;
      const float *m = sums[i];
      out[1] = m[1] + dx * m[0];
      out[2] = m[2] + dy * m[0];
      out[3] = m[3] + dx * (2.0f * m[1] + dx * m[0]);
      out[4] = m[4] + dx * m[2] + dy * out[1];
      out[5] = m[5] + dy * (2.0f * m[2] + dy * m[0]);
      task.slot_partial[slot] = static_cast<uint32_t>(next++);
      __atomic_store_n(&task.touched[camera * scene.splats + work.slot_splat[slot]], uint8_t(1), __ATOMIC_RELAXED);
    }
  }
}

STUDIO_NAMESPACE_END
