// A triangle as a pinhole camera sees it, without clipping (Olano & Greer, "Triangle scan conversion using 2D
// homogeneous coordinates", 1997).
//
// Corners come as u = K (R x + t): homogeneous pixels, whose third number is the camera-space depth z. A pixel is the
// ray d = (x, y, 1). With e_i = u_j x u_k the function e_i . d is linear on the screen, zero on the edge opposite to
// corner i, and e_i . d / sum(e . d) is the perspective-correct barycentric coordinate of corner i. 1 / z is linear on
// the screen too. Behind the camera the three signs never agree, so nothing there is drawn.
#pragma once

#include "studio/math/vector.h"

STUDIO_NAMESPACE_BEGIN

// a b + c, rounded once where the machine can. Left to the compiler, two uses of one formula may round differently.
HD float fused(float a, float b, float c) {
#if defined(__FMA__) || defined(__ARM_FEATURE_FMA) || defined(__CUDACC__)
  return ::fmaf(a, b, c);
#else
  return a * b + c;
#endif
}

HD double fused(double a, double b, double c) {
#if defined(__FMA__) || defined(__ARM_FEATURE_FMA) || defined(__CUDACC__)
  return ::fma(a, b, c);
#else
  return a * b + c;
#endif
}

// x A + y B + C on the screen
template <class T>
HD T on_screen(const Vec3<T>& plane, T x, T y) {
  return fused(plane.x, x, fused(plane.y, y, plane.z));
}

// a x b, as p x (b - a) for less rounding, where p is the same end for both triangles of a shared edge: their values
// at a pixel are exact opposites, and no pixel is drawn twice or never.
template <class T>
HD Vec3<T> edge(const Vec3<T>& a, const Vec3<T>& b) {
  const bool from_b = (a.x > b.x) | ((a.x == b.x) & ((a.y > b.y) | ((a.y == b.y) & (a.z > b.z))));
  const Vec3<T> p = select(from_b, b, a), d = b - a;
  return {fused(p.y, d.z, -(p.z * d.y)), fused(p.z, d.x, -(p.x * d.z)), fused(p.x, d.y, -(p.y * d.x))};
}

template <class T>
struct ScreenTriangle {
  Vec3<T> edges[3];       // positive inside
  T least[3];                // the least value that is inside: 0, or just above on edges that belong to the neighbour
  Vec3<T> inverse_depth;  // 1 / z
  bool faces_camera;         // counter-clockwise as seen
};

// False where the triangle is seen edge on, has no area, or is not finite. `above_zero` is the least positive number.
template <class T>
HD bool set_up(const Vec3<T> u[3], T above_zero, ScreenTriangle<T>& out) {
  const Vec3<T> plane = cross(u[1] - u[0], u[2] - u[0]);
  const T volume = dot(plane, u[0]);
  const T inverse_volume = T(1) / volume;
  if (!(inverse_volume * T(0) == T(0)) || !(volume * T(0) == T(0))) return false;
  out.faces_camera = volume < T(0);
  out.inverse_depth = inverse_volume * plane;
  for (int i = 0; i < 3; ++i) {
    const Vec3<T> e = edge(u[(i + 1) % 3], u[(i + 2) % 3]);
    out.edges[i] = out.faces_camera ? T(-1) * e : e;
    const bool owned = out.edges[i].x > T(0) || (out.edges[i].x == T(0) && out.edges[i].y > T(0));
    out.least[i] = owned ? T(0) : above_zero;
  }
  return true;
}

template <class T>
HD bool covers(const ScreenTriangle<T>& triangle, T x, T y) {
  return on_screen(triangle.edges[0], x, y) >= triangle.least[0] &&
         on_screen(triangle.edges[1], x, y) >= triangle.least[1] &&
         on_screen(triangle.edges[2], x, y) >= triangle.least[2];
}

// Perspective-correct weights of the corners; `scale` returns 1 / sum(e . d), which derivatives need.
template <class T>
HD void barycentrics(const ScreenTriangle<T>& triangle, T x, T y, T weights[3], T& scale) {
  for (int i = 0; i < 3; ++i) weights[i] = on_screen(triangle.edges[i], x, y);
  scale = T(1) / (weights[0] + weights[1] + weights[2]);
  for (int i = 0; i < 3; ++i) weights[i] *= scale;
}

STUDIO_NAMESPACE_END
