// Real spherical harmonics up to degree 3 in the order and signs of 3D Gaussian splatting (Kerbl et al. 2023).
#pragma once

#include "studio/math/vector.h"

STUDIO_NAMESPACE_BEGIN

namespace sh {
inline constexpr float C0 = 0.28209479177387814f;
inline constexpr float C1 = 0.4886025119029199f;
inline constexpr float C2_XY = 1.0925484305920792f, C2_ZZ = 0.31539156525252005f, C2_XX = 0.5462742152960396f;
inline constexpr float C3_YXX = 0.5900435899266435f, C3_XYZ = 2.890611442640554f, C3_YZZ = 0.4570457994644658f;
inline constexpr float C3_ZZZ = 0.3731763325901154f, C3_ZXX = 1.445305721320277f;
}  // namespace sh

// The first K basis functions (K = 1, 4, 9 or 16) at the unit vector d.
template <int K, class T>
HD void sh_basis(const Vec3<T>& d, T (&basis)[K]) {
  using namespace sh;
  basis[0] = T(C0);
  if constexpr (K > 1) {
    basis[1] = T(-C1) * d.y;
    basis[2] = T(C1) * d.z;
    basis[3] = T(-C1) * d.x;
  }
  if constexpr (K > 4) {
    const T xx = d.x * d.x, yy = d.y * d.y, zz = d.z * d.z;
    basis[4] = T(C2_XY) * d.x * d.y;
    basis[5] = T(-C2_XY) * d.y * d.z;
    basis[6] = T(C2_ZZ) * (T(2) * zz - xx - yy);
    basis[7] = T(-C2_XY) * d.x * d.z;
    basis[8] = T(C2_XX) * (xx - yy);
    if constexpr (K > 9) {
      basis[9] = T(-C3_YXX) * d.y * (T(3) * xx - yy);
      basis[10] = T(C3_XYZ) * d.x * d.y * d.z;
      basis[11] = T(-C3_YZZ) * d.y * (T(4) * zz - xx - yy);
      basis[12] = T(C3_ZZZ) * d.z * (T(2) * zz - T(3) * xx - T(3) * yy);
      basis[13] = T(-C3_YZZ) * d.x * (T(4) * zz - xx - yy);
      basis[14] = T(C3_ZXX) * d.z * (xx - yy);
      basis[15] = T(-C3_YXX) * d.x * (xx - T(3) * yy);
    }
  }
}

// The gradient on d of sum(basis_k(d) s_k), up to a multiple of d.
template <int K, class T>
HD Vec3<T> sh_basis_vjp(const Vec3<T>& d, const T (&s)[K]) {
  using namespace sh;
  Vec3<T> g{T(0), T(0), T(0)};
  if constexpr (K > 1) {
    g = {T(-C1) * s[3], T(-C1) * s[1], T(C1) * s[2]};
  }
  if constexpr (K > 4) {
    const T x = d.x, y = d.y, z = d.z;
    g.x += T(C2_XY) * (y * s[4] - z * s[7]) + T(2) * x * (T(C2_XX) * s[8] - T(C2_ZZ) * s[6]);
    g.y += T(C2_XY) * (x * s[4] - z * s[5]) - T(2) * y * (T(C2_XX) * s[8] + T(C2_ZZ) * s[6]);
    g.z += T(4 * C2_ZZ) * z * s[6] - T(C2_XY) * (y * s[5] + x * s[7]);
    if constexpr (K > 9) {
      const T xx = x * x, yy = y * y, zz = z * z, xy = x * y, yz = y * z, xz = x * z;
      g.x += T(C3_XYZ) * yz * s[10] + T(2) * xz * (T(C3_ZXX) * s[14] - T(3 * C3_ZZZ) * s[12]) +
             T(2) * xy * (T(C3_YZZ) * s[11] - T(3 * C3_YXX) * s[9]) -
             T(C3_YZZ) * (T(4) * zz - T(3) * xx - yy) * s[13] - T(3 * C3_YXX) * (xx - yy) * s[15];
      g.y += T(C3_XYZ) * xz * s[10] - T(2) * yz * (T(C3_ZXX) * s[14] + T(3 * C3_ZZZ) * s[12]) +
             T(2) * xy * (T(C3_YZZ) * s[13] + T(3 * C3_YXX) * s[15]) -
             T(C3_YZZ) * (T(4) * zz - xx - T(3) * yy) * s[11] - T(3 * C3_YXX) * (xx - yy) * s[9];
      g.z += T(C3_XYZ) * xy * s[10] - T(8 * C3_YZZ) * (yz * s[11] + xz * s[13]) +
             T(3 * C3_ZZZ) * (T(2) * zz - xx - yy) * s[12] + T(C3_ZXX) * (xx - yy) * s[14];
    }
  }
  return g;
}

STUDIO_NAMESPACE_END
