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

// Homogeneous samples (x / w, y / w), and a number a that is linear in space: a / w says how near the vertex is.
struct ScreenVertex {
  float x, y, w, a;
};

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

inline constexpr float ABOVE_ZERO = 1.17549435e-38f;  // the least normal number
inline constexpr float MARGIN_PX = 1e-2f;             // more than rounding can move a corner
inline constexpr int MAX_SIDE = 32767;                // of a screen, in samples: 16 bits hold a place

// The samples that a triangle may cover: columns x0 <= x <= x1 and rows y0 <= y <= y1, of which sample i lies at i + 0.5.
template <class T>
struct SampleBox {
  T x0, y0, x1, y1;     // whole numbers
  Condition<T> reached;  // there is such a sample
};

// Corners with their numbers a, drawn where 0 < a / w <= most; `cull`: not where they wind clockwise as seen. Triangles
// that pass through the camera's plane or the near plane may reach anywhere.
template <class T>
HD SampleBox<T> sample_box(const Vec3<T> (&u)[3], const T (&a)[3], float most, bool cull, int columns, int rows) {
  const T zero = T(0), one = T(1), half = T(0.5f), margin = T(MARGIN_PX), infinity = T(INFINITY);
  const T last_x = T(static_cast<float>(columns - 1)), last_y = T(static_cast<float>(rows - 1));
  T finite = zero, x0 = infinity, y0 = infinity, x1 = -infinity, y1 = -infinity;
  T least_w = infinity, most_w = -infinity, most_a = -infinity, least_beyond = infinity, most_beyond = -infinity;
  for (int i = 0; i < 3; ++i) {
    const T inverse = one / u[i].z, x = u[i].x * inverse, y = u[i].y * inverse, beyond = T(most) * u[i].z - a[i];
    finite += (u[i].x + u[i].y + u[i].z + a[i]) * zero;
    x0 = min(x0, x), x1 = max(x1, x), y0 = min(y0, y), y1 = max(y1, y);
    least_w = min(least_w, u[i].z), most_w = max(most_w, u[i].z), most_a = max(most_a, a[i]);
    least_beyond = min(least_beyond, beyond), most_beyond = max(most_beyond, beyond);
  }
  Condition<T> seen = (finite == zero) & (most_w > zero) & (most_a > zero) & (most_beyond >= zero);
  if (cull) seen = seen & (signed_volume(u) < zero);
  const Condition<T> whole = (least_w > zero) & (least_beyond >= zero);
  // Clamped before rounding, for numbers that no integer holds.
  x0 = select(whole, max(x0 - half - margin, zero), zero), y0 = select(whole, max(y0 - half - margin, zero), zero);
  x1 = select(whole, max(min(x1 - half + margin, last_x), -one), last_x);
  y1 = select(whole, max(min(y1 - half + margin, last_y), -one), last_y);
  x0 = min(x0, last_x + one), y0 = min(y0, last_y + one);
  const T low_x = trunc(x0), low_y = trunc(y0);
  SampleBox<T> box;
  box.x0 = select(low_x < x0, low_x + one, low_x), box.y0 = select(low_y < y0, low_y + one, low_y);
  box.x1 = trunc(x1 + one) - one, box.y1 = trunc(y1 + one) - one;
  box.reached = seen & (box.x0 <= box.x1) & (box.y0 <= box.y1);
  return box;
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
