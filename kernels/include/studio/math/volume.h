// One sample of a ray through a volume, or one sample a lane.
#pragma once

#include "compositing/compositing.h"
#include "studio/scalar.h"

STUDIO_NAMESPACE_BEGIN

// exp(-x) for x >= 0, and 0 from 2^-60 on; also for infinity and what is not a number.
template <class T>
HD T light_after(const T& x) {
  const T exponent = x * T(-1.44269504088896340736f);
  const T light = exp2(max(exponent, T(-64.0f)));
  return select(exponent < T(-60.0f), T(0), select(x <= x, light, x));
}

// 1 - exp(-x) for x >= 0, without loss of digits where x is small: there by the first terms of the series.
template <class T>
HD T opacity_of(const T& x) {
  const T series = x * (T(1) - x * T(1 / 2.0f) * (T(1) - x * T(1 / 3.0f) * (T(1) - x * T(1 / 4.0f) *
                   (T(1) - x * T(1 / 5.0f) * (T(1) - x * T(1 / 6.0f))))));
  return select(x < T(0.25f), series, T(1) - light_after(x));
}

template <class T>
struct VolumeSample {
  T light;   // that reaches the sample; 0 where the ray has ended
  T weight;
};

template <class T>
HD VolumeSample<T> volume_sample(const T& depth_before, const T& optical_depth, float min_transmittance) {
  const T light = light_after(depth_before);
  const auto ended = light < T(min_transmittance);
  return {select(ended, T(0), light), select(ended, T(0), light * opacity_of(optical_depth))};
}

// The gradient on the sample's optical depth. u: the loss's gradient on its weight; behind: the sum over the samples
// behind it of weight times u, plus light times the gradient on light.
template <class T>
HD T optical_depth_vjp(const VolumeSample<T>& sample, const T& u, const T& behind) {
  return (sample.light - sample.weight) * u - behind;
}

STUDIO_NAMESPACE_END
