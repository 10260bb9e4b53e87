// Drawing a tile, and the gradient of drawing it, a pixel a lane.
#pragma once

#include "splatting/cpu_tiles.h"

STUDIO_NAMESPACE_BEGIN

// The four images are eight planes.
inline constexpr int FEATURES = 7, PLANES = 8, ALPHA_PLANE = 7;

struct Planes {
  const float* plane[PLANES];  // rgb, depth, normal, alpha: the order of the features, then alpha

  HD Planes(const StudioSplatScene& scene, int64_t camera, const float* rgb, const float* alpha, const float* depth,
            const float* normal) {
    const int64_t size = int64_t(scene.width) * scene.height;
    for (int i = 0; i < 3; ++i) plane[i] = rgb + (3 * camera + i) * size, plane[4 + i] = normal + (3 * camera + i) * size;
    plane[3] = depth + camera * size;
    plane[ALPHA_PLANE] = alpha + camera * size;
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

  // visit(lane, index in a plane) for the pixels of a block that lie in the picture.
  template <class Visit>
  HD void pixels(int block, Visit&& visit) const {
    for (int row = 0; row < BLOCK_HEIGHT; ++row) {
      for (int column = 0; column < BLOCK_WIDTH; ++column) {
        const int x = block_left(block) + column, y = block_top(block) + row;
        if (x < width && y < height) visit(row * BLOCK_WIDTH + column, int64_t(y) * width + x);
      }
    }
  }
};

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

struct BlockState {
  Float light, left;  // light: what still passes, 0 when closed; left: what passed at the end
  Float sums[FEATURES];
};

inline void draw_tile(const StudioSplatDraw& arguments, const Workspace& work, int64_t camera, int64_t tile) {
  const StudioSplatScene& scene = arguments.scene;
  const SplatRecord* records = reinterpret_cast<const SplatRecord*>(arguments.records) + camera * scene.splats;
  const int64_t at = camera * work.tiles + tile;
  const uint32_t* slots = work.tile_slots + work.tile_begin[at];
  const int count = work.tile_count[at];
  const TilePlace place(scene, work, tile);
  const BlockRectangles rectangles(place);

  BlockState states[BLOCKS];
  uint64_t open = 0;
  for (int block = 0; block < BLOCKS; ++block) {
    alignas(64) float inside[LANES] = {};
    place.pixels(block, [&](int lane, int64_t) { inside[lane] = 1.0f, open |= uint64_t(1) << block; });
    BlockState& state = states[block];
    state.light = state.left = Float::load(inside);
    for (Float& sum : state.sums) sum = 0.0f;
  }

  int reached = 0;
  for (uint64_t* chunk_hits = work.chunk_hits + work.chunk_begin[at] * BLOCKS; reached < count && open != 0;
       reached += CHUNK, chunk_hits += BLOCKS) {
    const int size = count - reached < CHUNK ? count - reached : CHUNK;
    const SplatRecord* chunk[CHUNK];
    for (int block = 0; block < BLOCKS; ++block) chunk_hits[block] = 0;
    for (int i = 0; i < size; ++i) chunk[i] = &records[work.slot_splat[slots[reached + i]]];
    for (int i = 0; i < size; ++i) {
      for (uint64_t bits = rectangles.reached_by(*chunk[i]) & open; bits != 0; bits &= bits - 1) {
        chunk_hits[__builtin_ctzll(bits)] |= uint64_t(1) << i;
      }
    }
    for (uint64_t blocks = open; blocks != 0; blocks &= blocks - 1) {
      const int block = __builtin_ctzll(blocks);
      BlockState state = states[block];
      const Float x = place.pixel_x(block), y = place.pixel_y(block);
      uint64_t shown = 0;
      for (uint64_t hits = chunk_hits[block]; hits != 0; hits &= hits - 1) {
        const int i = __builtin_ctzll(hits);
        const SplatRecord& splat = *chunk[i];
        const Contribution<Float> c = contribute(log2_alpha(splat, x, y), state.light);
        for (int f = 0; f < FEATURES; ++f) state.sums[f] += c.weight * splat.features[f];
        shown |= uint64_t(any(c.weight > Float(0.0f))) << i;
        state.left = select(c.open, c.left, state.left);
        state.light = c.left;
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
    const BlockState& state = states[block];
    for (int plane = 0; plane < PLANES; ++plane) {
      const Float value = plane == ALPHA_PLANE ? Float(1.0f) - state.left
                          : plane < 3          ? state.sums[plane] + state.left * background[plane]
                                               : state.sums[plane];
      float* to = const_cast<float*>(out.plane[plane]);
      place.pixels(block, [&](int lane, int64_t pixel) { to[pixel] = value[lane]; });
    }
  }
}

// What a tile's backward pass hands on for one slot: six moments and seven features, see RecordGradient.
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

// Front to back again, for the same weights. With u the loss's gradient on a splat's weight and R the sum of
// weight times u over what lies behind it, background included, the gradient on alpha is light u - R / (1 - alpha);
// R begins as gradient times picture.
inline void draw_tile_vjp(const BackwardTask& task, int64_t camera, int64_t tile) {
  const StudioSplatBackward& arguments = task.arguments;
  const StudioSplatScene& scene = arguments.scene;
  const Workspace& work = task.work;
  const SplatRecord* records = reinterpret_cast<const SplatRecord*>(arguments.records) + camera * scene.splats;
  const int64_t at = camera * work.tiles + tile;
  const uint32_t* slots = work.tile_slots + work.tile_begin[at];
  const int count = work.tile_reached[at];
  if (count == 0) return;
  const TilePlace place(scene, work, tile);
  const Planes picture(scene, camera, arguments.rgb, arguments.alpha, arguments.depth, arguments.normal);
  const Planes v_picture(scene, camera, arguments.v_rgb, arguments.v_alpha, arguments.v_depth, arguments.v_normal);

  struct State {
    Float light, behind;
    Float v[PLANES];
  };
  State states[BLOCKS];
  alignas(64) float v_rows[BLOCKS][LANES][8];  // the gradient on the picture, a pixel a row
  for (int block = 0; block < BLOCKS; ++block) {
    alignas(64) float light[LANES] = {}, behind[LANES] = {}, v[PLANES][LANES] = {};
    memset(v_rows[block], 0, sizeof v_rows[block]);
    place.pixels(block, [&](int lane, int64_t pixel) {
      light[lane] = 1.0f;
      for (int plane = 0; plane < PLANES; ++plane) {
        const float value = v_picture.plane[plane][pixel];
        v[plane][lane] = v_rows[block][lane][plane] = value;
        behind[lane] += value * picture.plane[plane][pixel];
      }
    });
    states[block].light = Float::load(light), states[block].behind = Float::load(behind);
    for (int plane = 0; plane < PLANES; ++plane) states[block].v[plane] = Float::load(v[plane]);
  }

  int64_t next = task.partial_begin[at];
  const uint64_t* chunk_hits = work.chunk_hits + work.chunk_begin[at] * BLOCKS;
  for (int reached = 0; reached < count; reached += CHUNK, chunk_hits += BLOCKS) {
    uint64_t shown = 0;
    for (int block = 0; block < BLOCKS; ++block) shown |= chunk_hits[block];
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
      State& state = states[block];
      Float light = state.light, behind = state.behind;
      const Float x = place.pixel_x(block), y = place.pixel_y(block);
      alignas(64) float v_log_alpha[CHUNK + 3][LANES], weight[CHUNK + 3][LANES];
      int index[CHUNK + 3], hit_count = 0;
      for (uint64_t hits = chunk_hits[block]; hits != 0; hits &= hits - 1) {
        const int i = __builtin_ctzll(hits);
        const SplatRecord& splat = *chunk[i];
        const Float exponent = log2_alpha(splat, x, y);
        const Contribution<Float> c = contribute(exponent, light);
        Float u = state.v[ALPHA_PLANE];
        for (int f = 0; f < FEATURES; ++f) u += state.v[f] * splat.features[f];
        behind -= c.weight * u;
        const Float v_alpha = light * u - behind / (Float(1.0f) - c.alpha);
        // At the ceiling alpha no longer follows its exponent.
        const Float v_log = select(exponent < Float(LOG2_MAX_ALPHA), v_alpha * c.alpha, Float(0.0f));
        v_log.store(v_log_alpha[hit_count]);
        c.weight.store(weight[hit_count]);
        index[hit_count++] = i;
        light = c.left;
      }
      state.light = light, state.behind = behind;

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
