// What one pixel sees of the triangle that covers it, and the way back to the triangle's corners.
//
// Corners are in clip space; on the screen x grows to the right from -w to w and y upwards, while rows grow downwards.
// In homogeneous pixels around the pixel's centre, X = W/2 x + (W/2 - px) w and Y = -H/2 y + (H/2 - py) w, and
// e_i = X_j Y_k - X_k Y_j is proportional to the perspective-correct weight of corner i.
#pragma once

#include "studio/math/vector.h"

STUDIO_NAMESPACE_BEGIN

template <class T>
struct ClipCorners {
  T x[3], y[3], z[3], w[3];
};

// A pixel on its screen: half the screen's sides, and how far the screen's centre lies right of the pixel and below it.
template <class T>
struct ScreenPlace {
  T half_width, half_height, right, below;
};

template <class T>
struct Fragment {
  T weights[3];                 // perspective-correct, their sum is 1
  T depth;                      // z / w
  T slopes_x[3], slopes_y[3];  // of the weights from this pixel to the next, rightwards and downwards
};

template <class T>
struct PixelEdges {
  T X[3], Y[3], e[3];
  T scale;  // 1 / sum(e), or 0 where there is none
};

template <class T>
HD PixelEdges<T> pixel_edges(const ClipCorners<T>& c, const ScreenPlace<T>& at) {
  PixelEdges<T> out;
  for (int i = 0; i < 3; ++i) {
    out.X[i] = fused(at.half_width, c.x[i], at.right * c.w[i]);
    out.Y[i] = fused(-at.half_height, c.y[i], at.below * c.w[i]);
  }
  for (int i = 0; i < 3; ++i) {
    const int j = (i + 1) % 3, k = (i + 2) % 3;
    out.e[i] = fused(out.X[j], out.Y[k], -(out.X[k] * out.Y[j]));
  }
  const T scale = T(1) / (out.e[0] + out.e[1] + out.e[2]);
  out.scale = select(is_finite(scale), scale, T(0));
  return out;
}

// Slopes of the e_i: with X = X - dx w and Y = Y - dy w.
template <class T>
HD void edge_slopes(const ClipCorners<T>& c, const PixelEdges<T>& p, T (&along_x)[3], T (&along_y)[3]) {
  for (int i = 0; i < 3; ++i) {
    const int j = (i + 1) % 3, k = (i + 2) % 3;
    along_x[i] = fused(c.w[k], p.Y[j], -(c.w[j] * p.Y[k]));
    along_y[i] = fused(c.w[j], p.X[k], -(c.w[k] * p.X[j]));
  }
}

template <class T>
HD Fragment<T> fragment(const ClipCorners<T>& c, const ScreenPlace<T>& at) {
  const PixelEdges<T> p = pixel_edges(c, at);
  T along_x[3], along_y[3];
  edge_slopes(c, p, along_x, along_y);
  const T sum_x = along_x[0] + along_x[1] + along_x[2], sum_y = along_y[0] + along_y[1] + along_y[2];
  Fragment<T> out;
  T z = T(0), w = T(0);
  for (int i = 0; i < 3; ++i) {
    out.weights[i] = p.e[i] * p.scale;
    out.slopes_x[i] = (along_x[i] - out.weights[i] * sum_x) * p.scale;
    out.slopes_y[i] = (along_y[i] - out.weights[i] * sum_y) * p.scale;
    z += out.weights[i] * c.z[i];
    w += out.weights[i] * c.w[i];
  }
  out.depth = select(w > T(0), z / w, T(0));
  return out;
}

// The corners' gradient from that of the fragment. DEPTH, SLOPES: these have one.
template <bool DEPTH, bool SLOPES, class T>
HD ClipCorners<T> fragment_vjp(const ClipCorners<T>& c, const ScreenPlace<T>& at, const Fragment<T>& v) {
  const PixelEdges<T> p = pixel_edges(c, at);
  const Fragment<T> f = fragment(c, at);
  T along_x[3], along_y[3];
  edge_slopes(c, p, along_x, along_y);
  const T sum_x = along_x[0] + along_x[1] + along_x[2], sum_y = along_y[0] + along_y[1] + along_y[2];
  ClipCorners<T> out;
  T v_weights[3], v_sum_x = T(0), v_sum_y = T(0), v_sum = T(0);
  for (int i = 0; i < 3; ++i) out.z[i] = out.w[i] = T(0), v_weights[i] = v.weights[i];
  if (DEPTH) {
    const T w = f.weights[0] * c.w[0] + f.weights[1] * c.w[1] + f.weights[2] * c.w[2];
    const T v_depth = select(w > T(0), v.depth / w, T(0));
    for (int i = 0; i < 3; ++i) {
      out.z[i] = v_depth * f.weights[i];
      out.w[i] = -v_depth * f.depth * f.weights[i];
      v_weights[i] += v_depth * (c.z[i] - f.depth * c.w[i]);
    }
  }
  for (int i = 0; i < 3; ++i) {
    if (SLOPES) {
      v_weights[i] -= p.scale * (v.slopes_x[i] * sum_x + v.slopes_y[i] * sum_y);
      v_sum_x -= p.scale * v.slopes_x[i] * f.weights[i];
      v_sum_y -= p.scale * v.slopes_y[i] * f.weights[i];
      v_sum -= p.scale * (v.slopes_x[i] * f.slopes_x[i] + v.slopes_y[i] * f.slopes_y[i]);
    }
    v_sum -= p.scale * (v_weights[i] * f.weights[i]);
  }
  T v_X[3], v_Y[3];
  for (int i = 0; i < 3; ++i) v_X[i] = v_Y[i] = T(0);
  for (int i = 0; i < 3; ++i) {
    const int j = (i + 1) % 3, k = (i + 2) % 3;
    const T v_e = p.scale * v_weights[i] + v_sum;
    v_X[j] += v_e * p.Y[k];
    v_X[k] -= v_e * p.Y[j];
    v_Y[j] -= v_e * p.X[k];
    v_Y[k] += v_e * p.X[j];
    if (!SLOPES) continue;
    const T v_x = p.scale * v.slopes_x[i] + v_sum_x, v_y = p.scale * v.slopes_y[i] + v_sum_y;
    v_X[j] -= v_y * c.w[k];
    v_X[k] += v_y * c.w[j];
    v_Y[j] += v_x * c.w[k];
    v_Y[k] -= v_x * c.w[j];
    out.w[j] += v_y * p.X[k] - v_x * p.Y[k];
    out.w[k] += v_x * p.Y[j] - v_y * p.X[j];
  }
  for (int i = 0; i < 3; ++i) {
    out.x[i] = at.half_width * v_X[i];
    out.y[i] = -at.half_height * v_Y[i];
    out.w[i] += at.right * v_X[i] + at.below * v_Y[i];
  }
  return out;
}

STUDIO_NAMESPACE_END
