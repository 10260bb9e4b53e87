// What follows a layer of a perceptron, for one number or one a lane.
#pragma once

#include "studio/math/volume.h"

STUDIO_NAMESPACE_BEGIN

// ReLU, or softplus.
template <class T>
HD T activate(const T& x, bool softplus) {
  const T positive = max(T(0.0f), x);  // in this order what is not a number stays so
  if (!softplus) return positive;
  const T tail = exp2(max(abs(x) * T(-1.44269504f), T(-126.0f)));
  return positive + log2(T(1.0f) + tail) * T(0.69314718f);
}

// The derivative of the activation, from its value: 1 - exp(-y) for softplus.
template <class T>
HD T activation_slope(const T& y, bool softplus) {
  return softplus ? opacity_of(y) : select(y <= T(0.0f), T(0.0f), T(1.0f));
}

STUDIO_NAMESPACE_END
