// A texture at one pixel, bilinear or trilinear: the bodies of the CPU's and CUDA's loops.
#pragma once

#include "mesh_raster/mesh_raster.h"
#include "studio/scalar.h"

STUDIO_NAMESPACE_BEGIN

enum Wrap : int32_t { REPEAT = 0, CLAMP = 1, MIRROR = 2 };

// A coordinate brought to where all its texel indices lie within two periods of the texture.
HD float reduced(float u, int32_t wrap) {
  if (!is_finite(u)) return 0;
  switch (wrap) {
    case REPEAT: return u - floorf(u);
    case MIRROR: return u - 2 * floorf(0.5f * u);
    default: return max(-1.0f, min(u, 2.0f));
  }
}

HD int64_t wrapped(int64_t i, int64_t size, int32_t wrap) {
  if (wrap == CLAMP) return i < 0 ? 0 : i >= size ? size - 1 : i;
  const int64_t period = wrap == REPEAT ? size : 2 * size;
  i += i < 0 ? period : 0;
  i -= i >= period ? period : 0;
  return i < size ? i : period - 1 - i;
}

// The two texels around a place along one axis.
struct AxisTexels {
  int64_t index[2];
  float t;  // from the first to the second
};

// u runs from 0 to 1 over `size` texels.
HD AxisTexels texels_on_axis(float u, int64_t size, int32_t wrap) {
  const float x = u * static_cast<float>(size) - 0.5f, first = floorf(x);
  AxisTexels out;
  out.t = x - first;
  for (int i = 0; i < 2; ++i) out.index[i] = wrapped(static_cast<int64_t>(first) + i, size, wrap);
  return out;
}

HD AxisTexels rows_at(const StudioTexture& in, int level, float v) {
  return texels_on_axis(1 - reduced(v, in.wrap), in.heights[level], in.wrap);
}

// The four texels around a place on one level.
struct Footprint {
  int64_t texel[4];  // top left, top right, bottom left, bottom right
  int64_t rows[2];   // of the texture
  float s, t;        // from left to right, from top to bottom

  HD float weight(int i) const { return ((i & 1) != 0 ? s : 1 - s) * ((i & 2) != 0 ? t : 1 - t); }
};

HD Footprint footprint(const StudioTexture& in, int level, int64_t view, float u, float v) {
  const AxisTexels columns = texels_on_axis(reduced(u, in.wrap), in.widths[level], in.wrap);
  const AxisTexels rows = rows_at(in, level, v);
  const int64_t base = in.textures > 1 ? view * in.heights[level] : 0;
  Footprint out;
  out.s = columns.t, out.t = rows.t;
  for (int i = 0; i < 2; ++i) out.rows[i] = rows.index[i];
  for (int i = 0; i < 4; ++i) {
    out.texel[i] = (base + rows.index[i >> 1]) * in.widths[level] + columns.index[i & 1];
  }
  return out;
}

// The one or two levels that a pixel mixes.
struct Levels {
  int below, above;
  float t;      // of the way from below to above
  bool inside;  // the level was not cut off
};

HD Levels levels_at(const StudioTexture& in, int64_t view, int64_t pixel) {
  if (in.level == nullptr || in.levels == 1) return {0, 0, 0, false};
  const float last = static_cast<float>(in.levels - 1), asked = in.level[view * in.pixels + pixel];
  const float level = min(max(asked, 0.0f), last);
  const int below = static_cast<int>(level);
  return {below, below + 1 < in.levels ? below + 1 : below, level - static_cast<float>(below),
          asked >= 0 && asked < last};
}

HD float bilinear(const float* texels, const Footprint& at, int64_t channels, int64_t channel) {
  float sum = 0;
  for (int i = 0; i < 4; ++i) sum += at.weight(i) * texels[at.texel[i] * channels + channel];
  return sum;
}

HD void texture_at(const StudioTextureForward& task, int64_t channels, int64_t view, int64_t pixel) {
  const StudioTexture& in = task.in;
  const float u = in.uv[2 * view * in.pixels + pixel], v = in.uv[(2 * view + 1) * in.pixels + pixel];
  const Levels mix = levels_at(in, view, pixel);
  float* out = task.out + view * channels * in.pixels + pixel;
  const Footprint fine = footprint(in, mix.below, view, u, v);
  const float* texels = in.texels[mix.below];
  if (mix.t == 0) {
    for (int64_t c = 0; c < channels; ++c) out[c * in.pixels] = bilinear(texels, fine, channels, c);
    return;
  }
  const Footprint coarse = footprint(in, mix.above, view, u, v);
  for (int64_t c = 0; c < channels; ++c) {
    const float a = bilinear(texels, fine, channels, c), b = bilinear(in.texels[mix.above], coarse, channels, c);
    out[c * in.pixels] = a + mix.t * (b - a);
  }
}

// Gradients on uv and level.
HD void place_vjp_at(const StudioTextureBackward& task, int64_t channels, int64_t view, int64_t pixel) {
  const StudioTexture& in = task.in;
  const float u = in.uv[2 * view * in.pixels + pixel], v = in.uv[(2 * view + 1) * in.pixels + pixel];
  const Levels mix = levels_at(in, view, pixel);
  const float* v_out = task.v_out + view * channels * in.pixels + pixel;
  float v_u = 0, v_v = 0, v_level = 0;
  for (int part = 0; part < 2; ++part) {
    const int level = part == 0 ? mix.below : mix.above;
    const float share = part == 0 ? 1 - mix.t : mix.t;
    if (part == 1 && !mix.inside) break;
    const Footprint at = footprint(in, level, view, u, v);
    const float* texels = in.texels[level];
    float along_s = 0, along_t = 0, value = 0;
    for (int64_t c = 0; c < channels; ++c) {
      const float g = v_out[c * in.pixels];
      float f[4];
      for (int i = 0; i < 4; ++i) f[i] = texels[at.texel[i] * channels + c];
      const float top = f[0] + at.s * (f[1] - f[0]), bottom = f[2] + at.s * (f[3] - f[2]);
      along_s += g * ((f[1] - f[0]) + at.t * ((f[3] - f[2]) - (f[1] - f[0])));
      along_t += g * (bottom - top);
      value += g * (top + at.t * (bottom - top));
    }
    v_u += share * along_s * static_cast<float>(in.widths[level]);
    v_v -= share * along_t * static_cast<float>(in.heights[level]);
    v_level += part == 0 ? -value : value;
  }
  if (task.v_uv != nullptr) {
    task.v_uv[2 * view * in.pixels + pixel] = is_finite(u) ? v_u : 0;
    task.v_uv[(2 * view + 1) * in.pixels + pixel] = is_finite(v) ? v_v : 0;
  }
  if (task.v_level != nullptr) task.v_level[view * in.pixels + pixel] = mix.inside ? v_level : 0;
}

// add(pointer, value) for each number that the pixel adds to v_texels, where owns(level, row of the texture).
template <class Owns, class Add>
HD void texels_vjp_at(const StudioTextureBackward& task, int64_t channels, int64_t view, int64_t pixel, Owns&& owns,
                      Add&& add) {
  const StudioTexture& in = task.in;
  const float u = in.uv[2 * view * in.pixels + pixel], v = in.uv[(2 * view + 1) * in.pixels + pixel];
  const Levels mix = levels_at(in, view, pixel);
  const float* v_out = task.v_out + view * channels * in.pixels + pixel;
  for (int part = 0; part < (mix.t > 0 ? 2 : 1); ++part) {
    const int level = part == 0 ? mix.below : mix.above;
    const float share = part == 0 ? 1 - mix.t : mix.t;
    const Footprint at = footprint(in, level, view, u, v);
    for (int i = 0; i < 4; ++i) {
      if (!owns(level, at.rows[i >> 1])) continue;
      const float weight = share * at.weight(i);
      float* row = task.v_texels[level] + at.texel[i] * channels;
      for (int64_t c = 0; c < channels; ++c) add(row + c, weight * v_out[c * in.pixels]);
    }
  }
}

STUDIO_NAMESPACE_END
