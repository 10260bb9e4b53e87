// Three numbers, and three rows of three, of any number type.
#pragma once

#include "studio/scalar.h"

STUDIO_NAMESPACE_BEGIN

template <class T>
struct Vec3 {
  T x, y, z;

  friend HD Vec3 operator+(const Vec3& a, const Vec3& b) { return {a.x + b.x, a.y + b.y, a.z + b.z}; }
  friend HD Vec3 operator-(const Vec3& a, const Vec3& b) { return {a.x - b.x, a.y - b.y, a.z - b.z}; }
  friend HD Vec3 operator*(const T& s, const Vec3& a) { return {s * a.x, s * a.y, s * a.z}; }
  HD Vec3& operator+=(const Vec3& b) { return *this = *this + b; }
  HD Vec3& operator-=(const Vec3& b) { return *this = *this - b; }
};

template <class T>
HD T dot(const Vec3<T>& a, const Vec3<T>& b) {
  return a.x * b.x + a.y * b.y + a.z * b.z;
}

template <class T>
HD Vec3<T> cross(const Vec3<T>& a, const Vec3<T>& b) {
  return {a.y * b.z - a.z * b.y, a.z * b.x - a.x * b.z, a.x * b.y - a.y * b.x};
}

template <class Condition, class T>
HD Vec3<T> select(Condition condition, const Vec3<T>& yes, const Vec3<T>& no) {
  return {select(condition, yes.x, no.x), select(condition, yes.y, no.y), select(condition, yes.z, no.z)};
}

template <class T>
struct Mat3 {
  Vec3<T> rows[3];
};

// A matrix of S, such as a camera's rotation in float, with a vector of T, such as SIMD lanes.
template <class S, class T>
HD Vec3<T> multiply(const Mat3<S>& m, const Vec3<T>& v) {
  return {m.rows[0].x * v.x + m.rows[0].y * v.y + m.rows[0].z * v.z,
          m.rows[1].x * v.x + m.rows[1].y * v.y + m.rows[1].z * v.z,
          m.rows[2].x * v.x + m.rows[2].y * v.y + m.rows[2].z * v.z};
}

template <class S, class T>
HD Vec3<T> multiply_transposed(const Mat3<S>& m, const Vec3<T>& v) {
  return {m.rows[0].x * v.x + m.rows[1].x * v.y + m.rows[2].x * v.z,
          m.rows[0].y * v.x + m.rows[1].y * v.y + m.rows[2].y * v.z,
          m.rows[0].z * v.x + m.rows[1].z * v.y + m.rows[2].z * v.z};
}

STUDIO_NAMESPACE_END
