// A triangle as a pinhole camera sees it, without clipping (Olano & Greer, "Triangle scan conversion using 2D
// homogeneous coordinates", 1997).
//
// Corners come as u = K (R x + t): homogeneous pixels, whose third number is the camera-space depth z. A pixel is the
// ray d = (x, y, 1). With e_i = u_j x u_k the function e_i . d is linear on the screen, zero on the edge opposite to
// corner i, and e_i . d / sum(e . d) is the perspective-correct barycentric coordinate of corner i. 1 / z is linear on
// the screen too, and so is a / z for any a that is linear in space. Behind the camera the three signs never agree, so
// nothing there is drawn. Clip space is the same with w for z.
#pragma once

#include "studio/math/vector.h"

STUDIO_NAMESPACE_BEGIN

// x A + y B + C on the screen
template <class T>
HD T on_screen(const Vec3<T>& plane, T x, T y) {
  return fused(plane.x, x, fused(plane.y, y, plane.z));
}

// a x b, as p x (b - a) for less rounding, where p is the same end for both triangles of a shared edge: their values
// at a pixel are exact opposites, and no pixel is drawn twice or never.
template <class T>
HD Vec3<T> edge(const Vec3<T>& a, const Vec3<T>& b) {
  const Condition<T> from_b = (a.x > b.x) | ((a.x == b.x) & ((a.y > b.y) | ((a.y == b.y) & (a.z > b.z))));
  const Vec3<T> p = select(from_b, b, a), d = b - a;
  return {fused(p.y, d.z, -(p.z * d.y)), fused(p.z, d.x, -(p.x * d.z)), fused(p.x, d.y, -(p.y * d.x))};
}

template <class T>
struct ScreenTriangle {
  Vec3<T> edges[3];           // positive inside
  T least[3];                 // the least value that is inside: 0, or just above on edges that belong to the neighbour
  Vec3<T> nearness;           // a / w of the numbers a that came with the corners
  Condition<T> faces_camera;  // counter-clockwise as seen
};

// Negative where the corners are counter-clockwise as seen.
template <class T>
HD T signed_volume(const Vec3<T> (&u)[3]) {
  return dot(cross(u[1] - u[0], u[2] - u[0]), u[0]);
}

// False where the triangle is seen edge on, has no area, or is not finite. `above_zero` is the least positive number.
template <class T>
HD Condition<T> set_up(const Vec3<T> (&u)[3], const T (&a)[3], T above_zero, ScreenTriangle<T>& out) {
  const T zero = T(0);
  const T volume = signed_volume(u);
  const T inverse_volume = T(1) / volume;
  out.faces_camera = volume < zero;
  for (int i = 0; i < 3; ++i) {
    const Vec3<T> e = edge(u[(i + 1) % 3], u[(i + 2) % 3]);
    out.edges[i] = select(out.faces_camera, T(-1) * e, e);
    const auto owned = (out.edges[i].x > zero) | ((out.edges[i].x == zero) & (out.edges[i].y > zero));
    out.least[i] = select(owned, zero, above_zero);
  }
  // Around a mean, for less rounding: with w for a the plane is (0, 0, 1). Not where corners lie on both sides of w = 0.
  const T w = u[0].z + u[1].z + u[2].z, all = abs(u[0].z) + abs(u[1].z) + abs(u[2].z);
  const T around = select(w > T(0.25) * all, (a[0] + a[1] + a[2]) / w, zero);
  const T scale = select(out.faces_camera, -inverse_volume, inverse_volume);
  out.nearness = {zero, zero, around};
  for (int i = 0; i < 3; ++i) out.nearness += (scale * (a[i] - around * u[i].z)) * out.edges[i];
  return (inverse_volume * zero == zero) & (volume * zero == zero);
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
