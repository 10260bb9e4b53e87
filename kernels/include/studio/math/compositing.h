// Front-to-back compositing of 2D Gaussians at one pixel, or at one pixel a lane.
#pragma once

#include "studio/scalar.h"

STUDIO_NAMESPACE_BEGIN

inline constexpr float MAX_ALPHA = 0.999f;
inline constexpr float LOG2_MAX_ALPHA = -0.0014434168696687f;
inline constexpr float LOG2_MIN_ALPHA = -7.9943534368588578f;  // of 1/255: fainter splats are not drawn
inline constexpr float MIN_TRANSMITTANCE = 1e-4f;
inline constexpr float LOG2_E = 1.4426950408889634f;

// One splat on the screen of one camera: one cache line, everything that drawing needs.
// alpha(dx, dy) = 2^(log2_opacity - xx dx² - xy dx dy - yy dy²) with (dx, dy) from the mean in pixels.
struct SplatRecord {
  float mean_x, mean_y;  // px
  float xx, xy, yy;      // the inverse covariance times log2(e) / 2, off-diagonal doubled
  float log2_opacity;    // after compensation
  float features[7];     // rgb, depth, normal
  float half_x, half_y;  // half sides of the box outside which alpha < 1/255, px; negative: not drawn
  float unused;
};
static_assert(sizeof(SplatRecord) == 64, "one cache line");

template <class T>
HD T log2_alpha(const SplatRecord& splat, T pixel_x, T pixel_y) {
  const T dx = pixel_x - splat.mean_x, dy = pixel_y - splat.mean_y;
  return (splat.log2_opacity - (splat.yy * dy) * dy) - (splat.xx * dx + splat.xy * dy) * dx;
}

// Whether the ellipse where alpha = 1/255 reaches the rectangle: the least exponent over a rectangle is at the
// point nearest along x with y at its best, or the other way round.
template <class T>
HD auto reaches(const SplatRecord& splat, T left, T top, T right, T bottom) {
  const T x0 = left - splat.mean_x, x1 = right - splat.mean_x;
  const T y0 = top - splat.mean_y, y1 = bottom - splat.mean_y;
  const float x_slope = -0.5f * splat.xy / splat.xx, y_slope = -0.5f * splat.xy / splat.yy;
  const T near_x = max(x0, min(x1, T(0))), near_y = max(y0, min(y1, T(0)));
  const T best_y = max(y0, min(y1, y_slope * near_x)), best_x = max(x0, min(x1, x_slope * near_y));
  const T along_x = (splat.xx * near_x + splat.xy * best_y) * near_x + splat.yy * best_y * best_y;
  const T along_y = (splat.xx * best_x + splat.xy * near_y) * best_x + splat.yy * near_y * near_y;
  return min(along_x, along_y) <= T(splat.log2_opacity - LOG2_MIN_ALPHA);
}

inline constexpr int FEATURES = 7, DEPTH = 3;          // rgb, depth, normal
inline constexpr int PLANES = 8, ALPHA_PLANE = 7;      // of a picture: the features, then alpha

// What one splat does to a pixel through which `light` still passes. A pixel is closed, for good, by the first
// splat that would leave it less than MIN_TRANSMITTANCE, and that splat is not drawn: light becomes 0.
template <class T>
struct Contribution {
  T alpha, weight, left;     // left: the light behind the splat
  decltype(T() < T()) open;  // false where the pixel is closed
};

template <class T>
HD Contribution<T> contribute(T exponent, T light) {
  const T drawn = select(exponent >= T(LOG2_MIN_ALPHA), min(exp2(exponent), T(MAX_ALPHA)), T(0));
  const T left = light * (T(1) - drawn);
  const auto open = left > T(MIN_TRANSMITTANCE);
  const T alpha = select(open, drawn, T(0));
  return {alpha, light * alpha, select(open, left, T(0)), open};
}

template <class T>
struct Pixel {
  T light;  // what still passes, 0 when closed
  T left;   // what passed when it closed, or passes now
  T sums[FEATURES];

  static HD Pixel lit(T light) { return {light, light, {T(0), T(0), T(0), T(0), T(0), T(0), T(0)}}; }

  HD Contribution<T> draw(const SplatRecord& splat, T x, T y) {
    const Contribution<T> c = contribute(log2_alpha(splat, x, y), light);
    for (int f = 0; f < FEATURES; ++f) sums[f] += c.weight * splat.features[f];
    left = select(c.open, c.left, left);
    light = c.left;
    return c;
  }

  HD T plane(int index, const float* background) const {
    if (index == ALPHA_PLANE) return T(1) - left;
    return index < 3 ? sums[index] + left * background[index] : sums[index];
  }
};

// The same walk again, front to back, for the gradient. With u the loss's gradient on a splat's weight and R the sum
// of weight times u over what lies behind it, background included, the gradient on alpha is light u - R / (1 - alpha).
// R begins as the gradient on the pixel times the pixel.
template <class T>
struct PixelGradient {
  T light, behind;
  T v[PLANES];

  struct Pull {
    T log_alpha, weight;  // the loss's gradient on log(alpha); the splat's weight, to multiply v with
  };

  HD Pull draw(const SplatRecord& splat, T x, T y) {
    const T exponent = log2_alpha(splat, x, y);
    const Contribution<T> c = contribute(exponent, light);
    T u = v[ALPHA_PLANE];
    for (int f = 0; f < FEATURES; ++f) u += v[f] * splat.features[f];
    behind -= c.weight * u;
    const T v_alpha = light * u - behind / (T(1) - c.alpha);
    light = c.left;
    // At the ceiling alpha no longer follows its exponent.
    return {select(exponent < T(LOG2_MAX_ALPHA), v_alpha * c.alpha, T(0)), c.weight};
  }
};

STUDIO_NAMESPACE_END
