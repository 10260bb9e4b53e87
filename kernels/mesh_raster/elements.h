// What one thread of CUDA does: plain code, which the tests also run on the CPU. Element i of pixels is pixel
// i % (pixels of a view) of view i / (pixels of a view), and likewise with faces.
//
// Nobody has looked through the indices before, which would mean to wait for the device: what names a vertex or face that
// is not there shows nothing.
#pragma once

#include "mesh_raster/antialias.h"
#include "mesh_raster/mesh.h"
#include "mesh_raster/texture.h"
#include "rasterize/cuda_zbuffer.h"
#include "studio/index.h"
#include "studio/math/fragment.h"

STUDIO_NAMESPACE_BEGIN

// Rasterize: what is drawn, see rasterize/cuda_zbuffer.h.
struct MeshFaces {
  StudioMesh mesh;
  int columns, rows;
  float most = 2;  // at the near plane, see screen_vertex
  bool cull;
  uint64_t* nearest;  // [views h w]

  MeshFaces(const StudioMesh& mesh, uint64_t* nearest)
      : mesh(mesh), columns(mesh.width), rows(mesh.height), cull(mesh.cull != 0), nearest(nearest) {}

  HD int64_t count() const { return mesh.faces; }
  HD bool corners(int64_t i, Vec3<float> (&u)[3], float (&a)[3]) const {
    const int64_t view = i / mesh.faces;
    const int32_t* corners = indices_of(mesh, view, i % mesh.faces);
    if (!are_vertices(corners, mesh.vertices)) return false;
    for (int k = 0; k < 3; ++k) {
      const ScreenVertex vertex = screen_vertex(mesh, mesh.positions + 4 * (view * mesh.vertices + corners[k]));
      u[k] = {vertex.x, vertex.y, vertex.w}, a[k] = vertex.a;
    }
    return true;
  }
  HD uint64_t* layer(int64_t i) const { return nearest + i / mesh.faces * columns * rows; }
  HD bool keeps(int64_t, const ScreenTriangle<float>&, float, float) const { return true; }
};

HD ClipCorners<float> clip_corners(const StudioMesh& mesh, int64_t view, const int32_t* corners) {
  ClipCorners<float> out;
  for (int k = 0; k < 3; ++k) {
    const float* p = mesh.positions + 4 * (view * mesh.vertices + corners[k]);
    out.x[k] = p[0], out.y[k] = p[1], out.z[k] = p[2], out.w[k] = p[3];
  }
  return out;
}

HD ScreenPlace<float> screen_place(const StudioMesh& mesh, int64_t pixel) {
  const float half_width = 0.5f * static_cast<float>(mesh.width), half_height = 0.5f * static_cast<float>(mesh.height);
  return {half_width, half_height, half_width - (static_cast<float>(pixel % mesh.width) + 0.5f),
          half_height - (static_cast<float>(pixel / mesh.width) + 0.5f)};
}

// The faces are found; pixel i.
struct ShadePixel {
  StudioMeshRasterize task;
  const uint64_t* nearest;

  HD void operator()(int64_t i) const {
    const StudioMesh& mesh = task.mesh;
    const int64_t pixels = int64_t(mesh.width) * mesh.height, view = i / pixels, pixel = i % pixels;
    const int32_t face = face_of(nearest[i]);
    Fragment<float> f{};
    f.depth = 1;
    if (face >= 0) f = fragment(clip_corners(mesh, view, indices_of(mesh, view, face)), screen_place(mesh, pixel));
    task.face[i] = face, task.depth[i] = f.depth;
    for (int k = 0; k < 3; ++k) {
      task.weights[(3 * view + k) * pixels + pixel] = f.weights[k];
      if (task.slopes == nullptr) continue;
      task.slopes[(6 * view + k) * pixels + pixel] = f.slopes_x[k];
      task.slopes[(6 * view + 3 + k) * pixels + pixel] = f.slopes_y[k];
    }
  }
};

// v_positions begins at 0. DEPTH, SLOPES: these have a gradient.
template <bool DEPTH, bool SLOPES>
struct ShadePixelBackward {
  StudioMeshRasterizeBackward task;

  HD void operator()(int64_t i) const {
    const StudioMesh& mesh = task.mesh;
    const int64_t pixels = int64_t(mesh.width) * mesh.height, view = i / pixels, pixel = i % pixels;
    const int32_t face = task.face[i];
    if (face < 0 || face >= mesh.faces) return;
    const int32_t* corners = indices_of(mesh, view, face);
    if (!are_vertices(corners, mesh.vertices)) return;
    const auto at = [&](const float* planes, int64_t count, int64_t plane) {
      return planes == nullptr ? 0.0f : planes[(count * view + plane) * pixels + pixel];
    };
    Fragment<float> v{};
    if (DEPTH) v.depth = at(task.v_depth, 1, 0);
    for (int k = 0; k < 3; ++k) {
      v.weights[k] = at(task.v_weights, 3, k);
      if (SLOPES) v.slopes_x[k] = at(task.v_slopes, 6, k), v.slopes_y[k] = at(task.v_slopes, 6, 3 + k);
    }
    const ClipCorners<float> out =
        fragment_vjp<DEPTH, SLOPES>(clip_corners(mesh, view, corners), screen_place(mesh, pixel), v);
    for (int k = 0; k < 3; ++k) {
      float* to = task.v_positions + 4 * (view * mesh.vertices + corners[k]);
      add_to(to, out.x[k]), add_to(to + 1, out.y[k]), add_to(to + 2, out.z[k]), add_to(to + 3, out.w[k]);
    }
  }
};

// Interpolate. The rows of `attributes` at the corners of the face that pixel i shows; false where it shows none.
HD bool rows_at(const StudioMeshInterpolate& in, int64_t i, int64_t (&rows)[3]) {
  const int64_t view = i / in.pixels;
  const int32_t face = in.face[i];
  if (face < 0 || face >= in.faces) return false;
  const int32_t* corners = in.indices + 3 * ((in.own_faces != 0 ? view * in.faces : 0) + face);
  if (!are_vertices(corners, in.vertices)) return false;
  for (int k = 0; k < 3; ++k) rows[k] = (in.own_attributes != 0 ? view * in.vertices : 0) + corners[k];
  return true;
}

struct InterpolatePixel {
  StudioMeshInterpolateForward task;

  HD void operator()(int64_t i) const {
    const StudioMeshInterpolate& in = task.in;
    const int64_t view = i / in.pixels, pixel = i % in.pixels;
    int64_t rows[3] = {};
    float weights[3] = {};
    const bool any = rows_at(in, i, rows);
    for (int k = 0; any && k < 3; ++k) weights[k] = in.weights[(3 * view + k) * in.pixels + pixel];
    for (int64_t c = 0; c < in.channels; ++c) {
      float sum = 0;
      for (int k = 0; any && k < 3; ++k) sum += weights[k] * in.attributes[rows[k] * in.channels + c];
      task.out[(view * in.channels + c) * in.pixels + pixel] = sum;
    }
  }
};

// v_attributes begins at 0.
struct InterpolatePixelBackward {
  StudioMeshInterpolateBackward task;

  HD void operator()(int64_t i) const {
    const StudioMeshInterpolate& in = task.in;
    const int64_t view = i / in.pixels, pixel = i % in.pixels;
    int64_t rows[3] = {};
    float v[3] = {};
    const bool any = rows_at(in, i, rows);
    for (int64_t c = 0; any && c < in.channels; ++c) {
      const float incoming = task.v_out[(view * in.channels + c) * in.pixels + pixel];
      for (int k = 0; k < 3; ++k) {
        const int64_t at = rows[k] * in.channels + c;
        if (task.v_weights != nullptr) v[k] += incoming * in.attributes[at];
        if (task.v_attributes == nullptr) continue;
        add_to(task.v_attributes + at, incoming * in.weights[(3 * view + k) * in.pixels + pixel]);
      }
    }
    for (int k = 0; task.v_weights != nullptr && k < 3; ++k) {
      task.v_weights[(3 * view + k) * in.pixels + pixel] = v[k];
    }
  }
};

struct TexturePixel {
  StudioTextureForward task;

  HD void operator()(int64_t i) const {
    texture_at(task, task.in.channels, i / task.in.pixels, i % task.in.pixels);
  }
};

// v_texels begin at 0.
struct TexturePixelBackward {
  StudioTextureBackward task;

  HD void operator()(int64_t i) const {
    const int64_t view = i / task.in.pixels, pixel = i % task.in.pixels;
    if (task.v_uv != nullptr || task.v_level != nullptr) place_vjp_at(task, task.in.channels, view, pixel);
    if (task.v_texels[0] == nullptr) return;
    texels_vjp_at(task, task.in.channels, view, pixel, [](int, int64_t) { return true; },
                  [](float* to, float value) { add_to(to, value); });
  }
};

// Antialias. Whether pixel i blends with the next one rightwards or downwards.
struct MarkPixel {
  StudioAntialiasForward task;

  HD void operator()(int64_t i) const {
    const StudioMesh& mesh = task.in.mesh;
    const int64_t pixels = int64_t(mesh.width) * mesh.height, view = i / pixels;
    const int column = static_cast<int>(i % pixels % mesh.width), row = static_cast<int>(i % pixels / mesh.width);
    Blend blend;
    const bool across = column + 1 < mesh.width && blend_of(task.in, view, column, row, false, blend);
    const bool down = row + 1 < mesh.height && blend_of(task.in, view, column, row, true, blend);
    task.marks[i] = static_cast<uint8_t>((across ? HORIZONTAL : 0) | (down ? VERTICAL : 0));
  }
};

// visit(blend, whether it is the pixel's own) for the blends of pixel i with its neighbours; each is one pixel's own.
template <class Visit>
HD void visit_blends(const StudioAntialias& in, const uint8_t* marks, int64_t i, Visit&& visit) {
  const int width = in.mesh.width;
  const int64_t pixels = int64_t(width) * in.mesh.height, view = i / pixels;
  const int column = static_cast<int>(i % pixels % width), row = static_cast<int>(i % pixels / width);
  Blend blend;
  const auto look = [&](int left, int above, bool vertical) {
    const int64_t first = i - above * int64_t(width) - left;
    if ((marks[first] & (vertical ? VERTICAL : HORIZONTAL)) == 0) return;
    if (blend_of(in, view, column - left, row - above, vertical, blend)) visit(blend, first == i);
  };
  if (row > 0) look(0, 1, true);
  if (column > 0) look(1, 0, false);
  look(0, 0, false);
  look(0, 0, true);
}

struct AntialiasPixel {
  StudioAntialiasForward task;

  HD void operator()(int64_t i) const {
    const StudioAntialias& in = task.in;
    const int64_t pixels = int64_t(in.mesh.width) * in.mesh.height, pixel = i % pixels;
    const int64_t first = i / pixels * in.channels * pixels, end = first + in.channels * pixels;
    for (int64_t at = first; at < end; at += pixels) task.out[at + pixel] = in.image[at + pixel];
    visit_blends(in, task.marks, i, [&](const Blend& blend, bool) {
      if (blend.receiver != pixel) return;
      for (int64_t at = first; at < end; at += pixels) {
        task.out[at + pixel] += blend.weight * (in.image[at + blend.giver] - in.image[at + pixel]);
      }
    });
  }
};

// v_positions begins at 0.
struct AntialiasPixelBackward {
  StudioAntialiasBackward task;

  HD void operator()(int64_t i) const {
    const StudioAntialias& in = task.in;
    const int64_t pixels = int64_t(in.mesh.width) * in.mesh.height, view = i / pixels, pixel = i % pixels;
    const int64_t first = view * in.channels * pixels, end = first + in.channels * pixels;
    for (int64_t at = first; at < end; at += pixels) task.v_image[at + pixel] = task.v_out[at + pixel];
    visit_blends(in, task.marks, i, [&](const Blend& blend, bool own) {
      float v_weight = 0;
      for (int64_t at = first; at < end; at += pixels) {
        const float v = task.v_out[at + blend.receiver];
        if (blend.giver == pixel) task.v_image[at + pixel] += blend.weight * v;
        if (blend.receiver == pixel) task.v_image[at + pixel] -= blend.weight * v;
        v_weight += v * (in.image[at + blend.giver] - in.image[at + blend.receiver]);
      }
      if (!own || v_weight == 0) return;
      Vec3<float> v[2];
      blend_vjp(in.mesh, blend, v_weight, v[0], v[1]);
      for (int k = 0; k < 2; ++k) {
        const int32_t vertex = k == 0 ? blend.crossing.p : blend.crossing.q;
        float* to = task.v_positions + 4 * (view * in.mesh.vertices + vertex);
        add_to(to, v[k].x), add_to(to + 1, v[k].y), add_to(to + 3, v[k].z);
      }
    });
  }
};

STUDIO_NAMESPACE_END
