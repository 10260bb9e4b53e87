// The gradient on textures on a CPU: the rows of each level fall into stripes, one task a stripe, and each task looks
// through the pixels in their order, so that sums do not depend on the number of threads.
#pragma once

#include "mesh_raster/cpu_tasks.h"
#include "mesh_raster/texture.h"

STUDIO_NAMESPACE_BEGIN

// Which stripe each row of each level belongs to.
class Stripes {
 public:
  static constexpr int COUNT = 16, BLOCK = 16;  // BLOCK: neighbouring pixels that are looked through or left out together

  explicit Stripes(const StudioTexture& in) : stripe_(rows(in)) {
    int64_t begin = 0;
    for (int level = 0; level < in.levels; ++level) {
      begin_[level] = begin;
      for (int64_t row = 0; row < in.heights[level]; ++row) {
        stripe_[begin++] = static_cast<uint8_t>(row * COUNT / in.heights[level]);
      }
    }
  }

  int of(int level, int64_t row) const { return stripe_[begin_[level] + row]; }

  // Bits of the stripes that pixels from first to before end add to.
  uint16_t touched(const StudioTexture& in, int64_t view, int64_t first, int64_t end) const {
    uint32_t bits = 0;
    for (int64_t pixel = first; pixel < end; ++pixel) {
      const float v = in.uv[(2 * view + 1) * in.pixels + pixel];
      const Levels mix = levels_at(in, view, pixel);
      for (int level = mix.below; level <= (mix.t > 0 ? mix.above : mix.below); ++level) {
        const AxisTexels at = rows_at(in, level, v);
        bits |= 1u << of(level, at.index[0]) | 1u << of(level, at.index[1]);
      }
    }
    return static_cast<uint16_t>(bits);
  }

 private:
  static int64_t rows(const StudioTexture& in) {
    int64_t rows = 0;
    for (int level = 0; level < in.levels; ++level) rows += in.heights[level];
    return rows;
  }

  int64_t begin_[STUDIO_TEXTURE_LEVELS];
  const Buffer<uint8_t> stripe_;
};

template <class Channels>
void texels_vjp(const StudioTextureBackward& task, Channels channels) {
  const StudioTexture& in = task.in;
  const auto add = [](float* to, float value) { *to += value; };
  if (in.launch.threads <= 1) {
    const auto owns = [](int, int64_t) { return true; };
    for (int64_t view = 0; view < in.views; ++view) {
      for (int64_t pixel = 0; pixel < in.pixels; ++pixel) texels_vjp_at(task, channels, view, pixel, owns, add);
    }
    return;
  }
  const Stripes stripes(in);
  const int64_t blocks = (in.pixels + Stripes::BLOCK - 1) / Stripes::BLOCK;
  const Buffer<uint16_t> touched(in.views * blocks);
  for_chunks(in.launch.threads, in.views, blocks, PIXEL_CHUNK / Stripes::BLOCK, [&](int64_t view, int64_t first, int64_t end) {
    for (int64_t block = first; block < end; ++block) {
      touched[view * blocks + block] = stripes.touched(in, view, block * Stripes::BLOCK,
                                                       min_of((block + 1) * Stripes::BLOCK, in.pixels));
    }
  });
  parallel_for(in.launch.threads, Stripes::COUNT, [&](int64_t stripe, int) {
    const auto owns = [&](int level, int64_t row) { return stripes.of(level, row) == stripe; };
    for (int64_t i = 0; i < in.views * blocks; ++i) {
      if ((touched[i] >> stripe & 1) == 0) continue;
      const int64_t view = i / blocks, first = i % blocks * Stripes::BLOCK;
      for (int64_t pixel = first; pixel < min_of(first + Stripes::BLOCK, in.pixels); ++pixel) {
        texels_vjp_at(task, channels, view, pixel, owns, add);
      }
    }
  });
}

STUDIO_NAMESPACE_END
