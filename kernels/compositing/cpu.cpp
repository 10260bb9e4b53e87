// A few rays at a time: their samples lie in one row, so that all but the sums along a ray is done a vector at a time.
#include "compositing/compositing.h"

#include <cstring>
#include <stdexcept>

#include "studio/buffer.h"
#include "studio/index.h"
#include "studio/math/volume.h"
#include "studio/parallel.h"
#include "studio/simd.h"

STUDIO_NAMESPACE_BEGIN
namespace {

constexpr int64_t kTask = 64;  // rays

struct Rays {
  int64_t first, last;    // rays
  int64_t begin, samples;  // begin: of the first ray

  Rays(const StudioComposite& in, int64_t task)
      : first(task * kTask),
        last(min_of(first + kTask, in.rays)),
        begin(in.starts[first]),
        samples(in.starts[last] - begin) {}
};

// Light and weights of all samples of these rays, `begin` being number 0 of both.
void weigh(const StudioComposite& in, const Rays& rays, float* light, float* weights) {
  for (int64_t ray = rays.first; ray < rays.last; ++ray) {
    float before = 0;
    for (int64_t i = in.starts[ray]; i < in.starts[ray + 1]; ++i) {
      light[i - rays.begin] = before;
      before += in.optical_depths[i];
    }
  }
  const float* optical_depths = in.optical_depths + rays.begin;
  int64_t i = 0;
  for (; i + LANES <= rays.samples; i += LANES) {
    const VolumeSample<Float> sample =
        volume_sample(Float::load(light + i), Float::load(optical_depths + i), in.min_transmittance);
    sample.light.store(light + i), sample.weight.store(weights + i);
  }
  if (i < rays.samples) {  // by vector too, so that a sample's bits do not depend on its place
    alignas(64) float before[LANES] = {}, depth[LANES] = {};
    memcpy(before, light + i, (rays.samples - i) * sizeof(float));
    memcpy(depth, optical_depths + i, (rays.samples - i) * sizeof(float));
    const VolumeSample<Float> sample = volume_sample(Float::load(before), Float::load(depth), in.min_transmittance);
    for (int lane = 0; i < rays.samples; ++i, ++lane) light[i] = sample.light[lane], weights[i] = sample.weight[lane];
  }
}

void composite_rays(const StudioComposite& in, const Rays& rays) {
  const int channels = in.channels;
  weigh(in, rays, in.transmittance + rays.begin, in.weights + rays.begin);
  for (int64_t ray = rays.first; ray < rays.last; ++ray) {
    float opacity = 0, depth = 0;
    float* rgb = in.rgb + ray * channels;
    for (int c = 0; c < channels; ++c) rgb[c] = 0;
    for (int64_t i = in.starts[ray]; i < in.starts[ray + 1]; ++i) {
      const float weight = in.weights[i];
      opacity += weight, depth += weight * in.t[i];
      for (int c = 0; c < channels; ++c) rgb[c] += weight * in.colors[i * in.color_stride + c];
    }
    in.opacity[ray] = opacity, in.depth[ray] = depth;
  }
}

void composite_rays_vjp(const StudioComposite& in, const Rays& rays) {
  const int channels = in.channels;
  const Buffer<float> light(rays.samples), weights(rays.samples);
  weigh(in, rays, light.data(), weights.data());
  for (int64_t ray = rays.first; ray < rays.last; ++ray) {
    const float v_opacity = in.v_opacity == nullptr ? 0 : in.v_opacity[ray];
    const float v_depth = in.v_depth == nullptr ? 0 : in.v_depth[ray];
    const float* v_rgb = in.v_rgb == nullptr ? nullptr : in.v_rgb + ray * channels;
    float behind = 0;
    for (int64_t i = in.starts[ray + 1] - 1; i >= in.starts[ray]; --i) {
      const VolumeSample<float> sample = {light[i - rays.begin], weights[i - rays.begin]};
      float u = v_opacity + v_depth * in.t[i];
      if (in.v_weights != nullptr) u += in.v_weights[i];
      for (int c = 0; v_rgb != nullptr && c < channels; ++c) u += v_rgb[c] * in.colors[i * in.color_stride + c];
      if (in.v_optical_depths != nullptr) in.v_optical_depths[i] = optical_depth_vjp(sample, u, behind);
      if (in.v_t != nullptr) in.v_t[i] = sample.weight * v_depth;
      for (int c = 0; in.v_colors != nullptr && c < channels; ++c) {
        in.v_colors[i * channels + c] = v_rgb == nullptr ? 0 : sample.weight * v_rgb[c];
      }
      behind += sample.weight * u;
      if (in.v_transmittance != nullptr) behind += sample.light * in.v_transmittance[i];
    }
  }
}

template <class Work>
void for_rays(const StudioComposite& in, Work&& work) {
  bool rising = in.starts[0] == 0 && in.starts[in.rays] == in.samples;
  for (int64_t ray = 0; ray < in.rays; ++ray) rising &= in.starts[ray] <= in.starts[ray + 1];
  if (!rising) throw std::runtime_error("starts must rise from 0 to the number of samples");
  parallel_for(in.launch.threads, (in.rays + kTask - 1) / kTask, [&](int64_t task, int) { work(Rays(in, task)); });
}

}  // namespace

void composite(const StudioComposite& in) {
  for_rays(in, [&](const Rays& rays) { composite_rays(in, rays); });
}

void composite_backward(const StudioComposite& in) {
  for_rays(in, [&](const Rays& rays) { composite_rays_vjp(in, rays); });
}

STUDIO_NAMESPACE_END

STUDIO_ENTRY(studio_composite, composite, StudioComposite)
STUDIO_ENTRY(studio_composite_backward, composite_backward, StudioComposite)
