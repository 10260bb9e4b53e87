// How a surface looks at one sample: the CPU's and CUDA's.
#pragma once

#include <stdexcept>

#include "rasterize/rasterize.h"
#include "studio/math/triangle.h"

STUDIO_NAMESPACE_BEGIN

inline void check(const StudioRasterize& in) {
  const int64_t k = in.supersample;
  if (k < 1 || in.width < 1 || in.height < 1 || in.width * k > MAX_SIDE || in.height * k > MAX_SIDE ||
      !(in.near_depth > 0)) {
    throw std::runtime_error("width and height times supersample must be 1 to 32767, and near_depth above 0");
  }
}

using Vector = Vec3<float>;
using Triangle = ScreenTriangle<float>;

HD Vector vector_at(const float* values, int64_t index) {
  return {values[3 * index], values[3 * index + 1], values[3 * index + 2]};
}

// A vertex before a camera, in samples.
HD ScreenVertex project_vertex(const StudioRasterize& in, int64_t camera, int64_t vertex) {
  const float* m = in.world_to_pixels + 12 * camera;
  const float scale = static_cast<float>(in.supersample);  // from pixels to samples
  const Vector p = vector_at(in.vertices, vertex);
  return {scale * (m[0] * p.x + m[1] * p.y + m[2] * p.z + m[3]), scale * (m[4] * p.x + m[5] * p.y + m[6] * p.z + m[7]),
          m[8] * p.x + m[9] * p.y + m[10] * p.z + m[11], 1};
}

struct Texel {
  float r, g, b, a;
};

// Bilinear lookup with repeat. Colours weigh by alpha, so that what is cut out leaves no fringe.
HD Texel bilinear(const StudioRasterize& in, int64_t level, float u, float v) {
  const int64_t offset = in.levels[3 * level], height = in.levels[3 * level + 1], width = in.levels[3 * level + 2];
  u -= floorf(u);
  v = 1 - (v - floorf(v));
  if (!(u >= 0 && u <= 1 && v >= 0 && v <= 1)) u = v = 0;
  const float x = u * static_cast<float>(width) - 0.5f, y = v * static_cast<float>(height) - 0.5f;
  const float left = floorf(x), top = floorf(y), s = x - left, t = y - top;
  int64_t column[2] = {static_cast<int64_t>(left), static_cast<int64_t>(left) + 1};
  int64_t row[2] = {static_cast<int64_t>(top), static_cast<int64_t>(top) + 1};
  for (int i = 0; i < 2; ++i) {
    column[i] = column[i] < 0 ? width - 1 : column[i] >= width ? column[i] - width : column[i];
    row[i] = row[i] < 0 ? height - 1 : row[i] >= height ? row[i] - height : row[i];
  }
  constexpr float kAlphaFloor = 1e-2f;  // of 255: where all is transparent, colours weigh alike
  Texel sum{0, 0, 0, 0};
  float total = 0;
  for (int i = 0; i < 4; ++i) {
    const float weight = (i & 1 ? s : 1 - s) * (i & 2 ? t : 1 - t);
    const uint8_t* texel = in.texels + 4 * (offset + row[i >> 1] * width + column[i & 1]);
    const float weighted = weight * (texel[3] + kAlphaFloor);
    sum.r += weighted * texel[0], sum.g += weighted * texel[1], sum.b += weighted * texel[2];
    sum.a += weight * texel[3];
    total += weighted;
  }
  const float scale = 1 / (255 * total);
  return {sum.r * scale, sum.g * scale, sum.b * scale, sum.a * (1 / 255.f)};
}

HD float opacity(const StudioRasterize& in, int64_t face) {
  return in.base_colors[4 * in.face_materials[face] + 3];
}

// Whether a face's texture does not cut out a sample.
HD bool keeps(const StudioRasterize& in, int64_t face, const Triangle& triangle, float x, float y) {
  const float* uv = in.uvs + 6 * face;
  float b[3], scale;
  barycentrics(triangle, x, y, b, scale);
  return bilinear(in, in.first_level[in.face_materials[face]], b[0] * uv[0] + b[1] * uv[2] + b[2] * uv[4],
                  b[0] * uv[1] + b[1] * uv[3] + b[2] * uv[5])
             .a >= 0.5f;
}

// What the shading of one face shares among its samples.
class Shader {
 public:
  HD explicit Shader(const StudioRasterize& in) : in_(in) {}

  // set_up(face, triangle) as the camera sees it.
  template <class SetUp>
  HD void turn_to(int32_t face, SetUp&& set_up) {
    if (face == face_) return;
    face_ = face;
    set_up(face, triangle_);
    for (int i = 0; i < 3; ++i) corners_[i] = in_.faces[3 * face + i];
    const Vector p0 = vector_at(in_.vertices, corners_[0]);
    const Vector normal =
        cross(vector_at(in_.vertices, corners_[1]) - p0, vector_at(in_.vertices, corners_[2]) - p0);
    flat_normal_ = (triangle_.faces_camera ? 1 : -1) / sqrt(dot(normal, normal)) * normal;
    material_ = in_.face_materials[face];
    first_level_ = in_.first_level[material_];
    level_count_ = in_.first_level[material_ + 1] - first_level_;
    flat_light_ = light(flat_normal_);
  }

  HD float opacity() const { return in_.base_colors[4 * material_ + 3]; }

  // Adds rgb, z, normal and 1 at the sample's position, times the weight, to eight sums that lie `stride` apart.
  HD void add(float x, float y, float weight, float* sums, int64_t stride) const {
    float b[3], scale;
    barycentrics(triangle_, x, y, b, scale);
    const float* base = in_.base_colors + 4 * material_;
    float color[3] = {base[0], base[1], base[2]};
    if (level_count_ > 0) {
      const Texel texel = texture(b, scale);
      color[0] *= texel.r, color[1] *= texel.g, color[2] *= texel.b;
    }
    if (in_.vertex_colors != nullptr) {
      const Vector tint = mixed(in_.vertex_colors, b);
      color[0] *= tint.x, color[1] *= tint.y, color[2] *= tint.z;
    }
    Vector normal = flat_normal_;
    float shade = flat_light_;
    if (in_.vertex_normals != nullptr) {
      normal = smooth_normal(b);
      shade = light(normal);
    }
    for (int c = 0; c < 3; ++c) sums[c * stride] += weight * min(color[c] * shade, 1.f);
    sums[3 * stride] += weight / on_screen(triangle_.nearness, x, y);
    sums[4 * stride] += weight * normal.x;
    sums[5 * stride] += weight * normal.y;
    sums[6 * stride] += weight * normal.z;
    sums[7 * stride] += weight;
  }

 private:
  HD Vector mixed(const float* values, const float b[3]) const {
    const Vector v0 = vector_at(values, corners_[0]), v1 = vector_at(values, corners_[1]),
                 v2 = vector_at(values, corners_[2]);
    return {b[0] * v0.x + b[1] * v1.x + b[2] * v2.x, b[0] * v0.y + b[1] * v1.y + b[2] * v2.y,
            b[0] * v0.z + b[1] * v1.z + b[2] * v2.z};
  }

  HD Vector smooth_normal(const float b[3]) const {
    const Vector normal = mixed(in_.vertex_normals, b);
    const float length = sqrt(dot(normal, normal));
    if (!(length > 1e-12f)) return flat_normal_;
    return (dot(normal, flat_normal_) < 0 ? -1 : 1) / length * normal;
  }

  HD float light(Vector normal) const {
    float sum = in_.ambient + in_.hemisphere * 0.5f * (1 + normal.y);
    for (int i = 0; i < in_.light_count; ++i) sum += max(dot(normal, vector_at(in_.lights, i)), 0.f);
    return sum;
  }

  // Trilinear: the level where one sample spans about one texel along its longer side.
  HD Texel texture(const float b[3], float scale) const {
    const float* uv = in_.uvs + 6 * static_cast<int64_t>(face_);
    const float u = b[0] * uv[0] + b[1] * uv[2] + b[2] * uv[4], v = b[0] * uv[1] + b[1] * uv[3] + b[2] * uv[5];
    float u_x = 0, u_y = 0, v_x = 0, v_y = 0;
    for (int i = 0; i < 3; ++i) {
      const Vector e = triangle_.edges[i];
      u_x += e.x * (uv[2 * i] - u), u_y += e.y * (uv[2 * i] - u);
      v_x += e.x * (uv[2 * i + 1] - v), v_y += e.y * (uv[2 * i + 1] - v);
    }
    const float height = static_cast<float>(in_.levels[3 * first_level_ + 1]) * scale;
    const float width = static_cast<float>(in_.levels[3 * first_level_ + 2]) * scale;
    u_x *= width, u_y *= width, v_x *= height, v_y *= height;
    const float squared = max(u_x * u_x + v_x * v_x, u_y * u_y + v_y * v_y);
    if (!(squared > 1) || level_count_ == 1) return bilinear(in_, first_level_, u, v);
    const float level = min(0.5f * log2(squared), static_cast<float>(level_count_ - 1));
    const int below = static_cast<int>(level), above = below + 1 < level_count_ ? below + 1 : below;
    const float t = level - static_cast<float>(below);
    const Texel fine = bilinear(in_, first_level_ + below, u, v), coarse = bilinear(in_, first_level_ + above, u, v);
    return {fine.r + t * (coarse.r - fine.r), fine.g + t * (coarse.g - fine.g), fine.b + t * (coarse.b - fine.b),
            fine.a + t * (coarse.a - fine.a)};
  }

  const StudioRasterize& in_;
  Triangle triangle_{};
  Vector flat_normal_{};
  int64_t corners_[3] = {0, 0, 0};
  int32_t face_ = -1, material_ = 0, first_level_ = 0, level_count_ = 0;
  float flat_light_ = 0;
};

STUDIO_NAMESPACE_END
