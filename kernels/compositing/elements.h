// What one thread of CUDA does: plain code, which the tests also run on the CPU.
#pragma once

#include "compositing/compositing.h"
#include "studio/index.h"
#include "studio/math/volume.h"

STUDIO_NAMESPACE_BEGIN

// Ray number `ray`, front to back. visit(sample number, sample).
struct CompositeElement {
  StudioComposite in;

  template <class Visit>
  HD void walk(int64_t ray, Visit&& visit) const {
    float before = 0;
    const int64_t end = min_of(in.starts[ray + 1], in.samples);
    for (int64_t i = in.starts[ray] < 0 ? 0 : in.starts[ray]; i < end; ++i) {
      visit(i, volume_sample(before, in.optical_depths[i], in.min_transmittance));
      before += in.optical_depths[i];
    }
  }
};

struct Composite : CompositeElement {
  HD void operator()(int64_t ray) const {
    float opacity = 0, depth = 0;
    float* rgb = in.rgb + ray * in.channels;
    for (int c = 0; c < in.channels; ++c) rgb[c] = 0;
    walk(ray, [&](int64_t i, const VolumeSample<float>& sample) {
      in.transmittance[i] = sample.light, in.weights[i] = sample.weight;
      opacity += sample.weight, depth += sample.weight * in.t[i];
      for (int c = 0; c < in.channels; ++c) rgb[c] += sample.weight * in.colors[i * in.color_stride + c];
    });
    in.opacity[ray] = opacity, in.depth[ray] = depth;
  }
};

// The ray twice, front to back: what lies behind a sample is the whole less what lies before it.
struct CompositeBackward : CompositeElement {
  HD float weight_vjp(int64_t ray, int64_t i) const {
    float u = in.v_weights == nullptr ? 0 : in.v_weights[i];
    if (in.v_opacity != nullptr) u += in.v_opacity[ray];
    if (in.v_depth != nullptr) u += in.v_depth[ray] * in.t[i];
    for (int c = 0; in.v_rgb != nullptr && c < in.channels; ++c) {
      u += in.v_rgb[ray * in.channels + c] * in.colors[i * in.color_stride + c];
    }
    return u;
  }

  HD float share(const VolumeSample<float>& sample, float u, int64_t i) const {
    return sample.weight * u + (in.v_transmittance == nullptr ? 0 : sample.light * in.v_transmittance[i]);
  }

  HD void operator()(int64_t ray) const {
    float behind = 0;
    walk(ray, [&](int64_t i, const VolumeSample<float>& sample) {
      behind += share(sample, weight_vjp(ray, i), i);
    });
    walk(ray, [&](int64_t i, const VolumeSample<float>& sample) {
      const float u = weight_vjp(ray, i);
      behind -= share(sample, u, i);
      const bool ended = sample.light == 0;  // for rounding leaves a little of `behind`
      if (in.v_optical_depths != nullptr) in.v_optical_depths[i] = ended ? 0 : optical_depth_vjp(sample, u, behind);
      if (in.v_t != nullptr) in.v_t[i] = in.v_depth == nullptr ? 0 : sample.weight * in.v_depth[ray];
      for (int c = 0; in.v_colors != nullptr && c < in.channels; ++c) {
        in.v_colors[i * in.channels + c] =
            in.v_rgb == nullptr ? 0 : sample.weight * in.v_rgb[ray * in.channels + c];
      }
    });
  }
};

STUDIO_NAMESPACE_END
